//! The users with the largest sums. Rows come in runs that are sorted by user, a day's or a quarter's each: runs are merged,
//! which walks through memory from end to end where a table of users would wait for it at each row.

use std::cmp::{Ordering, Reverse};

/// Users in order, each once, and their sums.
#[derive(Default)]
struct Run {
    /// The users, one after the other.
    names: Vec<u8>,
    /// Where each ends, and the sum.
    sums: Vec<(usize, u128)>,
}

impl Run {
    fn user(&self, at: usize) -> Option<&[u8]> {
        let (end, _) = self.sums.get(at)?;
        let begin = at.checked_sub(1).map_or(0, |before| self.sums[before].0);
        self.names.get(begin..*end)
    }

    /// One that comes after all others.
    fn push(&mut self, user: &[u8], sum: u128) {
        self.names.extend_from_slice(user);
        self.sums.push((self.names.len(), sum));
    }

    fn merged(&self, other: &Run) -> Run {
        let mut both = Run::default();
        let (mut here, mut there) = (0, 0);
        loop {
            let (user, of_here, of_there) = match (self.user(here), other.user(there)) {
                (None, None) => return both,
                (Some(user), None) => (user, true, false),
                (None, Some(user)) => (user, false, true),
                (Some(user), Some(another)) => match user.cmp(another) {
                    Ordering::Less => (user, true, false),
                    Ordering::Greater => (another, false, true),
                    Ordering::Equal => (user, true, true),
                },
            };
            let sum = |run: &Run, at: usize, counts: bool| if counts { run.sums[at].1 } else { 0 };
            both.push(user, sum(self, here, of_here) + sum(other, there, of_there));
            here += usize::from(of_here);
            there += usize::from(of_there);
        }
    }
}

/// Adds rows up.
#[derive(Default)]
pub(super) struct Adding {
    /// Each at least twice as long as the one after it, so that a row is merged few times.
    runs: Vec<Run>,
    /// That of the last row.
    open: Run,
}

impl Adding {
    pub(super) fn add(&mut self, user: &[u8], number: u64) {
        let last = self.open.sums.len().checked_sub(1);
        match last
            .and_then(|at| self.open.user(at))
            .map(|before| before.cmp(user))
        {
            None | Some(Ordering::Less) => self.open.push(user, number.into()),
            Some(Ordering::Equal) => {
                if let Some((_, sum)) = self.open.sums.last_mut() {
                    *sum += u128::from(number);
                }
            }
            Some(Ordering::Greater) => {
                self.close();
                self.open.push(user, number.into());
            }
        }
    }

    fn close(&mut self) {
        let mut run = std::mem::take(&mut self.open);
        while let Some(before) = self.runs.pop_if(|before| before.sums.len() < 2 * run.sums.len()) {
            run = before.merged(&run);
        }
        self.runs.push(run);
    }

    /// So many of them, those with the most, in no order.
    pub(super) fn most(mut self, most: usize) -> Vec<Vec<u8>> {
        self.close();
        let all = self
            .runs
            .iter()
            .rev()
            .fold(Run::default(), |all, run| run.merged(&all));
        let mut order: Vec<usize> = (0..all.sums.len()).collect();
        if order.len() > most {
            order.select_nth_unstable_by_key(most, |at| Reverse(all.sums[*at].1));
            order.truncate(most);
        }
        let users = order.into_iter().filter_map(|at| all.user(at));
        users.map(<[u8]>::to_vec).collect()
    }
}

#[cfg(test)]
mod tests {
    use std::collections::{BTreeMap, BTreeSet};

    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn whoever_has_the_most_is_found_in_whatever_order_rows_come(
            mut runs in prop::collection::vec(prop::collection::vec(("[ab]{0,3}", 0..9u64), 0..20), 0..12),
            sorted in any::<bool>(),
            most in 0..12usize,
        ) {
            let (mut adding, mut sums) = (Adding::default(), BTreeMap::<Vec<u8>, u64>::new());
            for run in &mut runs {
                if sorted {
                    run.sort();
                }
                for (user, number) in run {
                    adding.add(user.as_bytes(), *number);
                    *sums.entry(user.clone().into_bytes()).or_default() += *number;
                }
            }
            let found = adding.most(most);
            prop_assert_eq!(found.len(), most.min(sums.len()));
            let found: BTreeSet<_> = found.into_iter().collect();
            prop_assert_eq!(found.len(), most.min(sums.len()));
            let least = found.iter().map(|user| sums[user]).min().unwrap_or(u64::MAX);
            prop_assert!(sums.iter().all(|(user, sum)| found.contains(user) || *sum <= least));
        }
    }
}
