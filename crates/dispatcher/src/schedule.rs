//! When a failed delivery is tried again: exponential backoff with full jitter, until it is given up.
//! Pure: the time and the randomness are inputs.

use std::time::Duration;

use turnhook_reducer::{outbox::Pause, time::Timestamp};

use crate::verdict::millis;

/// How retries are spaced.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Retry {
    /// The longest wait before the second attempt; doubles from attempt to attempt.
    pub initial: Duration,
    /// The longest wait between two attempts.
    pub max: Duration,
    /// Counted from the first attempt; stands still while the endpoint is paused.
    pub give_up_after: Duration,
    /// The longest wait that a `Retry-After` can ask for.
    pub retry_after_max: Duration,
}

impl Default for Retry {
    fn default() -> Retry {
        Retry {
            initial: Duration::from_secs(1),
            max: Duration::from_secs(3600),
            give_up_after: Duration::from_secs(72 * 3600),
            retry_after_max: Duration::from_secs(6 * 3600),
        }
    }
}

/// What follows a failed attempt.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Then {
    /// Another attempt, not before this.
    At(Timestamp),
    /// None: it is a dead letter.
    GiveUp,
}

impl Retry {
    /// What follows the failure at `now` of attempt number `attempts` (1 for the first), which began at
    /// `first`. `random` is uniform over all of u64. `asked` is a `Retry-After`, capped already.
    ///
    /// The wait is uniform between 0 and min(`max`, `initial` × 2^(attempts − 1)); one that would
    /// pass the moment of giving up ends there, so that the last attempt is made at that moment.
    #[must_use]
    pub fn next(
        &self,
        attempts: u32,
        first: Timestamp,
        now: Timestamp,
        pauses: &[Pause],
        random: u64,
        asked: Option<Timestamp>,
    ) -> Then {
        let left = millis(self.give_up_after).saturating_sub(active_millis(first, now, pauses));
        if left == 0 {
            return Then::GiveUp;
        }
        let doublings = attempts.saturating_sub(1).min(63);
        let ceiling = millis(self.initial)
            .saturating_mul(1 << doublings)
            .min(millis(self.max));
        let wait = u64::try_from((u128::from(random) * (u128::from(ceiling) + 1)) >> 64).unwrap_or(ceiling);
        let wait = wait.max(asked.map_or(0, |at| at.since(now)));
        Then::At(now.plus(wait.min(left)))
    }
}

/// The milliseconds from `first` to `now` in which the endpoint was not paused. Pauses do not overlap.
#[must_use]
pub fn active_millis(first: Timestamp, now: Timestamp, pauses: &[Pause]) -> u64 {
    let paused = pauses
        .iter()
        .map(|pause| pause.to.unwrap_or(now).min(now).since(pause.from.max(first)))
        .fold(0u64, u64::saturating_add);
    now.since(first).saturating_sub(paused)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

    use proptest::prelude::*;

    use super::*;

    const T0: Timestamp = Timestamp(1_000_000);
    const HOUR: u64 = 3_600_000;

    fn pause(from: Timestamp, to: Option<Timestamp>) -> Pause {
        let reason = "by command".into();
        Pause { from, to, reason }
    }

    fn next(attempts: u32, now: Timestamp, random: u64) -> Then {
        Retry::default().next(attempts, T0, now, &[], random, None)
    }

    #[test]
    fn doubles_up_to_the_maximum() {
        for (attempts, ceiling) in [
            (0, 1_000),
            (1, 1_000),
            (2, 2_000),
            (3, 4_000),
            (12, 2_048_000),
            (13, HOUR),
            (9999, HOUR),
        ] {
            assert_eq!(
                next(attempts, T0, u64::MAX),
                Then::At(T0.plus(ceiling)),
                "{attempts}"
            );
            assert_eq!(next(attempts, T0, 0), Then::At(T0), "full jitter");
            assert_eq!(
                next(attempts, T0, u64::MAX / 2),
                Then::At(T0.plus(ceiling / 2)),
                "{attempts}"
            );
        }
    }

    #[test]
    fn the_last_attempt_is_made_at_the_moment_of_giving_up() {
        let last = T0.plus(72 * HOUR);
        assert_eq!(next(99, T0.plus(72 * HOUR - 10), u64::MAX), Then::At(last));
        assert_eq!(next(99, last, u64::MAX), Then::GiveUp);
        assert_eq!(next(99, last.plus(5), 0), Then::GiveUp);
    }

    #[test]
    fn giving_up_stands_still_while_paused() {
        let pauses = [
            pause(Timestamp(0), Some(T0.plus(1))),
            pause(T0.plus(HOUR), Some(T0.plus(101 * HOUR))),
            pause(T0.plus(102 * HOUR), None),
        ];
        assert_eq!(active_millis(T0, T0.plus(500 * HOUR), &pauses), 2 * HOUR - 1);
        let now = T0.plus(500 * HOUR);
        assert_eq!(Retry::default().next(1, T0, now, &pauses, 0, None), Then::At(now));
        assert_eq!(Retry::default().next(1, T0, now, &[], 0, None), Then::GiveUp);
    }

    #[test]
    fn retry_after_is_a_least_wait() {
        let asked = |ms| Retry::default().next(1, T0, T0, &[], u64::MAX, Some(T0.plus(ms)));
        assert_eq!(asked(5_000), Then::At(T0.plus(5_000)));
        assert_eq!(asked(10), Then::At(T0.plus(1_000)));
    }

    proptest! {
        #[test]
        fn never_early_never_late(
            attempts: u32, first: u64, elapsed in 0u64..1 << 40, random: u64, asked in proptest::option::of(0u64..1 << 40),
            initial in 0u64..100_000, max in 0u64..10_000_000, give_up in 0u64..1 << 34,
        ) {
            let retry = Retry {
                initial: Duration::from_millis(initial),
                max: Duration::from_millis(max),
                give_up_after: Duration::from_millis(give_up),
                retry_after_max: Duration::MAX,
            };
            let first = Timestamp(first >> 1);
            let now = first.plus(elapsed);
            match retry.next(attempts, first, now, &[], random, asked.map(|ms| now.plus(ms))) {
                Then::GiveUp => prop_assert!(elapsed >= give_up),
                Then::At(at) => {
                    prop_assert!(elapsed < give_up);
                    prop_assert!(at >= now && at.since(first) <= give_up);
                    prop_assert!(at.since(now) <= max.max(asked.unwrap_or(0)));
                    prop_assert!(at.since(now) >= asked.unwrap_or(0).min(give_up - elapsed));
                }
            }
        }

        #[test]
        fn a_pause_never_hastens_giving_up(first in 0u64..1000, now in 0u64..5000, from in 0u64..4000, long in 0u64..4000) {
            let pause = pause(Timestamp(from), Some(Timestamp(from + long)));
            let with = active_millis(Timestamp(first), Timestamp(now), &[pause]);
            prop_assert_eq!(with, (first..now).filter(|t| !(from..from + long).contains(t)).count() as u64);
        }
    }
}
