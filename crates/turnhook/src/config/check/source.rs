//! `[[source]]`.

use secrecy::{ExposeSecret, SecretString};
use turnhook_reducer::rules::RealmPatterns;
use turnhook_subscriber::error::SubscriberError;

use super::{Check, key_path};
use crate::{
    config::{
        Direct, Redis, Source, SourceKind,
        file::{self, SourceType},
        locate::Step,
    },
    engine::settings,
};

/// A password that can be tried by others should not be shorter: at some guesses a second for years on end.
const SHORT: usize = 16;

impl Check<'_> {
    pub(super) fn source(&mut self, index: usize, source: &file::Source) -> Option<Source> {
        self.name(&key_path!["source", index, "name"], &source.name);
        let before = self.problems.len();
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
        let built = Source {
            name: source.name.clone(),
            peer_leg: source.peer_leg.0,
            realms: self.realms(&at, &source.realms)?,
            kind,
        };
        if self.problems.len() == before {
            self.as_the_subscriber_sees_it(&at, source, &built)?;
        }
        Some(built)
    }

    fn realms(&mut self, at: &[Step], realms: &[String]) -> Option<Vec<String>> {
        let key = [at, &key_path!["realms"]].concat();
        if realms.is_empty() {
            return self.wrong(
                &key,
                "names no realm: nothing would be heard; write [\"*\"] for all".to_owned(),
            );
        }
        match RealmPatterns::new(realms) {
            Ok(_) => Some(realms.to_vec()),
            Err(why) => self.wrong(&key, why.to_string()),
        }
    }

    /// What only the crate that will use it can say: whether the URL can be read, and the certificates.
    fn as_the_subscriber_sees_it(
        &mut self,
        at: &[Step],
        source: &file::Source,
        built: &Source,
    ) -> Option<()> {
        let Err(error) = settings::source(built).validate() else {
            return Some(());
        };
        let (key, message) = match error {
            SubscriberError::Url { reason } => {
                let key = if source.url_file.is_some() {
                    "url_file"
                } else {
                    "url"
                };
                (key, reason)
            }
            SubscriberError::Tls { path, reason } => {
                let files = [("tls_cert", &source.tls_cert), ("tls_key", &source.tls_key)];
                let named = files.into_iter().find(|(_, file)| file.as_ref() == Some(&path));
                (
                    named.map_or("ca_file", |(key, _)| key),
                    format!("cannot use {}: {reason}", path.display()),
                )
            }
            error @ SubscriberError::UserWithoutPassword => ("user", error.to_string()),
            error @ (SubscriberError::OpenToAll { .. } | SubscriberError::Listen { .. }) => {
                ("listen", error.to_string())
            }
        };
        self.wrong(&[at, &key_path![key]].concat(), message)
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
        let beyond_loopback = !listen.ip().to_canonical().is_loopback();
        if beyond_loopback && !has_password {
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
        if !has_password {
            self.doubtful(
                &key,
                format!("without `password` anybody on this machine can connect to {listen} and send usage that is billed; set `password`, and the same in coturn's redis-statsdb"),
            );
        }
        if let Some(Some(password)) = &password {
            self.password(at, source, password, beyond_loopback);
        }
        Some(Direct {
            listen,
            user: source.user.clone(),
            password: password?,
            tls: tls?,
        })
    }

    /// What can be said of the password of a `direct` source without showing it.
    fn password(
        &mut self,
        at: &[Step],
        source: &file::Source,
        password: &SecretString,
        beyond_loopback: bool,
    ) {
        let name = if source.password_file.is_some() {
            "password_file"
        } else {
            "password"
        };
        let key = [at, &key_path![name]].concat();
        let password = password.expose_secret();
        if password.contains(char::is_whitespace) {
            self.wrong::<()>(
                &key,
                "has a space in it, where coturn's redis-statsdb would end it; choose one without",
            );
        }
        if beyond_loopback && password.chars().count() < SHORT {
            self.doubtful(
                &key,
                format!("is shorter than {SHORT} characters, and who can connect can guess; `turnhook secret` makes a long one"),
            );
        }
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
        Some(Redis {
            url,
            user: source.user.clone(),
            password: password?,
            ca_file: source.ca_file.clone(),
            heal: source.heal.unwrap_or(false),
        })
    }
}
