//! What is said of the servers of a `direct` source, of whom it turned away, and of when a source was last heard of.

use tracing::{info, warn};
use turnhook_reducer::time::Timestamp;
use turnhook_subscriber::signal::TurnedAway;

use super::{
    SourceTelemetry,
    servers::{PACE, seconds},
};
use crate::health::{ServerState, ServerStatus, SourceStatus};

/// Servers that `/status` shows, gone ones included: more than any fleet on one listener.
const SHOWN: usize = 256;
/// `/status` follows the last message in steps of so many milliseconds.
const STEP: u64 = 1_000;

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

    pub(crate) fn turned_away(&mut self, turned_away: &TurnedAway) {
        let TurnedAway {
            reason,
            count,
            to,
            peer,
            ..
        } = *turned_away;
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
