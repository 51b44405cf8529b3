//! What is configured of an endpoint: plain data, built by the program, checked here.

use std::{path::PathBuf, sync::Arc, time::Duration};

use http::{HeaderName, HeaderValue};
use secrecy::{ExposeSecret as _, SecretString};
use turnhook_reducer::{event::EventType, outbox::Include};
use url::{Host, Url};

use crate::{address, filter::Filter, provider::account::Account, schedule::Retry, signature::Secret};

/// Longer ones are slips of the pen, and what is added to a clock must not overflow.
const LONGEST_TIMEOUT: Duration = Duration::from_secs(3600);
const LONGEST_WAIT: Duration = Duration::from_secs(30 * 86_400);
const LONGEST_RETRYING: Duration = Duration::from_secs(3650 * 86_400);

/// One endpoint. Neither `Debug` nor any error shows a secret, a header's value or the URL's query.
#[derive(Clone, Debug)]
pub struct EndpointConfig {
    /// Unique among the endpoints.
    pub name: String,
    /// Where webhooks are POSTed to.
    pub url: Url,
    /// All of them sign.
    pub secrets: Vec<Secret>,
    /// Which events it gets. Applied where deliveries are written down, not by the dispatcher.
    pub events: Vec<EventType>,
    /// Which of these events. Applied in the same place.
    pub filter: Filter,
    /// How much of an event is sent. Applied where deliveries are handed in.
    pub include: Include,
    /// Sent along: `authorization` and whatever else the receiver wants.
    pub headers: Vec<(String, SecretString)>,
    /// From the first byte of the connection to the head of the answer; the answer's body too must
    /// come within it, but no longer decides anything.
    pub timeout: Duration,
    /// Requests under way at once.
    pub concurrency: u32,
    /// Requests started in a time, at most.
    pub rate_limit: Option<RateLimit>,
    /// How retries are spaced, and when they end.
    pub retry: Retry,
    /// PEM. The only certificate authorities trusted, in place of the system's.
    pub ca_file: Option<PathBuf>,
    /// Shown to servers that ask for one (mTLS).
    pub client_certificate: Option<ClientCertificate>,
    /// An `http://` or `https://` proxy, perhaps with user and password. It resolves names itself: the
    /// refusal of link-local and metadata addresses is then its business, but for literal ones.
    pub proxy: Option<SecretString>,
    /// Allows `http` beyond loopback.
    pub allow_http: bool,
    /// The account at a billing product that is spoken to; `None` for a webhook.
    pub account: Option<Arc<Account>>,
}

/// A client certificate and its key.
#[derive(Clone, Debug)]
pub struct ClientCertificate {
    /// PEM: the certificate, then its intermediates.
    pub certificate_file: PathBuf,
    /// PEM: its private key (PKCS #8, PKCS #1 or SEC 1).
    pub key_file: PathBuf,
}

/// `count` requests in each `per`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RateLimit {
    /// How many.
    pub count: u32,
    /// In what time.
    pub per: Duration,
}

impl RateLimit {
    /// An equal part of it.
    pub(crate) fn part(self, of: usize) -> RateLimit {
        RateLimit {
            count: self.count,
            per: self
                .per
                .saturating_mul(u32::try_from(of.max(1)).unwrap_or(u32::MAX)),
        }
    }
}

/// What is wrong with an endpoint's configuration.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("endpoint \"{endpoint}\": {key}: {problem}")]
pub struct ConfigError {
    /// Its name.
    pub endpoint: String,
    /// The key, as in the configuration file.
    pub key: &'static str,
    /// What is wrong and what to do; no secrets.
    pub problem: String,
}

impl EndpointConfig {
    /// Whether an endpoint made of `other` would do the same. Files of certificates, and of customers, may have other
    /// contents than before: one that has any is never the same.
    #[must_use]
    pub fn is_same(&self, other: &EndpointConfig) -> bool {
        let EndpointConfig {
            name,
            url,
            secrets,
            events,
            filter,
            include,
            headers,
            timeout,
            concurrency,
            rate_limit,
            retry,
            ca_file,
            client_certificate,
            proxy,
            allow_http,
            account,
        } = self;
        let exposed = |text: &SecretString| text.expose_secret().to_owned();
        let all = |headers: &[(String, SecretString)]| -> Vec<(String, String)> {
            let each = headers.iter();
            each.map(|(name, value)| (name.clone(), exposed(value))).collect()
        };
        *name == other.name
            && *url == other.url
            && secrets.len() == other.secrets.len()
            && secrets
                .iter()
                .zip(&other.secrets)
                .all(|(one, two)| one.is_same(two))
            && *events == other.events
            && *filter == other.filter
            && *include == other.include
            && all(headers) == all(&other.headers)
            && *timeout == other.timeout
            && *concurrency == other.concurrency
            && *rate_limit == other.rate_limit
            && *retry == other.retry
            && proxy.as_ref().map(exposed) == other.proxy.as_ref().map(exposed)
            && *allow_http == other.allow_http
            && ca_file.is_none()
            && other.ca_file.is_none()
            && client_certificate.is_none()
            && other.client_certificate.is_none()
            && account.is_none()
            && other.account.is_none()
    }

    /// One with everything at its default.
    #[must_use]
    pub fn new(name: &str, url: Url, secrets: Vec<Secret>) -> EndpointConfig {
        EndpointConfig {
            name: name.to_owned(),
            url,
            secrets,
            events: vec![EventType::Start, EventType::Usage, EventType::End],
            filter: Filter::default(),
            include: Include::default(),
            headers: Vec::new(),
            timeout: Duration::from_secs(15),
            concurrency: 16,
            rate_limit: None,
            retry: Retry::default(),
            ca_file: None,
            client_certificate: None,
            proxy: None,
            allow_http: false,
            account: None,
        }
    }

    pub(crate) fn error(&self, key: &'static str, problem: impl Into<String>) -> ConfigError {
        ConfigError {
            endpoint: self.name.clone(),
            key,
            problem: problem.into(),
        }
    }

    pub(crate) fn check_url(&self) -> Result<(), ConfigError> {
        let error = |problem: &str| Err(self.error("url", problem));
        if !matches!(self.url.scheme(), "http" | "https") {
            return error("it must begin with https:// (or http://)");
        }
        if !self.url.username().is_empty() || self.url.password().is_some() {
            return error(
                "user and password do not belong here: give headers = { authorization = \"Basic …\" }",
            );
        }
        let (literal, loopback) = match self.url.host() {
            Some(Host::Ipv4(ip)) => (Some(ip.into()), ip.is_loopback()),
            Some(Host::Ipv6(ip)) => (Some(ip.into()), ip.is_loopback()),
            Some(Host::Domain(name)) => (None, name == "localhost"),
            None => return error("it names no host"),
        };
        if let Some(why) = literal.and_then(address::refused) {
            return error(&format!("its address is refused: {why}"));
        }
        if self.url.scheme() == "http" && !loopback && !self.allow_http {
            return error(
                "http beyond loopback shows usernames and usage to the network: use https, or say allow_http = true",
            );
        }
        Ok(())
    }

    pub(crate) fn check_numbers(&self) -> Result<(), ConfigError> {
        let error = |key, problem: &str| Err(self.error(key, problem));
        if self.name.trim().is_empty() {
            return error("name", "it is empty");
        }
        if self.secrets.is_empty() && self.account.is_none() {
            return error(
                "secrets",
                "at least one is needed: make one with `turnhook secret`",
            );
        }
        if self.events.is_empty() {
            return error("events", "it is empty: name at least one event");
        }
        if self.timeout.is_zero() || self.timeout > LONGEST_TIMEOUT {
            return error("timeout", "it must be longer than 0, and 1h at most");
        }
        if !(1..=1024).contains(&self.concurrency) {
            return error("concurrency", "it must be 1 to 1024");
        }
        if self
            .rate_limit
            .is_some_and(|limit| limit.count == 0 || limit.per.is_zero())
        {
            return error(
                "rate_limit",
                "it must be more than 0: `turnhook endpoints pause` stops an endpoint",
            );
        }
        if self.rate_limit.is_some_and(|limit| limit.per > LONGEST_WAIT) {
            return error("rate_limit", "its time must be 30d at most");
        }
        if self.retry.initial < Duration::from_millis(1) {
            return error("retry.initial", "it must be at least 1ms");
        }
        if self.retry.max < self.retry.initial {
            return error("retry.max", "it must not be shorter than retry.initial");
        }
        if self.retry.max > LONGEST_WAIT {
            return error("retry.max", "it must be 30d at most");
        }
        if self.retry.retry_after_max > LONGEST_WAIT {
            return error("retry.retry_after_max", "it must be 30d at most");
        }
        if self.retry.give_up_after > LONGEST_RETRYING {
            return error("retry.give_up_after", "it must be 10 years (3650d) at most");
        }
        Ok(())
    }

    /// The configured headers, checked.
    pub(crate) fn header_map(&self) -> Result<http::HeaderMap, ConfigError> {
        const OURS: [&str; 9] = [
            "connection",
            "content-length",
            "content-type",
            "host",
            "te",
            "transfer-encoding",
            "upgrade",
            "proxy-authorization",
            "expect",
        ];
        let mut map = http::HeaderMap::new();
        for (name, value) in &self.headers {
            let known = HeaderName::from_bytes(name.as_bytes())
                .map_err(|_| self.error("headers", format!("{name:?} is not a header's name")))?;
            if known.as_str().starts_with("webhook-") || OURS.contains(&known.as_str()) {
                return Err(self.error("headers", format!("{name:?} is set by turnhook itself")));
            }
            let mut value = HeaderValue::from_str(value.expose_secret()).map_err(|_| {
                self.error(
                    "headers",
                    format!("the value of {name:?} has characters that no header can hold"),
                )
            })?;
            value.set_sensitive(true);
            map.append(known, value);
        }
        Ok(map)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

    use super::*;

    fn config(url: &str) -> EndpointConfig {
        let (secret, _) = Secret::generate().unwrap();
        EndpointConfig::new("billing", url.parse().unwrap(), vec![secret])
    }

    /// The key that is complained about, and the whole message.
    fn wrong(config: &EndpointConfig) -> (&'static str, String) {
        let error = config.validate().unwrap_err();
        (error.key, error.to_string())
    }

    #[test]
    fn urls() {
        for fine in [
            "https://billing.example.com/turn",
            "http://127.0.0.1:8080/",
            "http://localhost/",
            "http://[::1]/",
        ] {
            assert_eq!(config(fine).validate(), Ok(()), "{fine}");
        }
        for (url, part) in [
            ("ftp://example.com/", "https://"),
            ("https://user:hunter2@example.com/", "authorization"),
            ("http://example.com/", "allow_http"),
            ("http://10.0.0.1/", "allow_http"),
            ("https://169.254.169.254/", "link-local"),
            ("https://0xa9fea9fe/", "link-local"),
            ("https://[fe80::1]/", "link-local"),
            ("https://[::ffff:169.254.169.254]/", "link-local"),
            ("https://100.100.100.200/", "metadata"),
        ] {
            let (key, message) = wrong(&config(url));
            assert_eq!(key, "url", "{url}");
            assert!(
                message.contains(part) && !message.contains("hunter2"),
                "{url}: {message}"
            );
        }
        let mut allowed = config("http://10.0.0.1/");
        allowed.allow_http = true;
        assert_eq!(allowed.validate(), Ok(()));
    }

    #[test]
    fn each_wrong_key_is_named() {
        type Change = fn(&mut EndpointConfig);
        let cases: &[(&str, Change)] = &[
            ("name", |c| c.name.clear()),
            ("secrets", |c| c.secrets.clear()),
            ("events", |c| c.events.clear()),
            ("timeout", |c| c.timeout = Duration::ZERO),
            ("concurrency", |c| c.concurrency = 0),
            ("rate_limit", |c| {
                c.rate_limit = Some(RateLimit {
                    count: 0,
                    per: Duration::from_secs(1),
                })
            }),
            ("retry.initial", |c| c.retry.initial = Duration::ZERO),
            ("retry.max", |c| c.retry.max = Duration::from_millis(1)),
            ("timeout", |c| c.timeout = Duration::MAX),
            ("rate_limit", |c| {
                c.rate_limit = Some(RateLimit {
                    count: 1,
                    per: Duration::MAX,
                })
            }),
            ("retry.max", |c| c.retry.max = Duration::MAX),
            ("retry.retry_after_max", |c| {
                c.retry.retry_after_max = Duration::MAX
            }),
            ("retry.give_up_after", |c| c.retry.give_up_after = Duration::MAX),
            ("headers", |c| c.headers.push(("bad name".into(), "x".into()))),
            ("headers", |c| {
                c.headers.push(("x-key".into(), "hunter2\n".into()))
            }),
            ("headers", |c| {
                c.headers.push(("webhook-id".into(), "hunter2".into()))
            }),
            ("ca_file", |c| c.ca_file = Some("/nonexistent/ca.pem".into())),
            ("client_certificate", |c| {
                c.client_certificate = Some(ClientCertificate {
                    certificate_file: "/nonexistent/c.pem".into(),
                    key_file: "/nonexistent/k.pem".into(),
                });
            }),
            ("proxy", |c| c.proxy = Some("hunter2".into())),
            ("proxy", |c| {
                c.proxy = Some("socks5://u:hunter2@example.com".into())
            }),
        ];
        for (key, change) in cases {
            let mut config = config("https://billing.example.com/");
            change(&mut config);
            let (named, message) = wrong(&config);
            assert_eq!(named, *key, "{message}");
            assert!(!message.contains("hunter2"), "{message}");
        }
    }

    #[test]
    fn nothing_secret_is_shown() {
        let mut config = config("https://billing.example.com/");
        config
            .headers
            .push(("authorization".into(), "Bearer hunter2".into()));
        config.proxy = Some("http://u:hunter2@proxy.example.com".into());
        let shown = format!("{config:?}");
        assert!(!shown.contains("hunter2"), "{shown}");
        assert!(!format!("{:?}", config.header_map().unwrap()).contains("hunter2"));
    }
}
