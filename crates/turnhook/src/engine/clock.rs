//! The program's clock: it follows the monotonic clock, is anchored to wall time at
//! start, and never goes back. Where the wall clock runs ahead by more than a second (it was set, or the
//! machine slept), it is anchored anew.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use turnhook_dispatcher::clock::wall_clock;
use turnhook_reducer::{
    source::{Gap, GapReason},
    time::Timestamp,
};

/// What may pass unnoticed: a second.
const TOLERANCE: u64 = 1000;

/// How often a [`Watch`] must look at the clock, so that what it calls a stall is one.
pub(crate) const PULSE: Duration = Duration::from_millis(250);

/// Reads the two clocks that there are.
type Reading = Box<dyn Fn() -> (Duration, u64) + Send + Sync>;

/// The clock. Cheap to read, from any thread.
pub(crate) struct Clock {
    /// Time since start, and wall time in milliseconds.
    read: Reading,
    /// Wall time at start, and all that it was put ahead since.
    anchor: AtomicU64,
    /// How much it was put ahead since the start.
    stepped: AtomicU64,
}

impl Clock {
    /// Starts at wall time, or at `not_before` (the last time that was committed) if that is later.
    pub(crate) fn start(not_before: Timestamp) -> Arc<Clock> {
        let start = Instant::now();
        Clock::with(Box::new(move || (start.elapsed(), wall_clock().0)), not_before)
    }

    fn with(read: Reading, not_before: Timestamp) -> Arc<Clock> {
        let (elapsed, wall) = read();
        let anchor = wall.saturating_sub(elapsed.as_millis() as u64).max(not_before.0);
        Arc::new(Clock {
            read,
            anchor: AtomicU64::new(anchor),
            stepped: AtomicU64::new(0),
        })
    }

    pub(crate) fn now(&self) -> Timestamp {
        let (elapsed, wall) = (self.read)();
        let elapsed = elapsed.as_millis() as u64;
        let anchor = self.anchor.load(Ordering::Acquire);
        let now = anchor + elapsed;
        if wall <= now + TOLERANCE {
            return Timestamp(now);
        }
        let ahead = wall - now;
        match self
            .anchor
            .compare_exchange(anchor, anchor + ahead, Ordering::AcqRel, Ordering::Acquire)
        {
            Ok(_) => {
                self.stepped.fetch_add(ahead, Ordering::AcqRel);
                Timestamp(wall)
            }
            Err(anchored) => Timestamp(anchored + elapsed),
        }
    }

    /// By how many milliseconds the wall clock is ahead of this one (negative: behind); 0 where it is less than a second.
    pub(crate) fn wall_ahead(&self) -> i64 {
        let now = self.now();
        let (_, wall) = (self.read)();
        let ahead = wall as i64 - now.0 as i64;
        if ahead.unsigned_abs() < TOLERANCE {
            0
        } else {
            ahead
        }
    }

    fn stepped(&self) -> u64 {
        self.stepped.load(Ordering::Acquire)
    }
}

/// Reads how long this thread has computed.
type Computed = Box<dyn Fn() -> Duration + Send + Sync>;

/// Notices time that went by unwatched. Only time in which the task waited can be that: own work takes as long as it
/// takes, while others read the sockets.
///
/// ```text
/// look() ── work ──▶ rest() ── wait ──▶ look() …
/// ```
pub(crate) struct Watch {
    clock: Arc<Clock>,
    computed: Computed,
    last: Timestamp,
    /// When the work began.
    began: Instant,
    /// How long the thread had computed by then.
    computed_before: Duration,
    stepped: u64,
}

impl Watch {
    pub(crate) fn new(clock: Arc<Clock>) -> Watch {
        Watch::with(
            clock,
            Box::new(|| {
                let time = rustix::time::clock_gettime(rustix::time::ClockId::ThreadCPUTime);
                // One that is negative would be no time of a thread: then all of it counts as waited.
                Duration::try_from(time).unwrap_or(Duration::ZERO)
            }),
        )
    }

    fn with(clock: Arc<Clock>, computed: Computed) -> Watch {
        let (last, stepped) = (clock.now(), clock.stepped());
        let computed_before = computed();
        Watch {
            clock,
            computed,
            last,
            began: Instant::now(),
            computed_before,
            stepped,
        }
    }

    /// The task has its turn for the first time.
    pub(crate) fn begin(&mut self) {
        self.began = Instant::now();
        // The thread that made it may have been another one.
        self.computed_before = (self.computed)();
    }

    /// How long the work has lasted that is under way.
    pub(crate) fn worked(&self) -> Duration {
        self.began.elapsed()
    }

    /// The time, unwatched.
    pub(crate) fn now(&self) -> Timestamp {
        self.clock.now()
    }

    /// By how much the wall clock differs from it.
    pub(crate) fn wall_ahead(&self) -> i64 {
        self.clock.wall_ahead()
    }

    /// A wait is over, and work begins: the time, and a gap if the wait was too long.
    pub(crate) fn look(&mut self) -> (Timestamp, Option<Gap>) {
        self.began = Instant::now();
        self.computed_before = (self.computed)();
        self.passed(Duration::ZERO)
    }

    /// Work is over, and a wait begins: a gap if the process did not run for a while in the midst of it. On the thread on
    /// which [`Watch::look`] was called.
    pub(crate) fn rest(&mut self) -> Option<Gap> {
        let computed = (self.computed)().saturating_sub(self.computed_before);
        self.passed(computed).1
    }

    fn passed(&mut self, computed: Duration) -> (Timestamp, Option<Gap>) {
        let now = self.clock.now();
        let stepped = self.clock.stepped();
        let from = std::mem::replace(&mut self.last, now);
        let was_stepped = std::mem::replace(&mut self.stepped, stepped) != stepped;
        let computed = u64::try_from(computed.as_millis()).unwrap_or(u64::MAX);
        let idle = now.since(from).saturating_sub(computed);
        if idle <= TOLERANCE + PULSE.as_millis() as u64 {
            return (now, None);
        }
        let reason = if was_stepped {
            GapReason::ClockStep
        } else {
            GapReason::Stall
        };
        (
            now,
            Some(Gap {
                from,
                to: now,
                reason,
                server: None,
            }),
        )
    }
}

/// How long ago something was, in seconds.
pub(crate) fn age_seconds(now: Timestamp, then: Timestamp) -> f64 {
    now.since(then) as f64 / 1000.0
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use super::*;

    /// A clock whose readings are set by hand: milliseconds since start, wall time.
    fn by_hand(not_before: u64) -> (Arc<Mutex<(u64, u64)>>, Arc<Clock>) {
        let hands = Arc::new(Mutex::new((0, 1_000_000)));
        let read = Arc::clone(&hands);
        let clock = Clock::with(
            Box::new(move || {
                let (elapsed, wall) = *read.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
                (Duration::from_millis(elapsed), wall)
            }),
            Timestamp(not_before),
        );
        (hands, clock)
    }

    fn set(hands: &Mutex<(u64, u64)>, elapsed: u64, wall: u64) {
        *hands.lock().unwrap_or_else(std::sync::PoisonError::into_inner) = (elapsed, wall);
    }

    #[test]
    fn a_wall_clock_that_is_put_back_is_not_followed() {
        let (hands, clock) = by_hand(0);
        set(&hands, 500, 1_000_500);
        assert_eq!(clock.now(), Timestamp(1_000_500));
        set(&hands, 700, 10);
        assert_eq!(clock.now(), Timestamp(1_000_700));
    }

    #[test]
    fn a_wall_clock_that_is_put_ahead_is_followed_with_a_gap() {
        let (hands, clock) = by_hand(0);
        let mut watch = Watch::new(Arc::clone(&clock));
        set(&hands, 200, 1_000_900);
        assert_eq!(
            watch.look(),
            (Timestamp(1_000_200), None),
            "a small difference is not followed"
        );
        set(&hands, 300, 87_400_300);
        let gap = Gap {
            from: Timestamp(1_000_200),
            to: Timestamp(87_400_300),
            reason: GapReason::ClockStep,
            server: None,
        };
        assert_eq!(watch.look(), (Timestamp(87_400_300), Some(gap)));
        set(&hands, 400, 1_000_400);
        assert_eq!(
            watch.look(),
            (Timestamp(87_400_400), None),
            "and put back again it is not"
        );
    }

    #[test]
    fn how_far_the_wall_clock_was_put_back_is_known() {
        let (hands, clock) = by_hand(0);
        set(&hands, 500, 1_000_000);
        assert_eq!(clock.wall_ahead(), 0);
        set(&hands, 700, 10_700);
        assert_eq!(clock.wall_ahead(), -990_000);
        assert_eq!(clock.now(), Timestamp(1_000_700));
    }

    #[test]
    fn a_stall_is_a_gap_from_its_start() {
        let (hands, clock) = by_hand(0);
        let mut watch = Watch::new(Arc::clone(&clock));
        set(&hands, 250, 1_000_250);
        assert_eq!(watch.look().1, None);
        set(&hands, 9_250, 1_009_250);
        let gap = Gap {
            from: Timestamp(1_000_250),
            to: Timestamp(1_009_250),
            reason: GapReason::Stall,
            server: None,
        };
        assert_eq!(watch.look(), (Timestamp(1_009_250), Some(gap)));
    }

    #[test]
    fn own_work_is_no_stall_however_long_it_takes_and_a_process_that_does_not_run_is() {
        let (hands, clock) = by_hand(0);
        let computed = Arc::new(Mutex::new(Duration::ZERO));
        let read = Arc::clone(&computed);
        let compute = |by| *computed.lock().unwrap_or_else(std::sync::PoisonError::into_inner) += by;
        let mut watch = Watch::with(
            Arc::clone(&clock),
            Box::new(move || *read.lock().unwrap_or_else(std::sync::PoisonError::into_inner)),
        );
        set(&hands, 100, 1_000_100);
        assert_eq!(watch.look().1, None);
        // Six seconds of work.
        set(&hands, 6_100, 1_006_100);
        compute(Duration::from_secs(6));
        assert_eq!(watch.rest(), None);
        set(&hands, 6_300, 1_006_300);
        assert_eq!(watch.look().1, None, "nor is it one afterwards");
        // Stopped in the midst of a little work.
        set(&hands, 9_300, 1_009_300);
        compute(Duration::from_millis(5));
        let gap = Gap {
            from: Timestamp(1_006_300),
            to: Timestamp(1_009_300),
            reason: GapReason::Stall,
            server: None,
        };
        assert_eq!(watch.rest(), Some(gap));
    }

    #[test]
    fn what_was_waited_is_not_worked() {
        let (_, clock) = by_hand(0);
        let mut watch = Watch::new(clock);
        while watch.worked() < Duration::from_millis(20) {}
        let over = Instant::now();
        watch.look();
        assert!(watch.worked() <= over.elapsed());
    }

    #[test]
    fn it_never_starts_before_the_last_commit() {
        let (hands, clock) = by_hand(5_000_000);
        assert_eq!(clock.now(), Timestamp(5_000_000));
        set(&hands, 10, 1_000_010);
        assert_eq!(clock.now(), Timestamp(5_000_010));
    }
}
