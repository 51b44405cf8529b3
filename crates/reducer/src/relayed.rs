//! What of an allocation's counters was relayed: one rule for billing, liveness, `residue` and `start_on`.
//!
//! coturn counts what strangers send to a relay address before it looks for a permission, so what came from peers is
//! an upper bound of what went on to the client; and what the client was sent holds framing and answers. Neither
//! counter alone is the truth. This file says how much of them is certain. The figures are measured on coturn 4.6.1 and
//! 4.17.1 over UDP, TCP and TLS (RELAYED.md).

use serde::{Deserialize, Serialize};

use crate::usage::{Counters, Legs};

/// The smallest request: a STUN header. Each has at most one answer.
const SMALLEST_REQUEST: u64 = 20;
/// An answer is at most this large, in bytes: the largest that could be made had 364, and IPv6 adds 12 an address.
const LARGEST_ANSWER: u64 = 500;
/// And at most this, with half of its request's size: only unknown attributes are repeated, in two bytes for four.
const ANSWER_WITHOUT_REQUEST: u64 = 256;
/// What coturn adds to a packet for its client at most, in bytes: a Data indication from an IPv4 peer, with padding,
/// SOFTWARE and FINGERPRINT.
const FRAMING_IPV4: u64 = 75;
/// The same from an IPv6 peer.
const FRAMING_IPV6: u64 = 87;
/// What coturn sends a client, of its own accord or for a request that counted elsewhere, is no larger, in bytes: that
/// somebody asks for a TCP relay's connection, or that a mobile client may go on (coturn 4.6).
const LARGEST_NEWS: u64 = 128;
/// What a TCP relay's peer sends before the client has bound the connection is counted on the client's leg alone. So
/// much of it, and a quarter of the rest, is not looked for: no framing comes near.
const EARLY_DATA: u64 = 64 * 1024;
/// No packet from a peer is larger, in bytes.
const LARGEST_PACKET: u64 = 65_535;
/// coturn may report between the two counters of one packet: it came from the peer, and is yet to be sent on.
pub(crate) const IN_FLIGHT: u64 = 1;

/// What coturn adds to a packet for its client, at most; whether the client has moved (RFC 8016).
pub(crate) fn largest_framing(ipv4: bool, moved: bool) -> u64 {
    match (moved, ipv4) {
        (true, _) => LARGEST_NEWS,
        (false, true) => FRAMING_IPV4,
        (false, false) => FRAMING_IPV6,
    }
}

/// The answers to a client's requests: how many there can have been among the packets that it was sent, and of how
/// many bytes. What it sent and a peer was sent was no request.
fn most_answers(legs: &Legs, in_flight: u64) -> (u64, u64) {
    let Legs { client, peer } = legs;
    let packets = client.received_packets.saturating_sub(peer.sent_packets);
    let bytes = client.received_bytes.saturating_sub(peer.sent_bytes);
    let answers = packets.min(bytes / SMALLEST_REQUEST).saturating_add(in_flight);
    let answers = answers.min(client.sent_packets);
    let by_request = answers
        .saturating_mul(ANSWER_WITHOUT_REQUEST)
        .saturating_add(bytes / 2);
    (answers, by_request.min(answers.saturating_mul(LARGEST_ANSWER)))
}

/// How many of the bytes that the client was sent came from peers for certain: those that can be neither answers nor
/// framing.
fn surely_sent_on(legs: &Legs, framing: u64, in_flight: u64) -> u64 {
    let (answers, answered) = most_answers(legs, in_flight);
    let forwarded = legs.client.sent_packets - answers;
    let overhead = answered.saturating_add(forwarded.saturating_mul(framing));
    legs.client.sent_bytes.saturating_sub(overhead)
}

/// Whether something was relayed, by counters of both legs: a packet was sent to a peer, or the client was sent more
/// than its requests can have been answered with. A client without permission is sent nothing but answers, whatever
/// strangers send.
pub(crate) fn has_relayed(legs: &Legs) -> bool {
    let Legs { client, peer } = legs;
    if peer.sent_packets > 0 {
        return true;
    }
    let (answers, answered) = most_answers(legs, 0);
    let more = client.sent_packets > answers || client.sent_bytes > answered;
    // Not only news of a connection or a move; what a TCP relay's peer sends before the connection is bound is
    // counted on the client's leg alone.
    (more && peer.received_bytes > 0) || surely_sent_on(legs, LARGEST_NEWS, 0) > 0
}

/// How many bytes from peers went on to the client, for one report or for the totals of one life. Where all that came
/// from them can have gone on, it has. Else there were strangers, and only what is certain counts: what the client was
/// sent less all that can have been answers and framing, or what came from peers less the packets that went no further,
/// whichever is more.
pub(crate) fn sent_on(legs: &Legs, framing: u64, in_flight: u64) -> u64 {
    let Legs { client, peer } = legs;
    let all = peer.received_bytes <= client.sent_bytes
        && peer.received_packets <= client.sent_packets.saturating_add(in_flight);
    let by_peer = if all {
        peer.received_bytes
    } else {
        let forwarded = client.sent_packets - most_answers(legs, in_flight).0;
        let dropped = peer.received_packets.saturating_sub(forwarded);
        peer.received_bytes
            .saturating_sub(dropped.saturating_mul(LARGEST_PACKET))
    };
    let framing = if peer.received_bytes == 0 {
        LARGEST_NEWS
    } else {
        framing
    };
    let surely = surely_sent_on(legs, framing, in_flight);
    let early = surely.saturating_sub(peer.received_bytes);
    if early > EARLY_DATA.saturating_add(peer.received_bytes / 4) {
        surely
    } else {
        // The client was sent all of it, also where these are halves of two reports, of which the others were lost.
        by_peer
            .max(surely)
            .min(peer.received_bytes)
            .min(client.sent_bytes)
    }
}

/// What an allocation carried, as far as is known: its counters, and how many bytes from peers went on to the client.
/// That is reckoned report by report: counters may be of two lives of one number, and the sum of what is certain of
/// each report is certain, whosever they are.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Carried {
    pub(crate) legs: Legs,
    pub(crate) sent_on: u64,
}

impl Carried {
    /// One half of a report more: the client's.
    pub(crate) fn plus_client(mut self, half: Counters) -> Carried {
        self.legs.client = self.legs.client.plus(half);
        self
    }

    /// The other half, with the client's half of the same report, which was counted already (zero where it was lost).
    pub(crate) fn plus_peer(mut self, half: Counters, client: Counters, framing: u64) -> Carried {
        let report = Legs { client, peer: half };
        self.legs.peer = self.legs.peer.plus(half);
        self.sent_on = self.sent_on.saturating_add(sent_on(&report, framing, IN_FLIGHT));
        self
    }

    /// With the totals of one life in place of what was counted of it.
    pub(crate) fn settled(self, legs: Legs, framing: u64) -> Carried {
        Carried {
            legs,
            sent_on: sent_on(&legs, framing, 0).max(self.sent_on),
        }
    }

    /// What both know: the larger of each.
    pub(crate) fn max(self, other: Carried) -> Carried {
        Carried {
            legs: self.legs.max(other.legs),
            sent_on: self.sent_on.max(other.sent_on),
        }
    }

    /// One after the other.
    pub(crate) fn plus(self, other: Carried) -> Carried {
        Carried {
            legs: self.legs.plus(other.legs),
            sent_on: self.sent_on.saturating_add(other.sent_on),
        }
    }

    /// What is beyond `base`.
    pub(crate) fn minus(self, base: Carried) -> Carried {
        Carried {
            legs: self.legs.minus(base.legs),
            sent_on: self.sent_on.saturating_sub(base.sent_on),
        }
    }

    pub(crate) fn is_zero(&self) -> bool {
        self.legs.is_zero()
    }

    /// What was relayed, upwards and downwards together, of one that has relayed. Without a peer leg the client leg
    /// stands in for it.
    pub(crate) fn relayed(&self, peer_leg: bool) -> u64 {
        let Legs { client, peer } = self.legs;
        if peer_leg {
            peer.sent_bytes.saturating_add(self.sent_on)
        } else {
            client.received_bytes.saturating_add(client.sent_bytes)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn counters(received_packets: u64, received_bytes: u64, sent_packets: u64, sent_bytes: u64) -> Counters {
        Counters {
            received_packets,
            received_bytes,
            sent_packets,
            sent_bytes,
        }
    }

    fn legs(client: Counters, peer: Counters) -> Legs {
        Legs { client, peer }
    }

    #[test]
    fn a_client_that_only_receives_relays() {
        // By UDP: each packet is framed, and four requests were answered.
        let udp = legs(
            counters(4, 400, 8_004, 8_288_400),
            counters(8_000, 8_000_000, 0, 0),
        );
        assert!(has_relayed(&udp));
        assert_eq!(sent_on(&udp, FRAMING_IPV4, 0), 8_000_000);
        // With as much junk sent upwards: only the bytes show it.
        let junk = legs(
            counters(9_000, 36_000, 8_004, 8_288_400),
            counters(8_000, 8_000_000, 0, 0),
        );
        assert!(has_relayed(&junk));
        assert_eq!(sent_on(&junk, FRAMING_IPV4, 0), 8_000_000);
        // By TCP relay: no framing.
        let tcp = legs(counters(4, 384, 14, 10_328), counters(10, 10_000, 0, 0));
        assert!(has_relayed(&tcp));
        assert_eq!(sent_on(&tcp, FRAMING_IPV4, 0), 10_000);
    }

    #[test]
    fn what_a_tcp_relay_sends_before_it_is_bound_counts() {
        let a_little = legs(counters(4, 384, 14, 10_328), counters(5, 5_000, 0, 0));
        assert_eq!(sent_on(&a_little, FRAMING_IPV4, 0), 5_000);
        // Nothing but that, over and over.
        let only = legs(counters(8, 876, 88, 328_216), Counters::ZERO);
        assert!(has_relayed(&only));
        let counted = sent_on(&only, FRAMING_IPV4, 0);
        assert!((310_000..=327_680).contains(&counted), "{counted}");
    }

    #[test]
    fn answers_are_not_relayed() {
        let idle = legs(counters(3, 340, 3, 300), counters(1_000, 1_000_000, 0, 0));
        assert!(!has_relayed(&idle));
        assert_eq!(sent_on(&idle, FRAMING_IPV4, 0), 0);
        // Peers that ask for a TCP relay's connection make coturn send indications, and relay nothing.
        let attempts = legs(counters(4, 400, 14, 1_040), Counters::ZERO);
        assert!(!has_relayed(&attempts));
        assert_eq!(sent_on(&attempts, FRAMING_IPV4, 0), 0);
        // Small junk makes neither requests nor answers.
        let junk = legs(
            counters(3_003, 12_300, 1_003, 1_000_300 + 60_000),
            counters(1_000, 1_000_000, 0, 0),
        );
        assert!(has_relayed(&junk));
    }

    #[test]
    fn a_flood_beside_a_call_is_never_above_the_truth() {
        for framing in [4, 36, 63, FRAMING_IPV4] {
            let truth = 800 * 250;
            let flooded = legs(
                counters(805, 800 * 254 + 500, 805, truth + 800 * framing + 5 * 100),
                counters(5_800, truth + 5_000_000, 800, truth),
            );
            let counted = sent_on(&flooded, FRAMING_IPV4, 0);
            assert!(counted <= truth, "{counted}");
            assert!(
                counted + 800 * FRAMING_IPV4 + 6 * LARGEST_ANSWER >= truth,
                "{counted}"
            );
        }
    }

    #[test]
    fn a_few_drops_cost_a_few_packets_at_most() {
        let dropped = legs(
            counters(1_000_000, 1_000_000_000, 1_000_000, 1_004_000_000),
            counters(1_000_003, 1_000_003_000, 1_000_000, 1_000_000_000),
        );
        let counted = sent_on(&dropped, FRAMING_IPV4, 0);
        assert!(counted <= 1_000_000_000 && counted > 999_000_000, "{counted}");
    }

    #[test]
    fn a_report_between_the_two_counters_of_a_packet_withholds_nothing() {
        let client = counters(2_048, 204_800, 2_047, 2_047 * 104);
        let peer = counters(2_048, 204_800, 2_048, 204_800);
        let carried = Carried::default()
            .plus_client(client)
            .plus_peer(peer, client, FRAMING_IPV4);
        assert_eq!(carried.sent_on, 204_800);
    }

    #[test]
    fn parts_are_reckoned_by_themselves() {
        // A stranger's flood in the one, and more sent to the client than came from peers in the other.
        let (first, second) = (
            counters(1_003, 100_300, 1_003, 1_000_300),
            counters(2_003, 200_300, 2_003, 2_060_300),
        );
        let carried = Carried::default()
            .plus_client(first)
            .plus_peer(counters(6_000, 6_000_000, 1_000, 900_000), first, FRAMING_IPV4)
            .plus_client(second)
            .plus_peer(counters(2_000, 2_000_000, 2_000, 1_900_000), second, FRAMING_IPV4);
        let down = carried.sent_on;
        assert!(down <= 1_000_300 + 2_000_000, "{down}");
        assert!(
            down >= 1_000_300 - 1_003 * FRAMING_IPV4 - 1_500 + 2_000_000,
            "{down}"
        );
    }

    #[test]
    fn nothing_overflows() {
        let most = counters(u64::MAX, u64::MAX, u64::MAX, u64::MAX);
        let carried = Carried::default()
            .plus_client(most)
            .plus_peer(most, Counters::ZERO, FRAMING_IPV6);
        let twice = carried.plus(carried).plus_peer(most, most, FRAMING_IPV6);
        assert_eq!(twice.legs, legs(most, most));
        assert_eq!(twice.relayed(true), u64::MAX);
        assert_eq!(carried.minus(twice).relayed(true), 0);
    }
}
