//! The state machine. One [`Reducer`] serves one source.
//!
//! An input carries its time. Before it takes effect, all deadlines before that time fire, each at its own
//! time; deadlines at the very time of an input fire after it. What came of it is taken with
//! [`Reducer::drain`]: events and rows, to be committed together before anything is sent.

mod cluster;
mod deadlines;
mod ended;
mod ending;
mod enforce;
mod groups;
mod halves;
mod healing;
mod hearing;
mod kin;
mod leftovers;
mod max_session;
mod messages;
mod names;
mod opening;
mod outgoing;
mod output;
mod parked;
mod peer_leg;
mod read_row;
mod report;
mod restore;
mod rows;
mod servers;
mod sessions;
mod settle;
mod silence;
mod snapshot;
mod together;
mod unconfirmed;

use std::{
    cmp::Reverse,
    collections::{BinaryHeap, VecDeque},
    hash::BuildHasher,
};

use hashbrown::{DefaultHashBuilder, HashSet};

use cluster::Cluster;
use hearing::Hearing;
pub use hearing::HearsSince;
use outgoing::Outgoing;
pub use output::{Notice, Output, Stats};
pub use read_row::RestoreError;
pub use restore::Restoring;
pub use silence::{SilenceLook, SilentThread};
pub use together::TOGETHER;

use crate::{
    allocation::{Allocation, Dirty},
    aside::{Aside, Tombstone, Unconfirmed},
    block::Enforcing,
    deadline::Deadline,
    groups::Groups,
    identity::Identity,
    index::Index,
    intern::{NONE, Names},
    internal::{Broken, InternalErrors},
    key::Key,
    labels::Labels,
    leftover::Leftover,
    message::AllocationId,
    peer_leg::Known,
    rules::Rules,
    servers::{Ending, Servers},
    session::Session,
    slots::Slots,
    snapshot::Refused,
    source::Gap,
    time::Timestamp,
    wall::Wall,
};

/// A server, as [`Reducer::server`] numbered it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ServerRef(pub(crate) u32);

impl ServerRef {
    /// Nobody knows which (`redis` sources).
    pub const UNKNOWN: ServerRef = ServerRef(NONE);
}

/// The state machine of one source.
#[derive(Debug)]
pub struct Reducer {
    pub(crate) identity: Identity,
    pub(crate) rules: Rules,
    pub(crate) now: Timestamp,

    pub(crate) names: Names,
    pub(crate) labels: Labels,
    pub(crate) servers: Servers,
    /// Reports of which one half was heard.
    pub(crate) halves: halves::Halves,
    /// Open allocations of which the operator knows that their realm was switched.
    pub(crate) switched_realms: HashSet<u32>,
    pub(crate) leftovers: Aside<Leftover>,
    /// How many were billed in sessions of their own: part of those sessions' ids.
    pub(crate) leftovers_billed: u64,
    /// Whether the peer leg is reported, as far as is known.
    pub(crate) peer_leg: Known,
    pub(crate) wall: Wall,
    /// Servers that have stopped, or were started anew, and whose allocations have yet to end.
    pub(crate) ending: VecDeque<Ending>,
    pub(crate) groups: Groups,
    pub(crate) allocations: Slots<Allocation>,
    pub(crate) allocation_table: Index,
    pub(crate) sessions: Slots<Session>,
    pub(crate) tombstones: Aside<Tombstone>,
    pub(crate) tombstone_table: Index,
    pub(crate) unconfirmed: Aside<Unconfirmed>,
    pub(crate) unconfirmed_table: Index,
    /// Of their realms and usernames.
    pub(crate) unconfirmed_bytes: usize,
    /// Seeded at random, and never seen from outside: no table is iterated.
    pub(crate) hasher: DefaultHashBuilder,

    /// Deadlines of allocations and sessions; an entry is stale unless its owner's `wake` is its time.
    pub(crate) deadlines: BinaryHeap<Reverse<Deadline>>,
    /// Several allocations may end at this instant: sessions are looked at when all of them have.
    pub(crate) reviews_wait: bool,

    /// Whether the source hears, and since when.
    pub(crate) hearing: Hearing,
    /// Until when allocations heard of without `new` count deltas only, after an early eviction.
    pub(crate) evicted_until: Timestamp,
    /// How many were evicted at the last instant at which one was.
    pub(crate) evicted_at_once: u16,
    pub(crate) refused: Refused,

    /// What the next [`Reducer::drain`] takes.
    pub(crate) outgoing: Outgoing,
    pub(crate) enforcing: Enforcing,
    pub(crate) internal_errors: InternalErrors,

    /// What only a source that several nodes share needs.
    pub(crate) cluster: Cluster,
}

impl Reducer {
    /// A reducer that has heard of nothing yet. It is deaf until [`Reducer::hearing`].
    #[must_use]
    pub fn new(identity: Identity, rules: Rules) -> Reducer {
        Reducer {
            identity,
            rules,
            now: Timestamp(0),
            names: Names::default(),
            labels: Labels::default(),
            servers: Servers::default(),
            halves: halves::Halves::default(),
            switched_realms: HashSet::new(),
            leftovers: Aside::default(),
            leftovers_billed: 0,
            peer_leg: Known::default(),
            wall: Wall::default(),
            ending: VecDeque::new(),
            groups: Groups::default(),
            allocations: Slots::new(),
            allocation_table: Index::default(),
            sessions: Slots::new(),
            tombstones: Aside::default(),
            tombstone_table: Index::default(),
            unconfirmed: Aside::default(),
            unconfirmed_table: Index::default(),
            unconfirmed_bytes: 0,
            hasher: DefaultHashBuilder::default(),
            deadlines: BinaryHeap::new(),
            reviews_wait: false,
            hearing: Hearing::default(),
            evicted_until: Timestamp(0),
            evicted_at_once: 0,
            refused: Refused::default(),
            outgoing: Outgoing::default(),
            enforcing: Enforcing::default(),
            internal_errors: InternalErrors::default(),
            cluster: Cluster::default(),
        }
    }

    /// The time of the last input or deadline.
    #[must_use]
    pub fn now(&self) -> Timestamp {
        self.now
    }

    /// Open and closing allocations.
    #[must_use]
    pub fn open_allocations(&self) -> usize {
        self.allocations.len()
    }

    /// Sessions that have not ended.
    #[must_use]
    pub fn open_sessions(&self) -> usize {
        self.sessions.len()
    }

    /// Tombstones and unconfirmed ids kept.
    #[must_use]
    pub fn kept_aside(&self) -> (usize, usize) {
        (self.tombstones.len(), self.unconfirmed.len())
    }

    /// The bounds of tables from now on: how many allocations a server may have open, ids that only had traffic, and
    /// tombstones. What is beyond a lower one goes with the next that comes. Whether any has changed.
    pub fn set_limits(&mut self, allocations: usize, unconfirmed: usize, tombstones: usize) -> bool {
        let rules = &mut self.rules;
        let mut changed = false;
        for (limit, now) in [
            (&mut rules.allocation_limit, allocations),
            (&mut rules.unconfirmed_limit, unconfirmed),
            (&mut rules.tombstone_limit, tombstones),
        ] {
            changed |= std::mem::replace(limit, now) != now;
        }
        changed
    }

    /// What happened so far.
    #[must_use]
    pub fn stats(&self) -> Stats {
        Stats {
            internal_errors: self.internal_errors.count(),
            ..self.outgoing.stats()
        }
    }

    /// Invariants that did not hold, since the last time that they were taken.
    #[must_use]
    pub fn take_broken(&self) -> Broken {
        self.internal_errors.take_broken()
    }

    /// An invariant does not hold: see [`InternalErrors::broken`].
    pub(crate) fn broken(&self, what: &'static str) {
        self.internal_errors.broken(what);
    }

    /// Numbers a server, so that each of its messages need not name it. The number holds until another server is
    /// numbered: one of which nothing is kept, and that has no connection, is then forgotten if there are many.
    pub fn server(&mut self, name: &[u8]) -> ServerRef {
        if self.servers.find(name).is_none() && self.servers.are_many() {
            self.forget_servers();
        }
        ServerRef(self.servers.slot(name))
    }

    /// Takes what has happened. With `all`, also counters that merely moved: their loss would be healed by
    /// totals, so they are due only every few seconds. Not more than some ten thousand of these at once: see
    /// [`Reducer::unsaved`].
    pub fn drain(&mut self, all: bool) -> Output {
        self.collect_changes(all);
        self.outgoing.take()
    }

    /// Allocations of which only counters moved, and that wait for a [`Reducer::drain`] of all.
    #[must_use]
    pub fn unsaved(&self) -> usize {
        self.outgoing.unsaved()
    }

    /// Events and records that wait for [`Reducer::drain`].
    #[must_use]
    pub fn pending_events(&self) -> usize {
        self.outgoing.events()
    }

    /// Whether [`Reducer::drain`] has something that must not wait.
    #[must_use]
    pub fn is_pending(&self) -> bool {
        self.outgoing.is_urgent()
    }

    pub(crate) fn key<'a>(
        &self,
        server: u32,
        id: AllocationId,
        realm: &'a [u8],
        username: &'a [u8],
    ) -> Key<'a> {
        Key::with_hash(server, id, realm, username, self.hash(server, id, username))
    }

    /// Under which an allocation stands in the tables.
    pub(crate) fn hash(&self, server: u32, id: AllocationId, username: &[u8]) -> u64 {
        self.hasher.hash_one((server, id.0, username))
    }

    /// The hash under which an entry with these parts stands in a table.
    pub(crate) fn hash_of(
        hasher: &DefaultHashBuilder,
        names: &Names,
        server: u32,
        id: AllocationId,
        name: u32,
    ) -> u64 {
        hasher.hash_one((server, id.0, names.username(name)))
    }

    pub(crate) fn names_match(&self, key: &Key<'_>, server: u32, id: AllocationId, name: u32) -> bool {
        id == key.id && server == key.server && self.names.is(name, key.realm, key.username)
    }

    /// By id and 64 bits of a hash with a random seed, in place of server and username: two allocations with one id
    /// share the hash once in 10^19 times.
    pub(crate) fn find_allocation(&self, key: &Key<'_>) -> Option<u32> {
        let is = |slot: &u32| {
            self.allocation(*slot).is_some_and(|a| {
                a.hash == key.hash && a.id == key.id && self.names.realm(a.name) == key.realm
            })
        };
        self.allocation_table.find(key.hash, is)
    }

    pub(crate) fn allocation(&self, slot: u32) -> Option<&Allocation> {
        self.allocations.get(slot as usize)
    }

    pub(crate) fn find_tombstone(&self, key: &Key<'_>) -> Option<u32> {
        let is = |slot: &u32| {
            self.tombstones
                .get(*slot)
                .is_some_and(|t| self.names_match(key, t.server, t.id, t.name))
        };
        self.tombstone_table.find(key.hash, is)
    }

    pub(crate) fn find_unconfirmed(&self, key: &Key<'_>) -> Option<u32> {
        let is = |slot: &u32| {
            self.unconfirmed
                .get(*slot)
                .is_some_and(|u| self.names_match(key, u.server, u.id, u.name))
        };
        self.unconfirmed_table.find(key.hash, is)
    }

    /// Marks an allocation for the next commit, or for the next one that saves everything.
    pub(crate) fn mark(&mut self, slot: u32, dirty: Dirty) {
        let Some(a) = self.allocations.get_mut(slot as usize) else {
            return self.broken("no allocation to mark");
        };
        self.outgoing.allocation(slot, &mut a.dirty, dirty);
    }

    /// Marks a session for the next commit.
    pub(crate) fn mark_session(&mut self, slot: u32) {
        let Some(s) = self.sessions.get_mut(slot as usize) else {
            return self.broken("no session to mark");
        };
        self.outgoing.session(slot, &mut s.dirty);
    }

    /// The source hears nothing from now on: nothing expires until it hears again.
    pub fn deaf(&mut self, at: Timestamp) {
        self.begin(at);
        self.hearing.deafen(self.now);
        self.outgoing.source();
    }

    /// The source is deaf: up to when all was heard, where that is earlier than was known.
    pub fn heard_until(&mut self, at: Timestamp) {
        if let Some(since) = self.hearing.unheard_since()
            && at < since
        {
            self.hearing.unheard(Some(at));
            self.outgoing.source();
        }
    }

    /// Since when nothing was heard, as far as no gap is on record for it: since before a restart, perhaps. `None`
    /// while the source hears, and before it ever did.
    #[must_use]
    pub fn unheard_since(&self) -> Option<Timestamp> {
        self.hearing.unheard_since()
    }

    /// A gap up to `until` is on record for what was not heard, and still is not.
    pub fn unheard_is_on_record(&mut self, until: Timestamp) {
        self.hearing.unheard(Some(until));
        self.outgoing.source();
    }

    /// The source hears again.
    pub fn hearing(&mut self, at: Timestamp) {
        self.begin(at);
        if self.hearing.hear(self.now) {
            self.outgoing.source();
        }
    }

    /// Since when nothing was missed; `None` while the source is deaf. It is in no row: what was silent before a start
    /// may only have been missed.
    #[must_use]
    pub fn hears_since(&self) -> Option<HearsSince> {
        let (all, servers) = self.hearing.all_since()?;
        let named = servers.filter_map(|(server, since)| Some((self.servers.owned(server)?, since)));
        Some(HearsSince {
            all,
            servers: named.collect(),
        })
    }

    /// Where a recording that began in the midst is replayed: since when nothing had been missed. After
    /// [`Reducer::hearing`].
    pub fn heard_since(&mut self, heard: &HearsSince) {
        self.hearing.heard_since(heard.all.min(self.now));
        for (server, since) in &heard.servers {
            let server = self.servers.slot(server);
            self.hearing.missed(Some(server), (*since).min(self.now));
        }
        let open: Vec<u32> = self.allocations.iter().map(|(slot, _)| slot as u32).collect();
        for slot in open {
            self.arm_allocation(slot);
        }
    }

    /// From now on the wall clock is `ahead` milliseconds ahead of the time of the inputs (negative: behind). That
    /// time never goes back; times in events follow the wall clock at once, but for sessions of which a later time was
    /// emitted already.
    pub fn wall_clock(&mut self, at: Timestamp, ahead: i64) {
        self.begin(at);
        if self.wall.set(self.now, ahead) {
            self.outgoing.source();
        }
    }

    /// Messages may have been missed: an allocation that was to be refreshed meanwhile is given one more
    /// lifetime from the end of the gap. Where time stood still (a stall), hand the gap in with `at` its
    /// start: nothing then expires for the time that was slept through.
    pub fn gap(&mut self, at: Timestamp, gap: &Gap) {
        self.begin(at);
        self.note_gap(gap);
        let server = gap.server.as_deref().map(|server| self.servers.slot(server));
        self.hearing.missed(server, gap.to);
        self.outgoing.source();
    }
}
