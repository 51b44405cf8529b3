//! The configuration as it stands in the file: the names of every key, and nothing checked yet but types.
//!
//! Tables that occur once have no defaults here: `default.toml` is the first layer and has a value for
//! each of their keys. Those that occur any number of times (`[[source]]`, `[[endpoint]]`) have theirs
//! here, and a test holds them against the comments in `default.toml`.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
};

use serde::{Deserialize, Serialize};

mod source;

pub use self::source::{PeerLeg, Source, SourceType};
pub use super::{
    control::file::{Control, Enforce, Gate},
    quota::file::Quota,
};
use super::{
    product::{Batch, Count, Include, Late, Meter, Unknown},
    secret::{Secret, SecretUrl},
    units::{Rate, Size, Span},
};

/// The whole file.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct File {
    /// How long requests under way may take after a stop was asked for.
    pub shutdown_grace: Span,
    /// Whom to listen to.
    #[serde(default)]
    pub source: Vec<Source>,
    /// How allocations become sessions.
    pub session: Session,
    /// Where state is kept.
    pub store: Store,
    /// Health, metrics and status.
    pub http: Http,
    /// Page and JSON API; absent: they are not served.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub admin: Option<Admin>,
    /// Whom to send events to.
    #[serde(default)]
    pub endpoint: Vec<Endpoint>,
    /// By what allocations are ended.
    #[serde(default)]
    pub control: Vec<Control>,
    /// What refuses new ones.
    #[serde(default)]
    pub gate: Vec<Gate>,
    /// How.
    pub enforce: Enforce,
    /// How much users may use.
    #[serde(default)]
    pub quota: Vec<Quota>,
    /// Bounds of tables in memory.
    pub limits: Limits,
    /// What is logged, and how.
    pub log: Log,
}

/// `[session]`; `default.toml` says what the words mean.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Session {
    /// What one session is about.
    pub group_by: GroupBy,
    /// Finds the user in a username.
    pub user_pattern: String,
    /// What starts a session.
    pub start_on: StartOn,
    /// What keeps it alive.
    pub alive_while: AliveWhile,
    /// How long an end waits for a next allocation.
    pub linger: Span,
    /// How long to wait for totals after `deleted`.
    pub totals_grace: Span,
    /// How long a young allocation counts as relaying before it has reported.
    pub report_grace: Span,
    /// How long past a lifetime that was not renewed.
    pub expiry_grace: Span,
    /// How often usage is sent; 0: never.
    pub usage_interval: Span,
    /// A session that lasts longer ends and continues in another one; 0: never.
    #[serde(default = "never")]
    pub max_session: Span,
    /// Less than this, left over from a parked allocation, waits before it is billed.
    pub residue: Size,
    /// Which bytes are billed.
    pub billable: Billable,
}

/// `group_by`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum GroupBy {
    /// The group `user` of `user_pattern`.
    User,
    /// The whole username.
    Username,
    /// Each allocation is a session.
    Allocation,
}

/// `start_on`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum StartOn {
    /// The first allocation.
    Allocation,
    /// The first relayed traffic.
    Relay,
}

/// `alive_while`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum AliveWhile {
    /// While an allocation that has relayed is open.
    Relaying,
    /// While any allocation is open.
    Allocated,
}

/// `billable`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Billable {
    /// Peer sent plus what for certain went on to the client.
    Relayed,
    /// Client received plus client sent.
    Client,
    /// Client sent plus peer sent.
    Egress,
    /// Client received plus peer received.
    Ingress,
}

impl From<Billable> for turnhook_reducer::usage::Billable {
    fn from(rule: Billable) -> Self {
        match rule {
            Billable::Relayed => Self::Relayed,
            Billable::Client => Self::Client,
            Billable::Egress => Self::Egress,
            Billable::Ingress => Self::Ingress,
        }
    }
}

/// `[store]`.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Store {
    /// The SQLite file; empty where it is of no meaning.
    #[serde(skip_serializing_if = "is_empty")]
    pub path: PathBuf,
    /// A PostgreSQL instead.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub url: Option<SecretUrl>,
    /// A file that holds the URL.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub url_file: Option<PathBuf>,
    /// Certificates to trust for it instead of the system's, a PEM file.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ca_file: Option<PathBuf>,
    /// What people call this node, where there are several; else the host's name.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub node: Option<String>,
    /// How long a node may be silent before others take its place.
    pub lease: Span,
    /// How long delivered events and ended sessions are kept.
    pub retention: Span,
}

/// `[http]`.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Http {
    /// Where to serve health, metrics and status.
    pub listen: String,
    /// Names that it may be called by, besides `localhost` and addresses.
    pub hosts: Vec<String>,
}

/// `[admin]`.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Admin {
    /// Where to serve page and JSON API.
    pub listen: String,
    /// People: name:role:hash.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub users_file: Option<PathBuf>,
    /// Programs: name:role:hash.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tokens_file: Option<PathBuf>,
    /// Names that it may be called by, besides `localhost` and addresses.
    #[serde(default)]
    pub hosts: Vec<String>,
    /// Certificate chain (PEM); makes the listener TLS.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tls_cert: Option<PathBuf>,
    /// The certificate's private key (PEM).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tls_key: Option<PathBuf>,
    /// A proxy does TLS, and says whose address it is.
    #[serde(default)]
    pub behind_proxy: bool,
}

/// An `[[endpoint]]`.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Endpoint {
    /// Label in metrics and on the command line; unique.
    pub name: String,
    /// `webhook`, or the billing product that is spoken to.
    #[serde(default = "webhook")]
    pub r#type: String,
    /// Where webhooks are POSTed, or the product is. Its query may hold a token.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub url: Option<SecretUrl>,
    /// A file that holds the URL.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub url_file: Option<PathBuf>,
    /// Whose events it hears of; `*` stands for anything.
    #[serde(default = "source::every")]
    pub sources: Vec<String>,
    /// Of which realms.
    #[serde(default = "source::every")]
    pub realms: Vec<String>,
    /// With which labels.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub labels: BTreeMap<String, String>,
    /// How much of an event it is sent.
    #[serde(default)]
    pub include: Include,
    /// All sign.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub secrets: Vec<Secret>,
    /// A file with one secret a line.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub secrets_file: Option<PathBuf>,
    /// The types it wants.
    #[serde(default = "all_events")]
    pub events: Vec<String>,
    /// Sent with every request.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub headers: BTreeMap<String, Secret>,
    /// A file with one header a line.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub headers_file: Option<PathBuf>,
    /// `Authorization: Bearer …`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub bearer: Option<Secret>,
    /// A file that holds the token.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub bearer_file: Option<PathBuf>,
    /// `Authorization: Basic …`, given as `user:password`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub basic: Option<Secret>,
    /// A file that holds `user:password`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub basic_file: Option<PathBuf>,
    /// How long a request may take, answer included.
    #[serde(default = "timeout")]
    pub timeout: Span,
    /// Requests under way at once.
    #[serde(default = "concurrency")]
    pub concurrency: u32,
    /// Requests in a time.
    #[serde(default = "rate_limit")]
    pub rate_limit: Rate,
    /// What happens after a failure.
    #[serde(default)]
    pub retry: Retry,
    /// Certificates to trust instead of the public ones (PEM).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ca_file: Option<PathBuf>,
    /// Certificate to show (PEM).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub client_cert: Option<PathBuf>,
    /// Its private key (PEM).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub client_key: Option<PathBuf>,
    /// An HTTP proxy, which then resolves names itself.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub proxy: Option<SecretUrl>,
    /// A file that holds the proxy's URL.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub proxy_file: Option<PathBuf>,
    /// Allows `http://` beyond loopback.
    #[serde(default)]
    pub allow_http: bool,
    /// What is billed.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub meters: Vec<Meter>,
    /// Which usage is counted.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub count: Option<Count>,
    /// What else may be sent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub properties: Option<Vec<String>>,
    /// What only its type knows.
    #[serde(default, skip_serializing_if = "serde_json::Map::is_empty")]
    pub options: serde_json::Map<String, serde_json::Value>,
    /// Where the customer is found.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub customer: Option<String>,
    /// The map from there to the product's customers.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub customers_file: Option<PathBuf>,
    /// What is done with whom it lacks.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub unknown: Option<Unknown>,
    /// What is done with an event that names nobody.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub anonymous: Option<String>,
    /// How many items are sent together.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub batch: Option<Batch>,
    /// What is done with what is older than the product takes.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub late: Option<Late>,
    /// How old an item's time may be, in place of what is known of the product.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub oldest: Option<Span>,
    /// How far ahead it may be.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub future: Option<Span>,
    /// How long the product knows an item again.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub window: Option<Span>,
}

/// `retry` of an endpoint.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(deny_unknown_fields, default)]
pub struct Retry {
    /// Bound of the first wait; doubles with each failure.
    pub initial: Span,
    /// It doubles up to this.
    pub max: Span,
    /// From the first attempt to the dead letters.
    pub give_up_after: Span,
    /// The longest `Retry-After` that is honoured.
    pub retry_after_max: Span,
}

impl Default for Retry {
    fn default() -> Retry {
        Retry {
            initial: Span::seconds(1),
            max: Span::seconds(3600),
            give_up_after: Span::seconds(72 * 3600),
            retry_after_max: Span::seconds(6 * 3600),
        }
    }
}

/// `[limits]`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Limits {
    /// Open allocations of one server.
    #[serde(default = "allocations")]
    pub allocations: u32,
    /// Ids that only had traffic, kept aside.
    pub unconfirmed: u32,
    /// Ended allocations that may be heard of again.
    pub tombstones: u32,
}

/// Recordings of before have none, and no such rule.
fn never() -> Span {
    Span::seconds(0)
}

/// Recordings of before have none.
fn allocations() -> u32 {
    1_000_000
}

/// `[log]`.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Log {
    /// A level, or levels by module.
    pub level: String,
    /// Text or JSON.
    pub format: LogFormat,
}

/// `format` of `[log]`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum LogFormat {
    /// Text on a terminal, JSON elsewhere.
    Auto,
    /// For people.
    Text,
    /// One object a line.
    Json,
}

fn is_empty(path: &Path) -> bool {
    path.as_os_str().is_empty()
}

fn webhook() -> String {
    "webhook".to_owned()
}

fn all_events() -> Vec<String> {
    ["session.start", "session.usage", "session.end"]
        .map(str::to_owned)
        .to_vec()
}

fn timeout() -> Span {
    Span::seconds(15)
}

fn concurrency() -> u32 {
    16
}

fn rate_limit() -> Rate {
    Rate::Unlimited
}
