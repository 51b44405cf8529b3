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
            .filter(|(_, a)| a.server == server.0 && a.heard_at <= closed_at);
        let slots: Vec<u32> = over.map(|(slot, _)| slot as u32).collect();
        for slot in slots {
            let opened_at = self
                .allocations
                .get(slot as usize)
                .map_or(closed_at, |a| a.opened_at);
            self.end_now(slot, closed_at.max(opened_at), reason, None);
        }
    }
}
