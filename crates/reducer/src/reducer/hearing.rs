//! Whether a source is heard, and since when: what was silent before that may only have been missed.

use std::collections::BTreeMap;

use hashbrown::HashMap;

use crate::time::Timestamp;

/// Since when nothing was missed of a source: [`crate::Reducer::hears_since`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HearsSince {
    /// Of any server.
    pub all: Timestamp,
    /// Servers of which it is later.
    pub servers: Vec<(Box<[u8]>, Timestamp)>,
}

#[derive(Debug)]
pub(crate) struct Hearing {
    /// The source hears nothing at all.
    deaf: bool,
    /// Since when it does not, but for what is on record as a gap; none before anything was ever heard.
    unheard_since: Option<Timestamp>,
    /// Since when nothing was missed of any server.
    since: Timestamp,
    /// The same of single servers, where that is later.
    servers: BTreeMap<u32, Timestamp>,
    /// Relay threads of which it was heard whether they have a connection open (`direct` sources).
    threads: HashMap<(u32, u16), bool>,
    /// When the snapshot that is under way began.
    snapshot_since: Option<Timestamp>,
}

impl Default for Hearing {
    /// Deaf until it first hears.
    fn default() -> Hearing {
        Hearing {
            deaf: true,
            unheard_since: None,
            since: Timestamp(0),
            servers: BTreeMap::new(),
            threads: HashMap::new(),
            snapshot_since: None,
        }
    }
}

impl Hearing {
    pub(super) fn is_deaf(&self) -> bool {
        self.deaf
    }

    pub(super) fn deafen(&mut self, now: Timestamp) {
        self.deaf = true;
        self.unheard_since.get_or_insert(now);
    }

    /// Since when nothing was heard that is not on record as a gap.
    pub(super) fn unheard_since(&self) -> Option<Timestamp> {
        self.unheard_since
    }

    /// Nothing was heard since then, or all was.
    pub(super) fn unheard(&mut self, since: Option<Timestamp>) {
        self.unheard_since = since;
    }

    /// The source hears: whether it did not before. Of its threads nothing is known any more.
    pub(super) fn hear(&mut self, now: Timestamp) -> bool {
        self.threads.clear();
        self.unheard_since = None;
        let was_deaf = std::mem::replace(&mut self.deaf, false);
        if was_deaf {
            self.since = now;
        }
        was_deaf
    }

    /// Messages may have been missed until then, of one server or of all.
    pub(super) fn missed(&mut self, server: Option<u32>, until: Timestamp) {
        let since = match server {
            Some(server) => self.servers.entry(server).or_default(),
            None => &mut self.since,
        };
        *since = (*since).max(until);
    }

    /// Up to when statuses of this server's allocations may have been missed: expiry counts from then.
    pub(super) fn since(&self, server: u32) -> Timestamp {
        let of_server = self.servers.get(&server).copied().unwrap_or_default();
        of_server.max(self.since)
    }

    /// The same of all servers, and of those of which it is later; `None` while nothing is heard.
    pub(super) fn all_since(&self) -> Option<(Timestamp, impl Iterator<Item = (u32, Timestamp)>)> {
        let later = self.servers.iter().filter(|(_, since)| **since > self.since);
        (!self.deaf).then(|| (self.since, later.map(|(server, since)| (*server, *since))))
    }

    /// It has heard since then already.
    pub(super) fn heard_since(&mut self, since: Timestamp) {
        self.since = since;
    }

    /// What another reducer of the same source heard counts from now on; `number` is the number here of its server.
    pub(super) fn take_over(&mut self, other: &Hearing, mut number: impl FnMut(u32) -> u32) {
        self.deaf = other.deaf;
        self.unheard_since = other.unheard_since;
        self.since = self.since.max(other.since);
        for (server, since) in &other.servers {
            self.servers.insert(number(*server), *since);
        }
        // Which connections there are is no state: what a follower heard of them is all that is known.
        for ((server, thread), connected) in &other.threads {
            self.threads.insert((number(*server), *thread), *connected);
        }
    }

    /// The servers with a connection open.
    pub(super) fn connected(&self) -> impl Iterator<Item = u32> {
        let open = self.threads.iter().filter(|(_, connected)| **connected);
        open.map(|((server, _), _)| *server)
    }

    /// What is known of servers that are forgotten.
    pub(super) fn forget_servers(&mut self, stays: impl Fn(u32) -> bool) {
        self.threads.retain(|(server, _), _| stays(*server));
        self.servers.retain(|server, _| stays(*server));
    }

    pub(super) fn thread(&mut self, server: u32, thread: u16, connected: bool) {
        self.threads.insert((server, thread), connected);
    }

    /// Whether a relay thread has a connection open; `None` where nothing was heard of that.
    pub(super) fn is_connected(&self, server: u32, thread: u16) -> Option<bool> {
        self.threads.get(&(server, thread)).copied()
    }

    /// Whether connections of relay threads are heard of at all.
    pub(super) fn knows_threads(&self) -> bool {
        !self.threads.is_empty()
    }

    /// When the snapshot that is under way began.
    pub(super) fn snapshot_since(&self) -> Option<Timestamp> {
        self.snapshot_since
    }

    pub(super) fn begin_snapshot(&mut self, now: Timestamp) {
        self.snapshot_since = Some(now);
    }

    pub(super) fn end_snapshot(&mut self) {
        self.snapshot_since = None;
    }
}
