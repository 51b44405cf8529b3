//! The two halves of a report: coturn says `traffic` and `traffic/peer` back to back, and only together do they say what
//! was relayed. Messages of other allocations may come between them, and either may be lost.

use hashbrown::HashMap;

use crate::{time::Timestamp, usage::Counters};

/// By how much at most the halves of one report come after each other, in milliseconds.
pub(crate) const HALVES_APART: u64 = 1_000;

/// Client's halves whose peer's half has yet to come, by allocation.
#[derive(Debug, Default)]
pub(crate) struct Halves {
    /// The last that came: nearly always its other half is next.
    last: Option<(u32, Timestamp, Counters)>,
    others: HashMap<u32, (Timestamp, Counters)>,
}

impl Halves {
    /// A client's half has come. Where two servers share an allocation's key (`ambiguous`), two halves in a row may be of
    /// either: then neither is paired.
    pub(crate) fn put(&mut self, slot: u32, now: Timestamp, half: Counters, ambiguous: bool) {
        let before = self.take(slot, now);
        if let Some((slot, at, half)) = self.last.take() {
            if self.others.len() >= 1024 {
                self.others.retain(|_, (at, _)| now.since(*at) <= HALVES_APART);
            }
            self.others.insert(slot, (at, half));
        }
        if before.is_none() || !ambiguous {
            self.last = Some((slot, now, half));
        }
    }

    /// The peer's half has come: the client's, if it was just heard.
    pub(crate) fn take(&mut self, slot: u32, now: Timestamp) -> Option<Counters> {
        let found = match self.last.take_if(|(last, ..)| *last == slot) {
            Some((_, at, half)) => Some((at, half)),
            None if self.others.is_empty() => None,
            None => self.others.remove(&slot),
        };
        found
            .filter(|(at, _)| now.since(*at) <= HALVES_APART)
            .map(|(_, half)| half)
    }

    /// For a row.
    pub(crate) fn get(&self, slot: u32) -> Option<(Timestamp, Counters)> {
        match self.last {
            Some((last, at, half)) if last == slot => Some((at, half)),
            _ => self.others.get(&slot).copied(),
        }
    }

    /// The allocation is over.
    pub(crate) fn forget(&mut self, slot: u32) {
        self.last.take_if(|(last, ..)| *last == slot);
        if !self.others.is_empty() {
            self.others.remove(&slot);
        }
    }

    /// From a row.
    pub(crate) fn restore(&mut self, slot: u32, (at, half): (Timestamp, Counters)) {
        self.others.insert(slot, (at, half));
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
        for slot in 0..100_000 {
            halves.put(slot, Timestamp(u64::from(slot)), half(1), false);
        }
        assert!(halves.others.len() <= 2048, "{}", halves.others.len());
    }
}
