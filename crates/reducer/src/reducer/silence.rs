//! Relay threads of coturn that have fallen silent (COTURN.md, trap 11).

use std::collections::BTreeMap;

use super::Reducer;
use crate::{flags::Flags, intern::NONE, time::Timestamp};

/// A relay thread that ought to have said something, and has not.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SilentThread {
    /// The address of its coturn (`local=`), where it is known.
    pub server_address: Option<Box<[u8]>>,
    /// The thread: the first three digits of its allocations.
    pub thread: u16,
    /// How many of its open allocations were neither refreshed nor deleted in their lifetime.
    pub overdue: usize,
    /// When it was last heard.
    pub heard_at: Timestamp,
}

#[derive(Default)]
struct Thread {
    heard_at: Timestamp,
    overdue: usize,
    /// When the first overdue allocation should have been heard of.
    first_due: Timestamp,
}

impl Reducer {
    /// Relay threads of which nothing was heard since an allocation of theirs was to be refreshed or
    /// deleted, at least `slack` milliseconds ago, while other threads went on. coturn says `deleted` when
    /// a lifetime runs out, so that silence means a lost message, a server that is gone, or a thread that
    /// is wedged. Looks at every allocation: to be asked every few seconds at most.
    #[must_use]
    pub fn silent_threads(&self, slack: u64) -> Vec<SilentThread> {
        if self.deaf {
            return Vec::new();
        }
        let mut threads: BTreeMap<(u32, u16), Thread> = BTreeMap::new();
        let mut last_heard = [(Timestamp(0), (NONE, 0u16)); 2];
        let hear = |key: (u32, u16), at: Timestamp, last_heard: &mut [(Timestamp, (u32, u16)); 2]| {
            // The two latest, of different threads.
            if last_heard[0].1 == key || at > last_heard[0].0 {
                if last_heard[0].1 != key {
                    last_heard[1] = last_heard[0];
                }
                last_heard[0] = (at.max(last_heard[0].0), key);
            } else if at > last_heard[1].0 {
                last_heard[1] = (at, key);
            }
        };
        for (_, a) in &self.allocations {
            let key = (self.labels.set(a.labels).local, a.id.relay_thread());
            hear(key, a.heard_at.get(), &mut last_heard);
            let thread = threads.entry(key).or_default();
            thread.heard_at = thread.heard_at.max(a.heard_at.get());
            // A refresh may have been missed in a gap: then one more lifetime counts from its end. A wedge
            // begins in one, since what wedges a thread is a Redis that stands still.
            let from = a.status_at.get().max(self.heard_since(a.server));
            let due = from.plus(u64::from(a.lifetime) * 1000);
            let known = !a.flags.intersects(Flags::CLOSING | Flags::SHARED);
            if known && a.lifetime > 0 && due.plus(slack) < self.now {
                thread.first_due = if thread.overdue == 0 {
                    due
                } else {
                    thread.first_due.min(due)
                };
                thread.overdue += 1;
            }
        }
        for (_, t) in self.tombstones.iter() {
            let thread = t.id.relay_thread();
            for (key, heard) in threads
                .range_mut((0, thread)..)
                .filter(|((_, n), _)| *n == thread)
            {
                // Which server it was is not kept; what its own end said is enough to know it was not silent.
                if t.rest.totals_seen {
                    heard.heard_at = heard.heard_at.max(t.heard_at);
                    hear(*key, t.heard_at, &mut last_heard);
                }
            }
        }
        let silent = threads.into_iter().filter(|(key, t)| {
            let others = last_heard
                .iter()
                .filter(|(_, k)| k != key)
                .map(|(at, _)| *at)
                .max()
                .unwrap_or_default();
            t.overdue > 0 && t.heard_at < t.first_due && others > t.first_due
        });
        silent
            .map(|((local, thread), t)| SilentThread {
                server_address: self.labels.owned(local),
                thread,
                overdue: t.overdue,
                heard_at: t.heard_at,
            })
            .collect()
    }
}
