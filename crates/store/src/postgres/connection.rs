//! Connections: whom to trust, how long to wait, what is settled in each session, and which failures pass by themselves.

use std::{
    path::{Path, PathBuf},
    str::FromStr,
    sync::Arc,
    time::Duration,
};

use deadpool_postgres::{
    Client, Hook, HookError, Manager, ManagerConfig, Pool, PoolError, RecyclingMethod, Runtime, Timeouts,
};
use rustls::{
    ClientConfig, RootCertStore,
    crypto::ring,
    pki_types::{CertificateDer, pem::PemObject},
};
use secrecy::{ExposeSecret, SecretString};
use tokio::{
    sync::{OwnedSemaphorePermit, Semaphore},
    time::Instant,
};
use tokio_postgres::{
    Config,
    config::{Host, SslMode},
    error::SqlState,
};
use tokio_postgres_rustls::MakeRustlsConnect;

use crate::{
    Mode,
    error::{Error, Result},
};

/// Where the database is, and as whom to come.
#[derive(Clone, Debug)]
pub struct PostgresOptions {
    /// `postgres://user:password@host:5432/database`. With `sslmode=disable` in its query nothing is encrypted; without
    /// one, the same holds on loopback and Unix sockets. Wherever TLS is spoken, the certificate is verified.
    pub url: SecretString,
    /// What people call this node.
    pub node: String,
    /// How long a lease holds without a beat.
    pub lease: Duration,
    /// Trust the certificates in this file (PEM) rather than the system's.
    pub ca_file: Option<PathBuf>,
}

impl PostgresOptions {
    /// A node of this host's name with a lease of 10 s, trusting the system's certificates.
    #[must_use]
    pub fn new(url: impl Into<String>) -> PostgresOptions {
        let name = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
        PostgresOptions {
            url: SecretString::from(url.into()),
            node: Some(name.trim())
                .filter(|n| !n.is_empty())
                .unwrap_or("turnhook")
                .to_owned(),
            lease: Duration::from_secs(10),
            ca_file: None,
        }
    }
}

/// To find out that nobody answers.
const CONNECT: Duration = Duration::from_secs(5);
/// A connection on which nothing is heard is asked after this long, and given up after three times that.
const KEEPALIVE: Duration = Duration::from_secs(5);
/// Between two tries.
const PAUSE: Duration = Duration::from_millis(50);
/// And no longer than this.
const PAUSE_MAX: Duration = Duration::from_secs(1);
/// Requests at once, far more than there are connections.
const REQUESTS: usize = 1 << 20;

/// For how long things may take.
#[derive(Clone, Copy, Debug)]
pub(super) struct Limits {
    /// One statement, as the server sees it.
    pub(super) statement: Duration,
    /// Between two statements of a transaction, as the server sees it: longer, and the process has stopped.
    pub(super) idle: Duration,
    /// One try of a request, as we see it.
    pub(super) request: Duration,
    /// No new try of a request after this.
    pub(super) patience: Duration,
}

impl Limits {
    /// Below the lease where it is not too short for a busy machine: who is stopped inside of a transaction must not
    /// keep others from what it has locked.
    pub(super) fn new(mode: Mode, lease: Duration) -> Limits {
        match mode {
            Mode::Run => Limits {
                statement: (lease / 2).max(Duration::from_secs(2)),
                idle: (lease / 4).max(Duration::from_secs(1)),
                request: lease.max(Duration::from_secs(5)),
                patience: (lease / 2).max(Duration::from_secs(2)),
            },
            // A person waits, and asks for much.
            Mode::Shared => Limits {
                statement: Duration::from_secs(300),
                idle: Duration::from_secs(10),
                request: Duration::from_secs(330),
                patience: Duration::from_secs(5),
            },
        }
    }
}

/// Why a request failed: the database, the way there, or a finding of our own.
#[derive(Debug)]
pub(crate) enum Fault {
    /// What the driver says; to be translated with the store's name.
    Sql(tokio_postgres::Error),
    /// No connection, or no answer.
    Lost(String),
    /// As it is.
    Own(Error),
}

impl From<tokio_postgres::Error> for Fault {
    fn from(e: tokio_postgres::Error) -> Fault {
        Fault::Sql(e)
    }
}

impl From<Error> for Fault {
    fn from(e: Error) -> Fault {
        Fault::Own(e)
    }
}

impl From<PoolError> for Fault {
    fn from(e: PoolError) -> Fault {
        match e {
            PoolError::Backend(e) => Fault::Sql(e),
            PoolError::PostCreateHook(HookError::Backend(e)) => Fault::Sql(e),
            PoolError::Closed => Fault::Own(Error::Closed),
            PoolError::Timeout(_) => Fault::Lost("no connection in time".into()),
            other => Fault::Lost(other.to_string()),
        }
    }
}

impl Fault {
    /// A block that does not unpack.
    pub(super) fn damaged(what: &str) -> Fault {
        Fault::Lost(format!("a damaged {what}"))
    }

    /// Whether the server refused for this reason.
    pub(super) fn is(&self, state: &SqlState) -> bool {
        matches!(self, Fault::Sql(e) if e.code() == Some(state))
    }

    /// Whether the connection can be used again.
    fn leaves_connection(&self) -> bool {
        match self {
            Fault::Sql(e) => e.as_db_error().is_some() && !e.is_closed(),
            Fault::Lost(_) => false,
            Fault::Own(_) => true,
        }
    }

    /// In words for people, and in kinds that the caller can act on. Nothing that we were given as a secret is in what
    /// the driver says.
    pub(super) fn at(self, store: &str) -> Error {
        let store = store.to_owned();
        let e = match self {
            Fault::Own(e) => return e,
            Fault::Lost(message) => return Error::Unavailable { store, message },
            Fault::Sql(e) => e,
        };
        let Some(db) = e.as_db_error() else {
            // What cannot be sent or read is a mistake in here; all else is between us and the server.
            let text = e.to_string();
            let message = chain(&e);
            let mistake = [
                "error serializing",
                "error deserializing",
                "error encoding",
                "invalid column",
                "query returned",
            ];
            return if mistake.iter().any(|m| text.starts_with(m)) {
                Error::Database {
                    path: store.into(),
                    message,
                }
            } else {
                Error::Unavailable { store, message }
            };
        };
        let message = format!("{} (SQLSTATE {})", db.message(), db.code().code());
        match db.code().code() {
            // Insufficient privilege, wrong password or user, no such database.
            "42501" | "28000" | "28P01" | "3D000" => Error::Refused { store, message },
            // Cancelled by its time limit, deadlock, conflict, a lock, idle in a transaction, a standby, starting or stopping.
            "57014" | "40001" | "40P01" | "40003" | "55P03" | "25P03" | "25006" | "25P04" => {
                Error::Unavailable { store, message }
            }
            code if ["08", "53", "57", "58"]
                .iter()
                .any(|class| code.starts_with(class)) =>
            {
                Error::Unavailable { store, message }
            }
            _ => Error::Database {
                path: store.into(),
                message,
            },
        }
    }
}

fn chain(e: &dyn std::error::Error) -> String {
    let mut text = e.to_string();
    let mut source = e.source();
    while let Some(e) = source {
        let more = e.to_string();
        if !text.contains(&more) {
            text = format!("{text}: {more}");
        }
        source = e.source();
    }
    text
}

/// Connections to one database.
pub(super) struct Db {
    pool: Pool,
    gate: Arc<Semaphore>,
    store: String,
    limits: Limits,
}

impl Db {
    /// Connects when the first request comes.
    pub(super) fn new(options: &PostgresOptions, limits: Limits, connections: usize) -> Result<Db> {
        let (config, ca_file) = config(options)?;
        let store = describe(&config);
        let tls = MakeRustlsConnect::new(tls(ca_file.as_deref(), &store)?);
        let manager = Manager::from_config(
            config,
            tls,
            ManagerConfig {
                recycling_method: RecyclingMethod::Fast,
            },
        );
        let settle = format!(
            "SET statement_timeout = {}; SET idle_in_transaction_session_timeout = {}; \
             SET default_transaction_isolation = 'read committed'",
            limits.statement.as_millis(),
            limits.idle.as_millis(),
        );
        let pool = Pool::builder(manager)
            .max_size(connections)
            .runtime(Runtime::Tokio1)
            .timeouts(Timeouts {
                wait: Some(limits.request),
                create: Some(2 * CONNECT),
                recycle: Some(CONNECT),
            })
            .post_create(Hook::async_fn(move |client, _| {
                let settle = settle.clone();
                Box::pin(async move {
                    client.batch_execute(&settle).await.map_err(HookError::Backend)?;
                    // Plans by the values at hand: what is pending may be a row or a million. Not every
                    // database knows these.
                    let _ = client
                        .batch_execute("SET plan_cache_mode = force_custom_plan; SET jit = off")
                        .await;
                    Ok(())
                })
            }))
            .build()
            .map_err(|e| Error::Unavailable {
                store: store.clone(),
                message: e.to_string(),
            })?;
        Ok(Db {
            pool,
            gate: Arc::new(Semaphore::new(REQUESTS)),
            store,
            limits,
        })
    }

    /// Host and database.
    pub(super) fn describe(&self) -> &str {
        &self.store
    }

    /// Waits for the requests under way; later ones fail.
    pub(super) async fn close(&self) {
        #[allow(clippy::cast_possible_truncation)]
        let all = self.gate.acquire_many(REQUESTS as u32).await;
        self.gate.close();
        drop(all);
        self.pool.close();
    }

    /// A connection for one try of a request.
    pub(super) async fn conn(&self) -> Result<Conn, Fault> {
        let permit = Arc::clone(&self.gate)
            .acquire_owned()
            .await
            .map_err(|_| Error::Closed)?;
        Ok(Conn {
            client: Some(self.pool.get().await?),
            _permit: permit,
        })
    }

    /// The tries of a request that begins now.
    pub(super) fn tries(&self) -> Tries<'_> {
        Tries {
            db: self,
            until: Instant::now() + self.limits.patience,
            pause: PAUSE,
        }
    }

    /// No longer than a request may take.
    pub(super) async fn limited<T>(&self, f: impl Future<Output = Result<T, Fault>>) -> Result<T, Fault> {
        match tokio::time::timeout(self.limits.request, f).await {
            Ok(result) => result,
            Err(_) => Err(self.no_answer()),
        }
    }

    /// No longer than this; for what may take longer than other requests.
    pub(super) async fn limited_to<T>(
        &self,
        limit: Duration,
        f: impl Future<Output = Result<T, Fault>>,
    ) -> Result<T, Fault> {
        match tokio::time::timeout(limit, f).await {
            Ok(result) => result,
            Err(_) => Err(self.no_answer()),
        }
    }

    fn no_answer(&self) -> Fault {
        Fault::Lost("no answer in time".into())
    }
}

/// A connection in use. Unless [`Conn::finish`] says that nothing is left under way on it, it is closed when it is
/// dropped, and the server undoes what was not committed.
pub(super) struct Conn {
    client: Option<Client>,
    _permit: OwnedSemaphorePermit,
}

impl Conn {
    pub(super) fn client(&mut self) -> Result<&mut Client, Fault> {
        self.client.as_mut().ok_or_else(|| Fault::Own(Error::Closed))
    }

    /// Gives it back, if it is of further use.
    pub(super) fn finish<T>(mut self, result: Result<T, Fault>) -> Result<T, Fault> {
        if result.as_ref().err().is_none_or(Fault::leaves_connection) {
            // Into the pool, and not out of it.
            drop(self.client.take());
        }
        result
    }
}

impl Drop for Conn {
    fn drop(&mut self) {
        if let Some(client) = self.client.take() {
            drop(Client::take(client));
        }
    }
}

/// Tries of one request: what passes by itself is tried again for a while.
pub(super) struct Tries<'a> {
    db: &'a Db,
    until: Instant,
    pause: Duration,
}

impl Tries<'_> {
    /// `None`: try once more.
    pub(super) async fn over<T>(&mut self, result: Result<T, Fault>) -> Option<Result<T>> {
        let error = match result {
            Ok(value) => return Some(Ok(value)),
            Err(fault) => fault.at(&self.db.store),
        };
        if !error.is_transient() || Instant::now() + self.pause >= self.until {
            return Some(Err(error));
        }
        tokio::time::sleep(self.pause).await;
        self.pause = (self.pause * 2).min(PAUSE_MAX);
        None
    }
}

/// Does `$body` with a connection `$client` (`&mut Client`), again and again where the failure passes by itself.
/// `$body` gives a `Result<_, Fault>`; what it does must be harmless to repeat.
macro_rules! attempt {
    ($db:expr, $client:ident => $body:block) => {{
        let db: &$crate::postgres::connection::Db = $db;
        let mut tries = db.tries();
        loop {
            let result = match db.conn().await {
                Ok(mut conn) => {
                    let result = db
                        .limited(async {
                            let $client = conn.client()?;
                            $body
                        })
                        .await;
                    conn.finish(result)
                }
                Err(fault) => Err(fault),
            };
            if let Some(over) = tries.over(result).await {
                break over;
            }
        }
    }};
}
pub(super) use attempt;

/// From the URL. Two of libpq's parameters are ours: the driver does not know them.
fn config(options: &PostgresOptions) -> Result<(Config, Option<PathBuf>)> {
    let bad = |problem: &str| Error::BadUrl {
        problem: problem.into(),
    };
    // Never quoted: a mistake in it may show a part of the password.
    let shape = "want postgres://user:password@host:5432/database, with the special characters of the password percent-encoded";
    let url = options.url.expose_secret();
    if !["postgres://", "postgresql://"]
        .iter()
        .any(|scheme| url.starts_with(scheme))
    {
        return Err(bad(shape));
    }
    // As the driver reads it: what comes before the first `@` is user and password.
    let (base, query) = match url[url.find('@').unwrap_or(0)..].split_once('?') {
        Some((_, query)) => (&url[..url.len() - query.len() - 1], query),
        None => (url, ""),
    };
    let mut mode = None;
    let mut ca_file = options.ca_file.clone();
    let mut rest = Vec::new();
    for pair in query.split('&').filter(|pair| !pair.is_empty()) {
        match pair.split_once('=') {
            Some(("sslmode", value)) => {
                mode = Some(match value {
                    "disable" => SslMode::Disable,
                    "allow" | "prefer" => SslMode::Prefer,
                    "require" | "verify-ca" | "verify-full" => SslMode::Require,
                    _ => {
                        return Err(bad(
                            "its sslmode is none of disable, prefer, require, verify-ca, verify-full",
                        ));
                    }
                });
            }
            Some(("sslrootcert", path)) => ca_file = Some(path.into()),
            _ => rest.push(pair),
        }
    }
    let url = if rest.is_empty() {
        base.to_owned()
    } else {
        format!("{base}?{}", rest.join("&"))
    };
    let mut config = Config::from_str(&url).map_err(|_| bad(shape))?;
    if config.get_hosts().is_empty() {
        return Err(bad(shape));
    }
    let near = config.get_hosts().iter().all(is_near);
    config.ssl_mode(mode.unwrap_or(if near { SslMode::Disable } else { SslMode::Require }));
    if config.get_application_name().is_none() {
        config.application_name("turnhook");
    }
    if config.get_connect_timeout().is_none() {
        config.connect_timeout(CONNECT);
    }
    config
        .keepalives(true)
        .keepalives_idle(KEEPALIVE)
        .keepalives_interval(KEEPALIVE)
        .keepalives_retries(3)
        .tcp_user_timeout(3 * KEEPALIVE);
    Ok((config, ca_file))
}

fn is_near(host: &Host) -> bool {
    match host {
        Host::Tcp(name) => {
            name == "localhost" || name.parse::<std::net::IpAddr>().is_ok_and(|ip| ip.is_loopback())
        }
        Host::Unix(_) => true,
    }
}

fn describe(config: &Config) -> String {
    let ports = config.get_ports();
    let hosts: Vec<String> = config
        .get_hosts()
        .iter()
        .enumerate()
        .map(|(i, host)| {
            let port = ports.get(i).or(ports.first()).copied().unwrap_or(5432);
            match host {
                Host::Tcp(name) if name.contains(':') => format!("[{name}]:{port}"),
                Host::Tcp(name) => format!("{name}:{port}"),
                Host::Unix(path) => format!("{}:{port}", path.display()),
            }
        })
        .collect();
    let database = config.get_dbname().or(config.get_user()).unwrap_or_default();
    format!("postgres://{}/{database}", hosts.join(","))
}

/// Trusts the certificates in `ca` (PEM), or the system's where there is none.
fn tls(ca: Option<&Path>, store: &str) -> Result<ClientConfig> {
    let refused = |message: String| Error::Refused {
        store: store.to_owned(),
        message,
    };
    let mut roots = RootCertStore::empty();
    if let Some(ca) = ca {
        let wrong = |e: &dyn std::fmt::Display| refused(format!("{}: {e}", ca.display()));
        for certificate in CertificateDer::pem_file_iter(ca).map_err(|e| wrong(&e))? {
            let certificate = certificate.map_err(|e| wrong(&e))?;
            roots.add(certificate).map_err(|e| wrong(&e))?;
        }
        if roots.is_empty() {
            return Err(wrong(&"there is no PEM certificate in it"));
        }
    } else {
        // None at all is told by the handshake, where one is made.
        roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
    }
    Ok(
        ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
            .with_safe_default_protocol_versions()
            .map_err(|e| refused(e.to_string()))?
            .with_root_certificates(roots)
            .with_no_client_auth(),
    )
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
    use super::*;

    fn parse(url: &str) -> Result<(Config, Option<PathBuf>)> {
        config(&PostgresOptions::new(url))
    }

    #[test]
    fn a_url_says_where_and_how() {
        for (url, mode, told) in [
            (
                "postgres://u:pw@127.0.0.1:5433/db",
                SslMode::Disable,
                "postgres://127.0.0.1:5433/db",
            ),
            (
                "postgresql://u:pw@localhost/db",
                SslMode::Disable,
                "postgres://localhost:5432/db",
            ),
            (
                "postgres://u:pw@db.example.com/th",
                SslMode::Require,
                "postgres://db.example.com:5432/th",
            ),
            (
                "postgres://u@a,b:5433/th?sslmode=prefer",
                SslMode::Prefer,
                "postgres://a:5432,b:5433/th",
            ),
            (
                "postgres://u:pw@db.example.com?sslmode=verify-full&application_name=x",
                SslMode::Require,
                "postgres://db.example.com:5432/u",
            ),
            (
                "postgres://u:pw@10.0.0.1/db?sslmode=disable",
                SslMode::Disable,
                "postgres://10.0.0.1:5432/db",
            ),
        ] {
            let (config, _) = parse(url).unwrap();
            assert_eq!(
                (config.get_ssl_mode(), describe(&config).as_str()),
                (mode, told),
                "{url}"
            );
        }
        let (_, ca) = parse("postgres://u@h/db?sslrootcert=/etc/ca.pem").unwrap();
        assert_eq!(ca, Some(PathBuf::from("/etc/ca.pem")));
    }

    #[test]
    fn a_password_is_never_told() {
        for url in [
            "postgres://u:swordfish?x@host/db",
            "postgres://u:sword?fish=1@host/db",
            "postgres://u:swordfish@host:port/db",
            "mysql://u:swordfish@host/db",
            "postgres://u:swordfish@host/db?sslmode=swordfish",
            "host=h password=swordfish",
        ] {
            let told = match parse(url) {
                Ok((config, _)) => describe(&config),
                Err(error) => format!("{error} {error:?}"),
            };
            let text = format!("{told} {:?}", PostgresOptions::new(url));
            assert!(!text.contains("sword") && !text.contains("fish"), "{text}");
        }
    }
}
