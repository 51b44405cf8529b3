//! How far time has certainly come: what is removed or given up for its age follows this, and no clock that may have
//! been put ahead.
//!
//! A wall clock that is wrong (one bad answer of a time server, a machine restored from an image) would make everything
//! old at once, and what is removed does not come back. So the horizon follows the wall clock, but no faster than
//! [`CATCH_UP`] times the monotonic clock, and it is kept in the store: a restart goes on where it was.
//!
//! * A clock that is ahead, by however much, for a time `d`: nothing is removed more than `d` early.
//! * A machine that was off for a week: what it holds stays for up to a week longer, and within a week all is as it was.
//! * A clock that was ahead when the store was made, and has been put back: the horizon goes back after it, faster, since that
//!   only makes things stay. Meanwhile the wall clock itself is the bound.

use std::{
    sync::{Mutex, PoisonError},
    time::{Duration, Instant},
};

use turnhook_reducer::time::Timestamp;

/// Where the wall clock is ahead, the horizon moves by so much monotonic time at most.
const CATCH_UP: u64 = 2;
/// And where the wall clock is behind, back by so much.
const FALL_BACK: u64 = 60;
/// It is written down this often: what a crash loses of it makes things stay a moment longer.
const KEEP: Duration = Duration::from_secs(60);

/// As it is known in this process.
#[derive(Debug)]
pub(crate) struct Horizon(Mutex<State>);

#[derive(Debug)]
struct State {
    /// In milliseconds since the Unix epoch; `None` in a store that has never had one.
    at: Option<u64>,
    /// The wall clock when it was looked at last.
    wall: u64,
    /// When that was.
    seen: Instant,
    /// When it was to be written down last.
    kept: Option<Instant>,
}

impl Horizon {
    /// As the store has it.
    pub(crate) fn new(stored: Option<u64>) -> Horizon {
        Horizon(Mutex::new(State {
            at: stored,
            wall: 0,
            seen: Instant::now(),
            kept: None,
        }))
    }

    fn state(&self) -> std::sync::MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// As it was when it was moved last.
    pub(crate) fn get(&self) -> Timestamp {
        self.state().bounded()
    }

    /// Moves it by the time that has passed; where it is time to write it down: what to write, and whether it went
    /// back.
    pub(crate) fn advance(&self, wall: Timestamp) -> (Timestamp, Option<(u64, bool)>) {
        let mut state = self.state();
        let now = Instant::now();
        let passed = now.saturating_duration_since(state.seen);
        let before = state.at;
        state.seen = now;
        state.pass(u64::try_from(passed.as_millis()).unwrap_or(u64::MAX), wall.0);
        let due = state
            .kept
            .is_none_or(|kept| now.saturating_duration_since(kept) >= KEEP);
        if due {
            // Once, whether it succeeds or not: a database that is away is not to be asked every second.
            state.kept = Some(now);
        }
        let back = |at: u64| before.is_some_and(|before| at < before);
        let write = state.at.filter(|_| due).map(|at| (at, back(at)));
        (state.bounded(), write)
    }

    /// It is written down, as this: other nodes may have been further.
    pub(crate) fn kept(&self, at: u64) {
        self.state().at = Some(at);
    }
}

impl State {
    fn pass(&mut self, elapsed_ms: u64, wall: u64) {
        self.wall = wall;
        self.at = Some(match self.at {
            None => wall,
            Some(at) if at <= wall => at.saturating_add(elapsed_ms.saturating_mul(CATCH_UP)).min(wall),
            Some(at) => at.saturating_sub(elapsed_ms.saturating_mul(FALL_BACK)).max(wall),
        });
    }

    /// Never ahead of the wall clock either.
    fn bounded(&self) -> Timestamp {
        Timestamp(self.at.map_or(0, |at| at.min(self.wall)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: u64 = 1000;
    const DAY: u64 = 86_400 * SECOND;
    const T: u64 = 20_000 * DAY;

    fn state(at: Option<u64>) -> State {
        State {
            at,
            wall: 0,
            seen: Instant::now(),
            kept: None,
        }
    }

    /// Seconds go by, and the wall clock says this.
    fn seconds(state: &mut State, n: u64, mut wall: impl FnMut(u64) -> u64) {
        for i in 1..=n {
            state.pass(SECOND, wall(i * SECOND));
        }
    }

    #[test]
    fn it_goes_with_a_clock_that_is_right() {
        let mut s = state(None);
        s.pass(0, T);
        assert_eq!(s.bounded(), Timestamp(T));
        seconds(&mut s, 1000, |passed| T + passed);
        assert_eq!(s.bounded(), Timestamp(T + 1000 * SECOND));
    }

    #[test]
    fn a_clock_that_was_ahead_for_seconds_moves_it_by_seconds() {
        for ahead in [DAY, 3650 * DAY, u64::MAX - T - DAY] {
            let mut s = state(Some(T));
            seconds(&mut s, 4, |passed| T + passed + ahead);
            assert_eq!(
                s.bounded(),
                Timestamp(T + 8 * SECOND),
                "four of them early, and no more"
            );
            // Put back, it is never ahead of the clock, and soon with it.
            s.pass(SECOND, T + 5 * SECOND);
            assert_eq!(s.bounded(), Timestamp(T + 5 * SECOND));
        }
    }

    #[test]
    fn a_restart_under_a_clock_that_is_ahead_goes_on_where_it_was() {
        let mut s = state(Some(T));
        s.pass(0, T + 3650 * DAY);
        assert_eq!(s.bounded(), Timestamp(T));
        seconds(&mut s, 60, |passed| T + 3650 * DAY + passed);
        assert_eq!(s.bounded(), Timestamp(T + 120 * SECOND));
    }

    #[test]
    fn a_machine_that_was_off_for_a_week_is_up_to_date_within_a_week() {
        let mut s = state(Some(T));
        for day in 0..6 {
            s.pass(DAY, T + 7 * DAY + (day + 1) * DAY);
            assert_eq!(s.bounded(), Timestamp(T + 2 * (day + 1) * DAY));
        }
        s.pass(DAY, T + 14 * DAY);
        assert_eq!(s.bounded(), Timestamp(T + 14 * DAY));
    }

    #[test]
    fn one_that_began_ahead_finds_its_way_back() {
        let mut s = state(None);
        s.pass(0, T + 3650 * DAY);
        for day in 1..=62 {
            s.pass(DAY, T + day * DAY);
            assert_eq!(
                s.bounded(),
                Timestamp(T + day * DAY),
                "the clock itself is the bound meanwhile"
            );
        }
        // And it guards again.
        s.pass(SECOND, T + 9999 * DAY);
        assert_eq!(s.bounded(), Timestamp(T + 62 * DAY + 2 * SECOND));
    }

    #[test]
    fn a_clock_at_nought_for_an_hour_costs_hours_and_not_decades() {
        let mut s = state(Some(T));
        seconds(&mut s, 3600, |_| 0);
        assert_eq!(s.bounded(), Timestamp(0), "nothing is old by such a clock");
        let hour = 3600 * SECOND;
        for passed in 1..=62 {
            s.pass(hour, T + hour + passed * hour);
        }
        assert_eq!(s.bounded(), Timestamp(T + 63 * hour));
    }
}
