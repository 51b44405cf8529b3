//! Ending allocations, and refusing new ones: what is configured of it.

use std::{net::SocketAddr, time::Duration};

use secrecy::SecretString;
use turnhook_control::gate::{RealmOptions, RestSecret};

/// A coturn's CLI.
#[derive(Clone, Debug)]
pub struct Control {
    /// A configured one.
    pub source: String,
    /// Where it is.
    pub address: SocketAddr,
    /// `cli-password`.
    pub password: SecretString,
    /// The `local=` that it answers for.
    pub server: Option<String>,
}

/// How allocations are ended.
#[derive(Clone, Debug)]
pub struct Enforce {
    /// How long after it was asked for an allocation's end may be heard.
    pub confirm: Duration,
    /// Ends in a time, for each control.
    pub max_rate: Option<(u32, Duration)>,
    /// Endpoints whose answers may block.
    pub obey: Vec<String>,
}

/// What answers coturn's questions for keys.
#[derive(Clone, Debug)]
pub struct Gate {
    /// Where to listen.
    pub listen: SocketAddr,
    /// Of whose users.
    pub realm: String,
    /// Of the TURN REST API.
    pub secrets: Vec<RestSecret>,
    /// Whose coturns ask.
    pub source: String,
    /// Whether it was said that coturn is new enough, or that it may be old; else its banner has to.
    pub sound: bool,
    /// What coturn logs in with.
    pub password: Option<SecretString>,
    /// What it is answered about the realm.
    pub options: RealmOptions,
}

/// As they stand in the file.
pub(super) mod file {
    use std::path::PathBuf;

    use serde::{Deserialize, Serialize};

    use crate::config::{Rate, Secret, Span};

    /// A `[[control]]`.
    #[derive(Clone, Debug, Deserialize, Serialize)]
    #[serde(deny_unknown_fields)]
    pub struct Control {
        /// Whose allocations it can end.
        pub source: String,
        /// `cli-ip` and `cli-port` of that coturn.
        pub address: String,
        /// Its `cli-password`.
        #[serde(skip_serializing_if = "Option::is_none")]
        pub password: Option<Secret>,
        /// A file that holds it.
        #[serde(skip_serializing_if = "Option::is_none")]
        pub password_file: Option<PathBuf>,
        /// The `local=` that it answers for.
        #[serde(skip_serializing_if = "Option::is_none")]
        pub server: Option<String>,
        /// Whether the password may go over a network in clear.
        #[serde(default)]
        pub allow_cleartext: bool,
    }

    /// A `[[gate]]`.
    #[derive(Clone, Debug, Deserialize, Serialize)]
    #[serde(deny_unknown_fields)]
    pub struct Gate {
        /// Where coturn's `redis-userdb` leads.
        pub listen: String,
        /// coturn's `realm`.
        pub realm: String,
        /// The secrets of the TURN REST API, one a line.
        #[serde(skip_serializing_if = "Option::is_none")]
        pub secrets: Option<Secret>,
        /// A file that holds them.
        #[serde(skip_serializing_if = "Option::is_none")]
        pub secrets_file: Option<PathBuf>,
        /// Whose coturns ask.
        pub source: String,
        /// Their version, where no banner says it.
        #[serde(skip_serializing_if = "Option::is_none")]
        pub coturn: Option<String>,
        /// Whether they may be older than 4.13.
        #[serde(default)]
        pub allow_old: bool,
        /// What coturn logs in with.
        #[serde(skip_serializing_if = "Option::is_none")]
        pub password: Option<Secret>,
        /// A file that holds it.
        #[serde(skip_serializing_if = "Option::is_none")]
        pub password_file: Option<PathBuf>,
        /// Bytes in a second, for each allocation and direction.
        #[serde(skip_serializing_if = "Option::is_none")]
        pub max_bps: Option<u64>,
        /// Allocations of one username at once.
        #[serde(skip_serializing_if = "Option::is_none")]
        pub user_quota: Option<u64>,
        /// Allocations of the realm at once.
        #[serde(skip_serializing_if = "Option::is_none")]
        pub total_quota: Option<u64>,
    }

    /// `[enforce]`.
    #[derive(Clone, Debug, Deserialize, Serialize)]
    #[serde(deny_unknown_fields)]
    pub struct Enforce {
        /// How long after it was asked for an allocation's end may be heard.
        pub confirm: Span,
        /// Ends in a time, for each control.
        pub max_rate: Rate,
        /// Endpoints whose answers may block.
        pub obey: Vec<String>,
    }
}
