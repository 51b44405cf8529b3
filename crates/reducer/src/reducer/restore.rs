//! A reducer as it was when its rows were last committed.

use super::{
    Reducer,
    leftovers::LEFTOVER_WAITS,
    read_row::{RestoreError, read, read_with},
    rows::{
        AllocationMore, AllocationRow, DetailsRow, LeftoverRow, PastRow, RefusedRow, SOURCE_KEY, SessionMore,
        SessionRow, SourceMore, SourceRow, TombstoneRow,
    },
};
use crate::{
    allocation::{Allocation, Cut, Details},
    aside::{Tombstone, TombstoneMore, TombstoneRest},
    flags::Flags,
    identity::Identity,
    intern::NONE,
    key::realm_tag,
    labels::LabelTexts,
    leftover::Leftover,
    message::AllocationId,
    relayed::Carried,
    rules::Rules,
    session::{Past, Phase, Session},
    state::Table,
    time::Timestamp,
    usage::Legs,
};

/// A reducer on its way back from its rows, which are handed over one by one, in any order.
#[derive(Debug)]
pub struct Restoring {
    reducer: Reducer,
    tombstones: Vec<(u32, u64, Tombstone)>,
    leftovers: Vec<(u32, u64, Leftover)>,
    /// Slots of sessions that their groups' allocations join.
    current: Vec<u32>,
}

impl Restoring {
    /// Of no rows yet.
    #[must_use]
    pub fn new(identity: Identity, rules: Rules) -> Restoring {
        let mut reducer = Reducer::new(identity, rules);
        reducer.outgoing.mute();
        Restoring {
            reducer,
            tombstones: Vec::new(),
            leftovers: Vec::new(),
            current: Vec::new(),
        }
    }

    /// One more row.
    ///
    /// # Errors
    /// [`RestoreError`]: what is to become of the others has no meaning then.
    pub fn row(&mut self, table: Table, key: u64, bytes: &[u8]) -> Result<(), RestoreError> {
        let reducer = &mut self.reducer;
        let bad = RestoreError { table, key };
        let slot = u32::try_from(key).ok().filter(|slot| *slot != NONE);
        match table {
            Table::Allocation => {
                let slot = slot.ok_or(bad)?;
                let (row, more) = read_with(bytes, bad)?;
                let allocation = reducer.read_allocation(slot, row, more);
                reducer.allocations.put(slot as usize, allocation);
            }
            Table::Session => {
                let slot = slot.ok_or(bad)?;
                let (row, more): (SessionRow<'_>, Option<SessionMore>) = read_with(bytes, bad)?;
                if row.current {
                    self.current.push(slot);
                }
                let mut session = reducer.read_session(row);
                if let Some(reason) = more.and_then(|more| more.block_reason) {
                    session.former_mut().block_reason = Some(reason.into());
                }
                reducer.sessions.put(slot as usize, session);
            }
            Table::Tombstone => {
                let (row, more): (TombstoneRow<'_>, _) = read_with(bytes, bad)?;
                let number = row.number;
                self.tombstones
                    .push((slot.ok_or(bad)?, number, reducer.read_tombstone(row, more)));
            }
            Table::Leftover => {
                let row: LeftoverRow<'_> = read(bytes, bad)?;
                let number = row.number;
                self.leftovers
                    .push((slot.ok_or(bad)?, number, reducer.read_leftover(row)));
            }
            Table::Source if key == SOURCE_KEY => {
                let (row, more): (SourceRow, Option<SourceMore>) = read_with(bytes, bad)?;
                reducer.evicted_until = row.evicted_until;
                reducer.evicted_at_once = row.evicted_at_once;
                let unheard_since;
                SourceMore {
                    peer_leg: reducer.peer_leg,
                    wall: reducer.wall,
                    leftovers_billed: reducer.leftovers_billed,
                    unheard_since,
                } = more.unwrap_or_default();
                reducer.hearing.unheard(unheard_since);
            }
            Table::Source => {
                let row: RefusedRow = read(bytes, bad)?;
                reducer.refused.restore(row.key, row.refused);
            }
        }
        Ok(())
    }

    /// The reducer as of `clock`, the time of the last commit. It is deaf until [`Reducer::hearing`].
    #[must_use]
    pub fn finish(self, clock: Timestamp) -> Reducer {
        let Restoring {
            mut reducer,
            tombstones,
            leftovers,
            current,
        } = self;
        reducer.now = clock;
        reducer.restore_tombstones(tombstones);
        reducer.restore_leftovers(leftovers);
        reducer.link(current);
        // What is committed before it first hears must not pass for heard.
        if reducer.hearing.unheard_since().is_none() && clock > Timestamp(0) {
            reducer.hearing.unheard(Some(clock));
            reducer.outgoing.source();
        }
        reducer
    }
}

impl Reducer {
    /// A reducer with the state that the rows hold: [`Restoring`] at one go.
    ///
    /// # Errors
    /// [`RestoreError`]
    pub fn restore<R: AsRef<[u8]>>(
        identity: Identity,
        rules: Rules,
        clock: Timestamp,
        rows: impl IntoIterator<Item = (Table, u64, R)>,
    ) -> Result<Reducer, RestoreError> {
        let mut restoring = Restoring::new(identity, rules);
        for (table, key, bytes) in rows {
            restoring.row(table, key, bytes.as_ref())?;
        }
        Ok(restoring.finish(clock))
    }

    fn read_details(&mut self, row: DetailsRow<'_>) -> Details {
        let labels = LabelTexts {
            local: row.local,
            transport: row.transport,
            tls_version: row.tls_version,
            tls_cipher: row.tls_cipher,
        };
        Details {
            remote: row.remote,
            labels: self.labels.number_of(labels),
        }
    }

    fn read_allocation(
        &mut self,
        slot: u32,
        row: AllocationRow<'_>,
        more: Option<AllocationMore>,
    ) -> Allocation {
        let name = self.names.hold(row.realm, row.username);
        let server = self.servers.optional(row.server);
        let details = self.read_details(row.details);
        let mut allocation = Allocation::new(AllocationId(row.id), server, name, NONE, row.opened_at);
        allocation.session = row.session.unwrap_or(NONE);
        allocation.heard_at = row.heard_at.into();
        allocation.status_at = row.status_at.into();
        allocation.lifetime = row.lifetime;
        allocation.flags = row.flags;
        allocation.remote = details.remote;
        allocation.realm = realm_tag(row.realm);
        allocation.set_labels(details.labels, &self.labels);
        allocation.rare = row.rare.map(Box::new);
        allocation.set_legs(&row.legs);
        // What is only in a row's second part was reckoned in another way by those who wrote none.
        let before = |legs: &Legs| legs.peer.received_bytes.min(legs.client.sent_bytes);
        let base = allocation.base();
        let more = more.unwrap_or_else(|| AllocationMore {
            sent_on: Some(before(&row.legs)),
            base_sent_on: before(&base),
            base_relayed: if base.peer.sent_packets > 0 || !self.peer_leg() {
                Carried {
                    legs: base,
                    sent_on: before(&base),
                }
                .relayed(self.peer_leg())
            } else {
                0
            },
            ..AllocationMore::default()
        });
        allocation.flags |= Flags::from_bits_truncate(more.flags) & Flags::LATER;
        if more
            .sent_on
            .is_some_and(|sent_on| sent_on != row.legs.peer.received_bytes)
        {
            allocation.flags.insert(Flags::WITHHELD);
            allocation.rare().sent_on = more.sent_on.unwrap_or_default();
        }
        let news = (
            more.base_sent_on,
            more.base_relayed,
            more.quiet_at,
            more.copied,
            more.kin,
            more.before.map(Box::new),
            more.cut.map(|(at, until, reason)| {
                let reason = reason.into();
                Box::new(Cut { at, until, reason })
            }),
            more.withheld,
        );
        if news != Default::default() {
            let r = allocation.rare();
            (
                r.base_sent_on,
                r.base_relayed,
                r.quiet_at,
                r.copied,
                r.kin,
                r.before,
                r.cut,
                r.withheld,
            ) = news;
        }
        if let Some(half) = more.half {
            self.halves.restore(slot, half);
        }
        allocation
    }

    /// Its group is found when all sessions are there.
    fn read_leftover(&mut self, row: LeftoverRow<'_>) -> Leftover {
        let name = self.names.hold(row.realm, row.username);
        Leftover {
            group: row.current.unwrap_or(NONE),
            name,
            server: self.servers.optional(row.server),
            id: AllocationId(row.id),
            opened_at: row.opened_at,
            twin: row.twin,
            continues: row.continues,
            usage: row.usage,
            relayed: row.relayed,
            inexact: row.inexact,
            withheld: row.withheld,
            last_close: row.last_close,
            since: row.since,
            past: row.past.into_iter().map(|p| self.read_past(p)).collect(),
            past_count: row.past_count,
        }
    }

    fn restore_leftovers(&mut self, mut rows: Vec<(u32, u64, Leftover)>) {
        for (slot, _, l) in &mut rows {
            // One that is a group of its own shares that with the session that its allocation was in.
            let group = match self.sessions.get(l.group as usize) {
                Some(s) => {
                    let group = s.group;
                    self.hold_group(group);
                    group
                }
                None => self.group_of(l.name),
            };
            l.group = group;
            if self.groups.leftover(group) == NONE {
                self.groups.set_leftover(group, *slot, &self.internal_errors);
            }
        }
        let rows = rows
            .into_iter()
            .map(|(slot, number, l)| (slot, number, 0, l.since.plus(LEFTOVER_WAITS), l));
        self.leftovers.restore(rows.collect());
    }

    fn read_session(&mut self, row: SessionRow<'_>) -> Session {
        let first_name = self.names.hold(row.realm, row.username);
        let group = self.group_of(first_name);
        let past = row.past.into_iter().map(|p| self.read_past(p)).collect();
        let usernames = row
            .usernames
            .into_iter()
            .map(|(realm, username)| self.names.hold(realm, username))
            .collect();
        let has_former = row.continues.is_some()
            || row.past_count > 0
            || !row.past_usage.is_zero()
            || row.last_close.is_some()
            || row.last_counting_close > Timestamp(0);
        let mut session = Session::new(row.id, group, first_name, row.started_at);
        session.phase = row.phase;
        session.sequence = row.sequence;
        session.last_event_at = row.last_event_at.into();
        session.relayed = row.past_relayed;
        session.inexact = row.inexact;
        session.usernames = usernames;
        if has_former {
            let former = session.former_mut();
            former.continues = row.continues;
            former.past = past;
            former.past_count = row.past_count;
            former.past_usage = row.past_usage;
            former.past_relayed = row.past_relayed;
            former.last_close = row.last_close;
            former.last_relayed_close = row.last_relayed_close;
            former.last_counting_close = row.last_counting_close;
        }
        session.set_usage(row.past_usage);
        session.set_billed(row.billed);
        session
    }

    fn read_past(&mut self, row: PastRow<'_>) -> Past {
        Past {
            id: AllocationId(row.id),
            server: self.servers.optional(row.server),
            name: self.names.hold(row.realm, row.username),
            opened_at: row.opened_at,
            opened_seen: row.opened_seen,
            closed: row.closed,
            totals_seen: row.totals_seen,
            details: self.read_details(row.details),
            part: row.part,
        }
    }

    fn read_tombstone(&mut self, row: TombstoneRow<'_>, more: Option<TombstoneMore>) -> Tombstone {
        let billed = row.rest.billed;
        let more = more.unwrap_or_else(|| {
            let sent_on = billed.peer.received_bytes.min(billed.client.sent_bytes);
            let relayed = Carried {
                legs: billed,
                sent_on,
            }
            .relayed(self.peer_leg());
            TombstoneMore {
                sent_on,
                relayed: if billed.peer.sent_packets > 0 || !self.peer_leg() {
                    relayed
                } else {
                    0
                },
                ..TombstoneMore::default()
            }
        });
        let server = self.servers.optional(row.server);
        if let Some(at) = more.stopped_at {
            self.servers.stopped(server, at);
        }
        Tombstone {
            id: AllocationId(row.id),
            server,
            name: self.names.hold(row.realm, row.username),
            opened_at: row.opened_at,
            heard_at: row.heard_at,
            rest: TombstoneRest { more, ..row.rest },
        }
    }

    /// Restores what [`Reducer::bury`] left.
    pub(crate) fn restore_tombstones(&mut self, rows: Vec<(u32, u64, Tombstone)>) {
        let rows = rows.into_iter().map(|(slot, number, t)| {
            let (class, expires_at): (usize, Timestamp) =
                (usize::from(t.rest.totals_seen), t.rest.expires_at);
            (slot, number, class, expires_at, t)
        });
        let rows: Vec<_> = rows.collect();
        let slots: Vec<u32> = rows.iter().map(|(slot, ..)| *slot).collect();
        self.tombstones.restore(rows);
        for slot in slots {
            let Some(t) = self.tombstones.get(slot) else {
                self.broken("a tombstone that was just restored");
                continue;
            };
            let hash = Reducer::hash_of(&self.hasher, &self.names, t.server, t.id, t.name);
            self.index_tombstone(slot, hash);
        }
    }

    /// Finds the allocations' sessions and groups again, and sets all deadlines.
    fn link(&mut self, current: Vec<u32>) {
        for slot in current {
            let Some(s) = self.sessions.get(slot as usize) else {
                self.broken("a current session that was not restored");
                continue;
            };
            // `group_by` may have changed since: a group has one current session, the others just go on.
            let group = s.group;
            if self.groups.current(group) == NONE {
                self.set_current(group, slot);
            }
        }
        let slots: Vec<u32> = self.allocations.iter().map(|(slot, _)| slot as u32).collect();
        for slot in &slots {
            let Some(a) = self.allocations.get(*slot as usize) else {
                self.broken("no allocation to link");
                continue;
            };
            let (name, session, a_server) = (a.name, a.session, a.server);
            let hash = Reducer::hash_of(&self.hasher, &self.names, a.server, a.id, name);
            let group = match self.sessions.get(session as usize) {
                Some(s) => {
                    let group = s.group;
                    self.hold_group(group);
                    group
                }
                None => self.group_of(name),
            };
            self.index_allocation(*slot, hash);
            self.servers.opened(a_server);
            if let Some(a) = self.allocations.get_mut(*slot as usize) {
                a.hash = hash;
                a.group = group;
                a.session = NONE;
            }
            if self.sessions.contains(session as usize) {
                self.join(*slot, session);
            }
            self.arm_allocation(*slot);
        }
        // Nothing up to here was news to the store.
        self.outgoing.unmute();
        let sessions: Vec<u32> = self.sessions.iter().map(|(slot, _)| slot as u32).collect();
        for slot in sessions {
            // The rules may have changed since: what was billed stands.
            if let Some(s) = self.sessions.get_mut(slot as usize) {
                s.set_usage(s.usage().max(s.billed()));
            }
            self.arm_usage(slot);
            self.review(slot);
        }
        let told_too_early = |s: &Session| s.phase == Phase::Waiting && s.sequence != 0;
        if self.sessions.iter().any(|(_, s)| told_too_early(s)) {
            self.broken("a session whose start was emitted, and that waits for it");
        }
    }
}
