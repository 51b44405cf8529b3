//! A session that lasts too long: whoever refreshes for ever is billed in parts.
//!
//! It ends at the limit, as it is, and what it still holds goes on at once in a session that continues it. Nothing
//! waits for anything, so it is the same for a session of a million bytes and one of none, before and after a restart.

use super::Reducer;
use crate::{
    event::CloseReason,
    intern::NONE,
    rules::StartOn,
    session::{Phase, Session},
    time::Timestamp,
};

impl Reducer {
    /// When the session must end, however alive it is. One that holds nothing open ends by itself.
    pub(crate) fn limit(&self, s: &Session) -> Timestamp {
        let most = self.rules.max_session;
        // Until it is known whether there is a peer leg, what was relayed is not known either, and waits.
        if self.reports_peer_leg().is_none() {
            return Timestamp::MAX;
        }
        if most == 0 || s.phase != Phase::Open || s.open() == 0 {
            return Timestamp::MAX;
        }
        s.started_at.get().plus(most)
    }

    /// Sees to it that the session is looked at by then.
    pub(crate) fn arm_limit(&mut self, session: u32) {
        let limit = self.sessions.get(session as usize).map(|s| self.limit(s));
        if let Some(limit) = limit.filter(|limit| *limit < Timestamp::MAX) {
            self.wake_session(session, limit);
        }
    }

    /// The same of all sessions.
    pub(crate) fn arm_limits(&mut self) {
        let sessions: Vec<u32> = self.sessions.iter().map(|(slot, _)| slot as u32).collect();
        for session in sessions {
            self.arm_limit(session);
        }
    }

    /// Ends a session that has come to its limit, and begins the one that continues it. False if it has not.
    pub(crate) fn end_at_limit(&mut self, session: u32) -> bool {
        let now = self.now;
        let Some(s) = self.sessions.get(session as usize) else {
            self.broken("no session to have come to its limit");
            return false;
        };
        if self.limit(s) > now {
            return false;
        }
        let (id, group) = (s.id, s.group);
        let mut members = s.members().to_vec();
        // The first of them names the next session.
        self.sort_allocations(&mut members);
        self.hold_group(group);
        for slot in &members {
            self.leave(session, *slot, false, true);
        }
        if let Some(s) = self.sessions.get_mut(session as usize) {
            s.phase = Phase::Ending;
            let former = s.former_mut();
            former.last_relayed_close = Some((now, CloseReason::MaxSession));
            // What it still waits for is billed in the next one, and so is that it closed.
            for past in former.past.iter_mut().filter(|p| !p.totals_seen) {
                let parted = members.iter().any(|slot| {
                    self.allocations.get(*slot as usize).is_some_and(|a| {
                        (a.id, a.name, a.server, a.opened_at.get())
                            == (past.id, past.name, past.server, past.opened_at)
                    })
                });
                if parted {
                    past.closed = None;
                }
            }
        }
        self.finish(session);
        self.continue_with(&members, group, id);
        self.release_group(group);
        true
    }

    /// A session of all of these that continues another.
    fn continue_with(&mut self, members: &[u32], group: u32, continued: crate::event::SessionId) {
        let now = self.now;
        let Some(name) = members
            .first()
            .and_then(|slot| self.allocations.get(*slot as usize))
            .map(|a| a.name)
        else {
            return self.broken("a session with nothing open has come to its limit");
        };
        self.names.hold_again(name, &self.internal_errors);
        self.hold_group(group);
        let mut new = Session::new(crate::event::SessionId([0; 16]), group, name, now);
        new.former_mut().continues = Some(continued);
        let session = self.sessions.insert(new) as u32;
        if self.groups.current(group) == NONE {
            self.set_current(group, session);
        }
        for slot in members {
            self.join(*slot, session);
        }
        if self.rules.start_on == StartOn::Allocation {
            self.start(session);
        }
        self.review(session);
    }
}
