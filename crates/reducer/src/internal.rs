//! Broken invariants of our own: this crate's, which logs nothing and so counts them in its statistics, and those of the
//! crates that stand on this one.

use std::{
    mem,
    ops::Sub,
    sync::{
        Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
};

use crate::usage::Usage;

/// How many kinds of broken invariants are named until they are taken.
const NAMED: usize = 16;

/// Invariants of this crate that did not hold: faults of turnhook, for its log.
#[derive(Debug, Default)]
pub struct Broken {
    /// How often something was so that cannot be so.
    pub count: u64,
    /// What it was, each once; sixteen at most.
    pub what: Vec<&'static str>,
}

impl Broken {
    /// Puts others to these.
    pub fn add(&mut self, others: Broken) {
        self.count = self.count.saturating_add(others.count);
        for what in others.what {
            if self.what.len() < NAMED && !self.what.contains(&what) {
                self.what.push(what);
            }
        }
    }
}

/// How often something was so that cannot be so, and what. Counted by shared reference: those who find it often hold a part
/// of the reducer, or may only look.
#[derive(Debug, Default)]
pub(crate) struct InternalErrors {
    count: AtomicU64,
    /// Those that nobody has taken yet.
    untaken: Mutex<Broken>,
}

impl InternalErrors {
    pub(crate) fn count(&self) -> u64 {
        self.count.load(Ordering::Relaxed)
    }

    fn untaken(&self) -> MutexGuard<'_, Broken> {
        self.untaken.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// An invariant of this crate does not hold: its tests stop here, and a running turnhook counts, says it and goes on.
    #[cold]
    pub(crate) fn broken(&self, what: &'static str) {
        let one = Broken {
            count: 1,
            what: vec![what],
        };
        self.count.fetch_add(1, Ordering::Relaxed);
        self.untaken().add(one);
        debug_assert!(false, "{what}");
    }

    /// Those since the last time.
    pub(crate) fn take_broken(&self) -> Broken {
        mem::take(&mut *self.untaken())
    }

    /// Those of a reducer that this one takes the place of.
    pub(crate) fn inherit(&self, others: &InternalErrors) {
        self.count.fetch_add(others.count(), Ordering::Relaxed);
        self.untaken().add(others.take_broken());
    }

    /// Takes from a number of things that are there; fewer than none there cannot be.
    pub(crate) fn take<N>(&self, from: &mut N, many: N, what: &'static str)
    where
        N: Copy + Default + Ord + Sub<Output = N>,
    {
        if many <= *from {
            *from = *from - many;
        } else {
            *from = N::default();
            self.broken(what);
        }
    }

    /// What is beyond a part of it. Of bytes that are billed none may vanish because the part was larger than the whole.
    pub(crate) fn beyond(&self, whole: Usage, part: Usage, what: &'static str) -> Usage {
        if part.exceeds(&whole) {
            self.broken(what);
        }
        whole.minus(part)
    }
}

/// Says that something is so that cannot be so: in a test it panics, in a release it is an ERROR in the log and one more
/// in `turnhook_internal_errors_total`, which counts the lines of this target. Takes what `format!` takes.
///
/// Never let such a case pass in silence, and never put a default in the place of what could not be had where it is
/// signed, stored or billed. The caller needs `tracing`.
#[macro_export]
macro_rules! internal_error {
    ($($words:tt)+) => {{
        ::tracing::error!(target: "turnhook::internal_error", $($words)+);
        debug_assert!(false, $($words)+);
    }};
}

#[cfg(test)]
mod tests {
    use std::panic::{AssertUnwindSafe, catch_unwind};

    use super::*;

    #[test]
    fn fewer_than_none_is_counted_and_stops_a_test() {
        let errors = InternalErrors::default();
        let mut members = 3_u32;
        errors.take(&mut members, 2, "two of three");
        assert_eq!((members, errors.count()), (1, 0));
        let taken = catch_unwind(AssertUnwindSafe(|| errors.take(&mut members, 2, "two of one")));
        assert_eq!(taken.is_err(), cfg!(debug_assertions));
        assert_eq!((members, errors.count()), (0, 1));
    }

    #[test]
    fn a_part_that_is_more_than_the_whole_is_counted() {
        let errors = InternalErrors::default();
        let [one, two] = [1, 2].map(|billable_bytes| Usage {
            billable_bytes,
            ..Usage::default()
        });
        assert_eq!(errors.beyond(two, one, "one of two"), one);
        assert_eq!(errors.count(), 0);
        let beyond = catch_unwind(AssertUnwindSafe(|| errors.beyond(one, two, "two of one")));
        assert_eq!(beyond.is_err(), cfg!(debug_assertions));
        assert_eq!(errors.count(), 1);
    }

    #[test]
    fn what_was_broken_is_taken_once_and_goes_to_who_comes_after() {
        let [before, after] = [(); 2].map(|()| InternalErrors::default());
        for what in ["one", "one", "another"] {
            let _ = catch_unwind(AssertUnwindSafe(|| before.broken(what)));
        }
        after.inherit(&before);
        assert_eq!(before.take_broken().count, 0);
        let Broken { count, what } = after.take_broken();
        assert_eq!((count, what.as_slice()), (3, &["one", "another"][..]));
        assert_eq!((after.count(), after.take_broken().count), (3, 0));
    }
}
