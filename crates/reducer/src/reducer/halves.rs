//! The two halves of a report: coturn says `traffic` and `traffic/peer` back to back, and only together do they say what
//! was relayed. Messages of other allocations may come between them, and either may be lost.

use hashbrown::HashMap;

use crate::{time::Timestamp, usage::Counters};

/// By how much at most the halves of one report come after each other, in milliseconds.
pub(crate) const HALVES_APART: u64 = 1_000;

/// So many halves at least are kept, however many come within that time. What is beyond is left unpaired, and billed as less.
const KEPT: usize = 1 << 16;

/// Client's halves whose peer's half has yet to come, by allocation.
#[derive(Debug, Default)]
pub(crate) struct Halves {
    /// The last that came: nearly always its other half is next.
    last: Option<(u32, Timestamp, Counters)>,
    /// Those before it, since this moment. A coturn without peer messages leaves one here with every report, so that looking
    /// through them for what is too old would be a standstill: once they are old, or many, they are put aside as a whole.
    since: Timestamp,
    recent: HashMap<u32, (Timestamp, Counters)>,
    /// Those that were put aside last.
    older: HashMap<u32, (Timestamp, Counters)>,
}

impl Halves {
    /// A client's half has come. Where two servers share an allocation's key (`ambiguous`), two halves in a row may be of
    /// either: then neither is paired.
    pub(crate) fn put(&mut self, slot: u32, now: Timestamp, half: Counters, ambiguous: bool) {
        let before = self.take(slot, now);
        if let Some((slot, at, half)) = self.last.take() {
            self.put_aside(now);
            self.recent.insert(slot, (at, half));
        }
        if before.is_none() || !ambiguous {
            self.last = Some((slot, now, half));
        }
    }

    /// The peer's half has come: the client's, if it was just heard.
    pub(crate) fn take(&mut self, slot: u32, now: Timestamp) -> Option<Counters> {
        let found = match self.last.take_if(|(last, ..)| *last == slot) {
            Some((_, at, half)) => Some((at, half)),
            None => self.take_earlier(slot),
        };
        found
            .filter(|(at, _)| now.since(*at) <= HALVES_APART)
            .map(|(_, half)| half)
    }

    fn take_earlier(&mut self, slot: u32) -> Option<(Timestamp, Counters)> {
        let take = |from: &mut HashMap<_, _>| if from.is_empty() { None } else { from.remove(&slot) };
        take(&mut self.recent).or_else(|| take(&mut self.older))
    }

    fn put_aside(&mut self, now: Timestamp) {
        if self.recent.len() >= KEPT || now.since(self.since) > HALVES_APART {
            std::mem::swap(&mut self.recent, &mut self.older);
            self.recent.clear();
            self.since = now;
        }
    }

    /// For a row.
    pub(crate) fn get(&self, slot: u32) -> Option<(Timestamp, Counters)> {
        match self.last {
            Some((last, at, half)) if last == slot => Some((at, half)),
            _ => self.recent.get(&slot).or_else(|| self.older.get(&slot)).copied(),
        }
    }

    /// The allocation is over.
    pub(crate) fn forget(&mut self, slot: u32) {
        self.last.take_if(|(last, ..)| *last == slot);
        self.take_earlier(slot);
    }

    /// From a row.
    pub(crate) fn restore(&mut self, slot: u32, (at, half): (Timestamp, Counters)) {
        self.recent.insert(slot, (at, half));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn half(n: u64) -> Counters {
        Counters {
            received_packets: n,
            ..Counters::ZERO
        }
    }

    #[test]
    fn halves_are_paired_across_other_allocations_and_not_across_reports() {
        let mut halves = Halves::default();
        halves.put(1, Timestamp(0), half(1), false);
        halves.put(2, Timestamp(1), half(2), false);
        assert_eq!(halves.take(1, Timestamp(2)), Some(half(1)));
        assert_eq!(halves.take(1, Timestamp(2)), None);
        assert_eq!(halves.take(2, Timestamp(1 + HALVES_APART)), Some(half(2)));
        halves.put(3, Timestamp(0), half(3), false);
        assert_eq!(halves.take(3, Timestamp(1 + HALVES_APART)), None);
        halves.put(4, Timestamp(0), half(4), true);
        halves.put(4, Timestamp(0), half(5), true);
        assert_eq!(halves.take(4, Timestamp(0)), None);
    }

    #[test]
    fn what_comes_within_a_moment_is_kept_and_bounded_and_not_looked_through() {
        let mut halves = Halves::default();
        let count = KEPT as u32;
        for slot in 0..count {
            halves.put(slot, Timestamp(5), half(1), false);
        }
        assert!((0..count).all(|slot| halves.take(slot, Timestamp(6)) == Some(half(1))));
        // A million within a moment: with a look through them for each, this would take hours.
        for slot in 0..1_000_000 {
            halves.put(slot, Timestamp(7), half(1), false);
        }
        assert!(halves.recent.len() <= KEPT && halves.older.len() <= KEPT);
        assert_eq!(halves.take(999_000, Timestamp(8)), Some(half(1)));
        // And those that are old leave although few come.
        for n in 1..=3 {
            halves.put(n, Timestamp(10 + n as u64 * (HALVES_APART + 1)), half(1), false);
        }
        assert!(halves.recent.len() + halves.older.len() <= 2);
    }
}
