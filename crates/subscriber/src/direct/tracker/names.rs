//! Servers by their names: which of them may be one coturn, and how many names are kept.

use std::{net::IpAddr, sync::Arc};

use turnhook_reducer::time::Timestamp;

use super::{
    super::{
        guard::block,
        server::{BACK, Closing, MOVED, Presence, Server},
    },
    OF_ALL, OF_ONE, ServerTracker,
};
use crate::signal::Signal;

impl ServerTracker {
    /// Connections of this server that came from nowhere: where a server of kin lost as many a moment before, they are
    /// its own.
    pub(super) fn resettle(&mut self, name: &Arc<[u8]>, now: Timestamp) {
        loop {
            let Some(entry) = self.servers.get_mut(name) else {
                return;
            };
            if entry
                .strays
                .front()
                .is_none_or(|accepted| accepted.plus(MOVED) > now)
            {
                return;
            }
            let Some(accepted) = entry.strays.pop_front() else {
                return;
            };
            if entry.started_with(accepted) {
                continue;
            }
            let lost = self.servers.iter_mut().filter(|(other, s)| {
                // In time for the stop not to have been emitted yet.
                let lately = |c: Closing| accepted >= c.first && accepted.plus(MOVED) <= c.last.plus(BACK);
                !s.away.is_empty()
                    && *other != name
                    && kin(other) == kin(name)
                    && s.closing.is_some_and(lately)
            });
            let Some((other, lost)) =
                lost.max_by_key(|(other, s)| (s.closing.map(|c| c.last), Arc::clone(other)))
            else {
                continue;
            };
            lost.stop_due = None;
            let Some(heard) = lost.away.pop_front() else {
                continue;
            };
            lost.came_back(other, heard, accepted);
            if let Some(entry) = self.servers.get_mut(name) {
                entry.came_back(name, heard, accepted);
            }
        }
    }

    /// Makes room for one more server, where there are too many; false if all of them have connections.
    pub(super) fn make_room(&mut self, server: &Arc<[u8]>, peer: IpAddr) -> bool {
        if self.servers.contains_key(server) {
            return true;
        }
        let block = block(peer);
        let held = self.names.get(&block).copied().unwrap_or(0);
        let full = self.servers.len() >= OF_ALL;
        if held >= OF_ONE || full {
            let of = |s: &Server| full && held < OF_ONE || self::block(s.peer) == block;
            let left = self.servers.iter().filter(|(_, s)| of(s) && s.open.is_empty());
            let Some(oldest) = left.min_by_key(|(_, s)| s.left).map(|(name, _)| Arc::clone(name)) else {
                return false;
            };
            self.forget(&oldest);
        }
        *self.names.entry(block).or_default() += 1;
        true
    }

    fn forget(&mut self, server: &Arc<[u8]>) {
        let Some(entry) = self.servers.remove(server) else {
            return;
        };
        let block = block(entry.peer);
        if let Some(held) = self.names.get_mut(&block) {
            *held = held.saturating_sub(1);
            if *held == 0 {
                self.names.remove(&block);
            }
        }
        if matches!(entry.presence, Presence::Leaving { .. }) {
            let (at, server) = (entry.left, Arc::clone(server));
            self.out.push_back(Signal::ServerGone { at, server });
        }
    }
}

/// What a server keeps when its address changes: user and database, behind the first slash.
fn kin(server: &[u8]) -> &[u8] {
    let slash = memchr::memchr(b'/', server).unwrap_or(0);
    server.get(slash..).unwrap_or_default()
}
