//! `[[source]]`, as it stands in the file.

use std::{fmt, path::PathBuf};

use serde::{Deserialize, Deserializer, Serialize, Serializer, de};
use turnhook_reducer::rules;

use super::super::secret::{Secret, SecretUrl};

/// All there are.
pub(super) fn every() -> Vec<String> {
    vec!["*".to_owned()]
}

/// `type` of a source.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Deserialize, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum SourceType {
    /// coturn connects to turnhook.
    Direct,
    /// turnhook subscribes to a Redis.
    Redis,
}

impl SourceType {
    /// As in the file, in `/status` and in the log.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            SourceType::Direct => "direct",
            SourceType::Redis => "redis",
        }
    }
}

/// `peer_leg`: `"auto"`, `true` or `false`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PeerLeg(pub rules::PeerLeg);

impl Serialize for PeerLeg {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        match self.0 {
            rules::PeerLeg::Auto => to.serialize_str("auto"),
            rules::PeerLeg::Reported => to.serialize_bool(true),
            rules::PeerLeg::Absent => to.serialize_bool(false),
        }
    }
}

impl<'de> Deserialize<'de> for PeerLeg {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<PeerLeg, D::Error> {
        struct Visitor;
        impl de::Visitor<'_> for Visitor {
            type Value = PeerLeg;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(r#""auto", true or false"#)
            }

            fn visit_bool<E: de::Error>(self, reported: bool) -> Result<PeerLeg, E> {
                Ok(PeerLeg(reported.into()))
            }

            // The environment gives texts.
            fn visit_str<E: de::Error>(self, text: &str) -> Result<PeerLeg, E> {
                match text {
                    "auto" => Ok(PeerLeg(rules::PeerLeg::Auto)),
                    "true" => Ok(PeerLeg(rules::PeerLeg::Reported)),
                    "false" => Ok(PeerLeg(rules::PeerLeg::Absent)),
                    other => Err(E::invalid_value(de::Unexpected::Str(other), &self)),
                }
            }
        }
        from.deserialize_any(Visitor)
    }
}

/// A `[[source]]`.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Source {
    /// Label in payloads and metrics; unique.
    pub name: String,
    /// Who connects to whom.
    pub r#type: SourceType,
    /// Whether its coturn reports `/peer` messages.
    #[serde(default)]
    pub peer_leg: PeerLeg,
    /// The realms that are heard; `*` stands for anything.
    #[serde(default = "every")]
    pub realms: Vec<String>,
    /// `direct`: where to listen.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub listen: Option<String>,
    /// `redis`: where it is.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub url: Option<SecretUrl>,
    /// `redis`: a file that holds the URL.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub url_file: Option<PathBuf>,
    /// The user to log in as (`redis`), or whom coturn must log in as (`direct`).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub user: Option<String>,
    /// The password that goes with it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub password: Option<Secret>,
    /// A file that holds the password.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub password_file: Option<PathBuf>,
    /// `direct`: certificate chain (PEM); makes the listener TLS.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tls_cert: Option<PathBuf>,
    /// `direct`: the certificate's private key (PEM).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tls_key: Option<PathBuf>,
    /// `redis`: certificates to trust instead of the public ones (PEM).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ca_file: Option<PathBuf>,
    /// `redis`: close wedged coturn connections.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub heal: Option<bool>,
}
