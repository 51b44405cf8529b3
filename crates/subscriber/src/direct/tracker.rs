//! Which servers are there, and which have stopped. Pure: time is an input.
//!
//! What is known of a live coturn (measured): every thread opens its connection at start, all within
//! milliseconds of the `KEYS` that its auth workers send on short connections of their own, and says AUTH or SELECT at
//! once. A connection carries the messages of one relay thread. A connection of that first set, an ORIGINAL, is
//! re-opened at once when it is lost; one that has been re-opened before is re-opened only when its thread next has
//! something to send. So only the loss of originals proves a stop.
//!
//! Where a coturn is seen from changes while it lives (balancers, NAT). Servers with the same user and database are
//! KIN: what closed at one and was opened at another at once may be one coturn's, and is no stop.

mod kept;
mod names;

use std::{
    collections::{HashMap, VecDeque},
    net::IpAddr,
    sync::Arc,
};

use turnhook_reducer::{
    source::{Gap, GapReason},
    time::Timestamp,
};

pub(super) use self::kept::Kept;
use super::{
    refusals::Refusals,
    server::{BACK, Closing, KEPT, START, Server},
};
use crate::signal::{Signal, TurnAwayReason};

/// All connections of a server that stops close within this, in milliseconds.
const BURST: u64 = 1_000;
/// A connection that has not said for so long whose it is, in milliseconds, is no coturn's (measured: 1 s at most).
const SILENT: u64 = 5_000;
/// The most servers of one remote machine, and of all: names are made up easily.
const OF_ONE: usize = 256;
const OF_ALL: usize = 4_096;
/// The most connections of one server that are remembered as away, and addresses that were turned away.
const REMEMBERED: usize = 1_024;

/// Who ended a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ClosedBy {
    /// The other end: it closed or reset it, or its machine did so when its process died.
    Server,
    /// The listener: a limit, or its own stop.
    Us,
    /// The network between: nothing came back for too long.
    Network,
}

/// What the connections of the listener say about the servers behind them.
#[derive(Debug, Default)]
pub struct ServerTracker {
    connections: HashMap<u64, Connection>,
    servers: HashMap<Arc<[u8]>, Server>,
    /// How many of them are of one remote machine.
    names: HashMap<IpAddr, usize>,
    refusals: Refusals,
    /// Addresses that were turned away though a coturn may be there: first and last time.
    refused: HashMap<IpAddr, (Timestamp, Timestamp)>,
    /// The earliest deadline of all servers, unless it has to be looked for.
    next: Option<Option<Timestamp>>,
    out: VecDeque<Signal>,
}

#[derive(Debug)]
struct Connection {
    peer: IpAddr,
    accepted: Timestamp,
    server: Option<Arc<[u8]>>,
    /// It did what no relay thread does, and says nothing about a server's life.
    tool: bool,
    original: bool,
    /// The relay threads whose messages it carried: one, if it is coturn's own.
    threads: Vec<u16>,
}

impl ServerTracker {
    /// A connection was accepted.
    pub fn accepted(&mut self, id: u64, peer: IpAddr, at: Timestamp) {
        let connection = Connection {
            peer,
            accepted: at,
            server: None,
            tool: false,
            original: false,
            threads: Vec::new(),
        };
        self.connections.insert(id, connection);
    }

    /// A connection, or one that was never accepted, was turned away.
    pub fn turned_away(&mut self, reason: TurnAwayReason, peer: IpAddr, at: Timestamp) {
        self.refusals.note(reason, peer, at);
        self.refusals.emit(at, &mut self.out);
        if reason == TurnAwayReason::NotRedis {
            return;
        }
        if self.refused.len() >= REMEMBERED && !self.refused.contains_key(&peer) {
            let oldest = self.refused.iter().min_by_key(|(_, (_, last))| *last);
            if let Some(oldest) = oldest.map(|(peer, _)| *peer) {
                self.refused.remove(&oldest);
            }
        }
        let (first, last) = self.refused.entry(peer).or_insert((at, at));
        if at.since(*last) > KEPT {
            *first = at;
        }
        *last = at;
    }

    /// A server's connection logged in rightly and found no place: what it has to say is missed for certain.
    pub fn no_place(&mut self, server: &Arc<[u8]>, peer: IpAddr, at: Timestamp) {
        self.turned_away(TurnAwayReason::NoPlace, peer, at);
        if let Some(entry) = self.servers.get_mut(server) {
            let (_, to) = entry.unheard.get_or_insert((at, at));
            *to = at;
            self.next = None;
        }
    }

    /// A connection named its server. It may do so again, as long as nobody published on it. False where there
    /// are too many servers.
    pub fn identified(&mut self, id: u64, server: &Arc<[u8]>, at: Timestamp) -> bool {
        let Some(connection) = self.connections.get_mut(&id) else {
            return true;
        };
        if connection.tool || connection.server.as_ref() == Some(server) {
            return true;
        }
        let (peer, accepted) = (connection.peer, connection.accepted);
        self.look_again(id, at);
        self.disown(id, at);
        if !self.make_room(server, peer) {
            return false;
        }
        self.next = None;
        let refused = self
            .refused
            .get(&peer)
            .filter(|(_, last)| at.since(*last) <= KEPT);
        let entry = entry(&mut self.servers, server, peer, at);
        if entry.open.is_empty() {
            entry.generation = accepted;
            entry.pristine = true;
        }
        let started = entry.started_with(accepted);
        let original = entry.pristine && started;
        entry.open.insert(id);
        entry.appeared(at);
        // Somebody is there: whatever closed before was no stop.
        entry.closing = None;
        entry.stop_due = None;
        if let Some(heard) = entry.away.pop_front() {
            entry.came_back(server, heard, at);
        } else {
            if !started && entry.strays.len() < REMEMBERED {
                entry.strays.push_back(accepted);
            }
            if let Some((first, last)) = refused
                && *last > entry.refusals_reported
            {
                self.out.push_back(Signal::Gap(Gap {
                    from: (*first).max(entry.refusals_reported),
                    to: at,
                    reason: GapReason::TurnedAway,
                    server: Some(Box::from(&server[..])),
                }));
            }
        }
        entry.refusals_reported = at;
        if let Some(connection) = self.connections.get_mut(&id) {
            connection.original = original;
            connection.server = Some(Arc::clone(server));
        }
        true
    }

    /// A connection published for the first time, as this server: from now on it is nobody else's. False where there
    /// are too many servers.
    pub fn published(&mut self, id: u64, server: &Arc<[u8]>, at: Timestamp) -> bool {
        if let Some(connection) = self.connections.get_mut(&id) {
            // Whatever else it can do, it says what coturn says.
            connection.tool = false;
        }
        if !self.identified(id, server, at) {
            return false;
        }
        if let Some(entry) = self.servers.get_mut(server) {
            self.next = None;
            entry.show(server, at, &mut self.out);
            entry.returned(server, &mut self.out);
        }
        true
    }

    /// A connection carries messages of this relay thread, and did not before.
    pub fn carries(&mut self, id: u64, thread: u16, at: Timestamp) {
        let Some(connection) = self.connections.get_mut(&id) else {
            return;
        };
        let Some(server) = &connection.server else { return };
        let Some(entry) = self.servers.get_mut(server) else {
            return;
        };
        if connection.threads.contains(&thread) {
            return;
        }
        connection.threads.push(thread);
        let count = entry.threads.entry(thread).or_default();
        *count += 1;
        if *count == 1 {
            let server = Arc::clone(server);
            self.out.push_back(Signal::ThreadConnected { at, server, thread });
        }
    }

    /// A connection did what no relay thread of coturn does.
    pub fn tool(&mut self, id: u64, at: Timestamp) {
        let Some(connection) = self.connections.get_mut(&id) else {
            return;
        };
        // What has published is a coturn's, or as good as one.
        if connection.threads.is_empty() && !connection.tool {
            connection.tool = true;
            self.look_again(id, at);
            self.disown(id, at);
        }
    }

    /// A connection is of no server any more, as far as is known.
    fn disown(&mut self, id: u64, at: Timestamp) {
        let server = self.connections.get_mut(&id).and_then(|c| c.server.take());
        if let Some(entry) = server.and_then(|s| self.servers.get_mut(&s))
            && entry.open.remove(&id)
            && entry.open.is_empty()
        {
            self.next = None;
            entry.vanished(at);
        }
    }

    /// A connection sent `KEYS`: its server has just been started. It is a short one, and no relay thread's. False
    /// where there are too many servers.
    pub fn keys(&mut self, id: u64, server: &Arc<[u8]>, at: Timestamp) -> bool {
        self.tool(id, at);
        let Some(peer) = self.connections.get(&id).map(|c| c.peer) else {
            return true;
        };
        if !self.make_room(server, peer) {
            return false;
        }
        self.next = None;
        let entry = entry(&mut self.servers, server, peer, at);
        entry.keys = Some(at);
        entry.started();
        let fresh = entry.open.is_empty() || at.since(entry.generation) <= START;
        // All that it had before was closed, by its side, before anything of now was opened.
        if fresh
            && let Some(emptied) = entry.emptied.take()
            && emptied.by_server
        {
            entry.closing = None;
            entry.stop_due = None;
            // Nothing was missed while there was nobody to say anything.
            entry.away.clear();
            entry.back = None;
            self.out.push_back(Signal::ServerRestarted {
                at: emptied.last,
                server: Arc::clone(server),
            });
        }
        if entry.pristine {
            for id in &entry.open {
                if let Some(c) = self.connections.get_mut(id) {
                    c.original |= at.since(c.accepted) <= START;
                }
            }
        }
        true
    }

    /// A connection is no more. `heard`: until when all that was sent on it has surely been received.
    pub fn closed(&mut self, id: u64, by: ClosedBy, heard: Timestamp, at: Timestamp) {
        self.look_again(id, at);
        let Some(connection) = self.connections.remove(&id) else {
            return;
        };
        let Some(server) = connection.server else { return };
        let Some(entry) = self.servers.get_mut(&server) else {
            return;
        };
        if !entry.open.remove(&id) {
            return;
        }
        self.next = None;
        for thread in connection.threads {
            let left = entry.threads.get_mut(&thread).map_or(0, |count| {
                *count = count.saturating_sub(1);
                *count
            });
            if left == 0 {
                entry.threads.remove(&thread);
                let server = Arc::clone(&server);
                self.out.push_back(Signal::ThreadDisconnected {
                    at,
                    server,
                    thread,
                    heard,
                });
            }
        }
        entry.pristine = false;
        entry.keys = None;
        if entry.away.len() < REMEMBERED {
            entry.away.push_back(heard);
        }
        let by_server = by == ClosedBy::Server;
        let closing = match entry.closing {
            Some(c) if at.since(c.last) <= BACK => Closing {
                last: at,
                by_server: c.by_server && by_server,
                original: c.original || connection.original,
                ..c
            },
            _ => Closing {
                first: at,
                last: at,
                by_server,
                original: connection.original,
            },
        };
        entry.closing = Some(closing);
        if entry.open.is_empty() {
            entry.vanished(at);
            entry.emptied = Some(closing);
            if closing.by_server && closing.original && closing.last.since(closing.first) <= BURST {
                entry.stop_due = Some(at.plus(BACK));
            }
        }
    }

    /// A connection that had not said whose it is has turned out to be nobody's: a stop that waited for that is due.
    fn look_again(&mut self, id: u64, at: Timestamp) {
        let Some(c) = self.connections.get(&id).filter(|c| c.server.is_none()) else {
            return;
        };
        for entry in self.servers.values_mut().filter(|s| s.peer == c.peer) {
            if let (Some(due), Some(closing)) = (&mut entry.stop_due, entry.closing) {
                *due = (*due).min(at.max(closing.last.plus(BACK)));
                self.next = None;
            }
        }
    }

    /// Time has come to `now`.
    pub fn tick(&mut self, now: Timestamp) {
        self.refusals.emit(now, &mut self.out);
        if self.earliest().is_none_or(|due| due > now) {
            return;
        }
        self.next = None;
        // The order of a map is no order.
        let mut due: Vec<Arc<[u8]>> = self
            .servers
            .iter()
            .filter(|(_, s)| s.deadline().is_some_and(|d| d <= now))
            .map(|(name, _)| Arc::clone(name))
            .collect();
        due.sort();
        for name in &due {
            self.resettle(name, now);
        }
        let mut stopped = Vec::new();
        for name in due {
            let Some(entry) = self.servers.get_mut(&name) else {
                continue;
            };
            entry.emit(&name, now, &mut self.out);
            if entry.stop_due.is_none_or(|due| due > now) {
                continue;
            }
            entry.stop_due = None;
            let Some(closing) = entry.closing else { continue };
            // One that was opened in time and has not said whose it is may be this server's: soon that will be known.
            let in_time = |at: Timestamp| at >= closing.first && at <= closing.last.plus(BACK);
            let maybe = |c: &&Connection| {
                c.peer == entry.peer && c.server.is_none() && !c.tool && in_time(c.accepted)
            };
            let known = self
                .connections
                .values()
                .filter(maybe)
                .map(|c| c.accepted.plus(SILENT));
            match known.filter(|known| *known > now).max() {
                Some(known) => entry.stop_due = Some(known),
                None => {
                    entry.stop(closing.last);
                    stopped.push((closing.last, name));
                }
            }
        }
        stopped.sort();
        for (at, server) in stopped {
            self.out.push_back(Signal::ServerStopped { at, server });
        }
    }

    fn earliest(&mut self) -> Option<Timestamp> {
        let servers = &self.servers;
        *self
            .next
            .get_or_insert_with(|| servers.values().filter_map(Server::deadline).min())
    }

    /// When [`ServerTracker::tick`] has something to do next.
    #[must_use]
    pub fn deadline(&mut self) -> Option<Timestamp> {
        [self.earliest(), self.refusals.deadline()]
            .into_iter()
            .flatten()
            .min()
    }

    /// What there is to emit, in order.
    pub fn signals(&mut self) -> impl Iterator<Item = Signal> {
        self.out.drain(..)
    }
}

fn entry<'s>(
    servers: &'s mut HashMap<Arc<[u8]>, Server>,
    server: &Arc<[u8]>,
    peer: IpAddr,
    at: Timestamp,
) -> &'s mut Server {
    servers
        .entry(Arc::clone(server))
        .or_insert_with(|| Server::new(peer, at))
}

#[cfg(test)]
#[path = "tracker_tests.rs"]
mod tests;
