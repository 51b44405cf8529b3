//! A slab that grows by pieces: what is there never moves. One that is a single array is copied when it is full, and with
//! a million allocations that takes longer than anything else that is done between two looks at the sockets.

use std::collections::BTreeSet;

use crate::internal::InternalErrors;

/// Values in a piece: some megabytes of them, which are touched as they are filled, so that large pages of memory can
/// be used. In tests few, so that there are many pieces.
const PIECE: usize = if cfg!(test) { 64 } else { 16 * 1024 };

/// Values in numbered places. The lowest free place is filled first: an order in which places became free would be lost
/// with a restart, and what goes by places in memory would come out otherwise after one.
#[derive(Debug)]
pub(crate) struct Slots<T> {
    pieces: Vec<Vec<Option<T>>>,
    /// Places in the pieces.
    free: BTreeSet<usize>,
    len: usize,
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
            free: BTreeSet::new(),
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

    /// The place after the last one in the pieces.
    fn end(&self) -> usize {
        self.pieces
            .last()
            .map_or(0, |last| self.capacity() - PIECE + last.len())
    }

    fn slot_mut(&mut self, place: usize) -> Option<&mut Option<T>> {
        self.pieces.get_mut(place / PIECE)?.get_mut(place % PIECE)
    }

    pub(crate) fn contains(&self, place: usize) -> bool {
        self.get(place).is_some()
    }

    pub(crate) fn get(&self, place: usize) -> Option<&T> {
        self.pieces.get(place / PIECE)?.get(place % PIECE)?.as_ref()
    }

    pub(crate) fn get_mut(&mut self, place: usize) -> Option<&mut T> {
        self.slot_mut(place)?.as_mut()
    }

    /// Puts a value in the lowest free place. Its number.
    pub(crate) fn insert(&mut self, value: T) -> usize {
        let place = self.free.first().copied().unwrap_or_else(|| self.end());
        self.put(place, value);
        place
    }

    /// Puts a value in this very place, where one may be already; the places before it that are new are free.
    pub(crate) fn put(&mut self, place: usize, value: T) {
        while self.end() < place {
            self.free.insert(self.end());
            self.push(None);
        }
        if self.end() == place {
            self.push(Some(value));
            self.len += 1;
        } else if let Some(slot) = self.slot_mut(place) {
            *slot = Some(value);
            self.len += usize::from(self.free.remove(&place));
        }
    }

    /// One place more.
    fn push(&mut self, slot: Option<T>) {
        match self.pieces.last_mut() {
            Some(last) if last.len() < PIECE => last.push(slot),
            _ => {
                let mut piece = Vec::with_capacity(PIECE);
                piece.push(slot);
                self.pieces.push(piece);
            }
        }
    }

    /// Takes a value out; its place is free.
    pub(crate) fn try_remove(&mut self, place: usize, errors: &InternalErrors) -> Option<T> {
        let value = self.slot_mut(place)?.take()?;
        self.free.insert(place);
        errors.take(&mut self.len, 1, "more places become free than were taken");
        Some(value)
    }

    /// All values, by the numbers of their places.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (usize, &T)> {
        let slots = self.pieces.iter().flatten().enumerate();
        slots.filter_map(|(place, slot)| Some((place, slot.as_ref()?)))
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::*;

    proptest! {
        /// Whatever came and went, the lowest free place is next, and those that are made anew of their rows go on alike.
        #[test]
        fn the_lowest_free_place_is_next(steps in proptest::collection::vec((any::<bool>(), 0usize..5000), 1..6000)) {
            let (mut slots, mut model, errors) = (Slots::new(), BTreeMap::new(), InternalErrors::default());
            for (step, (inserts, place)) in steps.into_iter().enumerate() {
                if inserts {
                    let lowest = (0..64).find(|place| !model.contains_key(place)).unwrap_or(model.len());
                    model.insert(lowest, step);
                    prop_assert_eq!(slots.insert(step), lowest);
                } else {
                    prop_assert_eq!(slots.try_remove(place % 64, &errors), model.remove(&(place % 64)));
                }
                prop_assert_eq!(slots.get(place), model.get(&place));
                prop_assert_eq!(slots.contains(place), model.contains_key(&place));
                prop_assert_eq!((slots.len(), slots.is_empty()), (model.len(), model.is_empty()));
                prop_assert!(slots.capacity() >= slots.len());
            }
            prop_assert!(slots.iter().eq(model.iter().map(|(place, value)| (*place, value))));
            let mut restored = Slots::new();
            for (place, value) in model.into_iter().rev() {
                restored.put(place, value);
            }
            prop_assert!(restored.iter().eq(slots.iter()));
            for _ in 0..100 {
                prop_assert_eq!(restored.insert(0), slots.insert(0));
            }
        }
    }

    #[test]
    fn values_are_put_back_into_the_places_that_they_had() {
        let last = 2 * PIECE + 3;
        let mut slots = Slots::new();
        for place in [7, 0, last, 2, 7] {
            slots.put(place, place);
        }
        let put: Vec<(usize, usize)> = slots.iter().map(|(place, value)| (place, *value)).collect();
        assert_eq!(put, [0, 2, 7, last].map(|place| (place, place)));
        let filled: Vec<usize> = (0..last - 2).map(|_| slots.insert(0)).collect();
        assert_eq!(filled[..4], [1, 3, 4, 5]);
        assert_eq!(filled[last - 4..], [last - 1, last + 1]);
        assert_eq!(slots.len(), last + 2);
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
