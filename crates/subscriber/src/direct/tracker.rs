//! Which servers are there, and which have stopped: METERING.md, "Servers (`direct`)". Pure: time is an input.
//!
//! What is known of a live coturn (measured): every thread opens its connection at start, all within
//! milliseconds of the `KEYS` that its auth workers send on short connections of their own. A connection of
//! that first set, an ORIGINAL, is re-opened at once when it is lost; one that has been re-opened before is
//! re-opened only when its thread next has something to send. So only the loss of originals proves a stop.

use std::{
    collections::{HashMap, HashSet, VecDeque},
    net::IpAddr,
    sync::Arc,
};

use turnhook_reducer::{
    source::{Gap, GapReason},
    time::Timestamp,
};

use crate::signal::Signal;

/// All connections of a server that stops close within this, in milliseconds.
const BURST: u64 = 1_000;
/// A live server's originals are back within this, in milliseconds.
const BACK: u64 = 5_000;
/// A server's first connections are accepted at most this long before or after its `KEYS`, in milliseconds.
const START: u64 = 5_000;
/// Connections that come back together make one gap: so long it waits for more, in milliseconds.
const GATHER: u64 = 1_000;
/// Servers without connections that are remembered, so that names made up by a client take no memory.
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
}

#[derive(Debug)]
struct Server {
    peer: IpAddr,
    open: HashSet<u64>,
    told: bool,
    /// When the first connection came after there had been none.
    generation: Timestamp,
    /// None of this generation has closed yet: what comes is no reconnect.
    pristine: bool,
    /// The last `KEYS`, if no connection closed since.
    keys: Option<Timestamp>,
    closing: Option<Closing>,
    /// The closing that left no connection, until a `KEYS` or its absence has said what it was.
    emptied: Option<Closing>,
    stop_due: Option<Timestamp>,
    /// Connections that closed and are not back: until when each was surely heard.
    away: VecDeque<Timestamp>,
    /// Some came back: the gap to tell, and when.
    back: Option<(Gap, Timestamp)>,
}

#[derive(Clone, Copy, Debug)]
struct Closing {
    first: Timestamp,
    last: Timestamp,
    by_server: bool,
    original: bool,
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
        };
        self.connections.insert(id, connection);
    }

    /// A connection named its server. It may do so again, as long as nobody published on it.
    pub fn identified(&mut self, id: u64, server: &Arc<[u8]>, at: Timestamp) {
        let Some(connection) = self.connections.get_mut(&id) else {
            return;
        };
        if connection.tool || connection.server.as_ref() == Some(server) {
            return;
        }
        if let Some(before) = connection.server.replace(Arc::clone(server))
            && let Some(before) = self.servers.get_mut(&before)
        {
            before.open.remove(&id);
        }
        let (peer, accepted) = (connection.peer, connection.accepted);
        let entry = entry(&mut self.servers, server, peer, at);
        if entry.open.is_empty() {
            entry.generation = accepted;
            entry.pristine = true;
        }
        let started = entry
            .keys
            .is_some_and(|k| k.since(accepted) <= START && accepted.since(k) <= START);
        let original = entry.pristine && started;
        entry.open.insert(id);
        // Somebody is there: whatever closed before was no stop.
        entry.closing = None;
        entry.stop_due = None;
        if let Some(heard) = entry.away.pop_front() {
            entry.came_back(server, heard, at);
        }
        if let Some(connection) = self.connections.get_mut(&id) {
            connection.original = original;
        }
    }

    /// A connection published: its server is one to show.
    pub fn published(&mut self, id: u64, at: Timestamp) {
        let Some(server) = self.connections.get(&id).and_then(|c| c.server.clone()) else {
            return;
        };
        if let Some(entry) = self.servers.get_mut(&server)
            && !entry.told
        {
            entry.told = true;
            self.out.push_back(Signal::ServerSeen { at, server });
        }
    }

    /// A connection did what no relay thread of coturn does.
    pub fn tool(&mut self, id: u64) {
        let Some(connection) = self.connections.get_mut(&id) else {
            return;
        };
        connection.tool = true;
        if let Some(entry) = connection.server.take().and_then(|s| self.servers.get_mut(&s)) {
            entry.open.remove(&id);
        }
    }

    /// A connection sent `KEYS`: its server has just been started. It is a short one, and no relay thread's.
    pub fn keys(&mut self, id: u64, server: &Arc<[u8]>, at: Timestamp) {
        self.tool(id);
        let Some(peer) = self.connections.get(&id).map(|c| c.peer) else {
            return;
        };
        let entry = entry(&mut self.servers, server, peer, at);
        entry.keys = Some(at);
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
    }

    /// A connection is no more. `heard`: until when all that was sent on it has surely been received.
    pub fn closed(&mut self, id: u64, by: ClosedBy, heard: Timestamp, at: Timestamp) {
        let Some(connection) = self.connections.remove(&id) else {
            return;
        };
        let Some(entry) = connection.server.and_then(|s| self.servers.get_mut(&s)) else {
            return;
        };
        if !entry.open.remove(&id) {
            return;
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
            entry.emptied = Some(closing);
            if closing.by_server && closing.original && closing.last.since(closing.first) <= BURST {
                entry.stop_due = Some(at.plus(BACK));
            }
        }
    }

    /// Time has come to `now`.
    pub fn tick(&mut self, now: Timestamp) {
        let mut stopped = Vec::new();
        for (server, entry) in &mut self.servers {
            if let Some((_, due)) = &entry.back
                && *due <= now
                && let Some((gap, _)) = entry.back.take()
            {
                self.out.push_back(Signal::Gap(gap));
            }
            if entry.stop_due.is_none_or(|due| due > now) {
                continue;
            }
            entry.stop_due = None;
            let Some(closing) = entry.closing else { continue };
            // One that has not said whose it is may be this server's: nothing is proven then.
            let maybe = |c: &Connection| c.peer == entry.peer && c.server.is_none() && !c.tool;
            if !self.connections.values().any(maybe) {
                stopped.push((closing.last, Arc::clone(server)));
            }
        }
        // The order of a map is no order.
        stopped.sort();
        for (at, server) in stopped {
            self.servers.remove(&server);
            self.out.push_back(Signal::ServerStopped { at, server });
        }
    }

    /// When [`ServerTracker::tick`] has something to do next.
    #[must_use]
    pub fn deadline(&self) -> Option<Timestamp> {
        self.servers
            .values()
            .flat_map(|s| [s.stop_due, s.back.as_ref().map(|b| b.1)])
            .flatten()
            .min()
    }

    /// What there is to tell, in order.
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
    if servers.len() >= REMEMBERED && !servers.contains_key(server) {
        servers.retain(|_, s| !s.open.is_empty() || s.stop_due.is_some());
    }
    servers.entry(Arc::clone(server)).or_insert_with(|| Server {
        peer,
        open: HashSet::new(),
        told: false,
        generation: at,
        pristine: true,
        keys: None,
        closing: None,
        emptied: None,
        stop_due: None,
        away: VecDeque::new(),
        back: None,
    })
}

impl Server {
    fn came_back(&mut self, server: &Arc<[u8]>, heard: Timestamp, at: Timestamp) {
        match &mut self.back {
            Some((gap, _)) => {
                gap.from = gap.from.min(heard);
                gap.to = gap.to.max(at);
            }
            None => {
                let server = Some(Box::from(&server[..]));
                let gap = Gap {
                    from: heard,
                    to: at,
                    reason: GapReason::Reconnect,
                    server,
                };
                self.back = Some((gap, at.plus(GATHER)));
            }
        }
    }
}

#[cfg(test)]
#[path = "tracker_tests.rs"]
mod tests;
