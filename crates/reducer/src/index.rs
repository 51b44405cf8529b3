//! A hash table of numbered places that never takes long to grow: it is many small tables, of which one grows at a
//! time, and it keeps the hashes, so that growing looks at none of the places. One large table would look at a million
//! of them at once, each a miss of the cache, for longer than the sockets can wait.

use std::array;

use hashbrown::HashTable;

/// Enough that one of them is moved in a fraction of a millisecond where there are a million places in all.
const SHARDS: usize = 64;

/// Places by the hash of what stands in them. Never iterated, so that its order does not show.
#[derive(Debug)]
pub(crate) struct Index(Box<[HashTable<Entry>; SHARDS]>);

#[derive(Clone, Copy, Debug)]
struct Entry {
    place: u32,
    /// The lower half: enough to distinguish millions, in half the memory.
    hash: u32,
}

impl Default for Index {
    fn default() -> Index {
        Index(Box::new(array::from_fn(|_| HashTable::new())))
    }
}

/// Which of the tables it is: by the half of the hash that is not kept, so that the entries of one differ in all they
/// keep.
fn shard(hash: u64) -> usize {
    (hash >> 32) as usize % SHARDS
}

/// A table takes the place from the lower bits and a mark from the upper ones: both come from what is kept.
fn spread(hash: u32) -> u64 {
    u64::from(hash).wrapping_mul(0x9e37_79b9_7f4a_7c15)
}

impl Index {
    /// The place with this hash that is the one.
    pub(crate) fn find(&self, hash: u64, is: impl Fn(&u32) -> bool) -> Option<u32> {
        let kept = hash as u32;
        let found = self.0[shard(hash)].find(spread(kept), |entry| entry.hash == kept && is(&entry.place));
        found.map(|entry| entry.place)
    }

    /// A place that is not there yet.
    pub(crate) fn insert(&mut self, hash: u64, place: u32) {
        let entry = Entry {
            place,
            hash: hash as u32,
        };
        self.0[shard(hash)].insert_unique(spread(entry.hash), entry, |entry| spread(entry.hash));
    }

    /// All places with this hash, and perhaps some with another.
    pub(crate) fn alike(&self, hash: u64) -> impl Iterator<Item = u32> {
        let alike = self.0[shard(hash)].iter_hash(spread(hash as u32));
        alike.map(|entry| entry.place)
    }

    /// Takes a place out, by the hash that it was put there with. Whether it was there.
    #[must_use]
    pub(crate) fn remove(&mut self, hash: u64, place: u32) -> bool {
        match self.0[shard(hash)].find_entry(spread(hash as u32), |entry| entry.place == place) {
            Ok(found) => {
                found.remove();
                true
            }
            Err(_) => false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_are_found_by_their_hash_while_it_grows_and_shrinks() {
        // Two of each hash.
        let hash = |place: u32| u64::from(place / 2).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        let mut index = Index::default();
        for place in 0..10_000 {
            index.insert(hash(place), place);
        }
        for place in (0..10_000).step_by(3) {
            assert!(index.remove(hash(place), place) && !index.remove(hash(place), place));
        }
        for place in 0..10_000 {
            let found = index.find(hash(place), |one| *one == place);
            assert_eq!(found, (place % 3 != 0).then_some(place));
            let other = place ^ 1;
            assert_eq!(
                index.alike(hash(place)).any(|one| one == other),
                other % 3 != 0,
                "two of one hash"
            );
        }
    }

    /// What takes long is to grow: no insertion moves more than a few of what is there.
    #[test]
    fn it_grows_by_small_parts() {
        let mut index = Index::default();
        for place in 0..100_000 {
            let hash = u64::from(place).wrapping_mul(0x9e37_79b9_7f4a_7c15);
            let before = index.0.each_ref().map(|shard| (shard.capacity(), shard.len()));
            index.insert(hash, place);
            let moved = index.0.iter().zip(before);
            let moved: usize = moved
                .filter(|(shard, (capacity, _))| shard.capacity() != *capacity)
                .map(|(_, (_, len))| len)
                .sum();
            assert!(moved <= 4_000, "{moved} of {place} were moved at once");
        }
    }
}
