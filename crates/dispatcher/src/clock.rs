//! Clocks for different jobs. Receivers judge a signature by the wall clock, which can be set at any moment; when
//! something is due, and for how long it has been tried, must not hang on that.

use std::{
    sync::Arc,
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use turnhook_reducer::time::Timestamp;

use crate::verdict::millis;

type Reading = Arc<dyn Fn() -> Timestamp + Send + Sync>;

/// The wall clock, the steady one, and the horizon. Cheap to clone and to read.
#[derive(Clone)]
pub struct Clocks {
    wall: Reading,
    steady: Reading,
    horizon: Reading,
}

impl Clocks {
    /// With readings of the caller's. `steady` never jumps and never goes back; it is the horizon, too.
    pub fn new(
        wall: impl Fn() -> Timestamp + Send + Sync + 'static,
        steady: impl Fn() -> Timestamp + Send + Sync + 'static,
    ) -> Clocks {
        let steady: Reading = Arc::new(steady);
        Clocks {
            wall: Arc::new(wall),
            horizon: Arc::clone(&steady),
            steady,
        }
    }

    /// With another horizon: how far time has certainly come, by whatever the caller trusts over a restart. The ages of
    /// what was written down are given by it.
    #[must_use]
    pub fn with_horizon(mut self, horizon: impl Fn() -> Timestamp + Send + Sync + 'static) -> Clocks {
        self.horizon = Arc::new(horizon);
        self
    }

    /// The system's. The steady one begins at the wall clock, and follows the monotonic clock from there.
    #[must_use]
    pub fn system() -> Clocks {
        let (start, began) = (Instant::now(), wall_clock());
        Clocks::new(wall_clock, move || began.plus(millis(start.elapsed())))
    }

    /// What the wall clock says: for signatures, and for people.
    #[must_use]
    pub fn wall(&self) -> Timestamp {
        (self.wall)()
    }

    /// What the steady clock says: for waiting and for giving up.
    #[must_use]
    pub fn steady(&self) -> Timestamp {
        (self.steady)()
    }

    /// What the wall clock says, if nobody sets it, when the steady clock says `at`.
    #[must_use]
    pub fn to_wall(&self, at: Timestamp) -> Timestamp {
        moved(at, self.steady(), self.wall())
    }

    /// What the steady clock said when something began that was written down with the date `at`, as far as the horizon
    /// is to be believed: what is dated later than that has just begun.
    #[must_use]
    pub fn began(&self, at: Timestamp) -> Timestamp {
        let age = (self.horizon)().since(at);
        Timestamp(self.steady().0.saturating_sub(age))
    }

    /// What the steady clock says, if nobody sets the wall clock, when that says `at`.
    #[must_use]
    pub fn to_steady(&self, at: Timestamp) -> Timestamp {
        moved(at, self.wall(), self.steady())
    }
}

/// What is as far from `to` as `at` is from `from`.
fn moved(at: Timestamp, from: Timestamp, to: Timestamp) -> Timestamp {
    if at >= from {
        to.plus(at.since(from))
    } else {
        Timestamp(to.0.saturating_sub(from.since(at)))
    }
}

/// What the machine says, right or wrong.
#[must_use]
pub fn wall_clock() -> Timestamp {
    // Before 1970 is as good as at its beginning.
    let since_epoch = SystemTime::now().duration_since(UNIX_EPOCH);
    Timestamp(millis(since_epoch.unwrap_or(Duration::ZERO)))
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU64, Ordering};

    use super::*;

    #[test]
    fn what_is_due_stays_as_far_away_whatever_is_set() {
        let hand = Arc::new(AtomicU64::new(1_000_000));
        let wall = Arc::clone(&hand);
        let clocks = Clocks::new(
            move || Timestamp(wall.load(Ordering::Relaxed)),
            || Timestamp(5_000),
        );
        assert_eq!(clocks.to_wall(Timestamp(6_000)), Timestamp(1_001_000));
        assert_eq!(clocks.to_wall(Timestamp(4_000)), Timestamp(999_000));
        assert_eq!(clocks.to_steady(Timestamp(1_001_000)), Timestamp(6_000));
        assert_eq!(
            clocks.to_steady(Timestamp(0)),
            Timestamp(0),
            "before its beginning"
        );
        hand.store(87_400_000, Ordering::Relaxed);
        assert_eq!(clocks.to_wall(Timestamp(6_000)), Timestamp(87_401_000));
        assert_eq!(clocks.to_wall(Timestamp::MAX), Timestamp::MAX);
    }

    #[test]
    fn ages_are_given_by_the_horizon_whatever_the_others_say() {
        let day = 86_400_000;
        // The process was started while the wall clock was a year ahead.
        let ahead = Timestamp(400 * day);
        let clocks = Clocks::new(move || ahead, move || ahead).with_horizon(move || Timestamp(35 * day));
        assert_eq!(clocks.began(Timestamp(34 * day)), Timestamp(399 * day));
        assert_eq!(clocks.began(ahead), ahead, "as if it had just begun");
    }
}
