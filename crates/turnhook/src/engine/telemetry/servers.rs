//! What is said of the servers of a `direct` source, of whom it turned away, and of when a source was last heard of.

use prometheus_client::metrics::{counter::Counter, gauge::Gauge};
use tracing::{info, warn};
use turnhook_reducer::time::Timestamp;
use turnhook_subscriber::signal::{TurnAwayReason, TurnedAway};

use super::SourceTelemetry;
use crate::{
    health::{ServerState, ServerStatus, SourceStatus},
    metrics::{Metrics, ReasonLabels, SourceLabels},
};

/// One warning a minute for each reason, in milliseconds.
const PACE: u64 = 60_000;
/// Lines about servers that come and go, in that time: more are only counted.
const LINES: u32 = 20;
/// Servers that `/status` shows, gone ones included: more than any fleet on one listener.
const SHOWN: usize = 256;
/// `/status` follows the last message in steps of so many milliseconds.
const STEP: u64 = 1_000;

pub(super) struct Servers {
    last_message: Gauge,
    last_gap: Gauge,
    /// Of a `direct` source: of others nobody knows the servers.
    connected: Option<Gauge>,
    refused: [Counter; TurnAwayReason::ALL.len()],
    /// When a reason was last warned of, and how many it was since.
    warned: [(Option<Timestamp>, u64); TurnAwayReason::ALL.len()],
    lines: Pace,
    shown: Timestamp,
}

impl Servers {
    pub(super) fn new(name: &str, direct: bool, metrics: &Metrics) -> Servers {
        let labels = SourceLabels {
            source: name.to_owned(),
        };
        let refused = TurnAwayReason::ALL.map(|reason| {
            let labels = ReasonLabels {
                source: name.to_owned(),
                reason: reason.as_str(),
            };
            metrics.sources.logins_refused.get_or_create(&labels).clone()
        });
        Servers {
            last_message: metrics.sources.source_last_message.get_or_create(&labels).clone(),
            last_gap: metrics.sources.last_gap.get_or_create(&labels).clone(),
            connected: direct.then(|| metrics.sources.source_servers.get_or_create(&labels).clone()),
            refused,
            warned: [(None, 0); TurnAwayReason::ALL.len()],
            lines: Pace::default(),
            shown: Timestamp::default(),
        }
    }

    pub(super) fn gap(&self, to: Timestamp) {
        self.last_gap.set(seconds(to));
    }
}

/// A bounded number of lines in a bounded time.
#[derive(Default)]
struct Pace {
    since: Timestamp,
    lines: u32,
}

impl Pace {
    /// Whether one more is to be said; the last one that is says that there may be more.
    fn allows(&mut self, at: Timestamp, source: &str) -> bool {
        if at.since(self.since) >= PACE {
            *self = Pace { since: at, lines: 0 };
        }
        self.lines = self.lines.saturating_add(1);
        if self.lines == LINES {
            warn!(
                source,
                "many servers come and go: further ones are not shown for a minute; /status has them"
            );
        }
        self.lines < LINES
    }
}

impl SourceTelemetry {
    /// A message was received then.
    pub(crate) fn heard(&mut self, at: Timestamp) {
        self.servers.last_message.set(seconds(at));
        if at.since(self.servers.shown) >= STEP {
            self.servers.shown = at;
            self.health
                .update_source(&self.name, |s| s.last_message_at = Some(at));
        }
    }

    pub(crate) fn server_connected(&mut self, at: Timestamp, server: &[u8]) {
        let server = text(server);
        if self.servers.lines.allows(at, &self.name) {
            info!(source = %self.name, server, "server connected");
        }
        self.server(server, at, ServerState::Connected);
    }

    pub(crate) fn server_gone(&mut self, at: Timestamp, server: &[u8]) {
        let server = text(server);
        if self.servers.lines.allows(at, &self.name) {
            warn!(source = %self.name, server,
                "server gone: it has no connection any more, and nothing is heard of what it relays");
        }
        self.server(server, at, ServerState::Gone);
    }

    /// What it relayed has ended: it has stopped, or was started anew.
    pub(crate) fn server_over(&mut self, at: Timestamp, server: &[u8], what: &'static str) {
        if self.servers.lines.allows(at, &self.name) {
            info!(source = %self.name, server = text(server), "server {what}");
        }
    }

    pub(crate) fn server_returned(&mut self, at: Timestamp, server: &[u8], stopped_at: Timestamp) {
        let server = text(server);
        if self.servers.lines.allows(at, &self.name) {
            warn!(source = %self.name, server, away_ms = at.since(stopped_at),
                "server had not stopped: it is heard again without a start, so what it relayed meanwhile was missed");
        }
    }

    pub(crate) fn turned_away(&mut self, told: &TurnedAway) {
        let TurnedAway {
            reason,
            count,
            to,
            peer,
            ..
        } = *told;
        if let Some(refused) = self.servers.refused.get(reason as usize) {
            refused.inc_by(count);
        }
        let Some((last, more)) = self.servers.warned.get_mut(reason as usize) else {
            return;
        };
        *more = more.saturating_add(count);
        if last.is_some_and(|last| to.since(last) < PACE) {
            return;
        }
        let connections = std::mem::take(more);
        *last = Some(to);
        let error = format!("{peer} {}", reason.advice());
        warn!(source = %self.name, %peer, reason = reason.as_str(), connections, "turned away: {error}");
        self.health.update_source(&self.name, |s| {
            s.last_error = Some(error);
            s.last_error_at = Some(to);
        });
    }

    /// Nobody is connected: the listener has only been opened, or was closed.
    pub(super) fn nobody_connected(&self, at: Timestamp) {
        self.health.update_source(&self.name, |s| {
            for server in s.servers.iter_mut().filter(|s| s.state == ServerState::Connected) {
                (server.state, server.since) = (ServerState::Gone, at);
            }
        });
        if let Some(connected) = &self.servers.connected {
            connected.set(0);
        }
    }

    /// This node does not listen any more: who is connected is another's to say.
    pub(super) fn forget_servers(&self) {
        self.health.update_source(&self.name, |s| s.servers.clear());
        if let Some(connected) = &self.servers.connected {
            connected.set(0);
        }
    }

    fn server(&self, server: String, since: Timestamp, state: ServerState) {
        let mut connected = 0;
        self.health.update_source(&self.name, |s| {
            put(s, ServerStatus { server, state, since });
            connected = s
                .servers
                .iter()
                .filter(|s| s.state == ServerState::Connected)
                .count();
        });
        if let Some(gauge) = &self.servers.connected {
            gauge.set(i64::try_from(connected).unwrap_or(i64::MAX));
        }
    }
}

/// Puts a server in its place, and forgets the one that has been gone longest where there are too many.
fn put(status: &mut SourceStatus, server: ServerStatus) {
    match status.servers.iter_mut().find(|s| s.server == server.server) {
        Some(known) => *known = server,
        None => {
            if status.servers.len() >= SHOWN {
                let gone = status
                    .servers
                    .iter()
                    .enumerate()
                    .filter(|(_, s)| s.state == ServerState::Gone);
                let oldest = gone.min_by_key(|(_, s)| s.since).map_or(0, |(i, _)| i);
                status.servers.remove(oldest);
            }
            status.servers.push(server);
        }
    }
}

/// For people: names come from whoever has the password.
fn text(server: &[u8]) -> String {
    crate::text::Untrusted::from(server).to_string()
}

/// Since the epoch, as Prometheus has times.
fn seconds(at: Timestamp) -> i64 {
    i64::try_from(at.0 / 1000).unwrap_or(i64::MAX)
}
