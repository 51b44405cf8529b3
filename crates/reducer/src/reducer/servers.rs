//! What `direct` sources know of their servers (METERING.md, "Servers").

use super::{Reducer, ServerRef};
use crate::{event::CloseReason, time::Timestamp};

impl Reducer {
    /// A server has stopped at `stopped_at`: its open allocations are over.
    pub fn server_stopped(&mut self, at: Timestamp, server: ServerRef, stopped_at: Timestamp) {
        self.end_server(at, server, stopped_at, CloseReason::ServerStopped);
    }

    /// A server was started anew, after it had closed the last of its connections at `closed_at`: what was
    /// open then is over.
    pub fn server_restarted(&mut self, at: Timestamp, server: ServerRef, closed_at: Timestamp) {
        self.end_server(at, server, closed_at, CloseReason::ServerRestarted);
    }

    fn end_server(&mut self, at: Timestamp, server: ServerRef, closed_at: Timestamp, reason: CloseReason) {
        self.begin(at);
        let closed_at = closed_at.min(self.now);
        // What was heard of later is of the server's next life.
        let over = self
            .allocations
            .iter()
            .filter(|(_, a)| a.server == server.0 && a.heard_at.get() <= closed_at);
        let mut slots: Vec<u32> = over.map(|(slot, _)| slot as u32).collect();
        self.sort_allocations(&mut slots);
        let mut sessions = Vec::new();
        // All of them are over at once: none is merely parked because another was looked at first.
        self.reviews_wait = true;
        for slot in slots {
            let Some(a) = self.allocations.get(slot as usize) else {
                continue;
            };
            sessions.push(a.session);
            let opened_at = a.opened_at.get();
            self.end_now(slot, closed_at.max(opened_at), reason, None);
        }
        self.reviews_wait = false;
        // What nobody has confirmed by now was of the life that is over, and may have been forged.
        let unconfirmed = self.unconfirmed.iter().filter(|(_, u)| u.server == server.0);
        let unconfirmed: Vec<u32> = unconfirmed.map(|(slot, _)| slot).collect();
        for slot in unconfirmed {
            self.forget_unconfirmed(slot);
        }
        sessions.sort_unstable();
        sessions.dedup();
        for session in sessions {
            self.review(session);
        }
    }
}
