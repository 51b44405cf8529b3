//! Counters in two halves: the lower 32 bits are kept for each allocation, the upper ones where there are any.

use crate::usage::{Counters, Legs};

/// One half of the eight counters of both legs.
pub(crate) type Half = [u32; 8];

/// The lower and the upper halves.
pub(crate) fn split(legs: Legs) -> (Half, Half) {
    let Legs { client, peer } = legs;
    let wide = [
        client.received_packets,
        client.received_bytes,
        client.sent_packets,
        client.sent_bytes,
        peer.received_packets,
        peer.received_bytes,
        peer.sent_packets,
        peer.sent_bytes,
    ];
    (wide.map(|n| n as u32), wide.map(|n| (n >> 32) as u32))
}

/// What was split.
pub(crate) fn join(low: Half, high: Half) -> Legs {
    let counters = |at: usize| {
        let wide = |i: usize| u64::from(low[at + i]) | u64::from(high[at + i]) << 32;
        Counters {
            received_packets: wide(0),
            received_bytes: wide(1),
            sent_packets: wide(2),
            sent_bytes: wide(3),
        }
    };
    Legs {
        client: counters(0),
        peer: counters(4),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Counters of which no two are the same, `n` the first.
    fn legs(n: u64) -> Legs {
        let counters = |n: u64| Counters {
            received_packets: n,
            received_bytes: n.rotate_left(8),
            sent_packets: n.rotate_left(16),
            sent_bytes: n.rotate_left(24),
        };
        Legs {
            client: counters(n),
            peer: counters(n.rotate_left(32)),
        }
    }

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
            let (low, high) = split(legs(n));
            assert_eq!(join(low, high), legs(n));
        }
    }

    #[test]
    fn below_4_gib_there_are_no_upper_halves() {
        let mut most = Legs::default();
        most.peer.sent_bytes = u64::from(u32::MAX);
        assert_eq!(split(most).1, [0; 8]);
        most.peer.sent_bytes += 1;
        assert_eq!(split(most), ([0; 8], [0, 0, 0, 0, 0, 0, 0, 1]));
    }
}
