//! Relay threads of coturn that have fallen silent (TRAPS.md, trap 11).

use hashbrown::HashMap;

use super::Reducer;
use crate::{flags::Flags, time::Timestamp};

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

/// A server's address and a thread of it.
type Key = (u32, u16);

#[derive(Clone, Copy, Debug, Default)]
struct Thread {
    heard_at: Timestamp,
    overdue: usize,
    /// When the first overdue allocation should have been heard of.
    first_due: Timestamp,
}

/// A look at all allocations, as far as it has come.
#[derive(Debug)]
pub struct SilenceLook {
    slack: u64,
    next: usize,
    threads: HashMap<Key, Thread>,
    /// When ended allocations were last heard of, by thread: which server's they were is not kept. What their own end
    /// said is enough to know that a thread was not silent.
    ended: HashMap<u16, Timestamp>,
    /// How many slots were looked at, for a test.
    #[cfg(test)]
    looked: usize,
}

impl SilenceLook {
    /// One that begins. Threads count that are at least `slack` milliseconds overdue.
    #[must_use]
    pub fn new(slack: u64) -> SilenceLook {
        SilenceLook {
            slack,
            next: 0,
            threads: HashMap::new(),
            ended: HashMap::new(),
            #[cfg(test)]
            looked: 0,
        }
    }

    fn looks(&mut self) {
        #[cfg(test)]
        {
            self.looked += 1;
        }
    }
}

impl Reducer {
    /// Relay threads of which nothing was heard since an allocation of theirs was to be refreshed or
    /// deleted, at least `slack` milliseconds ago, while other threads went on. coturn says `deleted` when
    /// a lifetime runs out, so that silence means a lost message, a server that is gone, or a thread that
    /// is wedged. Looks at every allocation once.
    #[must_use]
    pub fn silent_threads(&self, slack: u64) -> Vec<SilentThread> {
        let mut look = SilenceLook::new(slack);
        loop {
            if let Some(found) = self.look_for_silence(&mut look, usize::MAX) {
                return found;
            }
        }
    }

    /// The same in steps, of so many allocations and tombstones each: what is silent, once all were looked at. What is
    /// heard between two steps may have come too late for this look: only a thread that two looks in a row find was
    /// silent for certain. Each look is to be made with one reducer.
    pub fn look_for_silence(&self, look: &mut SilenceLook, most: usize) -> Option<Vec<SilentThread>> {
        if self.hearing.is_deaf() {
            return Some(Vec::new());
        }
        // Slots in use and free ones, tombstones behind allocations.
        let (open, all) = (
            self.allocations.capacity(),
            self.allocations.capacity() + self.tombstones.capacity(),
        );
        let end = look.next.saturating_add(most).min(all);
        let (mut last, mut thread) = (None, Thread::default());
        for slot in look.next..end.min(open) {
            look.looks();
            let Some(a) = self.allocations.get(slot) else {
                continue; // a free place
            };
            let key = (self.labels.set(a.labels).local, a.id.relay_thread());
            // Neighbours are often of one thread.
            if last != Some(key) {
                if let Some(last) = last.replace(key) {
                    look.threads.insert(last, thread);
                }
                thread = look.threads.get(&key).copied().unwrap_or_default();
            }
            thread.heard_at = thread.heard_at.max(a.heard_at.get());
            let known = !a.flags.intersects(Flags::CLOSING | Flags::SHARED);
            if !known || a.lifetime == 0 {
                continue;
            }
            // A refresh may have been missed in a gap: then one more lifetime counts from its end. A wedge
            // begins in one, since what wedges a thread is a Redis that stands still.
            let due = |from: Timestamp| from.plus(u64::from(a.lifetime) * 1000);
            let overdue = |from| due(from).plus(look.slack) < self.now;
            let from = a.status_at.get();
            // Most are not, whatever was missed.
            if !overdue(from) {
                continue;
            }
            let from = from.max(self.hearing.since(a.server));
            if overdue(from) {
                let due = due(from);
                thread.first_due = if thread.overdue == 0 {
                    due
                } else {
                    thread.first_due.min(due)
                };
                thread.overdue += 1;
            }
        }
        if let Some(last) = last {
            look.threads.insert(last, thread);
        }
        for slot in look.next.max(open)..end {
            look.looks();
            let tombstone = u32::try_from(slot - open)
                .ok()
                .and_then(|slot| self.tombstones.get(slot));
            if let Some(t) = tombstone.filter(|t| t.rest.totals_seen) {
                let heard_at = look.ended.entry(t.id.relay_thread()).or_default();
                *heard_at = t.heard_at.max(*heard_at);
            }
        }
        look.next = end;
        (end >= all).then(|| self.silent_of(look))
    }

    fn silent_of(&self, look: &mut SilenceLook) -> Vec<SilentThread> {
        // The two that were heard last.
        let mut last_heard: [(Timestamp, Option<Key>); 2] = Default::default();
        for (key, thread) in &mut look.threads {
            let ended = look.ended.get(&key.1).copied().unwrap_or_default();
            thread.heard_at = thread.heard_at.max(ended);
            if thread.heard_at >= last_heard[0].0 {
                last_heard = [(thread.heard_at, Some(*key)), last_heard[0]];
            } else if thread.heard_at > last_heard[1].0 {
                last_heard[1] = (thread.heard_at, Some(*key));
            }
        }
        let mut silent: Vec<(Key, Thread)> = look.threads.iter().map(|(key, t)| (*key, *t)).collect();
        silent.retain(|(key, t)| {
            let others = last_heard
                .iter()
                .find(|(_, k)| *k != Some(*key))
                .map_or(Timestamp(0), |(at, _)| *at);
            t.overdue > 0 && t.heard_at < t.first_due && others > t.first_due
        });
        // The same order in every process.
        silent.sort_unstable_by_key(|(key, _)| (key.1, self.labels.get(key.0)));
        silent
            .into_iter()
            .map(|((local, thread), t)| SilentThread {
                server_address: self.labels.owned(local),
                thread,
                overdue: t.overdue,
                heard_at: t.heard_at,
            })
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        Identity, ServerRef,
        message::{AllocationId, Kind, Leg, Message, Status},
        rules::Rules,
        usage::Counters,
    };

    /// Each slot is looked at once, however many threads there are: not all that has ended once more for each of them.
    #[test]
    fn a_look_is_as_long_as_what_it_looks_at() {
        const ENDED: u64 = 5_000;
        const THREADS: u64 = 400;
        let identity = Identity {
            store: [7; 16],
            source: "eu-1".into(),
        };
        let mut reducer = Reducer::new(identity, Rules::default());
        reducer.hearing(Timestamp(1));
        let id = |thread: u64, n: u64| AllocationId(thread * 1_000_000_000_000_000 + n);
        let mut hear = |id: AllocationId, kind: Kind<'_>| {
            let message = Message {
                realm: b"example.org",
                username: b"ann",
                id,
                kind,
            };
            reducer.message(Timestamp(1_000), ServerRef::UNKNOWN, &message);
        };
        let status = Status {
            lifetime: 600,
            local: Some(b"192.0.2.1:3478"),
            ..Status::default()
        };
        for n in 0..ENDED {
            let id = id(n % THREADS, n + 1);
            hear(id, Kind::New(status));
            hear(id, Kind::Deleted);
            hear(id, Kind::TotalTraffic(Leg::Client, Counters::ZERO));
            hear(id, Kind::TotalTraffic(Leg::Peer, Counters::ZERO));
        }
        for thread in 0..THREADS {
            hear(id(thread, ENDED + 1), Kind::New(status));
        }
        assert!(reducer.tombstones.len() > 0, "what has ended is looked at too");
        let slots = reducer.allocations.capacity() + reducer.tombstones.capacity();
        let mut look = SilenceLook::new(0);
        assert!(reducer.look_for_silence(&mut look, usize::MAX).is_some());
        assert_eq!((look.looked, look.threads.len() as u64), (slots, THREADS));
        // And in steps, none of which is longer than it may be.
        let mut look = SilenceLook::new(0);
        let mut before = 0;
        while reducer.look_for_silence(&mut look, 100).is_none() {
            assert!(look.looked - before <= 100);
            before = look.looked;
        }
        assert_eq!(look.looked, slots);
    }
}
