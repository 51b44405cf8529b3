//! What the parts of the program say of themselves, for `/readyz` and `/status`.
//!
//! Each part writes its own entry when something changes; readers copy. The lock is held for a few
//! assignments and never across a wait.

use std::{
    collections::BTreeMap,
    sync::{Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use serde::{Serialize, Serializer};
use turnhook_reducer::time::Timestamp;

use crate::config::{Config, SourceType};

/// Shared by all parts of the program.
#[derive(Debug)]
pub struct Health {
    started: Instant,
    parts: Mutex<Parts>,
}

/// What `/status` shows of each part.
#[derive(Clone, Debug, Serialize)]
pub struct Parts {
    /// By name.
    pub sources: BTreeMap<String, SourceStatus>,
    /// There is one.
    pub store: StoreStatus,
    /// By name.
    pub endpoints: BTreeMap<String, EndpointStatus>,
    /// By which allocations are ended; no part of `/readyz`.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub controls: Vec<ControlStatus>,
    /// This node among those that share the store; not there on SQLite.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub node: Option<NodeStatus>,
}

/// A node among those that share the store.
#[derive(Clone, Debug, Serialize)]
pub struct NodeStatus {
    /// The id that it made at its start.
    pub id: String,
    /// The names of all nodes that live.
    pub live: Vec<String>,
    /// How many of the 64 parts of all sessions it delivers.
    pub lanes: usize,
}

/// A coturn's CLI.
#[derive(Clone, Debug, Serialize)]
pub struct ControlStatus {
    /// Whose allocations it ends.
    pub source: String,
    /// Where it is.
    pub address: String,
    /// Whether it can be used.
    pub up: bool,
    /// The version of that coturn, by its banner.
    pub coturn: Option<String>,
    /// Why it cannot be used.
    pub last_error: Option<String>,
}

/// What this node is to a source.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Role {
    /// It leads the source. On SQLite, always.
    Leader,
    /// It listens along, to take over.
    Follower,
}

/// Whether a source hears coturn.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum SourceState {
    /// The source has yet to hear anything.
    Starting,
    /// It is subscribed (`redis`).
    Connected,
    /// It listens (`direct`).
    Listening,
    /// Another node leads the source; this one listens along.
    Following,
    /// It hears nothing, and keeps trying.
    Deaf,
}

impl SourceState {
    /// Whether the source is in good order.
    #[must_use]
    pub fn is_ready(self) -> bool {
        matches!(
            self,
            SourceState::Connected | SourceState::Listening | SourceState::Following
        )
    }
}

/// A source.
#[derive(Clone, Debug, Serialize)]
pub struct SourceStatus {
    /// `direct` or `redis`.
    pub r#type: &'static str,
    /// Whether this node leads it.
    pub role: Role,
    /// Whether it hears.
    pub state: SourceState,
    /// Since when it has been in that state.
    #[serde(serialize_with = "option_rfc3339")]
    pub since: Option<Timestamp>,
    /// Where it is connected, or listens.
    pub detail: Option<String>,
    /// When a message was last received, give or take a second.
    #[serde(serialize_with = "option_rfc3339")]
    pub last_message_at: Option<Timestamp>,
    /// Why it is deaf, or was last, or why it last turned somebody away.
    pub last_error: Option<String>,
    /// When it last turned somebody away.
    #[serde(serialize_with = "option_rfc3339")]
    pub last_error_at: Option<Timestamp>,
    /// The number of open and closing allocations.
    pub open_allocations: u64,
    /// The number of sessions that have not ended.
    pub open_sessions: u64,
    /// Whether its coturn reports the peer leg, as configured or as heard; null while nobody knows.
    pub peer_leg: Option<bool>,
    /// The servers that are connected, and those that were (`direct`).
    pub servers: Vec<ServerStatus>,
    /// How many gaps of the last 24 hours are on record, give or take half a minute; a thousand stand for more.
    pub gaps_24h: u64,
    /// The latest ones, newest last; the store has all.
    pub recent_gaps: Vec<GapStatus>,
    /// Relay threads of coturn that have fallen silent, by their number.
    pub wedged_threads: Vec<u16>,
}

/// A server of a `direct` source: one coturn.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct ServerStatus {
    /// Its address, user (`-`: none) and database number.
    pub server: String,
    /// Whether it is there.
    pub state: ServerState,
    /// The time since which that has been so.
    #[serde(serialize_with = "rfc3339")]
    pub since: Timestamp,
}

/// Whether a server is there.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum ServerState {
    /// It has a connection.
    Connected,
    /// It has had none for some seconds.
    Gone,
}

/// A gap.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct GapStatus {
    /// Its start.
    #[serde(serialize_with = "rfc3339")]
    pub from: Timestamp,
    /// Its end.
    #[serde(serialize_with = "rfc3339")]
    pub to: Timestamp,
    /// The reason for the gap.
    pub reason: &'static str,
}

/// How many gaps `/status` shows for each source.
const RECENT_GAPS: usize = 10;

impl SourceStatus {
    /// Adds a gap, and forgets the oldest beyond ten.
    pub fn push_gap(&mut self, gap: GapStatus) {
        if self.recent_gaps.len() >= RECENT_GAPS {
            self.recent_gaps.remove(0);
        }
        self.recent_gaps.push(gap);
    }
}

/// The store.
#[derive(Clone, Debug, Serialize)]
pub struct StoreStatus {
    /// Whether the last commit, or the opening, went well.
    pub writable: bool,
    /// Whether the last beat went well, where several nodes share it.
    pub reachable: bool,
    /// What went wrong, last.
    pub last_error: Option<String>,
    /// When that was.
    #[serde(serialize_with = "option_rfc3339")]
    pub last_error_at: Option<Timestamp>,
}

/// An endpoint.
#[derive(Clone, Debug, Default, Serialize)]
pub struct EndpointStatus {
    /// Deliveries neither done nor given up.
    pub pending: u64,
    /// The age of the oldest of them.
    pub oldest_pending_seconds: Option<f64>,
    /// Deliveries given up.
    pub dead_letters: u64,
    /// Whether deliveries flow.
    pub state: EndpointState,
    /// Where they do not: since when.
    #[serde(serialize_with = "option_rfc3339")]
    pub since: Option<Timestamp>,
    /// When something is sent again, where that is known.
    #[serde(serialize_with = "option_rfc3339")]
    pub until: Option<Timestamp>,
    /// Deliveries that wait until the map knows their customer.
    pub waiting_for_customers: usize,
    /// Why it stands still, fails, or leaves something waiting.
    pub reason: Option<String>,
    /// Whether it was paused, by command or by its own 410.
    pub paused: bool,
    /// `closed` (deliveries flow), `open` (waiting) or `probing`.
    pub breaker: Breaker,
    /// Of the last failed attempt.
    pub last_error: Option<String>,
    /// When that was.
    #[serde(serialize_with = "option_rfc3339")]
    pub last_error_at: Option<Timestamp>,
    /// When a delivery last succeeded.
    #[serde(serialize_with = "option_rfc3339")]
    pub last_delivered_at: Option<Timestamp>,
}

/// Whether deliveries to an endpoint flow.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum EndpointState {
    /// Deliveries flow.
    #[default]
    Active,
    /// They do, but the last attempt failed.
    Failing,
    /// It asked to be left alone for a while (`Retry-After`).
    Held,
    /// It failed again and again: one delivery is tried every few seconds.
    BreakerOpen,
    /// A person stopped it, or it answered 410.
    Paused,
}

/// The state of an endpoint's circuit breaker.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Breaker {
    /// Deliveries flow.
    #[default]
    Closed,
    /// Deliveries wait.
    Open,
    /// One of them is tried.
    Probing,
}

impl Health {
    /// All parts, none of them ready.
    #[must_use]
    pub fn new(config: &Config) -> Health {
        let sources = config.sources.iter().map(|source| {
            let status = SourceStatus {
                r#type: SourceType::as_str(source.kind.source_type()),
                role: Role::Leader,
                state: SourceState::Starting,
                since: None,
                detail: None,
                last_message_at: None,
                last_error: None,
                last_error_at: None,
                open_allocations: 0,
                open_sessions: 0,
                peer_leg: None,
                servers: Vec::new(),
                gaps_24h: 0,
                recent_gaps: Vec::new(),
                wedged_threads: Vec::new(),
            };
            (source.name.clone(), status)
        });
        let endpoints = config
            .endpoints
            .iter()
            .map(|endpoint| (endpoint.name.clone(), EndpointStatus::default()));
        let parts = Parts {
            sources: sources.collect(),
            store: StoreStatus {
                writable: false,
                reachable: true,
                last_error: None,
                last_error_at: None,
            },
            endpoints: endpoints.collect(),
            controls: Vec::new(),
            node: None,
        };
        Health {
            started: Instant::now(),
            parts: Mutex::new(parts),
        }
    }

    /// Nothing is computed under the lock that could panic half-way: a poisoned one is as good as new.
    fn parts(&self) -> MutexGuard<'_, Parts> {
        self.parts.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Changes a source's entry.
    pub fn update_source(&self, name: &str, change: impl FnOnce(&mut SourceStatus)) {
        if let Some(source) = self.parts().sources.get_mut(name) {
            change(source);
        }
    }

    /// Changes the store's entry.
    pub fn update_store(&self, change: impl FnOnce(&mut StoreStatus)) {
        change(&mut self.parts().store);
    }

    /// A control's entry, in the place of the one before.
    pub fn update_control(&self, status: ControlStatus) {
        let mut parts = self.parts();
        let is = |c: &&mut ControlStatus| c.source == status.source && c.address == status.address;
        match parts.controls.iter_mut().find(is) {
            Some(known) => *known = status,
            None => parts.controls.push(status),
        }
    }

    /// Changes this node's entry.
    pub fn update_node(&self, change: impl FnOnce(&mut Option<NodeStatus>)) {
        change(&mut self.parts().node);
    }

    /// Changes an endpoint's entry; one that is no longer configured but still has deliveries gets one.
    pub fn update_endpoint(&self, name: &str, change: impl FnOnce(&mut EndpointStatus)) {
        let mut parts = self.parts();
        match parts.endpoints.get_mut(name) {
            Some(endpoint) => change(endpoint),
            None => change(parts.endpoints.entry(name.to_owned()).or_default()),
        }
    }

    /// For `/readyz`: endpoints are no part of it, since a dead receiver must not take turnhook out of service.
    #[must_use]
    pub fn readiness(&self) -> Readiness {
        let parts = self.parts();
        let sources: BTreeMap<_, _> = parts
            .sources
            .iter()
            .map(|(name, source)| {
                let ready = source.state.is_ready();
                let error = source.last_error.clone().filter(|_| !ready);
                (
                    name.clone(),
                    SourceReadiness {
                        ready,
                        role: source.role,
                        state: source.state,
                        error,
                    },
                )
            })
            .collect();
        let ready = parts.store.writable && parts.store.reachable;
        let store = StoreReadiness {
            ready,
            error: parts.store.last_error.clone().filter(|_| !ready),
        };
        Readiness {
            ready: store.ready && sources.values().all(|source| source.ready),
            sources,
            store,
        }
    }

    /// The body of `/status`.
    #[must_use]
    pub fn status(&self) -> Status {
        Status {
            version: env!("CARGO_PKG_VERSION"),
            uptime: self.started.elapsed(),
            parts: self.parts().clone(),
        }
    }
}

/// The body of `/readyz`.
#[derive(Clone, Debug, Serialize)]
pub struct Readiness {
    /// Whether all parts are ready.
    pub ready: bool,
    sources: BTreeMap<String, SourceReadiness>,
    store: StoreReadiness,
}

#[derive(Clone, Debug, Serialize)]
struct SourceReadiness {
    ready: bool,
    role: Role,
    state: SourceState,
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<String>,
}

#[derive(Clone, Debug, Serialize)]
struct StoreReadiness {
    ready: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<String>,
}

/// The body of `/status`.
#[derive(Clone, Debug, Serialize)]
pub struct Status {
    /// The program's.
    pub version: &'static str,
    /// Since its start.
    #[serde(rename = "uptime_seconds", serialize_with = "seconds")]
    pub uptime: Duration,
    /// All of them.
    #[serde(flatten)]
    pub parts: Parts,
}

fn seconds<S: Serializer>(duration: &Duration, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_u64(duration.as_secs())
}

fn rfc3339<S: Serializer>(at: &Timestamp, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(&turnhook_dispatcher::body::rfc3339(*at))
}

fn option_rfc3339<S: Serializer>(at: &Option<Timestamp>, serializer: S) -> Result<S::Ok, S::Error> {
    match at {
        Some(at) => rfc3339(at, serializer),
        None => serializer.serialize_none(),
    }
}
