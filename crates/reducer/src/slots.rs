//! A slab that grows by pieces: what is there never moves. One that is a single array is copied when it is full, and with
//! a million allocations that takes longer than anything else that is done between two looks at the sockets.

use std::mem;

use crate::internal::InternalErrors;

/// Values in a piece: some megabytes of them, which are touched as they are filled, so that large pages of memory can
/// be used. In tests few, so that there are many pieces.
const PIECE: usize = if cfg!(test) { 64 } else { 16 * 1024 };

/// Values in numbered places. A place that became free last is filled first, else the next new one is.
#[derive(Debug)]
pub(crate) struct Slots<T> {
    pieces: Vec<Vec<Slot<T>>>,
    /// The place to be filled next; a new one if it is the one after the last.
    next: usize,
    len: usize,
}

#[derive(Debug)]
enum Slot<T> {
    Taken(T),
    /// The place to be filled after this one.
    Free(usize),
}

impl<T> Default for Slots<T> {
    fn default() -> Slots<T> {
        Slots::new()
    }
}

impl<T> Slots<T> {
    pub(crate) fn new() -> Slots<T> {
        Slots {
            pieces: Vec::new(),
            next: 0,
            len: 0,
        }
    }

    /// How many values there are.
    pub(crate) fn len(&self) -> usize {
        self.len
    }

    #[cfg(test)]
    pub(crate) fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// No place has a number from here on.
    pub(crate) fn capacity(&self) -> usize {
        self.pieces.len() * PIECE
    }

    fn slot(&self, place: usize) -> Option<&Slot<T>> {
        self.pieces.get(place / PIECE)?.get(place % PIECE)
    }

    fn slot_mut(&mut self, place: usize) -> Option<&mut Slot<T>> {
        self.pieces.get_mut(place / PIECE)?.get_mut(place % PIECE)
    }

    pub(crate) fn contains(&self, place: usize) -> bool {
        self.get(place).is_some()
    }

    pub(crate) fn get(&self, place: usize) -> Option<&T> {
        match self.slot(place)? {
            Slot::Taken(value) => Some(value),
            Slot::Free(_) => None,
        }
    }

    pub(crate) fn get_mut(&mut self, place: usize) -> Option<&mut T> {
        match self.slot_mut(place)? {
            Slot::Taken(value) => Some(value),
            Slot::Free(_) => None,
        }
    }

    /// Puts a value in the next place. Its number.
    pub(crate) fn insert(&mut self, value: T) -> usize {
        let place = self.next;
        self.len += 1;
        match self.slot_mut(place) {
            Some(slot) => {
                if let Slot::Free(next) = mem::replace(slot, Slot::Taken(value)) {
                    self.next = next;
                }
            }
            None => {
                self.next = place + 1;
                match self.pieces.last_mut() {
                    Some(last) if last.len() < PIECE => last.push(Slot::Taken(value)),
                    _ => {
                        let mut piece = Vec::with_capacity(PIECE);
                        piece.push(Slot::Taken(value));
                        self.pieces.push(piece);
                    }
                }
            }
        }
        place
    }

    /// Takes a value out; its place is free.
    pub(crate) fn try_remove(&mut self, place: usize, errors: &InternalErrors) -> Option<T> {
        let next = self.next;
        let slot = self.slot_mut(place)?;
        match mem::replace(slot, Slot::Free(next)) {
            Slot::Taken(value) => {
                self.next = place;
                errors.take(&mut self.len, 1, "more places become free than were taken");
                Some(value)
            }
            free @ Slot::Free(_) => {
                *slot = free;
                None
            }
        }
    }

    /// Values in the places that they had before. Of those left free, the first is filled first.
    pub(crate) fn of(values: Vec<(usize, T)>) -> Slots<T> {
        let mut slots = Slots::new();
        let end = values.iter().map(|(place, _)| place + 1).max().unwrap_or(0);
        for first in (0..end).step_by(PIECE) {
            let mut piece = Vec::with_capacity(PIECE);
            piece.resize_with(PIECE.min(end - first), || Slot::Free(0));
            slots.pieces.push(piece);
        }
        for (place, value) in values {
            if let Some(slot) = slots.slot_mut(place) {
                *slot = Slot::Taken(value);
                slots.len += 1;
            }
        }
        let mut next = end;
        for place in (0..end).rev() {
            if let Some(Slot::Free(after)) = slots.slot_mut(place) {
                *after = mem::replace(&mut next, place);
            }
        }
        slots.next = next;
        slots
    }

    /// All values, by the numbers of their places.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (usize, &T)> {
        let slots = self.pieces.iter().flatten().enumerate();
        slots.filter_map(|(place, slot)| match slot {
            Slot::Taken(value) => Some((place, value)),
            Slot::Free(_) => None,
        })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use slab::Slab;

    use super::*;

    proptest! {
        /// The same places in the same order as in a slab of one array: rows keep their numbers over a restart.
        #[test]
        fn it_numbers_places_as_a_slab_does(steps in proptest::collection::vec((any::<bool>(), 0usize..5000), 1..6000)) {
            let (mut slots, mut slab, errors) = (Slots::new(), Slab::new(), InternalErrors::default());
            for (step, (inserts, place)) in steps.into_iter().enumerate() {
                if inserts {
                    prop_assert_eq!(slots.insert(step), slab.insert(step));
                } else {
                    prop_assert_eq!(slots.try_remove(place % 64, &errors), slab.try_remove(place % 64));
                }
                prop_assert_eq!(slots.get(place), slab.get(place));
                prop_assert_eq!(slots.contains(place), slab.contains(place));
                prop_assert_eq!((slots.len(), slots.is_empty()), (slab.len(), slab.is_empty()));
                prop_assert!(slots.capacity() >= slots.len());
            }
            prop_assert!(slots.iter().eq(slab.iter()));
        }
    }

    #[test]
    fn values_are_put_back_into_the_places_that_they_had() {
        let last = 2 * PIECE + 3;
        let mut slots = Slots::of([7, 0, last, 2].map(|place| (place, place)).to_vec());
        let put: Vec<(usize, usize)> = slots.iter().map(|(place, value)| (place, *value)).collect();
        assert_eq!(put, [0, 2, 7, last].map(|place| (place, place)));
        let filled: Vec<usize> = (0..last - 2).map(|_| slots.insert(0)).collect();
        assert_eq!(filled[..4], [1, 3, 4, 5]);
        assert_eq!(filled[last - 4..], [last - 1, last + 1]);
        assert_eq!(slots.len(), last + 2);
        assert_eq!(Slots::<u8>::of(Vec::new()).insert(1), 0);
    }

    #[test]
    fn what_is_there_never_moves() {
        let (mut slots, errors) = (Slots::new(), InternalErrors::default());
        slots.insert(0);
        let first = slots.get(0).map(std::ptr::from_ref);
        for value in 1..100_000 {
            assert_eq!(slots.insert(value), value);
        }
        assert_eq!(slots.get(0).map(std::ptr::from_ref), first);
        assert_eq!(slots.iter().count(), 100_000);
        if let Some(value) = slots.get_mut(99_999) {
            *value = 7;
        }
        assert_eq!(slots.try_remove(99_999, &errors), Some(7));
        assert_eq!(slots.try_remove(99_999, &errors), None);
        assert_eq!(slots.insert(8), 99_999);
    }
}
