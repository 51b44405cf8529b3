//! Counters in two halves: the lower 32 bits are kept for each allocation and session, the upper ones where
//! there are any.

use crate::usage::{Counters, Legs, Usage};

/// The lower or the upper halves of `N` counters.
pub(crate) type Half<const N: usize> = [u32; N];

/// Writes the lower halves in place, and says whether any counter has an upper half. (To make both halves
/// first, and then look at them, takes twice the time: they would go through the stack.)
#[inline(always)]
pub(crate) fn put_low<const N: usize>(low: &mut Half<N>, wide: &[u64; N]) -> bool {
    for (low, wide) in low.iter_mut().zip(wide) {
        *low = *wide as u32;
    }
    wide.iter().fold(0, |all, wide| all | wide) > u64::from(u32::MAX)
}

/// Writes the upper halves in place.
#[inline(always)]
pub(crate) fn put_high<const N: usize>(high: &mut Half<N>, wide: &[u64; N]) {
    for (high, wide) in high.iter_mut().zip(wide) {
        *high = (*wide >> 32) as u32;
    }
}

/// Adds where the lower halves have room for it; else false, and nothing is changed.
#[inline(always)]
pub(crate) fn add_low<const N: usize>(low: &mut Half<N>, more: &[u64; N]) -> bool {
    let mut sums = low.map(u64::from);
    for (sum, more) in sums.iter_mut().zip(more) {
        *sum = sum.saturating_add(*more);
    }
    let fits = sums.iter().fold(0, |all, sum| all | sum) <= u64::from(u32::MAX);
    if fits {
        put_low(low, &sums);
    }
    fits
}

/// The whole counters, from the lower halves and the upper ones, if there are any.
#[inline(always)]
pub(crate) fn join<const N: usize>(low: &Half<N>, high: Option<&Half<N>>) -> [u64; N] {
    let mut wide = low.map(u64::from);
    if let Some(high) = high {
        for (wide, high) in wide.iter_mut().zip(high) {
            *wide |= u64::from(*high) << 32;
        }
    }
    wide
}

/// In the order of their declaration, which the ledgers' columns share.
impl From<Legs> for [u64; 8] {
    #[inline(always)]
    fn from(Legs { client, peer }: Legs) -> [u64; 8] {
        [
            client.received_packets,
            client.received_bytes,
            client.sent_packets,
            client.sent_bytes,
            peer.received_packets,
            peer.received_bytes,
            peer.sent_packets,
            peer.sent_bytes,
        ]
    }
}

impl From<[u64; 8]> for Legs {
    #[inline(always)]
    fn from([a, b, c, d, e, f, g, h]: [u64; 8]) -> Legs {
        let counters = |[received_packets, received_bytes, sent_packets, sent_bytes]: [u64; 4]| Counters {
            received_packets,
            received_bytes,
            sent_packets,
            sent_bytes,
        };
        Legs {
            client: counters([a, b, c, d]),
            peer: counters([e, f, g, h]),
        }
    }
}

impl From<Usage> for [u64; 9] {
    #[inline(always)]
    fn from(usage: Usage) -> [u64; 9] {
        let [a, b, c, d, e, f, g, h] = usage.legs.into();
        [a, b, c, d, e, f, g, h, usage.billable_bytes]
    }
}

impl From<[u64; 9]> for Usage {
    #[inline(always)]
    fn from([a, b, c, d, e, f, g, h, billable_bytes]: [u64; 9]) -> Usage {
        Usage {
            legs: [a, b, c, d, e, f, g, h].into(),
            billable_bytes,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_bit_is_lost_and_no_counter_taken_for_another() {
        for n in [
            0,
            1,
            u64::from(u32::MAX),
            1 << 32,
            0x0123_4567_89ab_cdef,
            u64::MAX - 1,
            u64::MAX,
        ] {
            let wide: [u64; 9] = std::array::from_fn(|i| n.rotate_left(7 * i as u32));
            let (mut low, mut high) = ([0; 9], [0; 9]);
            let large = put_low(&mut low, &wide);
            put_high(&mut high, &wide);
            assert_eq!(join(&low, Some(&high)), wide);
            assert_eq!(large, high != [0; 9]);
            assert!(large || join(&low, None) == wide);
            assert_eq!(<[u64; 9]>::from(Usage::from(wide)), wide);
        }
        let usage = Usage::from([1, 2, 3, 4, 5, 6, 7, 8, 9]);
        let Legs { client, peer } = usage.legs;
        assert_eq!((client.received_packets, client.sent_bytes), (1, 4));
        assert_eq!((peer.received_bytes, peer.sent_packets), (6, 7));
        assert_eq!(usage.billable_bytes, 9);
    }

    #[test]
    fn below_4_gib_there_are_no_upper_halves() {
        let mut low = [0; 2];
        assert!(!put_low(&mut low, &[u64::from(u32::MAX), 7]));
        assert_eq!(low, [u32::MAX, 7]);
        assert!(put_low(&mut low, &[7, 1 << 32]));
        assert_eq!(low, [7, 0]);
        assert!(add_low(&mut low, &[1, u64::from(u32::MAX)]));
        assert_eq!(low, [8, u32::MAX]);
        for more in [[0, 1], [1 << 32, 0], [u64::MAX, 0], [0, u64::MAX]] {
            assert!(!add_low(&mut low, &more));
            assert_eq!(low, [8, u32::MAX]);
        }
    }
}
