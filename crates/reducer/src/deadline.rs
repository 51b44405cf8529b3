//! A deadline of an allocation or a session, as it stands in the heap.

use std::cmp::Ordering;

use crate::time::{Moment, Timestamp};

/// Whose deadline it is. At one instant those of allocations come first.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Owner {
    Allocation(u32),
    Session(u32),
}

/// An entry of the heap, in twelve bytes: there is one for each allocation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Deadline {
    /// The time, and in the last bit whether it is a session's: the upper and the lower half.
    high: u32,
    low: u32,
    slot: u32,
}

impl Deadline {
    /// `at` is the time of a [`Moment`], and so has a bit to spare.
    pub(crate) fn new(at: Moment, owner: Owner) -> Deadline {
        let (is_session, slot) = match owner {
            Owner::Allocation(slot) => (0, slot),
            Owner::Session(slot) => (1, slot),
        };
        let order = at.get().0 << 1 | is_session;
        Deadline {
            high: (order >> 32) as u32,
            low: order as u32,
            slot,
        }
    }

    fn order(self) -> u64 {
        u64::from(self.high) << 32 | u64::from(self.low)
    }

    pub(crate) fn at(self) -> Timestamp {
        Timestamp(self.order() >> 1)
    }

    pub(crate) fn owner(self) -> Owner {
        if self.low & 1 == 0 {
            Owner::Allocation(self.slot)
        } else {
            Owner::Session(self.slot)
        }
    }
}

impl Ord for Deadline {
    fn cmp(&self, other: &Deadline) -> Ordering {
        (self.order(), self.slot).cmp(&(other.order(), other.slot))
    }
}

impl PartialOrd for Deadline {
    fn partial_cmp(&self, other: &Deadline) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn deadlines_are_in_the_order_of_time_then_owner_then_slot() {
        let new = |at, owner| Deadline::new(Moment::from(Timestamp(at)), owner);
        let last = (1 << 48) - 2;
        let mut before = None;
        for at in [0, 1, (1 << 31) - 1, 1 << 31, 1 << 32, 1_795_413_657_123, last] {
            for owner in [
                Owner::Allocation(0),
                Owner::Allocation(u32::MAX - 1),
                Owner::Session(0),
                Owner::Session(7),
            ] {
                let deadline = new(at, owner);
                assert_eq!((deadline.at(), deadline.owner()), (Timestamp(at), owner));
                assert!(before.is_none_or(|before| before < deadline));
                before = Some(deadline);
            }
        }
        assert_eq!(size_of::<Deadline>(), 12);
    }
}
