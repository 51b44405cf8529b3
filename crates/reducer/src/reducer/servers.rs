//! What `direct` sources know of their servers (METERING.md, "Servers").

use super::{Reducer, ServerRef};
use crate::{event::CloseReason, time::Timestamp};

impl Reducer {
    /// A server has stopped at `stopped_at`: its open allocations are over.
    pub fn server_stopped(&mut self, at: Timestamp, server: ServerRef, stopped_at: Timestamp) {
        self.end_server(at, server, stopped_at, CloseReason::ServerStopped, |_| true);
    }

    /// A server was started anew: the allocations of those relay threads whose connection it had closed,
    /// the last at `closed_at`, are over.
    pub fn server_restarted(
        &mut self,
        at: Timestamp,
        server: ServerRef,
        closed_at: Timestamp,
        threads: &[u16],
    ) {
        self.end_server(at, server, closed_at, CloseReason::ServerRestarted, |thread| {
            threads.contains(&thread)
        });
    }

    fn end_server(
        &mut self,
        at: Timestamp,
        server: ServerRef,
        closed_at: Timestamp,
        reason: CloseReason,
        of_thread: impl Fn(u16) -> bool,
    ) {
        self.begin(at);
        let closed_at = closed_at.min(self.now);
        // What was heard of later is of the server's next life.
        let over = self.allocations.iter().filter(|(_, a)| {
            a.server == server.0 && a.heard_at <= closed_at && of_thread(a.id.relay_thread())
        });
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
