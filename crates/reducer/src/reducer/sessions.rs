//! Sessions: who belongs to one, what keeps it alive, when its events are emitted.

use super::Reducer;
use crate::{
    allocation::{Allocation, Dirty},
    event::{CloseReason, EventType, SessionId, UnattributedReason},
    flags::Flags,
    identity::AllocationIdentity,
    intern::NONE,
    relayed::Carried,
    rules::StartOn,
    session::{LISTED, Past, Phase, Session, later},
    time::{Moment, Timestamp},
    usage::Usage,
};

impl Reducer {
    /// A new allocation joins its group's session, or opens one.
    pub(crate) fn enter_group(&mut self, slot: u32) {
        let Some(a) = self.allocations.get(slot as usize) else {
            return self.broken("no allocation to enter its group");
        };
        let current = self.groups.current(a.group);
        if current == NONE {
            self.open_session(slot, None);
        } else {
            self.join(slot, current);
            self.review(current);
        }
        // What was heard of it while it was unconfirmed may have been relayed.
        let session = self.allocations.get(slot as usize).map_or(NONE, |a| a.session);
        self.start_if_relayed(session);
        if self.sessions.contains(session as usize) {
            self.review(session);
        }
    }

    /// Opens a session with this allocation. One that continues another starts now, and so does one with an
    /// allocation that was ended before and never billed.
    pub(crate) fn open_session(&mut self, slot: u32, continues: Option<SessionId>) {
        let Some(a) = self.allocations.get(slot as usize) else {
            return self.broken("no allocation to open a session with");
        };
        let (group, name) = (a.group, a.name);
        let opened_at = if continues.is_some() || a.flags.contains(Flags::REVIVED) {
            self.now
        } else {
            a.opened_at.get()
        };
        let previous_end = self.groups.ended_at(group);
        self.names.hold_again(name, &self.internal_errors);
        self.hold_group(group);
        let mut new = Session::new(SessionId([0; 16]), group, name, opened_at.max(previous_end));
        if continues.is_some() {
            new.former_mut().continues = continues;
        }
        let session = self.sessions.insert(new) as u32;
        self.set_current(group, session);
        self.join(slot, session);
        if self.rules.start_on == StartOn::Allocation {
            self.start(session);
        }
        self.review(session);
    }

    /// The session counts the allocation from now on, with what was billed nowhere else.
    pub(crate) fn join(&mut self, slot: u32, session: u32) {
        let part = self.part(slot);
        let relayed = self.unbilled_relayed(slot);
        let Some(a) = self.allocations.get_mut(slot as usize) else {
            return self.broken("no allocation to join a session");
        };
        let Some(s) = self.sessions.get_mut(session as usize) else {
            return self.broken("no session to join");
        };
        a.session = session;
        s.add(slot, a);
        s.add_usage(part);
        s.relayed = s.relayed.saturating_add(relayed);
        if s.usernames.len() < LISTED && !s.usernames.contains(&a.name) {
            s.usernames.push(a.name);
            self.names.hold_again(a.name, &self.internal_errors);
        }
        self.mark(slot, Dirty::Hard);
        self.mark_session(session);
        self.arm_usage(session);
    }

    /// With `start_on = "relay"`: one of its allocations has relayed.
    pub(crate) fn start_if_relayed(&mut self, session: u32) {
        if session == NONE {
            return; // it ended at once
        }
        let Some(s) = self.sessions.get(session as usize) else {
            return self.broken("no session to start once it has relayed");
        };
        if s.relayed > 0 {
            self.start(session);
        }
    }

    /// The session has begun: its start is emitted.
    pub(crate) fn start(&mut self, session: u32) {
        let Some(s) = self.sessions.get(session as usize) else {
            return self.broken("no session to start");
        };
        if s.phase != Phase::Waiting {
            return;
        }
        let order = |slot: &&u32| {
            self.allocations.get(**slot as usize).map(|a| {
                (
                    a.opened_at.get(),
                    a.id,
                    self.servers.get(a.server),
                    self.names.username(a.name),
                )
            })
        };
        let Some(a) = s
            .members()
            .iter()
            .min_by_key(order)
            .and_then(|slot| self.allocations.get(*slot as usize))
        else {
            return self.broken("a session starts without a member");
        };
        let name = a.name;
        let previous_end = self.groups.ended_at(s.group);
        let opened_at = if s.former().continues.is_some() {
            s.started_at.get()
        } else {
            // One that was ended, and lives on in this session, opened before there was any session.
            a.opened_at.get().max(s.started_at.get())
        };
        let started_at = opened_at.max(previous_end);
        let identity = AllocationIdentity {
            server: self.servers.get(a.server).unwrap_or_default(),
            realm: self.names.realm(name),
            username: self.names.username(name),
            id: a.id,
            opened_at: a.opened_at.get(),
            twin: a.twin(),
        };
        // One that was billed in a session that has ended, and lives on in another, names another one.
        let billed_in = a.rare.as_ref().and_then(|r| r.continues);
        let before = s.former().continues.or(billed_in);
        let id = self.identity.session(&identity, before, started_at);
        self.names.hold_again(name, &self.internal_errors);
        let Some(s) = self.sessions.get_mut(session as usize) else {
            return self.broken("no session to start");
        };
        let old_name = std::mem::replace(&mut s.first_name, name);
        s.id = id;
        s.started_at = Moment::from(started_at);
        s.phase = Phase::Open;
        self.release_name(old_name);
        self.emit(session, EventType::Start);
        self.absorb_leftover(session);
        self.arm_limit(session);
    }

    /// What an allocation carried is now `carried`; `reports` if this is the last leg of a report. Between its two
    /// halves nothing is decided.
    pub(crate) fn count(&mut self, slot: u32, carried: &Carried, reports: bool) {
        self.count_as(slot, carried, reports, false);
    }

    /// The same; `whole` if the counters are the totals of this life alone.
    pub(crate) fn count_as(&mut self, slot: u32, carried: &Carried, reports: bool, whole: bool) {
        let (rule, peer_leg) = (self.rules.billable, self.peer_leg());
        let Some(a) = self.allocation(slot) else {
            return self.broken("counters of no allocation");
        };
        // Until it has relayed, what was relayed of an earlier life stands.
        let base_relayed = a.base_relayed();
        let (old, old_relayed, before) = (a.legs(), a.relayed(peer_leg).max(base_relayed), a.flags);
        // What may be an earlier life's is no sign that this one has.
        let next_life = before.contains(Flags::OVERCOUNTED) && !before.contains(Flags::REVIVED);
        let reported = before.contains(Flags::REPORTED) || reports;
        let relays = reports && !before.contains(Flags::RELAYED) && {
            let base = if next_life && !whole {
                a.base_carried().legs
            } else {
                Default::default()
            };
            self.has_relayed(&carried.legs.minus(base), reported)
        };
        let Some(a) = self.allocations.get_mut(slot as usize) else {
            return self.broken("counters of no allocation");
        };
        a.set_carried(carried);
        let mut news = Flags::empty();
        news.set(Flags::REPORTED, reports);
        news.set(Flags::RELAYED, relays);
        a.flags |= news;
        let (after, session) = (a.flags, a.session);
        let relayed = a.relayed(peer_leg).max(base_relayed);
        let left_at = a.left_at();
        self.mark(slot, Dirty::Soft);
        if session == NONE {
            return self.join_if_relayed(slot);
        }
        let Some(s) = self.sessions.get_mut(session as usize) else {
            return self.broken("a member of no session");
        };
        let legs = carried.legs;
        s.add_usage(Usage {
            legs: legs.minus(old),
            billable_bytes: rule
                .bytes(&legs, relayed)
                .saturating_sub(rule.bytes(&old, old_relayed)),
        });
        let was_call = s.is_call(self.rules.residue);
        s.relayed = s.relayed.saturating_add(relayed.saturating_sub(old_relayed));
        let became_call = !was_call && s.is_call(self.rules.residue);
        let first = after - before;
        let first_relay = first.contains(Flags::RELAYED);
        let first_report = first.contains(Flags::REPORTED);
        let gone = after.intersects(Flags::GONE);
        if !gone {
            s.learn(first, &self.internal_errors);
        } else if first_relay && !after.contains(Flags::CLOSING) {
            let former = s.former_mut();
            former.last_counting_close = former.last_counting_close.max(left_at);
        }
        let waits = s.phase == Phase::Waiting && s.relayed > 0;
        self.arm_usage(session);
        if first_relay || waits {
            self.start(session);
        }
        if became_call || first_relay || (first_report && !gone) {
            self.review(session);
        }
    }

    /// What an allocation carried is less than was counted: `carried`, of which all that was billed is a part.
    pub(crate) fn recount(&mut self, slot: u32, carried: &Carried) {
        self.count_anew(slot, |a| a.set_carried(carried));
    }

    /// What is known of an allocation changes, and its part in its session with that; what was billed stands.
    pub(crate) fn count_anew(&mut self, slot: u32, change: impl FnOnce(&mut Allocation)) {
        let peer_leg = self.peer_leg();
        let before = self.part(slot);
        let relayed_before = self.unbilled_relayed(slot);
        let Some(a) = self.allocations.get_mut(slot as usize) else {
            return self.broken("no allocation to count anew");
        };
        change(a);
        let (session, relayed) = (a.session, a.relayed(peer_leg).saturating_sub(a.base_relayed()));
        let after = self.part(slot);
        self.mark(slot, Dirty::Hard);
        if let Some(s) = self.sessions.get_mut(session as usize) {
            let billed = s.billed();
            let others =
                self.internal_errors
                    .beyond(s.usage(), before, "an allocation is more than its session");
            s.set_usage(others.plus(after).max(billed));
            s.relayed = s.relayed.saturating_sub(relayed_before).saturating_add(relayed);
            self.mark_session(session);
        }
    }

    /// A member was deleted, is about to be, or is found to be gone: it keeps the session alive no more.
    pub(crate) fn member_closes(&mut self, session: u32, slot: u32, closed: (Timestamp, CloseReason)) {
        let grace = self.rules.report_grace;
        let Some((s, a)) = self
            .sessions
            .get_mut(session as usize)
            .zip(self.allocations.get(slot as usize))
        else {
            return self.broken("a member of no session closes");
        };
        let young = closed.0 < a.opened_at.get().plus(grace);
        s.close(a.flags, closed, young, &self.internal_errors);
        self.mark_session(session);
    }

    /// A member whose deletion was asked for still carried something.
    pub(crate) fn member_left_later(&mut self, session: u32, slot: u32) {
        let Some((s, a)) = self
            .sessions
            .get_mut(session as usize)
            .zip(self.allocations.get(slot as usize))
        else {
            return self.broken("a member of no session leaves");
        };
        s.left(a);
        self.mark_session(session);
    }

    /// A member whose deletion was asked for is refreshed after all.
    pub(crate) fn member_returns(&mut self, session: u32, slot: u32) {
        let Some((s, a)) = self
            .sessions
            .get_mut(session as usize)
            .zip(self.allocations.get(slot as usize))
        else {
            return self.broken("a member of no session returns");
        };
        s.reopen(a.flags, &self.internal_errors);
        if s.phase == Phase::Ending {
            // The session waits for nobody who is still there.
            self.leave(session, slot, false, true);
        } else {
            self.mark_session(session);
        }
        self.review(session);
    }

    /// A closing member's counters are final.
    pub(crate) fn member_settles(&mut self, session: u32, slot: u32, totals_seen: bool, exact: bool) {
        let Some(s) = self.sessions.get(session as usize) else {
            return self.broken("a member of no session settles");
        };
        let waiting = s.phase == Phase::Waiting;
        if waiting {
            // It never relayed, so nothing of it is billed; a session that starts later does without it.
            self.record_unbilled(slot, UnattributedReason::NeverRelayed);
        }
        let closed = self
            .allocations
            .get(slot as usize)
            .and_then(|a| a.rare.as_ref())
            .and_then(|r| r.closed);
        self.leave(session, slot, totals_seen, !waiting);
        let relayed = self
            .allocations
            .get(slot as usize)
            .is_some_and(|a| a.flags.contains(Flags::RELAYED));
        let Some(s) = self.sessions.get_mut(session as usize) else {
            return self.broken("a member of no session settles");
        };
        if let Some(closed) = closed {
            // One that joined while it was closing has not been seen to close.
            s.former_mut().last_close = later(s.former().last_close, closed);
        }
        if waiting {
            return;
        }
        s.inexact |= !exact;
        if let Some(closed) = closed.filter(|_| relayed) {
            s.former_mut().last_relayed_close = later(s.former().last_relayed_close, closed);
            s.former_mut().last_counting_close = s.former().last_counting_close.max(closed.0);
        }
    }

    /// Takes an allocation out of the members, as it is now: open or closing. If it was counted, what it carried stays.
    pub(crate) fn leave(&mut self, session: u32, slot: u32, totals_seen: bool, counted: bool) {
        self.end_if_asked(session, slot);
        let peer_leg = self.peer_leg();
        let part = self.part(slot);
        let relayed = self.unbilled_relayed(slot);
        let Some(a) = self.allocations.get_mut(slot as usize) else {
            return self.broken("no allocation to leave its session");
        };
        let Some(s) = self.sessions.get_mut(session as usize) else {
            return self.broken("no session to leave");
        };
        let moved = s.remove(slot, a, &self.internal_errors);
        let place = a.place;
        a.session = NONE;
        if counted {
            let former = s.former_mut();
            if former.past.len() < LISTED {
                self.names.hold_again(a.name, &self.internal_errors);
                former.past.push(Past::of(a, totals_seen, part.legs));
            }
            former.past_count += 1;
            former.past_usage = former.past_usage.plus(part);
            former.past_relayed = former.past_relayed.saturating_add(relayed);
            let id = s.id;
            a.rebase(peer_leg);
            a.rare().continues = Some(id);
        } else {
            s.set_usage(self.internal_errors.beyond(
                s.usage(),
                part,
                "an allocation is more than its session",
            ));
            s.relayed = s.relayed.saturating_sub(relayed);
            a.rebase(peer_leg);
        }
        if let Some(moved) = moved {
            if let Some(m) = self.allocations.get_mut(moved as usize) {
                m.place = place;
            } else {
                self.broken("a session's member that is gone");
            }
        }
        self.mark(slot, Dirty::Hard);
        self.mark_session(session);
    }

    /// What of a session's usage is billed in no event yet.
    pub(crate) fn unbilled(&self, s: &Session) -> Usage {
        self.internal_errors.beyond(
            s.usage(),
            s.billed(),
            "more of a session was billed than it carried",
        )
    }

    /// What of the allocation is billed in no earlier session. Nothing, where what was billed is of the life before, and
    /// more than this one has carried so far.
    pub(crate) fn part(&self, slot: u32) -> Usage {
        let (rule, peer_leg) = (self.rules.billable, self.peer_leg());
        let Some(a) = self.allocation(slot) else {
            self.broken("a part of no allocation");
            return Usage::default();
        };
        let (base, legs) = (a.base(), a.legs());
        Usage {
            legs: legs.minus(base),
            billable_bytes: rule
                .bytes(&legs, a.relayed(peer_leg))
                .saturating_sub(rule.bytes(&base, a.base_relayed())),
        }
    }

    /// Usage is emitted at the next multiple of the interval, once there is some: the same one, whether this
    /// is asked when the traffic comes or after a restart.
    pub(crate) fn arm_usage(&mut self, session: u32) {
        let interval = self.rules.usage_interval;
        let now = self.now;
        let Some(s) = self.sessions.get_mut(session as usize) else {
            return self.broken("no session to emit the usage of");
        };
        if interval == 0
            || s.phase != Phase::Open
            || s.usage_at.get() != Timestamp::MAX
            || s.usage() == s.billed()
        {
            return;
        }
        let not_before = now.since(s.started_at.get()).div_ceil(interval);
        let passed = s.last_event_at.get().since(s.started_at.get()) / interval;
        let at = s
            .started_at
            .get()
            .plus(interval.saturating_mul(not_before.max(passed + 1)));
        s.usage_at = Moment::from(at);
        self.wake_session(session, at);
    }
}
