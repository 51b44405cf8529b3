//! What `direct` sources know of their servers.

use hashbrown::HashSet;

use super::{Notice, Reducer, ServerRef};
use crate::{aside::Tombstone, event::CloseReason, intern::NONE, servers::Ending, time::Timestamp};

/// So many allocations are looked at for what it takes to end one.
const LOOKED_AT: usize = 64;

impl Reducer {
    /// A server has stopped at `stopped_at`: its open allocations are over.
    pub fn server_stopped(&mut self, at: Timestamp, server: ServerRef, stopped_at: Timestamp) {
        self.end_server(at, server, stopped_at, CloseReason::ServerStopped);
        self.servers.stopped(server.0, stopped_at);
    }

    /// A server that was taken to have stopped is there again, and its absence is on record: nobody who goes on from here
    /// is to say it once more.
    pub fn server_returned(&mut self, server: ServerRef) {
        self.begin(self.now);
        let absent = |t: &Tombstone| t.server == server.0 && t.rest.more.stopped_at.is_some();
        let ended = self.tombstones.iter().filter(|(_, t)| absent(t));
        let ended: Vec<u32> = ended.map(|(slot, _)| slot).collect();
        for slot in ended {
            if let Some(t) = self.tombstones.get_mut(slot) {
                t.rest.more.stopped_at = None;
                self.outgoing.tombstone(slot);
            }
        }
    }

    /// A server was started anew, after it had closed the last of its connections at `closed_at`: what was
    /// open then is over.
    pub fn server_restarted(&mut self, at: Timestamp, server: ServerRef, closed_at: Timestamp) {
        self.end_server(at, server, closed_at, CloseReason::ServerRestarted);
    }

    /// A relay thread of a server has a connection open from now on.
    pub fn thread_connected(&mut self, at: Timestamp, server: ServerRef, thread: u16) {
        self.begin(at);
        self.hearing.thread(server.0, thread, true);
    }

    /// The last connection of a relay thread has closed.
    pub fn thread_disconnected(&mut self, at: Timestamp, server: ServerRef, thread: u16) {
        self.begin(at);
        self.hearing.thread(server.0, thread, false);
    }

    /// Those with no allocation, connection or tombstone, and of which nothing else is kept.
    pub(crate) fn forget_servers(&mut self) {
        let mut used: HashSet<u32> = HashSet::new();
        used.extend(self.hearing.connected());
        used.extend(self.ending.iter().map(|e| e.server));
        used.extend(self.tombstones.iter().map(|(_, t)| t.server));
        used.extend(self.unconfirmed.iter().map(|(_, u)| u.server));
        for (_, l) in self.leftovers.iter() {
            used.insert(l.server);
            used.extend(l.past.iter().map(|p| p.server));
        }
        for (_, s) in self.sessions.iter() {
            used.extend(s.former().past.iter().map(|p| p.server));
        }
        used.extend(self.cluster.servers_kept());
        self.servers.forget_all_but(&used);
        self.hearing.forget_servers(|server| self.servers.knows(server));
    }

    fn end_server(&mut self, at: Timestamp, server: ServerRef, closed_at: Timestamp, reason: CloseReason) {
        self.begin(at);
        self.ending.push_back(Ending {
            server: server.0,
            closed_at: closed_at.min(self.now),
            reason,
            next: 0,
        });
        // What nobody has confirmed by now was of the life that is over, and may have been forged.
        let unconfirmed = self.unconfirmed.iter().filter(|(_, u)| u.server == server.0);
        let unconfirmed: Vec<u32> = unconfirmed.map(|(slot, _)| slot).collect();
        for slot in unconfirmed {
            self.forget_unconfirmed(slot);
        }
    }

    /// Ends allocations of servers that are over, for about `steps` of them. Whether there are more.
    pub(crate) fn end_some(&mut self, steps: &mut usize) -> bool {
        while let Some(job) = self.ending.front() {
            let Ending {
                closed_at,
                reason,
                next,
                ..
            } = *job;
            if *steps == 0 {
                return true;
            }
            let last = self.allocations.capacity() as u32;
            let until = last
                .min(next.saturating_add(u32::try_from(steps.saturating_mul(LOOKED_AT)).unwrap_or(u32::MAX)));
            let over = |slot: &u32| self.allocation(*slot).is_some_and(|a| job.ends(a));
            let found = (next..until).find(|slot| over(slot));
            let looked_at = found.unwrap_or(until) - next;
            *steps = steps.saturating_sub(looked_at as usize / LOOKED_AT);
            let Some(slot) = found else {
                // None of it is left there.
                if until == last {
                    self.ending.pop_front();
                } else if let Some(job) = self.ending.front_mut() {
                    job.next = until;
                }
                continue;
            };
            // All of a session are over at once: none is merely parked because another was looked at first.
            let session = self.allocation(slot).map_or(NONE, |a| a.session);
            let mut slots: Vec<u32> = match self.sessions.get(session as usize) {
                Some(s) => s.members().iter().copied().filter(over).collect(),
                None => vec![slot],
            };
            self.sort_allocations(&mut slots);
            *steps = steps.saturating_sub(slots.len());
            self.reviews_wait = true;
            for slot in slots {
                let opened_at = self.allocation(slot).map_or(closed_at, |a| a.opened_at.get());
                self.end_now(slot, closed_at.max(opened_at), reason, None);
            }
            self.reviews_wait = false;
            if self.sessions.contains(session as usize) {
                self.review(session);
            }
            if let Some(job) = self.ending.front_mut() {
                job.next = slot + 1;
            }
        }
        false
    }

    /// The server of an allocation that has ended, if that is what ended it.
    pub(crate) fn was_stopped(&self, tombstone: u32) -> Option<u32> {
        let t = self.tombstones.get(tombstone)?;
        (t.rest.more.reason == Some(CloseReason::ServerStopped)).then_some(t.server)
    }

    /// One of a server's allocations that had been ended is heard of again: the server had not stopped, it was
    /// merely not heard.
    pub(crate) fn had_not_stopped(&mut self, server: u32) {
        let Some(from) = self.servers.returned(server) else {
            return; // it was not taken to have stopped
        };
        self.server_returned(ServerRef(server));
        let now = self.now;
        self.hearing.missed(Some(server), now);
        self.outgoing.source();
        self.outgoing.notice(Notice::HadNotStopped {
            server: self.servers.owned(server),
            from,
            to: now,
        });
    }
}
