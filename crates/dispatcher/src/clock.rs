//! Two clocks for two jobs. Receivers judge a signature by the wall clock, which can be set at any moment; when
//! something is due, and for how long it has been tried, must not hang on that.

use std::{
    sync::Arc,
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use turnhook_reducer::time::Timestamp;

use crate::verdict::millis;

type Reading = Arc<dyn Fn() -> Timestamp + Send + Sync>;

/// The wall clock and the steady one. Cheap to clone and to read.
#[derive(Clone)]
pub struct Clocks {
    wall: Reading,
    steady: Reading,
}

impl Clocks {
    /// With readings of the caller's. `steady` never jumps and never goes back.
    pub fn new(
        wall: impl Fn() -> Timestamp + Send + Sync + 'static,
        steady: impl Fn() -> Timestamp + Send + Sync + 'static,
    ) -> Clocks {
        Clocks {
            wall: Arc::new(wall),
            steady: Arc::new(steady),
        }
    }

    /// The system's. The steady one begins at `at` now, and follows the monotonic clock from there: whoever keeps dates
    /// over a restart says how far it had come.
    #[must_use]
    pub fn begin_at(at: Timestamp) -> Clocks {
        let start = Instant::now();
        Clocks::new(wall, move || at.plus(millis(start.elapsed())))
    }

    /// The system's, with the steady one beginning at the wall clock.
    #[must_use]
    pub fn system() -> Clocks {
        Clocks::begin_at(wall())
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

    /// The other way round.
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

fn wall() -> Timestamp {
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
    fn the_steady_one_begins_where_it_is_told() {
        let clocks = Clocks::begin_at(Timestamp(77_000));
        assert!((Timestamp(77_000)..clocks.wall()).contains(&clocks.steady()));
    }
}
