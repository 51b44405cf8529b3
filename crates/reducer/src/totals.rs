//! What the totals at an allocation's end make of the counters that were added up before.

use crate::usage::{Counters, Legs};

/// What totals make of the counters.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Settled {
    pub(crate) legs: Legs,
    /// Both totals were seen, and nothing speaks against them.
    pub(crate) exact: bool,
    /// The deltas were above the total.
    pub(crate) overcounted: bool,
    /// The peer leg's deltas alone were, and no wrap can be the reason.
    pub(crate) peer_overcounted: bool,
}

/// The smallest number that is not below `seen` and is `reported` modulo 2^32.
pub(crate) fn unwrap_total(seen: u64, reported: u64) -> u64 {
    const WRAP: u64 = 1 << 32;
    if reported >= seen {
        return reported; // a server that does not wrap reports the truth itself
    }
    let missing = reported.wrapping_sub(seen) % WRAP;
    seen.saturating_add(missing)
}

/// The most that the peer leg can have carried, by the client leg: what coturn sends to a peer it received
/// from the client, framed, and the other way round.
pub(crate) fn most_of_peer(client: Counters) -> Counters {
    Counters {
        received_packets: client.sent_packets,
        received_bytes: client.sent_bytes,
        sent_packets: client.received_packets,
        sent_bytes: client.received_bytes,
    }
}

/// The peer leg's total. A wrap past `most` is not believed: a total below the deltas is then that of another
/// life under the same number, and 4 GiB would be billed that never were. Such a counter stays as it was
/// seen; the second value says whether there was none.
pub(crate) fn unwrap_peer(seen: Counters, reported: Counters, most: Counters) -> (Counters, bool) {
    // Fewer packets than were counted are another life's: of them there are not 4 thousand million.
    let fewer = |seen: u64, reported: u64| reported < seen && seen < 1 << 31;
    let mut most = most;
    if fewer(seen.received_packets, reported.received_packets) {
        most.received_packets = 0;
        most.received_bytes = 0;
    }
    if fewer(seen.sent_packets, reported.sent_packets) {
        most.sent_packets = 0;
        most.sent_bytes = 0;
    }
    let total = seen.zip(reported, unwrap_total);
    let wrapped = total.minus(seen.max(reported));
    // Where nothing was added by a wrap, nothing needs to be believed.
    let excess = wrapped.zip(total.minus(most), u64::min);
    let believed = total.zip(excess, |n, excess| if excess > 0 { 0 } else { n });
    (believed.max(seen), excess.is_zero())
}

/// Whether the peer leg cannot have wrapped unseen: each wrap needs 4 GiB that were missed. The client leg
/// shows how much was, where both legs of a report were missed; a peer report that was lost alone, or a
/// flood of strangers' packets, shows in the packets missed, of which each holds less than 64 KiB.
fn no_wrap_was_missed(seen: Legs, settled: Legs) -> bool {
    const WRAP: u64 = 1 << 32;
    let client = settled.client.minus(seen.client);
    let peer = settled.peer.minus(seen.peer);
    let few = |peer_packets: u64, client_packets: u64| {
        peer_packets <= client_packets || peer_packets < WRAP / 65_536
    };
    client.received_bytes < WRAP
        && client.sent_bytes < WRAP
        && few(peer.sent_packets, client.received_packets)
        && few(peer.received_packets, client.sent_packets)
}

/// Settles the counters when an allocation has ended; `one_life` if they are of no other.
pub(crate) fn settle(
    legs: Legs,
    client_total: Option<Counters>,
    peer_total: Option<Counters>,
    peer_leg: bool,
    one_life: bool,
) -> Settled {
    let overcounted = client_total.is_some_and(|total| legs.client.exceeds(&total));
    if overcounted {
        // More was counted than there was, so the deltas are not all of this allocation: on neither leg
        // can a total be trusted to lie above them.
        return Settled {
            legs,
            exact: false,
            overcounted,
            peer_overcounted: false,
        };
    }
    let client = client_total.unwrap_or(legs.client);
    let (peer, believed) = match peer_total {
        Some(total) if peer_leg => {
            // Without the client's total, an eighth of what was seen may have been missed besides.
            let most = client_total.map_or_else(
                || legs.peer.zip(legs.peer, |n, _| n.saturating_add(n / 8)),
                most_of_peer,
            );
            // Beside what was counted of another life, a total below it is no wrap: it is of this one alone.
            let most = if one_life { most } else { legs.peer.max(total) };
            unwrap_peer(legs.peer, total, most)
        }
        _ => (legs.peer, true),
    };
    let sure = !peer_leg || (believed && no_wrap_was_missed(legs, Legs { client, peer }));
    let all = client_total.is_some() && (peer_total.is_some() || !peer_leg);
    Settled {
        legs: Legs { client, peer },
        exact: all && sure,
        overcounted,
        peer_overcounted: !believed,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bytes(n: u64) -> Counters {
        Counters {
            received_packets: 1,
            received_bytes: n,
            sent_packets: 1,
            sent_bytes: n,
        }
    }

    #[test]
    fn a_peer_total_is_unwrapped() {
        assert_eq!(unwrap_total(4_900_000_000, 643_156_532), 4_938_123_828);
        assert_eq!(unwrap_total(0, 7), 7);
        assert_eq!(unwrap_total(7, 7), 7);
        assert_eq!(unwrap_total(8, 7), (1 << 32) + 7);
        assert_eq!(unwrap_total(0, 1 << 40), 1 << 40);
        assert_eq!(unwrap_total(u64::MAX - 1, 0), u64::MAX);
    }

    #[test]
    fn a_wrap_that_the_client_leg_contradicts_is_not_believed() {
        let (seen, reported) = (bytes(4_900_000_000), bytes(643_156_532));
        let wrapped = bytes(4_938_123_828);
        assert_eq!(unwrap_peer(seen, reported, bytes(5_000_000_000)), (wrapped, true));
        assert_eq!(unwrap_peer(seen, reported, bytes(4_900_000_000)), (seen, false));
        assert_eq!(unwrap_peer(bytes(300), bytes(0), bytes(400)), (bytes(300), false));
        assert_eq!(unwrap_peer(bytes(300), bytes(900), bytes(0)), (bytes(900), true));
    }

    #[test]
    fn totals_settle_what_deltas_missed() {
        let legs = Legs {
            client: bytes(100),
            peer: bytes(90),
        };
        let settled = settle(legs, Some(bytes(1000)), Some(bytes(900)), true, true);
        assert_eq!(
            settled.legs,
            Legs {
                client: bytes(1000),
                peer: bytes(900)
            }
        );
        assert!(settled.exact);
        assert!(!settle(legs, Some(bytes(1000)), None, true, true).exact);
        assert!(settle(legs, Some(bytes(1000)), None, false, true).exact);
        assert!(!settle(legs, None, Some(bytes(900)), true, true).exact);
        assert!(!settle(legs, Some(bytes(1 << 33)), Some(bytes(900)), true, true).exact);
    }

    #[test]
    fn an_overcount_is_no_wrap() {
        let legs = Legs {
            client: bytes(1000),
            peer: bytes(900),
        };
        let settled = settle(legs, Some(bytes(100)), Some(bytes(90)), true, true);
        assert_eq!(
            settled,
            Settled {
                legs,
                exact: false,
                overcounted: true,
                peer_overcounted: false,
            }
        );
    }
}
