//! Slabs that are filled with rows in the order in which these come.

use crate::{
    allocation::Allocation, event::SessionId, intern::NONE, internal::InternalErrors, message::AllocationId,
    session::Session, slots::Slots, time::Timestamp,
};

/// A slab is filled as the rows come, in any order: to collect them first would take its memory twice.
/// Slots of which the row has yet to come, or does not exist, are filled with holes.
pub(super) trait Hole {
    fn hole() -> Self;
    fn is_hole(&self) -> bool;
}

impl Hole for Allocation {
    fn hole() -> Allocation {
        Allocation::new(AllocationId(0), NONE, NONE, NONE, Timestamp(0))
    }

    fn is_hole(&self) -> bool {
        self.name == NONE
    }
}

impl Hole for Session {
    fn hole() -> Session {
        Session::new(SessionId([0; 16]), NONE, NONE, Timestamp(0))
    }

    fn is_hole(&self) -> bool {
        self.first_name == NONE
    }
}

pub(super) fn fill<T: Hole>(slab: &mut Slots<T>, slot: u32, value: T) {
    let slot = slot as usize;
    while slab.len() < slot {
        slab.insert(T::hole());
    }
    match slab.get_mut(slot) {
        Some(hole) => *hole = value,
        None => {
            slab.insert(value);
        }
    }
}

/// The first of them is the first to be filled again.
pub(super) fn free_holes<T: Hole>(slab: &mut Slots<T>, errors: &InternalErrors) {
    let holes = slab.iter().filter(|(_, value)| value.is_hole());
    let holes: Vec<u32> = holes.map(|(slot, _)| slot as u32).collect();
    for slot in holes.into_iter().rev() {
        slab.try_remove(slot as usize, errors);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slots_are_filled_in_any_order_and_holes_are_free_again() {
        let allocation = |id| Allocation::new(AllocationId(id), NONE, 0, 0, Timestamp(0));
        let mut slab = Slots::new();
        for slot in [3, 0, 5, 1] {
            fill(&mut slab, slot, allocation(u64::from(slot)));
        }
        free_holes(&mut slab, &InternalErrors::default());
        let filled: Vec<_> = slab.iter().map(|(slot, a)| (slot, a.id.0)).collect();
        assert_eq!(filled, [(0, 0), (1, 1), (3, 3), (5, 5)]);
        let next = [0; 3].map(|id| slab.insert(allocation(id)));
        assert_eq!(next, [2, 4, 6]);
    }
}
