//! How a store is opened, and what upkeep did.

use std::time::Duration;

/// How a store is opened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// To run on it: makes it if there is none, brings its schema up to date, and locks out every other run.
    Run,
    /// To look in, whether turnhook runs or not: the store must be there.
    Shared,
}

/// What is seldom set.
#[derive(Clone, Debug)]
pub struct Options {
    /// Of a new store's pages, in bytes: a power of two from 512 to 65536.
    pub page_size: u32,
    /// Grow no further than this many bytes: beyond, commits fail as on a full disk.
    pub max_bytes: Option<u64>,
    /// Bring this many new events into the ledger at once: sorted, they share pages.
    pub ledger_batch: usize,
    /// Fold the state's log into its table when it holds this many bytes, or as many as the table if that is
    /// larger (at most 24 MiB).
    pub state_log_bytes: u64,
}

impl Default for Options {
    fn default() -> Options {
        Options {
            page_size: 1024,
            max_bytes: None,
            ledger_batch: 65_536,
            state_log_bytes: 4 << 20,
        }
    }
}

/// What a step of [`crate::Admin::trim`] removed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Trimmed {
    /// Events, with their deliveries and attempts.
    pub events: u64,
    /// Sessions.
    pub sessions: u64,
    /// Whether there may be more: call again, after a pause that lets others write.
    pub more: bool,
    /// How long it kept others from writing, or would have, where they share what it used.
    pub took: Duration,
}

/// How much to remove at once, and how long to leave it to others then. It follows from how long the work itself takes: a
/// disk that is slow to sync must not make upkeep fall behind what is delivered.
#[derive(Debug)]
pub(crate) struct Pace {
    limit: usize,
}

impl Pace {
    const LEAST: usize = 100;
    const MOST: usize = 4000;
    /// A slice should take no longer.
    const SLICE: Duration = Duration::from_millis(5);
    const PAUSE_MIN: Duration = Duration::from_millis(1);
    const PAUSE_MAX: Duration = Duration::from_millis(50);

    pub(crate) fn new() -> Pace {
        Pace { limit: 500 }
    }

    /// Rows to look at.
    pub(crate) fn limit(&self) -> usize {
        self.limit
    }

    /// After a slice that took so long.
    pub(crate) fn pause(&mut self, took: Duration) -> Duration {
        if took > Pace::SLICE {
            self.limit = (self.limit / 2).max(Pace::LEAST);
        } else if took < Pace::SLICE / 2 {
            self.limit = (self.limit * 2).min(Pace::MOST);
        }
        took.clamp(Pace::PAUSE_MIN, Pace::PAUSE_MAX)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Rows that are looked at in a second, where each takes so long, and each step waits so long for the disk besides.
    fn rate(row: Duration, sync: Duration) -> f64 {
        let (mut pace, mut rows, mut time) = (Pace::new(), 0u32, Duration::ZERO);
        let mut longest = Duration::ZERO;
        for n in 0..200 {
            let limit = u32::try_from(pace.limit()).unwrap_or(u32::MAX);
            let took = row * limit;
            if n > 10 {
                longest = longest.max(took);
            }
            rows += limit;
            time += took + sync + pace.pause(took);
        }
        assert!(longest <= 2 * Pace::SLICE, "others wait for {longest:?}");
        f64::from(rows) / time.as_secs_f64()
    }

    #[test]
    fn it_keeps_pace_with_deliveries_and_leaves_room_for_others() {
        // A row costs some 10 µs. Deliveries are made at 30,000 a second at most, on a disk that syncs fast.
        for sync in [0, 1] {
            let rate = rate(Duration::from_micros(10), Duration::from_millis(sync));
            assert!(rate > 30_000.0, "{rate} rows a second");
        }
        // A slow disk holds deliveries back more than this.
        let slow = rate(Duration::from_micros(10), Duration::from_millis(10));
        assert!(slow > 10_000.0, "{slow} rows a second");
        let cheap = rate(Duration::from_micros(2), Duration::from_millis(10));
        assert!(
            cheap > 60_000.0,
            "{cheap} rows a second: slices grow where rows are cheap"
        );
        rate(Duration::from_micros(100), Duration::ZERO);
    }
}
