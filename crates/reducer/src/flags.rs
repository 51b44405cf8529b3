//! What is known of an allocation, yes or no.

use bitflags::bitflags;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

bitflags! {
    /// In a row: a byte for each of the first ten, in this order; of the others [`Flags::LATER`] are kept beside them.
    #[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
    pub(crate) struct Flags: u16 {
        /// Its `new` was heard.
        const OPENED_SEEN = 1;
        /// Something besides its `new` was heard.
        const TOUCHED = 1 << 1;
        /// A snapshot opened it, and no message has confirmed it.
        const FROM_SNAPSHOT = 1 << 2;
        /// Its last leg reported traffic at least once, be it zero.
        const REPORTED = 1 << 3;
        /// It has relayed.
        const RELAYED = 1 << 4;
        /// `deleted` or a total was heard.
        const CLOSING = 1 << 5;
        /// It was ended, and lives on: whatever it still relays is billed, however little.
        const REVIVED = 1 << 6;
        /// Two servers share its key (`redis` sources): deltas only.
        const SHARED = 1 << 7;
        /// First heard of without `new` soon after tombstones were evicted: deltas only.
        const DELTAS_ONLY = 1 << 8;
        /// Its client deltas exceeded its client total, or it opened in doubt of whether some of what it
        /// carried was billed of an earlier life.
        const OVERCOUNTED = 1 << 9;
        /// Some of its counters have an upper half, in [`Rare`].
        const LARGE = 1 << 10;
        /// Its client asked for its deletion: it counts as closed, and `deleted` or a refresh is waited for.
        const LEAVING = 1 << 11;
        /// A refresh came from another client address than a status before it.
        const MOVED = 1 << 12;
        /// Whatever its totals say is not called exact: a report was so late that coturn's 32-bit counters may have
        /// wrapped in it, or one came after its end, so that the totals after that may be those of another life.
        const INEXACT = 1 << 13;
        /// Its server's address is an IPv4 address.
        const IPV4 = 1 << 14;
        /// Not all that came from its peers went on to its client, as far as is certain: see [`Rare`].
        const WITHHELD = 1 << 15;
    }
}

impl Flags {
    /// Those that rows of the first format do not have.
    pub(crate) const LATER: Flags = Flags::LEAVING
        .union(Flags::MOVED)
        .union(Flags::INEXACT)
        .union(Flags::IPV4);
    /// It keeps no session alive: what is left is to hear its totals.
    pub(crate) const GONE: Flags = Flags::CLOSING.union(Flags::LEAVING);
}

/// How many of them a row of the first format has.
const FLAGS_IN_ROW: usize = 10;

impl Serialize for Flags {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        let bools: [bool; FLAGS_IN_ROW] = std::array::from_fn(|i| self.bits() & 1 << i != 0);
        bools.serialize(to)
    }
}

impl<'de> Deserialize<'de> for Flags {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Flags, D::Error> {
        let bools = <[bool; FLAGS_IN_ROW]>::deserialize(from)?;
        let bits = bools.iter().rev().fold(0, |bits, is| bits << 1 | u16::from(*is));
        Ok(Flags::from_bits_truncate(bits))
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    #[test]
    fn flags_are_a_byte_each_in_a_row() {
        let flags = Flags::OPENED_SEEN | Flags::CLOSING | Flags::OVERCOUNTED | Flags::LARGE;
        let row = postcard::to_allocvec(&flags).unwrap();
        assert_eq!(row, [1, 0, 0, 0, 0, 1, 0, 0, 0, 1]);
        let back: Flags = postcard::from_bytes(&row).unwrap();
        assert_eq!(back, flags - Flags::LARGE);
    }
}
