//! Configuration: `default.toml` → the file → the environment, merged by figment, then checked.
//!
//! [`load`] reads values that it is handed; nothing below it looks at the environment. What comes out is
//! complete and consistent: whoever gets a [`Config`] need not check it again.

use std::{net::SocketAddr, path::PathBuf, sync::Arc, time::Duration};

use secrecy::SecretString;
use turnhook_dispatcher::config::EndpointConfig;
use turnhook_reducer::rules;

mod check;
mod control;
mod environment;
mod error;
pub mod file;
mod layers;
mod load;
mod locate;
pub mod product;
pub mod quota;
pub mod search;
mod secret;
#[cfg(test)]
mod tests;
mod units;
mod withheld;

pub use control::{Control, Enforce, Gate};
pub use error::{ConfigError, Origin, Problem};
pub use file::{
    AliveWhile, Billable, GroupBy, Limits, Log, LogFormat, PeerLeg, Session, SourceType, StartOn,
};
pub use layers::Input;
pub use load::{load, load_for_store};
pub use secret::{HIDDEN, Secret, SecretUrl, hide_path};
pub use units::{Rate, Size, Span};

/// Every key, its meaning and its default: the first layer, and the documentation.
pub const DEFAULT_TOML: &str = include_str!("default.toml");

/// What holds in the end.
#[derive(Clone, Debug)]
pub struct Config {
    /// How long requests under way may take after a stop was asked for.
    pub shutdown_grace: Duration,
    /// At least one; names are unique.
    pub sources: Vec<Source>,
    /// How allocations become sessions.
    pub session: Session,
    /// Where state is kept.
    pub store: Store,
    /// Where health, metrics and status are served.
    pub http: SocketAddr,
    /// Names that they may be asked for by, besides `localhost` and addresses.
    pub http_hosts: Vec<String>,
    /// Page and JSON API, where they are served.
    pub admin: Option<Admin>,
    /// Names are unique.
    pub endpoints: Vec<EndpointConfig>,
    /// By what allocations are ended.
    pub controls: Vec<Control>,
    /// What refuses new ones.
    pub gates: Vec<Gate>,
    /// How.
    pub enforce: Enforce,
    /// How much users may use.
    pub quotas: Arc<[quota::Quota]>,
    /// Bounds of tables in memory.
    pub limits: Limits,
    /// What is logged, and how.
    pub log: Log,
    /// What is right and can still be a mistake: said by `check`, and at each start.
    pub warnings: Vec<Problem>,
    /// What is said only to somebody who checks as root: files that the service's user may not be able to read.
    pub kept_from_group: Vec<Problem>,
    /// The same as it would stand in a file, for `check`.
    effective: file::File,
}

impl Config {
    /// As TOML, with every key that has a value, and secrets hidden.
    #[must_use]
    pub fn to_toml(&self) -> String {
        // Every value is a string, a number, a list or a table of these: this cannot fail.
        toml::to_string(&self.effective).unwrap_or_default()
    }

    /// As JSON, with every key that has a value, and secrets hidden.
    #[must_use]
    pub fn to_json(&self) -> serde_json::Value {
        serde_json::to_value(&self.effective).unwrap_or_default()
    }
}

/// A source.
#[derive(Clone, Debug)]
pub struct Source {
    /// Label in payloads and metrics.
    pub name: String,
    /// Whether its coturn reports the peer leg.
    pub peer_leg: rules::PeerLeg,
    /// The realms that are heard; `*` stands for anything.
    pub realms: Vec<String>,
    /// What it listens to.
    pub kind: SourceKind,
}

/// What a source listens to.
#[derive(Clone, Debug)]
pub enum SourceKind {
    /// coturn connects to turnhook.
    Direct(Direct),
    /// turnhook subscribes to the Redis that coturn publishes to.
    Redis(Redis),
}

impl SourceKind {
    /// `direct` or `redis`.
    #[must_use]
    pub fn source_type(&self) -> SourceType {
        match self {
            SourceKind::Direct(_) => SourceType::Direct,
            SourceKind::Redis(_) => SourceType::Redis,
        }
    }
}

/// A listener for coturn.
#[derive(Clone, Debug)]
pub struct Direct {
    /// Where to listen.
    pub listen: SocketAddr,
    /// Whom coturn must log in as.
    pub user: Option<String>,
    /// With what.
    pub password: Option<SecretString>,
    /// Certificate chain and private key, PEM files.
    pub tls: Option<(PathBuf, PathBuf)>,
}

/// A Redis to subscribe to.
#[derive(Clone, Debug)]
pub struct Redis {
    /// Its scheme is one that is known; may hold user and password.
    pub url: SecretUrl,
    /// Goes before the URL's.
    pub user: Option<String>,
    /// Goes before the URL's.
    pub password: Option<SecretString>,
    /// Certificates to trust instead of the public ones, a PEM file.
    pub ca_file: Option<PathBuf>,
    /// Whether to close wedged coturn connections.
    pub heal: bool,
}

/// Where page and JSON API are served, and to whom.
#[derive(Clone, Debug)]
pub struct Admin {
    /// Where to listen.
    pub listen: SocketAddr,
    /// People.
    pub users_file: Option<PathBuf>,
    /// Programs.
    pub tokens_file: Option<PathBuf>,
    /// Names that it may be called by, besides `localhost` and addresses.
    pub hosts: Vec<String>,
    /// Certificate chain and private key, PEM files.
    pub tls: Option<(PathBuf, PathBuf)>,
    /// A proxy does TLS, and says whose address it is.
    pub behind_proxy: bool,
}

/// Where state is kept.
#[derive(Clone, Debug)]
pub struct Store {
    /// In what.
    pub kind: StoreKind,
    /// How long delivered events and ended sessions are kept.
    pub retention: Duration,
}

/// A PostgreSQL, and this node among those that share it.
#[derive(Clone, Debug)]
pub struct Postgres {
    /// Where it is, and whom to log in as.
    pub url: SecretUrl,
    /// Certificates to trust instead of the system's, a PEM file.
    pub ca_file: Option<PathBuf>,
    /// What people call this node; else the host's name.
    pub node: Option<String>,
    /// How long a node may be silent before others take its place.
    pub lease: Duration,
}

/// In what state is kept.
#[derive(Clone, Debug)]
pub enum StoreKind {
    /// A file.
    Sqlite(PathBuf),
    /// A database server, which several nodes may share.
    Postgres(Postgres),
}
