//! Where the database is, as it is configured: the URL, and whom to trust.

use std::{
    path::{Path, PathBuf},
    str::FromStr,
    sync::Arc,
    time::Duration,
};

use rustls::{
    ClientConfig, RootCertStore,
    crypto::ring,
    pki_types::{CertificateDer, pem::PemObject},
};
use secrecy::{ExposeSecret, SecretString};
use tokio_postgres::{
    Config,
    config::{Host, SslMode},
};

use crate::error::{Error, Result};

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

impl PostgresOptions {
    /// Host and database, without user and password. Connects to nothing.
    ///
    /// # Errors
    /// [`Error::BadUrl`]; [`Error::Refused`] where `ca_file` holds no certificates.
    pub fn describe(&self) -> Result<String> {
        let (config, ca_file) = config(self)?;
        let store = describe(&config);
        if let Some(ca_file) = ca_file {
            tls(Some(&ca_file), &store)?;
        }
        Ok(store)
    }
}

/// To find out that nobody answers.
pub(super) const CONNECT: Duration = Duration::from_secs(5);
/// A connection on which nothing is heard is asked after this long, and given up after three times that.
const KEEPALIVE: Duration = Duration::from_secs(5);

/// From the URL. Two of libpq's parameters are ours: the driver does not know them.
pub(super) fn config(options: &PostgresOptions) -> Result<(Config, Option<PathBuf>)> {
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
    // The driver ends user and password at the first `@`: a further one was a character of the password.
    let text = describe(&config);
    if config.get_hosts().is_empty() || text.contains('@') {
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

pub(super) fn describe(config: &Config) -> String {
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
pub(super) fn tls(ca: Option<&Path>, store: &str) -> Result<ClientConfig> {
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
        // That there is none at all, the handshake says where one is made.
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
        for (url, mode, shown) in [
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
                (mode, shown),
                "{url}"
            );
        }
        let (_, ca) = parse("postgres://u@h/db?sslrootcert=/etc/ca.pem").unwrap();
        assert_eq!(ca, Some(PathBuf::from("/etc/ca.pem")));
    }

    #[test]
    fn a_password_is_never_shown() {
        for url in [
            "postgres://u:open?sesame@host/db",
            "postgres://u:open?sesame=1@host/db",
            "postgres://u:sesame@host:port/db",
            "postgres://u:open@sesame@host/db",
            "postgres://u:open@se/same-sesame@host/db",
            "postgres://u:open/sesame@host/db",
            "mysql://u:sesame@host/db",
            "postgres://u:sesame@host/db?sslmode=sesame",
            "host=h password=sesame",
        ] {
            let shown = match parse(url) {
                Ok((config, _)) => describe(&config),
                Err(error) => format!("{error} {error:?}"),
            };
            let text = format!("{shown} {:?}", PostgresOptions::new(url));
            assert!(!text.contains("sesame"), "{text}");
        }
    }
}
