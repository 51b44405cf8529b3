//! What the running program says of itself. It is handed over as a value: this crate knows nothing of how it comes about.

use std::pin::Pin;

use serde::Serialize;
use turnhook_reducer::{event::EventType, time::Timestamp};

/// The program behind the page.
pub trait Engine: Send + Sync {
    /// As of now.
    fn status(&self) -> StatusNow;

    /// Sends an endpoint a ping or a sample, for which nobody is billed; asks a billing product something that changes
    /// nothing.
    fn try_endpoint<'a>(&'a self, name: &'a str, sample: Sample) -> Trying<'a>;

    /// The user that a TURN username is of, by `user_pattern`.
    fn user_of(&self, username: &[u8]) -> Option<Vec<u8>>;
}

/// What is to be sent.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Sample {
    /// `None`: a ping.
    pub event_type: Option<EventType>,
    /// One of [`crate::CASES`].
    pub case: &'static str,
}

/// What came of trying an endpoint.
#[derive(Clone, Debug, Default)]
pub struct Trial {
    /// What was sent: an id, or a request's first line. Empty: nothing was.
    pub sent: String,
    /// Of the answer; `None` where none came.
    pub status: Option<u16>,
    /// Until it came.
    pub latency_ms: u64,
    /// How it begins.
    pub answer: Vec<u8>,
    /// Why it is not well; no secrets.
    pub error: Option<String>,
    /// What an event comes to that is answered so.
    pub means: String,
    /// Of a billing product: the requests that the sample would make, or why it makes none. Credentials are hidden.
    pub requests: Vec<String>,
}

/// An endpoint is being tried; `None`: there is none of that name.
pub type Trying<'a> = Pin<Box<dyn Future<Output = Option<Trial>> + Send + 'a>>;

/// All of it.
#[derive(Clone, Debug, Default, Serialize)]
pub struct StatusNow {
    /// The program's.
    pub version: String,
    /// Since its start.
    pub uptime_seconds: u64,
    /// The store's.
    pub store: StoreNow,
    /// By name.
    pub sources: Vec<SourceNow>,
    /// By name.
    pub endpoints: Vec<EndpointNow>,
    /// Where several share the store.
    pub node: Option<NodeNow>,
}

/// This node among those that share the store.
#[derive(Clone, Debug, Default, Serialize)]
pub struct NodeNow {
    /// Made at its start.
    pub id: String,
    /// The names of all that live.
    pub live: Vec<String>,
    /// How many of the 64 parts of all sessions it delivers.
    pub lanes: usize,
}

/// The store.
#[derive(Clone, Debug, Default, Serialize)]
pub struct StoreNow {
    /// The last commit went well.
    pub writable: bool,
    /// It answers.
    pub reachable: bool,
    /// What went wrong, last.
    pub last_error: Option<String>,
    /// When that was.
    #[serde(serialize_with = "crate::answer::option_time")]
    pub last_error_at: Option<Timestamp>,
}

/// A source.
#[derive(Clone, Debug, Default, Serialize)]
pub struct SourceNow {
    /// Its name.
    pub name: String,
    /// `direct` or `redis`.
    pub r#type: String,
    /// `leader` or `follower`.
    pub role: String,
    /// `starting`, `connected`, `listening`, `following` or `deaf`.
    pub state: String,
    /// It hears what there is to hear.
    pub ready: bool,
    /// Since when it has been in that state.
    #[serde(serialize_with = "crate::answer::option_time")]
    pub since: Option<Timestamp>,
    /// Where it is connected, or listens.
    pub detail: Option<String>,
    /// When a message was last received.
    #[serde(serialize_with = "crate::answer::option_time")]
    pub last_message_at: Option<Timestamp>,
    /// Why it is deaf, or was last.
    pub last_error: Option<String>,
    /// When that was.
    #[serde(serialize_with = "crate::answer::option_time")]
    pub last_error_at: Option<Timestamp>,
    /// Open and closing.
    pub open_allocations: u64,
    /// Not ended.
    pub open_sessions: u64,
    /// Those that are connected, and those that were (`direct`).
    pub servers: Vec<ServerNow>,
    /// Relay threads of coturn that have fallen silent.
    pub silent_threads: Vec<u16>,
    /// Messages since the start, by kind.
    pub messages: Vec<(String, u64)>,
    /// Messages since the start that were passed over, by why.
    pub ignored: Vec<(String, u64)>,
    /// Sessions that ended since the start, by why and how sure what they used is.
    pub ended: Vec<(String, String, u64)>,
    /// Whether a coturn's CLI is configured by which its sessions can be ended.
    pub controlled: bool,
}

/// A coturn.
#[derive(Clone, Debug, Default, Serialize)]
pub struct ServerNow {
    /// Its address, user and database number.
    pub server: String,
    /// `connected` or `gone`.
    pub state: String,
    /// Since when.
    #[serde(serialize_with = "crate::answer::time")]
    pub since: Timestamp,
}

/// An endpoint.
#[derive(Clone, Debug, Default, Serialize)]
pub struct EndpointNow {
    /// Its name.
    pub name: String,
    /// `active`, `failing`, `held`, `breaker_open` or `paused`.
    pub state: String,
    /// Where deliveries do not flow: since when.
    #[serde(serialize_with = "crate::answer::option_time")]
    pub since: Option<Timestamp>,
    /// When something is sent again, where that is known.
    #[serde(serialize_with = "crate::answer::option_time")]
    pub until: Option<Timestamp>,
    /// Why it stands still or fails.
    pub reason: Option<String>,
    /// By a person, or by its own 410.
    pub paused: bool,
    /// Neither done nor given up.
    pub pending: u64,
    /// The age of the oldest of them.
    pub oldest_pending_seconds: Option<f64>,
    /// Given up.
    pub dead_letters: u64,
    /// Of the last failed attempt.
    pub last_error: Option<String>,
    /// When that was.
    #[serde(serialize_with = "crate::answer::option_time")]
    pub last_error_at: Option<Timestamp>,
    /// When a delivery last succeeded.
    #[serde(serialize_with = "crate::answer::option_time")]
    pub last_delivered_at: Option<Timestamp>,
    /// Attempts since the start, by outcome.
    pub outcomes: Vec<(String, u64)>,
    /// Its configuration as `check` prints it: secrets are hidden.
    pub settings: serde_json::Value,
}
