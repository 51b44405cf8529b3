//! State as rows. A row says all that is needed to read it, its names included; slots are its keys.

use serde::{Deserialize, Serialize};

use super::Reducer;
use crate::{
    allocation::{Address, Allocation, Details, Dirty, Rare},
    aside::{Tombstone, TombstoneRest},
    event::{CloseReason, SessionId},
    flags::Flags,
    intern::NONE,
    leftover::Leftover,
    peer_leg::Known,
    session::{Past, Phase, Session},
    snapshot::{RefusedAt, RefusedKey},
    state::{Change, Table},
    time::Timestamp,
    usage::{Counters, Legs, Usage},
    wall::Wall,
};

/// The first byte of every row. A row of another format is refused on reading.
pub(crate) const FORMAT: u8 = 1;
/// That of a row with a second part, which follows the first.
pub(crate) const FORMAT_MORE: u8 = 2;

/// The key of the source's own row; refused snapshot keys stand above it.
pub(crate) const SOURCE_KEY: u64 = 0;

#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct DetailsRow<'a> {
    pub(crate) remote: Address,
    #[serde(borrow)]
    pub(crate) local: Option<&'a [u8]>,
    pub(crate) transport: Option<&'a [u8]>,
    pub(crate) tls_version: Option<&'a [u8]>,
    pub(crate) tls_cipher: Option<&'a [u8]>,
}

#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct AllocationRow<'a> {
    pub(crate) id: u64,
    #[serde(borrow)]
    pub(crate) server: Option<&'a [u8]>,
    pub(crate) realm: &'a [u8],
    pub(crate) username: &'a [u8],
    pub(crate) session: Option<u32>,
    pub(crate) opened_at: Timestamp,
    pub(crate) heard_at: Timestamp,
    pub(crate) status_at: Timestamp,
    pub(crate) lifetime: u32,
    pub(crate) legs: Legs,
    pub(crate) details: DetailsRow<'a>,
    pub(crate) flags: Flags,
    pub(crate) rare: Option<Rare>,
}

/// The second part of an allocation's row.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct AllocationMore {
    pub(crate) flags: u16,
    /// How many bytes from peers went on to the client, where that is not all of them.
    pub(crate) sent_on: Option<u64>,
    pub(crate) base_sent_on: u64,
    pub(crate) base_relayed: u64,
    pub(crate) quiet_at: Timestamp,
    pub(crate) copied: bool,
    pub(crate) kin: bool,
    /// The client's half of a report of which the peer's has yet to come.
    pub(crate) half: Option<(Timestamp, Counters)>,
    /// The totals of the life before: see [`Rare`].
    pub(crate) before: Option<Legs>,
    /// When its end was asked for, until when its close is that end, and why: see [`Cut`](crate::allocation::Cut).
    pub(crate) cut: Option<(Timestamp, Timestamp, Box<str>)>,
    pub(crate) withheld: u64,
}

#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct LeftoverRow<'a> {
    /// Its place in the order in which groups left something.
    pub(crate) number: u64,
    pub(crate) id: u64,
    #[serde(borrow)]
    pub(crate) server: Option<&'a [u8]>,
    pub(crate) realm: &'a [u8],
    pub(crate) username: &'a [u8],
    pub(crate) opened_at: Timestamp,
    pub(crate) twin: u16,
    pub(crate) continues: Option<SessionId>,
    pub(crate) usage: Usage,
    pub(crate) relayed: u64,
    pub(crate) inexact: bool,
    pub(crate) withheld: bool,
    pub(crate) last_close: (Timestamp, CloseReason),
    pub(crate) since: Timestamp,
    pub(crate) past: Vec<PastRow<'a>>,
    pub(crate) past_count: u32,
    /// The session that its group's allocations join.
    pub(crate) current: Option<u32>,
}

/// The second part of the source's row.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct SourceMore {
    pub(crate) peer_leg: Known,
    pub(crate) wall: Wall,
    pub(crate) leftovers_billed: u64,
    /// Whoever is killed while it hears nothing leaves this to the next: what was committed meanwhile is later.
    pub(crate) unheard_since: Option<Timestamp>,
}

#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct PastRow<'a> {
    pub(crate) id: u64,
    #[serde(borrow)]
    pub(crate) server: Option<&'a [u8]>,
    pub(crate) realm: &'a [u8],
    pub(crate) username: &'a [u8],
    pub(crate) opened_at: Timestamp,
    pub(crate) opened_seen: bool,
    pub(crate) closed: Option<(Timestamp, CloseReason)>,
    pub(crate) totals_seen: bool,
    pub(crate) details: DetailsRow<'a>,
    pub(crate) part: Legs,
}

#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct SessionRow<'a> {
    pub(crate) id: SessionId,
    pub(crate) continues: Option<SessionId>,
    pub(crate) phase: Phase,
    /// Whether its group's allocations join it.
    pub(crate) current: bool,
    #[serde(borrow)]
    pub(crate) realm: &'a [u8],
    pub(crate) username: &'a [u8],
    pub(crate) started_at: Timestamp,
    pub(crate) sequence: u32,
    pub(crate) last_event_at: Timestamp,
    pub(crate) past: Vec<PastRow<'a>>,
    pub(crate) past_count: u32,
    pub(crate) past_usage: Usage,
    pub(crate) past_relayed: u64,
    pub(crate) billed: Usage,
    pub(crate) inexact: bool,
    pub(crate) last_close: Option<(Timestamp, CloseReason)>,
    pub(crate) last_relayed_close: Option<(Timestamp, CloseReason)>,
    pub(crate) last_counting_close: Timestamp,
    pub(crate) usernames: Vec<(&'a [u8], &'a [u8])>,
}

/// The second part of a session's row.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct SessionMore {
    pub(crate) block_reason: Option<Box<str>>,
}

#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct TombstoneRow<'a> {
    /// Its place in the order in which allocations ended: the first goes first.
    pub(crate) number: u64,
    pub(crate) id: u64,
    #[serde(borrow)]
    pub(crate) server: Option<&'a [u8]>,
    pub(crate) realm: &'a [u8],
    pub(crate) username: &'a [u8],
    pub(crate) opened_at: Timestamp,
    pub(crate) heard_at: Timestamp,
    pub(crate) rest: TombstoneRest,
}

#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct SourceRow {
    pub(crate) evicted_until: Timestamp,
    pub(crate) evicted_at_once: u16,
}

#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct RefusedRow {
    pub(crate) key: RefusedKey,
    pub(crate) refused: RefusedAt,
}

impl Reducer {
    /// A row's bytes. Writing to memory cannot fail; a row that could not be written is an empty one, which is refused
    /// on reading.
    fn encode<T: Serialize>(&self, row: &T) -> Vec<u8> {
        let mut start = Vec::with_capacity(160);
        start.push(FORMAT);
        self.written(postcard::to_extend(row, start))
    }

    /// The same with a second part, where that says anything.
    fn encode_with<T: Serialize, M: Serialize + Default + PartialEq>(&self, row: &T, more: &M) -> Vec<u8> {
        let mut bytes = self.encode(row);
        if *more == M::default() {
            return bytes;
        }
        if let Some(format) = bytes.first_mut() {
            *format = FORMAT_MORE;
        }
        self.written(postcard::to_extend(more, bytes))
    }

    fn written(&self, bytes: postcard::Result<Vec<u8>>) -> Vec<u8> {
        bytes.unwrap_or_else(|_| {
            self.broken("a row that cannot be written");
            Vec::new()
        })
    }

    /// All of the state as rows, without taking anything: what [`Reducer::restore`] would go on from.
    #[must_use]
    pub fn dump(&self) -> Vec<Change> {
        self.rows().collect()
    }

    /// The rows of [`Reducer::dump`], one at a time: all of them at once are much where there are many allocations.
    pub fn rows(&self) -> impl Iterator<Item = Change> + Send + '_ {
        fn change(table: Table, key: u64, value: Vec<u8>) -> Change {
            Change {
                table,
                key,
                value: Some(value),
            }
        }
        let allocations = self.allocations.iter();
        let allocations = allocations.map(move |(slot, a)| {
            change(
                Table::Allocation,
                slot as u64,
                self.allocation_row(slot as u32, a),
            )
        });
        let sessions = self.sessions.iter();
        let sessions = sessions
            .map(move |(slot, s)| change(Table::Session, slot as u64, self.session_row(slot as u32, s)));
        let tombstones = self.tombstones.iter();
        let tombstones = tombstones
            .map(move |(slot, t)| change(Table::Tombstone, u64::from(slot), self.tombstone_row(slot, t)));
        let refused = self.refused.iter();
        let refused = refused.map(move |(key, refused)| {
            let row = RefusedRow {
                key: key.clone(),
                refused,
            };
            change(Table::Source, SOURCE_KEY + 1 + refused.row, self.encode(&row))
        });
        let leftovers = self.leftovers.iter();
        let leftovers =
            leftovers.map(|(slot, l)| change(Table::Leftover, u64::from(slot), self.leftover_row(slot, l)));
        let source = change(Table::Source, SOURCE_KEY, self.source_row());
        allocations
            .chain(sessions)
            .chain(tombstones)
            .chain(leftovers)
            .chain([source])
            .chain(refused)
    }

    fn tombstone_row(&self, slot: u32, t: &Tombstone) -> Vec<u8> {
        let row = TombstoneRow {
            number: self.tombstones.number(slot),
            id: t.id.0,
            server: self.servers.get(t.server),
            realm: self.names.realm(t.name),
            username: self.names.username(t.name),
            opened_at: t.opened_at,
            heard_at: t.heard_at,
            rest: t.rest.clone(),
        };
        self.encode_with(&row, &t.rest.more)
    }

    fn leftover_row(&self, slot: u32, l: &Leftover) -> Vec<u8> {
        self.encode(&LeftoverRow {
            number: self.leftovers.number(slot),
            id: l.id.0,
            server: self.servers.get(l.server),
            realm: self.names.realm(l.name),
            username: self.names.username(l.name),
            opened_at: l.opened_at,
            twin: l.twin,
            continues: l.continues,
            usage: l.usage,
            relayed: l.relayed,
            inexact: l.inexact,
            withheld: l.withheld,
            last_close: l.last_close,
            since: l.since,
            past: l.past.iter().map(|p| self.past_row(p)).collect(),
            past_count: l.past_count,
            current: Some(self.groups.current(l.group)).filter(|current| *current != NONE),
        })
    }

    fn source_row(&self) -> Vec<u8> {
        let row = SourceRow {
            evicted_until: self.evicted_until,
            evicted_at_once: self.evicted_at_once,
        };
        let more = SourceMore {
            peer_leg: self.peer_leg,
            wall: self.wall.clone(),
            leftovers_billed: self.leftovers_billed,
            unheard_since: self.hearing.unheard_since(),
        };
        self.encode_with(&row, &more)
    }

    /// Turns up to `most` of the allocations that are marked as changed into rows, ahead of [`Reducer::drain`], which
    /// turns all that are left, and the other tables, into rows. Whether there are more. Nothing may be handed in
    /// between this and the `drain`.
    pub fn collect(&mut self, all: bool, most: usize) -> bool {
        self.outgoing.begin_collecting(all);
        for slot in self.outgoing.next_allocations(most) {
            let value = self
                .allocations
                .get(slot as usize)
                .map(|a| self.allocation_row(slot, a));
            if let Some(a) = self.allocations.get_mut(slot as usize) {
                a.dirty = Dirty::Clean;
            }
            self.outgoing.row(Table::Allocation, u64::from(slot), value);
        }
        self.outgoing.has_allocations()
    }

    /// Turns what is marked as changed into rows.
    pub(crate) fn collect_changes(&mut self, all: bool) {
        self.collect(all, usize::MAX);
        for slot in self.outgoing.take_sessions() {
            let value = self
                .sessions
                .get(slot as usize)
                .map(|s| self.session_row(slot, s));
            if let Some(s) = self.sessions.get_mut(slot as usize) {
                s.dirty = false;
            }
            self.outgoing.row(Table::Session, u64::from(slot), value);
        }
        for slot in self.outgoing.take_tombstones() {
            let value = self.tombstones.get(slot).map(|t| self.tombstone_row(slot, t));
            self.outgoing.row(Table::Tombstone, u64::from(slot), value);
        }
        for slot in self.outgoing.take_leftovers() {
            let value = self.leftovers.get(slot).map(|l| self.leftover_row(slot, l));
            self.outgoing.row(Table::Leftover, u64::from(slot), value);
        }
        for (row, key) in self.refused.take_changes() {
            let refused = key
                .as_ref()
                .and_then(|key| self.refused.get(key))
                .filter(|r| r.row == row);
            let value = key
                .zip(refused)
                .map(|(key, refused)| self.encode(&RefusedRow { key, refused }));
            self.outgoing.row(Table::Source, SOURCE_KEY + 1 + row, value);
        }
        if self.outgoing.take_source() {
            let value = self.source_row();
            self.outgoing.row(Table::Source, SOURCE_KEY, Some(value));
        }
    }

    fn details_row<'a>(&'a self, details: &Details) -> DetailsRow<'a> {
        let labels = self.labels.texts(details.labels);
        DetailsRow {
            remote: details.remote.clone(),
            local: labels.local,
            transport: labels.transport,
            tls_version: labels.tls_version,
            tls_cipher: labels.tls_cipher,
        }
    }

    fn allocation_row(&self, slot: u32, a: &Allocation) -> Vec<u8> {
        let row = AllocationRow {
            id: a.id.0,
            server: self.servers.get(a.server),
            realm: self.names.realm(a.name),
            username: self.names.username(a.name),
            session: (a.session != NONE).then_some(a.session),
            opened_at: a.opened_at.get(),
            heard_at: a.heard_at.get(),
            status_at: a.status_at.get(),
            lifetime: a.lifetime,
            legs: a.legs(),
            details: self.details_row(&a.details()),
            flags: a.flags,
            rare: a.rare_row(),
        };
        let rare = a.rare.as_deref();
        let more = AllocationMore {
            flags: (a.flags & Flags::LATER).bits(),
            sent_on: a.flags.contains(Flags::WITHHELD).then(|| a.carried().sent_on),
            base_sent_on: rare.map_or(0, |r| r.base_sent_on),
            base_relayed: rare.map_or(0, |r| r.base_relayed),
            quiet_at: rare.map_or(Timestamp(0), |r| r.quiet_at),
            copied: rare.is_some_and(|r| r.copied),
            kin: rare.is_some_and(|r| r.kin),
            half: self.halves.get(slot),
            before: rare.and_then(|r| r.before.as_deref().copied()),
            cut: rare
                .and_then(|r| r.cut.as_deref())
                .map(|cut| (cut.at, cut.until, (*cut.reason).into())),
            withheld: rare.map_or(0, |r| r.withheld),
        };
        self.encode_with(&row, &more)
    }

    fn session_row(&self, slot: u32, s: &Session) -> Vec<u8> {
        let name = |name: &u32| (self.names.realm(*name), self.names.username(*name));
        let row = SessionRow {
            id: s.id,
            continues: s.former().continues,
            phase: s.phase,
            current: self.groups.current(s.group) == slot,
            realm: self.names.realm(s.first_name),
            username: self.names.username(s.first_name),
            started_at: s.started_at.get(),
            sequence: s.sequence,
            last_event_at: s.last_event_at.get(),
            past: s.former().past.iter().map(|p| self.past_row(p)).collect(),
            past_count: s.former().past_count,
            past_usage: s.former().past_usage,
            past_relayed: s.former().past_relayed,
            billed: s.billed(),
            inexact: s.inexact,
            last_close: s.former().last_close,
            last_relayed_close: s.former().last_relayed_close,
            last_counting_close: s.former().last_counting_close,
            usernames: s.usernames.iter().map(name).collect(),
        };
        let more = SessionMore {
            block_reason: s.former().block_reason.as_deref().map(Into::into),
        };
        self.encode_with(&row, &more)
    }

    fn past_row<'a>(&'a self, p: &Past) -> PastRow<'a> {
        PastRow {
            id: p.id.0,
            server: self.servers.get(p.server),
            realm: self.names.realm(p.name),
            username: self.names.username(p.name),
            opened_at: p.opened_at,
            opened_seen: p.opened_seen,
            closed: p.closed,
            totals_seen: p.totals_seen,
            details: self.details_row(&p.details),
            part: p.part,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::panic::{AssertUnwindSafe, catch_unwind};

    use super::*;
    use crate::{identity::Identity, reducer::restore::Restoring, rules::Rules};

    fn identity() -> Identity {
        Identity {
            store: [7; 16],
            source: "eu-1".into(),
        }
    }

    /// It stops a test and is counted in a release; and an empty row is never taken for one that says nothing.
    #[test]
    fn a_row_that_cannot_be_written_is_counted_and_an_empty_one_is_refused() {
        let reducer = Reducer::new(identity(), Rules::default());
        let fault = || Err(postcard::Error::SerializeBufferFull);
        let written = catch_unwind(AssertUnwindSafe(|| reducer.written(fault())));
        assert_eq!(reducer.stats().internal_errors, 1);
        assert_eq!(written.is_err(), cfg!(debug_assertions));
        for table in [
            Table::Allocation,
            Table::Session,
            Table::Tombstone,
            Table::Leftover,
            Table::Source,
        ] {
            let mut restoring = Restoring::new(identity(), Rules::default());
            let refused = restoring
                .row(table, SOURCE_KEY, b"")
                .or_else(|_| restoring.row(table, 0, b""));
            assert!(refused.is_err(), "{table:?}");
        }
    }
}
