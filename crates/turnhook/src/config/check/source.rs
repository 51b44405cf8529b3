//! `[[source]]`.

use secrecy::SecretString;

use super::{Check, key_path};
use crate::config::{
    Direct, Redis, SecretUrl, Source, SourceKind,
    file::{self, SourceType},
    locate::Step,
};

/// What may stand before `://`, and the way in which it is read.
const SCHEMES: [&str; 8] = [
    "redis",
    "rediss",
    "redis-sentinel",
    "rediss-sentinel",
    "redis-cluster",
    "rediss-cluster",
    "redis+unix",
    "unix",
];

impl Check<'_> {
    pub(super) fn source(&mut self, index: usize, source: &file::Source) -> Option<Source> {
        self.name("source", index, &source.name);
        let at = key_path!["source", index];
        let password = self.either(
            &at,
            "password",
            source.password.as_ref(),
            source.password_file.as_deref(),
        );
        self.of_the_other_type(&at, source);
        let password = password.map(|given| given.map(|secret| secret.0));
        let kind = match source.r#type {
            SourceType::Direct => SourceKind::Direct(self.direct(&at, source, password)?),
            SourceType::Redis => SourceKind::Redis(self.redis(&at, source, password)?),
        };
        Some(Source {
            name: source.name.clone(),
            peer_leg: source.peer_leg,
            kind,
        })
    }

    /// Keys that only mean something in the other type: somebody expects something of them.
    fn of_the_other_type(&mut self, at: &[Step], source: &file::Source) {
        let (other, keys): (_, Vec<(&str, bool)>) = match source.r#type {
            SourceType::Direct => (
                SourceType::Redis,
                vec![
                    ("url", source.url.is_some()),
                    ("url_file", source.url_file.is_some()),
                    ("ca_file", source.ca_file.is_some()),
                    ("heal", source.heal.is_some()),
                ],
            ),
            SourceType::Redis => (
                SourceType::Direct,
                vec![
                    ("listen", source.listen.is_some()),
                    ("tls_cert", source.tls_cert.is_some()),
                    ("tls_key", source.tls_key.is_some()),
                ],
            ),
        };
        for (key, _) in keys.into_iter().filter(|(_, given)| *given) {
            self.wrong::<()>(
                &[at, &key_path![key]].concat(),
                format!(
                    "belongs to a source of type = \"{}\"; this one is \"{}\"",
                    other.as_str(),
                    source.r#type.as_str()
                ),
            );
        }
    }

    /// `password` is `None` where there was something wrong with it, which is on record.
    fn direct(
        &mut self,
        at: &[Step],
        source: &file::Source,
        password: Option<Option<SecretString>>,
    ) -> Option<Direct> {
        let has_password = source.password.is_some() || source.password_file.is_some();
        let key = [at, &key_path!["listen"]].concat();
        let tls = self.pair(
            at,
            ["tls_cert", "tls_key"],
            [source.tls_cert.as_deref(), source.tls_key.as_deref()],
        );
        let Some(listen) = &source.listen else {
            return self.wrong(
                &key,
                "missing; say where coturn connects to, like \"127.0.0.1:6380\"",
            );
        };
        let listen = self.address(&key, listen)?;
        if !listen.ip().is_loopback() && !has_password {
            return self.wrong(
                &key,
                format!("{listen} can be reached from other machines: set `password` (or `password_file`), and the same in coturn's redis-statsdb"),
            );
        }
        if source.user.is_some() && !has_password {
            return self.wrong(
                &[at, &key_path!["user"]].concat(),
                "needs `password` or `password_file` beside it",
            );
        }
        Some(Direct {
            listen,
            user: source.user.clone(),
            password: password?,
            tls: tls?,
        })
    }

    fn redis(
        &mut self,
        at: &[Step],
        source: &file::Source,
        password: Option<Option<SecretString>>,
    ) -> Option<Redis> {
        let key = [at, &key_path!["url"]].concat();
        if let Some(file) = &source.ca_file {
            self.readable(&[at, &key_path!["ca_file"]].concat(), file);
        }
        let Some(url) = self.either_url(at, "url", source.url.as_ref(), source.url_file.as_deref())? else {
            return self.wrong(
                &key,
                "missing; say which Redis coturn publishes to, like \"redis://127.0.0.1:6379\"",
            );
        };
        self.redis_url(&key, &url)?;
        Some(Redis {
            url,
            user: source.user.clone(),
            password: password?,
            ca_file: source.ca_file.clone(),
            heal: source.heal.unwrap_or(false),
        })
    }

    /// Nothing of the URL is repeated in an error: it may hold a password anywhere.
    fn redis_url(&mut self, key: &[Step], url: &SecretUrl) -> Option<()> {
        let Some((scheme, rest)) = url.expose().split_once("://") else {
            return self.wrong(key, "is no URL; write it like \"redis://127.0.0.1:6379\"");
        };
        if !SCHEMES.contains(&scheme) {
            return self.wrong(
                key,
                format!(
                    "`{scheme}://` is not known; choose {}",
                    SCHEMES[..7].join("://, ") + "://"
                ),
            );
        }
        if rest.is_empty() {
            return self.wrong(key, "names no host; write it like \"redis://127.0.0.1:6379\"");
        }
        Some(())
    }
}
