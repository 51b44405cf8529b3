//! The end of a session: what keeps it alive, linger, parking, and the last event.

use super::Reducer;
use crate::{
    event::EventType,
    flags::Flags,
    intern::NONE,
    rules::AliveWhile,
    session::{Phase, Session},
    time::{Moment, Timestamp},
};

impl Reducer {
    /// When the session stops waiting for allocations; `MAX` while one keeps it alive.
    fn horizon(&self, s: &Session) -> Timestamp {
        let linger = self.rules.linger;
        let call = self.rules.alive_while == AliveWhile::Relaying && s.is_call(self.rules.residue);
        if !call {
            let last = s.former().last_close.map_or(self.now, |(at, _)| at);
            return if s.open() > 0 {
                Timestamp::MAX
            } else {
                last.plus(linger)
            };
        }
        if s.relaying() > 0 {
            return Timestamp::MAX;
        }
        let end = s.former().last_counting_close.plus(linger);
        if s.unreported() == 0 {
            return end;
        }
        // Young ones that have yet to report count as relaying.
        let young = s
            .members()
            .iter()
            .filter_map(|slot| self.allocations.get(*slot as usize));
        let young = young.filter(|a| !a.flags.intersects(Flags::GONE | Flags::REPORTED));
        young
            .map(|a| a.opened_at.get().plus(self.rules.report_grace))
            .max()
            .map_or(end, |grace| end.max(grace))
    }

    /// A deadline of the session may have come.
    pub(crate) fn session_due(&mut self, session: u32) {
        if self.end_at_limit(session) {
            return;
        }
        let now = self.now;
        let Some(s) = self.sessions.get_mut(session as usize) else {
            return self.broken("a deadline of no session");
        };
        if s.usage_at.get() <= now {
            s.usage_at = Moment::NEVER;
            if s.phase == Phase::Open && s.usage() != s.billed() {
                self.emit(session, EventType::Usage);
            }
        }
        self.review_until(session, now);
    }

    /// Something that may keep the session alive has changed.
    pub(crate) fn review(&mut self, session: u32) {
        if self.reviews_wait {
            return self.wake_session(session, self.now);
        }
        // What arrives at this very moment may still join.
        self.review_until(session, Timestamp(self.now.0.saturating_sub(1)));
    }

    fn review_until(&mut self, session: u32, due: Timestamp) {
        let Some(s) = self.sessions.get(session as usize) else {
            return self.broken("no session to review");
        };
        if s.phase != Phase::Ending {
            let end_at = self.horizon(s);
            let Some(s) = self.sessions.get_mut(session as usize) else {
                return self.broken("no session to review");
            };
            s.end_at = Moment::from(end_at);
            if end_at <= due {
                self.stop_joining(session);
                // One that waits for totals before it may start is looked at again when they come.
                let Some(s) = self.sessions.get_mut(session as usize) else {
                    return self.broken("a session that is gone once none joins it any more");
                };
                s.end_at = Moment::NEVER;
            }
        }
        let Some(s) = self.sessions.get_mut(session as usize) else {
            return self.broken("no session to review");
        };
        if s.phase == Phase::Ending {
            s.end_at = Moment::NEVER;
            if s.closing() == 0 {
                return self.finish(session);
            }
        }
        let wake = s.end_at.get().min(s.usage_at.get());
        self.wake_session(session, wake);
        self.arm_limit(session);
    }

    /// Linger is over: nothing joins any more, and idle allocations are parked.
    fn stop_joining(&mut self, session: u32) {
        let Some(s) = self.sessions.get_mut(session as usize) else {
            return self.broken("no session to stop joining");
        };
        let started = s.phase == Phase::Open;
        if started {
            s.phase = Phase::Ending;
        }
        let group = s.group;
        self.mark_session(session);
        self.joins_no_more(group, session);
        let Some(s) = self.sessions.get(session as usize) else {
            return self.broken("no session to stop joining");
        };
        let is_open = |slot: &u32| {
            self.allocations
                .get(*slot as usize)
                .is_some_and(|a| !a.flags.intersects(Flags::GONE))
        };
        let idle: Vec<u32> = s.members().iter().copied().filter(is_open).collect();
        for slot in idle {
            self.leave(session, slot, false, started);
        }
        if started {
            return;
        }
        if let Some(s) = self.sessions.get_mut(session as usize) {
            s.phase = Phase::Ending;
            // Totals that show it to have relayed after all must still be able to start it.
            if s.closing() > 0 {
                s.phase = Phase::Waiting;
            }
        } else {
            self.broken("a session that its last members took along");
        }
    }

    /// The session is over.
    pub(crate) fn finish(&mut self, session: u32) {
        let now = self.now;
        let Some(s) = self.sessions.get(session as usize) else {
            return self.broken("no session to finish");
        };
        let (group, started) = (s.group, s.sequence > 0);
        let (ended_at, _) = s.end(now);
        if started {
            self.emit(session, EventType::End);
            self.groups.session_ended(group, ended_at, &self.internal_errors);
            self.begins_not_before(self.groups.current(group), ended_at);
        }
        self.mark_session(session);
        let Some(mut s) = self.sessions.try_remove(session as usize, &self.internal_errors) else {
            return self.broken("no session to take away");
        };
        self.joins_no_more(group, session);
        let former = s.take_former();
        for name in s
            .usernames
            .into_iter()
            .chain(former.past.into_iter().map(|p| p.name))
            .chain([s.first_name])
        {
            self.release_name(name);
        }
        self.release_group(group);
    }

    /// A group's next session that nothing was emitted of: the one before has ended only then, as a takeover can show.
    fn begins_not_before(&mut self, session: u32, at: Timestamp) {
        if let Some(s) = self.sessions.get_mut(session as usize)
            && s.sequence == 0
            && s.started_at.get() < at
        {
            s.started_at = Moment::from(at);
            self.mark_session(session);
        }
    }

    /// A group's allocations do not join this session any more.
    fn joins_no_more(&mut self, group: u32, session: u32) {
        if self.groups.current(group) == session {
            self.set_current(group, NONE);
        }
    }
}
