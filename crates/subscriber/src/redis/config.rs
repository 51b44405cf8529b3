//! Where a Redis is and how to log in.

use std::{fmt, path::PathBuf, sync::Arc, time::Duration};

use fred::types::config::{Config, Server, ServerConfig};
use secrecy::{ExposeSecret, SecretString};
use tokio_rustls::rustls::ClientConfig;

use crate::{error::SubscriberError, tls};

/// A Redis to listen to.
#[derive(Clone, Debug)]
pub struct RedisConfig {
    /// `redis://[user:password@]host[:6379][/db]`, `rediss://…` (TLS),
    /// `redis-sentinel://host[:26379][/db]?sentinelServiceName=name[&node=host:port…]`,
    /// `redis-cluster://host:port[?node=host:port…]`, both also as `rediss-…`, and `redis+unix:///path[?db=n]`.
    /// A secret, since it may hold a password.
    pub url: SecretString,
    /// Instead of the URL's.
    pub user: Option<String>,
    /// Instead of the URL's.
    pub password: Option<SecretString>,
    /// Instead of the URL's. Matters for snapshots of keys alone: pub/sub knows no databases.
    pub database: Option<u8>,
    /// Certificates to trust, PEM, instead of the system's.
    pub ca_file: Option<PathBuf>,
    /// Whether [`crate::redis::RedisControl::close_relay_connection`] will be asked for: the rights that it needs are
    /// then tried at each connection, and not in the hour of need.
    pub heal: bool,
    /// How patient to be.
    pub patience: Patience,
}

/// How long the Redis side waits for what.
#[derive(Clone, Copy, Debug)]
pub struct Patience {
    /// Connecting and subscribing, and one command.
    pub answer: Duration,
    /// Between two PINGs on the subscription. A gap starts at the last PING that was answered, so this is also
    /// how exactly its start is known.
    pub ping: Duration,
    /// Without any sign of life for so long, the source calls itself deaf.
    pub deaf: Duration,
    /// And after so long it gives the connection up and makes a new one.
    pub dead: Duration,
    /// The longest wait before another attempt to connect.
    pub backoff: Duration,
    /// The shortest time between two connections of coturn closed by
    /// [`crate::redis::RedisControl::close_relay_connection`].
    pub heal: Duration,
}

impl Default for Patience {
    fn default() -> Patience {
        Patience {
            answer: Duration::from_secs(10),
            ping: Duration::from_secs(1),
            deaf: Duration::from_secs(5),
            dead: Duration::from_secs(30),
            backoff: Duration::from_secs(10),
            heal: Duration::from_secs(60),
        }
    }
}

impl RedisConfig {
    /// The Redis at `url`; all else as usual.
    #[must_use]
    pub fn new(url: impl Into<String>) -> RedisConfig {
        RedisConfig {
            url: SecretString::from(url.into()),
            user: None,
            password: None,
            database: None,
            ca_file: None,
            heal: false,
            patience: Patience::default(),
        }
    }

    /// Checks what can be checked without connecting.
    ///
    /// # Errors
    /// A URL that cannot be used, a CA file that cannot be read.
    pub fn validate(&self) -> Result<(), SubscriberError> {
        self.target().map(drop)
    }

    pub(super) fn target(&self) -> Result<Target, SubscriberError> {
        let mut config = parse(self.url.expose_secret())?;
        let tls = if config.tls {
            Some(tls::client(self.ca_file.as_deref())?)
        } else {
            None
        };
        if !config.tls && self.ca_file.is_some() {
            return Err(url_error(
                "`ca_file` is set, but the URL does not ask for TLS: use rediss://",
            ));
        }
        let fred = &mut config.fred;
        // Empty ones are none: `redis://:password@host` has an empty user.
        fred.username = self
            .user
            .clone()
            .or(fred.username.take())
            .filter(|u| !u.is_empty());
        fred.password = self
            .password
            .as_ref()
            .map(|p| p.expose_secret().to_owned())
            .or(fred.password.take())
            .filter(|p| !p.is_empty());
        fred.database = self.database.or(config.database).or(fred.database);
        if fred.username.is_some() && fred.password.is_none() {
            return Err(url_error(
                "it names a user without a password: set both, or neither",
            ));
        }
        fred.tls = tls
            .clone()
            .map(|tls| tokio_rustls::TlsConnector::from(tls).into())
            .map(|connector: fred::types::config::TlsConnector| connector.into());
        Ok(Target {
            fred: config.fred,
            tls,
        })
    }
}

/// What a URL and the settings beside it come to.
pub(super) struct Target {
    /// Without a password in anything that is printed: fred's `Debug` would show it.
    pub(super) fred: Config,
    pub(super) tls: Option<Arc<ClientConfig>>,
}

/// One Redis server.
#[derive(Clone, PartialEq, Eq)]
pub(super) enum Node {
    Tcp(Server),
    Unix(PathBuf),
}

impl Target {
    /// How fred is to reach this one node, whatever stands around it.
    pub(super) fn config_of(&self, node: &Node) -> Config {
        let server = match node {
            Node::Tcp(server) => ServerConfig::Centralized {
                server: server.clone(),
            },
            Node::Unix(path) => ServerConfig::Unix { path: path.clone() },
        };
        let database = if self.is_cluster() {
            None
        } else {
            self.fred.database
        };
        Config {
            server,
            database,
            fail_fast: true,
            ..self.fred.clone()
        }
    }

    /// In a Cluster a node holds some of the keys only.
    pub(super) fn is_cluster(&self) -> bool {
        self.fred.server.is_clustered()
    }
}

impl fmt::Display for Node {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Node::Tcp(server) => write!(f, "{}:{}", server.host, server.port),
            Node::Unix(path) => write!(f, "{}", path.display()),
        }
    }
}

struct Parsed {
    fred: Config,
    tls: bool,
    database: Option<u8>,
}

fn url_error(reason: impl Into<String>) -> SubscriberError {
    SubscriberError::Url {
        reason: reason.into(),
    }
}

const SCHEMES: &str = "redis://, rediss://, redis-sentinel://, rediss-sentinel://, redis-cluster://, rediss-cluster:// or \
                       redis+unix://";

fn parse(url: &str) -> Result<Parsed, SubscriberError> {
    let (scheme, rest) = url
        .split_once("://")
        .ok_or_else(|| url_error(format!("it must start with {SCHEMES}")))?;
    let (plain, tls) = match scheme {
        "redis" | "redis-sentinel" | "redis-cluster" => (scheme, false),
        "redis+unix" | "unix" => ("redis+unix", false),
        "rediss" => ("redis", true),
        "rediss-sentinel" => ("redis-sentinel", true),
        "rediss-cluster" => ("redis-cluster", true),
        other => {
            return Err(url_error(format!(
                "`{}://` is not one of {SCHEMES}",
                other.escape_default()
            )));
        }
    };
    if rest.is_empty() {
        return Err(url_error("it names no host"));
    }
    // The TLS settings are made here: fred's own would take the system's certificates, all or none.
    let mut fred = Config::from_url(&format!("{plain}://{rest}"))
        // fred's messages name the part that is wrong, but may quote it.
        .map_err(|e| url_error(redact(e.details(), rest)))?;
    let mut database = None;
    match &mut fred.server {
        ServerConfig::Centralized { server } => named(server)?,
        ServerConfig::Sentinel { hosts, .. } | ServerConfig::Clustered { hosts, .. } => {
            // The host of the URL itself is put last, and is the one meant first.
            hosts.rotate_right(1);
            hosts.iter().try_for_each(named)?;
        }
        ServerConfig::Unix { path } => {
            if path.as_os_str().is_empty() || path.as_os_str() == "/" {
                return Err(url_error("it names no socket: redis+unix:///path/to/redis.sock"));
            }
            if let Some((_, number)) = rest.rsplit_once("?db=") {
                let number = number
                    .parse()
                    .map_err(|_| url_error("`db` must be a number from 0 to 255"))?;
                database = Some(number);
            }
        }
    }
    Ok(Parsed { fred, tls, database })
}

fn named(server: &Server) -> Result<(), SubscriberError> {
    if server.host.is_empty() {
        Err(url_error("it names no host"))
    } else {
        Ok(())
    }
}

/// fred's words, unless they hold a part of the URL that may be the password.
fn redact(details: &str, url: &str) -> String {
    let userinfo = url.rsplit_once('@').map_or("", |(userinfo, _)| userinfo);
    let secret = userinfo
        .split(':')
        .any(|part| !part.is_empty() && details.contains(part));
    if secret {
        "it is not well formed".to_owned()
    } else {
        details.to_owned()
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

    use super::*;

    fn hosts(config: &Config) -> Vec<String> {
        match &config.server {
            ServerConfig::Centralized { server } => vec![format!("{}:{}", server.host, server.port)],
            ServerConfig::Sentinel { hosts, .. } | ServerConfig::Clustered { hosts, .. } => {
                hosts.iter().map(|s| format!("{}:{}", s.host, s.port)).collect()
            }
            ServerConfig::Unix { path } => vec![path.display().to_string()],
        }
    }

    fn target(url: &str) -> Target {
        RedisConfig::new(url)
            .target()
            .unwrap_or_else(|e| panic!("{url}: {e}"))
    }

    fn refused(config: &RedisConfig) -> String {
        config.validate().unwrap_err().to_string()
    }

    #[test]
    fn urls_of_all_kinds() {
        let t = target("redis://bob:p%40ss@db.example:7000/3");
        assert_eq!(hosts(&t.fred), ["db.example:7000"]);
        assert_eq!(
            (t.fred.username.as_deref(), t.fred.password.as_deref()),
            (Some("bob"), Some("p@ss"))
        );
        assert_eq!((t.fred.database, t.tls.is_some()), (Some(3), false));
        assert_eq!(hosts(&target("redis://localhost").fred), ["localhost:6379"]);
        let t = target("redis-sentinel://a:1/2?sentinelServiceName=main&node=b:2&node=c:3");
        assert_eq!(
            (hosts(&t.fred), t.fred.database),
            (vec!["a:1".into(), "b:2".into(), "c:3".into()], Some(2))
        );
        let t = target("redis-cluster://a:1?node=b:2");
        assert_eq!(
            (hosts(&t.fred), t.is_cluster()),
            (vec!["a:1".into(), "b:2".into()], true)
        );
        let t = target("redis+unix:///run/redis/redis.sock?db=4");
        assert_eq!(
            (hosts(&t.fred), t.fred.database),
            (vec!["/run/redis/redis.sock".into()], Some(4))
        );
        assert_eq!(hosts(&target("unix:///run/r.sock").fred), ["/run/r.sock"]);
    }

    #[test]
    fn settings_beside_the_url_win() {
        let config = RedisConfig {
            user: Some("eve".into()),
            password: Some(SecretString::from("other")),
            database: Some(9),
            ..RedisConfig::new("redis://bob:secret@h/1")
        };
        let fred = config.target().unwrap().fred;
        assert_eq!(
            (fred.username.as_deref(), fred.password.as_deref()),
            (Some("eve"), Some("other"))
        );
        assert_eq!(fred.database, Some(9));
    }

    #[test]
    fn what_cannot_be_used_is_said_without_the_password() {
        for url in [
            "",
            "localhost:6379",
            "http://localhost",
            "redis://",
            "redis://:hunter2@",
            "redis://bob:hunter2@host:99999",
            "redis://bob:hunter2@host/notanumber",
            "redis-sentinel://bob:hunter2@host:26379",
            "redis+unix://",
            "redis+unix:///x.sock?db=1000",
            "redis://bob@host",
        ] {
            let error = refused(&RedisConfig::new(url));
            assert!(!error.contains("hunter2"), "{error}");
            assert!(error.starts_with("the Redis URL cannot be used: "), "{error}");
        }
        let ca = RedisConfig {
            ca_file: Some("/nonexistent".into()),
            ..RedisConfig::new("rediss://h")
        };
        assert!(refused(&ca).contains("/nonexistent"));
        let ca = RedisConfig {
            ca_file: Some("/nonexistent".into()),
            ..RedisConfig::new("redis://h")
        };
        assert!(refused(&ca).contains("rediss://"));
        assert!(!format!("{:?}", RedisConfig::new("redis://bob:hunter2@host")).contains("hunter2"));
    }
}
