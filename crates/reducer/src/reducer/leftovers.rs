//! Leftovers: what parked allocations carried below `residue`. One row a group; billed in the group's next session, or
//! alone once it reaches `residue`, or after a day.

use super::Reducer;
use crate::{
    event::{CloseReason, EventType, SessionId, Unattributed, UnattributedReason},
    intern::NONE,
    leftover::Leftover,
    rules::Billable,
    session::{LISTED, Past, Phase, Session, later},
    time::{Moment, Timestamp},
    usage::{Legs, Usage},
};

/// How long a leftover waits for company, in milliseconds.
pub(crate) const LEFTOVER_WAITS: u64 = 24 * 3_600_000;

/// What one allocation leaves.
struct Left {
    usage: Usage,
    relayed: u64,
    inexact: bool,
    withheld: bool,
}

impl Reducer {
    /// A parked allocation is over, and what it relayed since it was last billed is too little for a session.
    pub(crate) fn leave_over(&mut self, slot: u32, totals_seen: bool, exact: bool) {
        let left = Left {
            usage: self.part(slot),
            relayed: self.unbilled_relayed(slot),
            inexact: !exact,
            withheld: false,
        };
        self.add_leftover(slot, left, totals_seen);
    }

    /// An allocation is over before it was known whether there is a peer leg: its counters are billed, or on record,
    /// and what is to be billed for them waits. Returns how many bytes that is if there is none.
    pub(crate) fn withhold(&mut self, slot: u32, totals_seen: bool, part: Usage) -> u64 {
        let client = part.legs.client;
        let bytes = client.received_bytes.saturating_add(client.sent_bytes);
        let left = Left {
            usage: Usage {
                legs: Legs::default(),
                billable_bytes: bytes,
            },
            relayed: bytes,
            inexact: !totals_seen,
            withheld: true,
        };
        self.add_leftover(slot, left, totals_seen);
        bytes
    }

    /// Whether what is to be billed for this hangs on which legs there are.
    pub(crate) fn bills_by_legs(&self, part: &Usage) -> bool {
        self.rules.billable == Billable::Relayed && !part.legs.client.is_zero()
    }

    fn add_leftover(&mut self, slot: u32, left: Left, totals_seen: bool) {
        if self.is_following() {
            return;
        }
        let now = self.now;
        let Some(a) = self.allocations.get(slot as usize) else {
            return self.broken("a leftover of no allocation");
        };
        let (group, name) = (a.group, a.name);
        let past = Past::of(a, totals_seen, left.usage.legs);
        let close = past.closed.unwrap_or((now, CloseReason::Closed));
        let continues: Option<SessionId> = a.rare.as_ref().and_then(|r| r.continues);
        let (server, id, opened_at, twin) = (a.server, a.id, a.opened_at.get(), a.twin());
        let mut found = self.groups.leftover(group);
        let other_kind = |l: &Leftover| l.withheld != left.withheld;
        if self.leftovers.get(found).is_some_and(other_kind) {
            // Only while nobody knows what legs there are, something may be withheld and something left over.
            if left.withheld {
                self.bill_leftover(found);
            } else {
                self.record_leftover(found);
            }
            found = NONE;
        }
        if found == NONE {
            found = self.new_leftover(group, name, close);
        }
        self.names.hold_again(name, &self.internal_errors);
        self.names.hold_again(name, &self.internal_errors);
        let Some(l) = self.leftovers.get_mut(found) else {
            return self.broken("a leftover that was just made");
        };
        let old_name = std::mem::replace(&mut l.name, name);
        (l.server, l.id, l.opened_at, l.twin) = (server, id, opened_at, twin);
        l.continues = continues.or(l.continues);
        l.usage = l.usage.plus(left.usage);
        l.relayed = l.relayed.saturating_add(left.relayed);
        l.inexact |= left.inexact;
        l.withheld = left.withheld;
        l.last_close = later(Some(l.last_close), close).unwrap_or(close);
        // What is withheld is listed where its counters were billed.
        l.past_count += u32::from(!left.withheld);
        let listed = !left.withheld && l.past.len() < LISTED;
        if listed {
            l.past.push(past);
        }
        let ripe = l.relayed >= self.rules.residue && !l.withheld;
        self.release_name(old_name);
        if !listed {
            self.release_name(name);
        }
        self.outgoing.leftover(found);
        if ripe {
            self.bill_leftover(found);
        }
    }

    fn new_leftover(&mut self, group: u32, name: u32, last_close: (Timestamp, CloseReason)) -> u32 {
        while self.leftovers.len() >= self.rules.leftover_limit.max(1) {
            let Some(oldest) = self.leftovers.oldest() else {
                self.broken("a full table of leftovers without an oldest");
                break;
            };
            self.record_leftover(oldest);
        }
        self.hold_group(group);
        self.names.hold_again(name, &self.internal_errors);
        let leftover = Leftover {
            group,
            name,
            server: NONE,
            id: crate::message::AllocationId(0),
            opened_at: self.now,
            twin: 0,
            continues: None,
            usage: Usage::ZERO,
            relayed: 0,
            inexact: false,
            withheld: false,
            last_close,
            since: self.now,
            past: Vec::new(),
            past_count: 0,
        };
        let slot = self.leftovers.insert(leftover, 0, self.now.plus(LEFTOVER_WAITS));
        self.groups.set_leftover(group, slot, &self.internal_errors);
        slot
    }

    /// A leftover's day is over. What is withheld waits on.
    pub(crate) fn settle_leftover(&mut self, slot: u32) {
        if self.leftovers.get(slot).is_none_or(|l| !l.withheld) {
            return self.bill_leftover(slot);
        }
        let Some(mut l) = self.take_leftover(slot) else {
            return self.broken("a leftover that is gone");
        };
        l.since = self.now;
        let group = l.group;
        let slot = self.leftovers.insert(l, 0, self.now.plus(LEFTOVER_WAITS));
        self.groups.set_leftover(group, slot, &self.internal_errors);
        self.outgoing.leftover(slot);
    }

    /// It is known whether there is a peer leg. If there is none, what was withheld is billed; else all was billed
    /// before.
    pub(crate) fn bill_withheld(&mut self, peer_leg: bool) {
        let withheld = self.leftovers.iter().filter(|(_, l)| l.withheld);
        let mut slots: Vec<u32> = withheld.map(|(slot, _)| slot).collect();
        // By what they are, not by their numbers: those hang on places in memory, and on when there was a restart.
        let key = |slot: &u32| {
            let l = self.leftovers.get(*slot)?;
            let name = (self.names.realm(l.name), self.names.username(l.name));
            let number = self.leftovers.number(*slot);
            Some((
                l.since,
                l.opened_at,
                l.id,
                self.servers.get(l.server),
                name,
                number,
            ))
        };
        slots.sort_unstable_by(|a, b| key(a).cmp(&key(b)));
        for slot in slots {
            if peer_leg {
                match self.take_leftover(slot) {
                    Some(l) => self.release_leftover(l),
                    None => self.broken("a leftover that is gone"),
                }
                continue;
            }
            if let Some(l) = self.leftovers.get_mut(slot) {
                l.withheld = false;
            }
            self.bill_leftover(slot);
        }
    }

    /// In the group's session, if there is one, else in a session of its own.
    pub(crate) fn bill_leftover(&mut self, slot: u32) {
        let Some(l) = self.leftovers.get(slot) else {
            return self.broken("a leftover that is gone");
        };
        let current = self.groups.current(l.group);
        if self
            .sessions
            .get(current as usize)
            .is_some_and(|s| s.phase == Phase::Open)
        {
            return self.absorb_leftover(current);
        }
        let (group, name, continues, last_close) = (l.group, l.name, l.continues, l.last_close);
        let started_at = self.now.max(self.groups.ended_at(group));
        let identity = l.identity(
            self.servers.get(l.server).unwrap_or_default(),
            self.names.realm(name),
            self.names.username(name),
        );
        let id = self
            .identity
            .leftover(self.leftovers_billed, &identity, continues, started_at);
        self.leftovers_billed += 1;
        self.outgoing.source();
        self.hold_group(group);
        self.names.hold_again(name, &self.internal_errors);
        self.names.hold_again(name, &self.internal_errors);
        let mut new = Session::new(id, group, name, started_at);
        new.phase = Phase::Open;
        new.usernames.push(name);
        let former = new.former_mut();
        former.continues = continues;
        former.last_close = Some(last_close);
        former.last_relayed_close = Some(last_close);
        let session = self.sessions.insert(new) as u32;
        self.mark_session(session);
        self.emit(session, EventType::Start);
        self.absorb(session, slot);
        if let Some(s) = self.sessions.get_mut(session as usize) {
            s.phase = Phase::Ending;
            s.usage_at = Moment::NEVER;
        } else {
            self.broken("a leftover's own session that is gone");
        }
        self.finish(session);
        // One that waits for its start begins after it.
        let ended_at = self.groups.ended_at(group);
        if let Some(s) = self.sessions.get_mut(current as usize)
            && s.phase == Phase::Waiting
        {
            s.started_at = Moment::from(s.started_at.get().max(ended_at));
            self.mark_session(current);
        }
    }

    /// A session of the group has started: what was left over is billed in it.
    pub(crate) fn absorb_leftover(&mut self, session: u32) {
        let group = self.sessions.get(session as usize).map_or(NONE, |s| s.group);
        let slot = self.groups.leftover(group);
        if self.leftovers.get(slot).is_some_and(|l| !l.withheld) {
            self.absorb(session, slot);
            self.arm_usage(session);
        }
    }

    fn absorb(&mut self, session: u32, slot: u32) {
        let Some(l) = self.take_leftover(slot) else {
            return self.broken("a leftover that is gone");
        };
        let Some(s) = self.sessions.get_mut(session as usize) else {
            return self.broken("a leftover for a session that is gone");
        };
        s.inexact |= l.inexact;
        s.add_usage(l.usage);
        let former = s.former_mut();
        former.past_count = former.past_count.saturating_add(l.past_count);
        former.past_usage = former.past_usage.plus(l.usage);
        let room = LISTED.saturating_sub(former.past.len());
        let mut unlisted = l.past;
        let rest = unlisted.split_off(room.min(unlisted.len()));
        former.past.extend(unlisted);
        for past in rest {
            self.release_name(past.name);
        }
        self.release_name(l.name);
        self.release_group(l.group);
        self.mark_session(session);
    }

    /// On record, billed nowhere.
    fn record_leftover(&mut self, slot: u32) {
        let Some(l) = self.take_leftover(slot) else {
            return self.broken("a leftover that is gone");
        };
        let usage = l.usage;
        self.outgoing.unattributed(Unattributed {
            at: self.wall.at(self.now),
            server: self.servers.owned(l.server),
            realm: self.names.realm(l.name).into(),
            username: self.names.username(l.name).into(),
            allocation: l.id,
            opened_at: self.wall.at(l.opened_at),
            reason: UnattributedReason::Residue,
            usage,
        });
        self.release_leftover(l);
    }

    fn release_leftover(&mut self, l: Leftover) {
        for past in l.past {
            self.release_name(past.name);
        }
        self.release_name(l.name);
        self.release_group(l.group);
    }

    fn take_leftover(&mut self, slot: u32) -> Option<Leftover> {
        let l = self.leftovers.remove(slot, &self.internal_errors)?;
        self.outgoing.leftover(slot);
        self.groups.leftover_gone(l.group, slot);
        Some(l)
    }
}
