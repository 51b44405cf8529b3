//! Own work in slices, so that nothing that a source's task does is long: between two of them everything else that runs
//! here gets its turn, and commits, leases and a stop are looked after.

use std::{
    collections::VecDeque,
    time::{Duration, Instant},
};

use turnhook_reducer::{Reducer, source::Gap, time::Timestamp};
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

/// Goes on looking for allocations that are to be ended, until the slice is over; a part of it at least.
pub(super) fn look(reducer: &mut Reducer, slice: &Slice) {
    while reducer.look_on(STEPS) && !slice.is_over() {}
}

/// Time that went by unwatched, until it is handed to the reducer: what was due before comes first, however much that is.
#[derive(Default)]
pub(super) struct Unwatched(VecDeque<Gap>);

impl Unwatched {
    pub(super) fn push(&mut self, gap: Gap) {
        self.0.push_back(gap);
    }

    /// The next that can be handed in now.
    pub(super) fn next(&mut self, reducer: &mut Reducer, slice: &Slice) -> Option<Gap> {
        if pass(reducer, self.0.front()?.from, slice) {
            return None;
        }
        self.0.pop_front()
    }

    /// All of it, to be handed in whatever is due before it.
    pub(super) fn take(&mut self) -> VecDeque<Gap> {
        std::mem::take(&mut self.0)
    }

    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

/// The time as of which a signal takes effect; none if it is not handed to the reducer, or as of a time that has passed.
pub(super) fn time_of(signal: &Signal) -> Option<Timestamp> {
    match signal {
        Signal::Messages(batch) => Some(batch.at),
        Signal::Hearing { at, .. }
        | Signal::Resumed { at, .. }
        | Signal::Deaf { at, .. }
        | Signal::ThreadConnected { at, .. }
        | Signal::ThreadDisconnected { at, .. }
        | Signal::ServerStopped { at, .. }
        | Signal::ServerReturned { at, .. }
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
        | Signal::TurnedAway(_)
        | Signal::Unheard(_)
        | Signal::SnapshotScanned { .. } => None,
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use turnhook_reducer::{
        Identity, ServerRef,
        message::{AllocationId, Kind, Message, Status},
        rules::Rules,
        source::GapReason,
    };

    use super::*;

    /// What was due before a gap is not done in one go because of it, however much it is.
    #[test]
    fn a_gap_waits_for_what_was_due_before_it() {
        const OPEN: u64 = 4 * STEPS as u64;
        let identity = Identity {
            store: [7; 16],
            source: "eu-1".into(),
        };
        let mut reducer = Reducer::new(identity, Rules::default());
        reducer.hearing(Timestamp(1));
        let status = Status {
            lifetime: 600,
            ..Status::default()
        };
        for id in 1..=OPEN {
            let message = Message {
                realm: b"example.org",
                username: b"ann",
                id: AllocationId(id),
                kind: Kind::New(status),
            };
            reducer.message(Timestamp(1), ServerRef::UNKNOWN, &message);
        }
        let gap = Gap {
            from: Timestamp(10_000_000),
            to: Timestamp(10_010_000),
            reason: GapReason::Stall,
            server: None,
        };
        let mut unwatched = Unwatched::default();
        unwatched.push(gap.clone());
        let over = Slice(Instant::now().checked_sub(2 * SLICE).unwrap());
        let mut handed = None;
        while handed.is_none() {
            let before = reducer.open_allocations();
            handed = unwatched.next(&mut reducer, &over);
            assert!(before - reducer.open_allocations() <= STEPS);
        }
        assert_eq!((handed, reducer.open_allocations()), (Some(gap), 0));
        assert!(unwatched.is_empty());
        assert_eq!(unwatched.next(&mut reducer, &over), None);
    }
}
