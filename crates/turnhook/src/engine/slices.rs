//! Own work in slices, so that nothing that a source's task does is long: between two of them everything else that runs
//! here gets its turn, and commits, leases and a stop are looked after.

use std::time::{Duration, Instant};

use turnhook_reducer::{Reducer, time::Timestamp};
use turnhook_subscriber::signal::Signal;

/// How long a slice is, roughly.
const SLICE: Duration = Duration::from_millis(10);

/// A slice that has begun.
pub(super) struct Slice(Instant);

impl Slice {
    pub(super) fn begin() -> Slice {
        Slice(Instant::now())
    }

    pub(super) fn took(&self) -> Duration {
        self.0.elapsed()
    }

    pub(super) fn is_over(&self) -> bool {
        self.took() >= SLICE
    }
}

/// Steps of the reducer between two looks at the time: each is some microseconds.
const STEPS: usize = 256;

/// Lets time pass towards `to`, and goes on with what earlier inputs left to be done, until the slice is over. Whether
/// more is left to do.
pub(super) fn pass(reducer: &mut Reducer, to: Timestamp, slice: &Slice) -> bool {
    while reducer.work(to, STEPS) {
        if slice.is_over() {
            return true;
        }
    }
    false
}

/// The time as of which a signal takes effect; none if the reducer is not told of it, or as of a time that has passed.
pub(super) fn time_of(signal: &Signal) -> Option<Timestamp> {
    match signal {
        Signal::Messages(batch) => Some(batch.at),
        Signal::Hearing { at, .. }
        | Signal::Resumed { at, .. }
        | Signal::Deaf { at, .. }
        | Signal::ThreadConnected { at, .. }
        | Signal::ThreadDisconnected { at, .. }
        | Signal::ServerStopped { at, .. }
        | Signal::ServerRestarted { at, .. }
        | Signal::SnapshotBegan { at }
        | Signal::SnapshotRead { at, .. }
        | Signal::SnapshotEnded { at, .. } => Some(*at),
        Signal::Gap(gap) => Some(gap.from),
        Signal::Refused { .. }
        | Signal::Answered { .. }
        | Signal::CaughtUp
        | Signal::ServerConnected { .. }
        | Signal::ServerGone { .. }
        | Signal::ServerReturned { .. }
        | Signal::TurnedAway(_)
        | Signal::Unheard(_)
        | Signal::SnapshotScanned { .. } => None,
    }
}
