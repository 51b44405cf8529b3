//! Broken invariants of our own: this crate's, which logs nothing and so counts them in its statistics, and those of the
//! crates that stand on this one.

use std::sync::atomic::{AtomicU64, Ordering};

/// How often something was so that cannot be so. Counted by shared reference: those who find it often hold a part of the
/// reducer, or may only look.
#[derive(Debug, Default)]
pub(crate) struct InternalErrors(AtomicU64);

impl InternalErrors {
    pub(crate) fn count(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }

    /// An invariant of this crate does not hold: its tests stop here, and a running turnhook counts and goes on.
    #[cold]
    pub(crate) fn broken(&self, what: &'static str) {
        self.0.fetch_add(1, Ordering::Relaxed);
        debug_assert!(false, "{what}");
    }

    /// Takes from a number of things that are there; fewer than none there cannot be.
    pub(crate) fn take(&self, from: &mut u32, many: u32, what: &'static str) {
        if let Some(left) = from.checked_sub(many) {
            *from = left;
        } else {
            *from = 0;
            self.broken(what);
        }
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
        let mut members = 3;
        errors.take(&mut members, 2, "two of three");
        assert_eq!((members, errors.count()), (1, 0));
        let taken = catch_unwind(AssertUnwindSafe(|| errors.take(&mut members, 2, "two of one")));
        assert_eq!(taken.is_err(), cfg!(debug_assertions));
        assert_eq!((members, errors.count()), (0, 1));
    }
}
