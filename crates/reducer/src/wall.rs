//! The wall clock, as far as it differs from the time of the inputs: that never goes back, the wall clock may.

use std::collections::VecDeque;

use serde::{Deserialize, Serialize};

use crate::time::Timestamp;

/// How many changes are remembered: times before them are given as of the first.
const MOST: usize = 16;

/// By how much the wall clock is ahead (or, negative, behind), and since when.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Since {
    from: Timestamp,
    ahead: i64,
}

/// How times are given in events: as the wall clock has it, but within a session never going back.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Wall {
    changes: VecDeque<Since>,
}

impl Wall {
    /// From `from` on the wall clock is `ahead` of the time of the inputs, in milliseconds. Whether that is news.
    pub(crate) fn set(&mut self, from: Timestamp, ahead: i64) -> bool {
        if self.changes.back().map_or(0, |last| last.ahead) == ahead {
            return false;
        }
        if self.changes.is_empty() {
            self.changes.push_back(Since {
                from: Timestamp(0),
                ahead: 0,
            });
        }
        self.changes.push_back(Since { from, ahead });
        if self.changes.len() > MOST {
            self.changes.pop_front();
        }
        true
    }

    /// What the wall clock said at `at`.
    pub(crate) fn at(&self, at: Timestamp) -> Timestamp {
        let since = self.changes.iter().rfind(|since| since.from <= at);
        let ahead = since.or(self.changes.front()).map_or(0, |since| since.ahead);
        Timestamp(at.0.saturating_add_signed(ahead))
    }

    /// The same, not before anything that it said between `from` and then.
    pub(crate) fn not_back(&self, from: Timestamp, at: Timestamp) -> Timestamp {
        let last = |since: &Since| Timestamp(since.from.0.saturating_sub(1));
        let ends = self
            .changes
            .iter()
            .map(last)
            .filter(|end| (from..at).contains(end));
        ends.chain([at]).map(|at| self.at(at)).max().unwrap_or(at)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_clock_that_was_ahead_is_left_behind() {
        const DAY: u64 = 86_400_000;
        let mut wall = Wall::default();
        assert!(!wall.set(Timestamp(5), 0));
        assert_eq!(wall.at(Timestamp(7)), Timestamp(7));
        assert!(wall.set(Timestamp(2 * DAY), -(DAY as i64)));
        assert_eq!(wall.at(Timestamp(2 * DAY - 1)), Timestamp(2 * DAY - 1));
        assert_eq!(wall.at(Timestamp(2 * DAY)), Timestamp(DAY));
        // In a session that has emitted events, nothing goes back.
        let before = Timestamp(2 * DAY - 10);
        assert_eq!(
            wall.not_back(before, Timestamp(2 * DAY + 5)),
            Timestamp(2 * DAY - 1)
        );
        assert_eq!(
            wall.not_back(before, Timestamp(3 * DAY + 5)),
            Timestamp(2 * DAY + 5)
        );
        assert_eq!(
            wall.not_back(Timestamp(2 * DAY), Timestamp(2 * DAY + 5)),
            Timestamp(DAY + 5)
        );
        for n in 0..100 {
            wall.set(Timestamp(3 * DAY + n), n as i64);
        }
        assert!(wall.changes.len() <= MOST);
        assert_eq!(wall.at(Timestamp(3 * DAY + 99)), Timestamp(3 * DAY + 198));
    }
}
