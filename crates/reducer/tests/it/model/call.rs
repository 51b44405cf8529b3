//! What an allocation carries, as its client, its peers and strangers see it, and as coturn counts it.

use turnhook_reducer::usage::{Counters, Legs};

const WRAP: u64 = 1 << 32;
const LARGEST_ANSWER: u64 = 500;
/// What coturn adds to a packet for its client at most, or sends it of its own accord.
const LARGEST_FRAMING: u64 = 128;

/// A number of packets with their payload.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Size {
    #[default]
    Nothing,
    /// A connectivity check.
    Check,
    /// Less than `residue`.
    Part,
    /// A second or so of a call.
    Call,
    /// Thousands of packets with little in each.
    Many,
    /// As many bytes as 32 bits hold, and as many packets as cannot hold more.
    Giga,
    /// More than that, between two looks of coturn (TCP relay).
    Wrap,
}

impl Size {
    pub(crate) fn packets_and_bytes(self) -> (u64, u64) {
        match self {
            Size::Nothing => (0, 0),
            Size::Check => (3, 300),
            Size::Part => (45, 40_000),
            Size::Call => (170, 100_000),
            Size::Many => (4_000, 240_000),
            Size::Giga => (60_000, 3_600_000_000),
            Size::Wrap => (4_100_000, WRAP + 5_000_000),
        }
    }
}

/// How payload is framed on the client's side.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Way {
    #[default]
    Channel,
    IndicationV4,
    IndicationV6,
    /// RFC 6062: not at all.
    TcpRelay,
}

impl Way {
    fn framing(self) -> u64 {
        match self {
            Way::Channel => 4,
            Way::IndicationV4 => 36,
            Way::IndicationV6 => 48,
            Way::TcpRelay => 0,
        }
    }
}

/// What goes through an allocation in one step.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Load {
    /// From the client to its peers.
    pub(crate) up: Size,
    /// From its peers to the client.
    pub(crate) down: Size,
    /// From strangers, who have no permission.
    pub(crate) strangers: Size,
    /// From peers, and not sent on: the client took it too slowly.
    pub(crate) dropped: Size,
    /// From the client, to nobody.
    pub(crate) junk: Size,
    /// Requests of the client, and how large the answer to each is; 0 for none.
    pub(crate) requests: u8,
    pub(crate) answer: u16,
}

impl Load {
    /// One after the other, as UDP carries it: more than the counters of 32 bits hold comes in pieces.
    pub(crate) fn parts(&self) -> Vec<Load> {
        let whole = |size: &Size| matches!(size, Size::Giga | Size::Wrap);
        let sizes = [self.up, self.down, self.strangers, self.dropped, self.junk];
        if !sizes.iter().any(whole) {
            return vec![*self];
        }
        let piece = |size| if size == Size::Wrap { Size::Giga } else { size };
        let nothing = Load::default();
        vec![
            Load {
                up: piece(self.up),
                ..nothing
            },
            Load {
                down: piece(self.down),
                ..nothing
            },
            Load {
                strangers: piece(self.strangers),
                ..nothing
            },
            Load {
                dropped: piece(self.dropped),
                ..nothing
            },
            Load {
                junk: piece(self.junk),
                ..nothing
            },
            Load {
                requests: self.requests,
                answer: self.answer,
                ..nothing
            },
        ]
    }

    /// One request beside what the sizes say.
    pub(crate) fn call(up: Size, down: Size, strangers: Size) -> Load {
        Load {
            up,
            down,
            strangers,
            requests: 1,
            answer: 92,
            ..Load::default()
        }
    }
}

/// Everything that went through an allocation so far.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Carried {
    /// As coturn would count it if its counters had no end.
    pub(crate) legs: Legs,
    /// Payload that came from peers and was really sent on to the client.
    pub(crate) down: u64,
    /// Something came from outside that was not sent on.
    pub(crate) more_came: bool,
}

impl Carried {
    pub(crate) fn add(&mut self, way: Way, load: &Load) {
        let (up, up_bytes) = load.up.packets_and_bytes();
        let (down, down_bytes) = load.down.packets_and_bytes();
        let (strange, strange_bytes) = load.strangers.packets_and_bytes();
        let (dropped, dropped_bytes) = load.dropped.packets_and_bytes();
        let (junk, junk_bytes) = load.junk.packets_and_bytes();
        let requests = u64::from(load.requests);
        let answers = if load.answer > 0 { requests } else { 0 };
        let framing = way.framing();
        // A large answer repeats what was not understood of a large request.
        let request = u64::from(load.answer.saturating_sub(256)) * 2 + 108;
        let client = Counters {
            received_packets: up + junk + requests,
            received_bytes: up_bytes + framing * up + junk_bytes + request * requests,
            sent_packets: down + answers,
            sent_bytes: down_bytes + framing * down + u64::from(load.answer) * answers,
        };
        let peer = Counters {
            received_packets: down + strange + dropped,
            received_bytes: down_bytes + strange_bytes + dropped_bytes,
            sent_packets: up,
            sent_bytes: up_bytes,
        };
        self.legs = self.legs.plus(Legs { client, peer });
        self.down += down_bytes;
        self.more_came |= strange + dropped > 0;
    }

    /// Whether so much was carried that coturn reports it.
    pub(crate) fn needs_a_report(&self) -> bool {
        let Legs { client, peer } = &self.legs;
        let packets = [client, peer].map(|leg| leg.received_packets + leg.sent_packets);
        packets.iter().any(|n| *n >= 4096)
    }

    pub(crate) fn up(&self) -> u64 {
        self.legs.peer.sent_bytes
    }

    /// Whether anybody who sees both legs sees that more came from outside than went on: over 1 % and over
    /// 100 packets more. Answers hide some of it, and that is nobody's fault.
    fn shows_more_came(&self) -> bool {
        let (came, went) = (self.legs.peer.received_packets, self.legs.client.sent_packets);
        let more = came.saturating_sub(went);
        more > 100 && more * 100 > came
    }

    /// What was carried since.
    pub(crate) fn since(&self, earlier: &Carried) -> Carried {
        Carried {
            legs: self.legs.minus(earlier.legs),
            down: self.down - earlier.down,
            more_came: self.more_came,
        }
    }

    /// The most that may be told as relayed downwards, by somebody who was told all: where too little of what
    /// strangers sent shows, framing and answers pass for payload.
    pub(crate) fn most_down(&self) -> u64 {
        if self.shows_more_came() {
            self.down
        } else {
            self.most_down_unheard()
        }
    }

    /// The same, by somebody who missed reports.
    pub(crate) fn most_down_unheard(&self) -> u64 {
        let both = self.legs.peer.received_bytes.min(self.legs.client.sent_bytes);
        both.max(self.down)
    }

    /// How far below the truth the bytes relayed downwards may be told by somebody who knows all of coturn's
    /// counters: by the framing of each packet, and by the answers, where these must be reckoned with.
    pub(crate) fn doubt(&self) -> u64 {
        let (client, peer) = (&self.legs.client, &self.legs.peer);
        let requests = client.received_packets.saturating_sub(peer.sent_packets);
        let answers = LARGEST_ANSWER * requests.min(client.sent_packets);
        if self.more_came {
            answers + LARGEST_FRAMING * client.sent_packets
        } else if peer.sent_packets == 0 {
            answers
        } else {
            0
        }
    }
}

/// What is left of a counter of 32 bits.
pub(crate) fn wrapped(c: Counters) -> Counters {
    c.zip(Counters::default(), |n, _| n % WRAP)
}

pub(crate) fn each(c: &Counters) -> [u64; 4] {
    [c.received_packets, c.received_bytes, c.sent_packets, c.sent_bytes]
}

pub(crate) fn eight(legs: &Legs) -> [u64; 8] {
    let [a, b, c, d] = each(&legs.client);
    let [e, f, g, h] = each(&legs.peer);
    [a, b, c, d, e, f, g, h]
}

pub(crate) fn within(part: &Legs, whole: &Legs) -> bool {
    eight(part).iter().zip(eight(whole)).all(|(p, w)| *p <= w)
}
