//! The counters: what a leg carried, and what of it is billed.

/// What one leg of an allocation carried, as coturn counts it: `received` by coturn, `sent` by coturn.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, serde::Serialize, serde::Deserialize)]
pub struct Counters {
    /// Packets received by coturn.
    pub received_packets: u64,
    /// Bytes received by coturn.
    pub received_bytes: u64,
    /// Packets sent by coturn.
    pub sent_packets: u64,
    /// Bytes sent by coturn.
    pub sent_bytes: u64,
}

impl Counters {
    pub(crate) const ZERO: Counters = Counters {
        received_packets: 0,
        received_bytes: 0,
        sent_packets: 0,
        sent_bytes: 0,
    };

    /// Applies `f` to each counter of both sides. No counter ever leaves u64: sums saturate.
    #[must_use]
    pub fn zip(self, other: Counters, f: impl Fn(u64, u64) -> u64) -> Counters {
        Counters {
            received_packets: f(self.received_packets, other.received_packets),
            received_bytes: f(self.received_bytes, other.received_bytes),
            sent_packets: f(self.sent_packets, other.sent_packets),
            sent_bytes: f(self.sent_bytes, other.sent_bytes),
        }
    }

    /// Sum, saturating.
    #[must_use]
    pub fn plus(self, other: Counters) -> Counters {
        self.zip(other, u64::saturating_add)
    }

    /// Difference, never below 0.
    #[must_use]
    pub fn minus(self, other: Counters) -> Counters {
        self.zip(other, u64::saturating_sub)
    }

    /// The larger of each.
    #[must_use]
    pub fn max(self, other: Counters) -> Counters {
        self.zip(other, u64::max)
    }

    /// Whether every counter is 0.
    #[must_use]
    pub fn is_zero(&self) -> bool {
        *self == Counters::default()
    }

    /// Whether any counter is above that of `other`.
    #[must_use]
    pub fn exceeds(&self, other: &Counters) -> bool {
        self.received_packets > other.received_packets
            || self.received_bytes > other.received_bytes
            || self.sent_packets > other.sent_packets
            || self.sent_bytes > other.sent_bytes
    }
}

/// Both legs.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, serde::Serialize, serde::Deserialize)]
pub struct Legs {
    /// Between client and coturn: signalling and TURN framing included.
    pub client: Counters,
    /// Between coturn and peer: relayed payload.
    pub peer: Counters,
}

impl Legs {
    /// Sum, saturating.
    #[must_use]
    pub fn plus(self, other: Legs) -> Legs {
        Legs {
            client: self.client.plus(other.client),
            peer: self.peer.plus(other.peer),
        }
    }

    /// Difference, never below 0.
    #[must_use]
    pub fn minus(self, other: Legs) -> Legs {
        Legs {
            client: self.client.minus(other.client),
            peer: self.peer.minus(other.peer),
        }
    }

    /// The larger of each counter.
    #[must_use]
    pub fn max(self, other: Legs) -> Legs {
        Legs {
            client: self.client.max(other.client),
            peer: self.peer.max(other.peer),
        }
    }

    /// Whether every counter is 0.
    #[must_use]
    pub fn is_zero(&self) -> bool {
        self.client.is_zero() && self.peer.is_zero()
    }
}

/// Both legs and the bytes that are billed for them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, serde::Serialize, serde::Deserialize)]
pub struct Usage {
    /// The counters of both legs.
    pub legs: Legs,
    /// The bytes to bill, by the `billable` rule.
    pub billable_bytes: u64,
}

impl Usage {
    pub(crate) const ZERO: Usage = Usage {
        legs: Legs {
            client: Counters::ZERO,
            peer: Counters::ZERO,
        },
        billable_bytes: 0,
    };

    /// Sum, saturating.
    #[must_use]
    pub fn plus(self, other: Usage) -> Usage {
        Usage {
            legs: self.legs.plus(other.legs),
            billable_bytes: self.billable_bytes.saturating_add(other.billable_bytes),
        }
    }

    /// The larger of each counter, and of the bytes to bill.
    #[must_use]
    pub fn max(self, other: Usage) -> Usage {
        Usage {
            legs: self.legs.max(other.legs),
            billable_bytes: self.billable_bytes.max(other.billable_bytes),
        }
    }

    /// Difference, never below 0.
    #[must_use]
    pub fn minus(self, other: Usage) -> Usage {
        Usage {
            legs: self.legs.minus(other.legs),
            billable_bytes: self.billable_bytes.saturating_sub(other.billable_bytes),
        }
    }

    /// Whether nothing was carried.
    #[must_use]
    pub fn is_zero(&self) -> bool {
        self.legs.is_zero() && self.billable_bytes == 0
    }

    /// Whether any counter, or what is billed, is above that of `other`.
    pub(crate) fn exceeds(&self, other: &Usage) -> bool {
        self.legs.client.exceeds(&other.legs.client)
            || self.legs.peer.exceeds(&other.legs.peer)
            || self.billable_bytes > other.billable_bytes
    }
}

/// Which bytes are billed. Monotone in every counter, so that a bill never shrinks.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Billable {
    /// What was relayed: peer sent, plus what came from peers and went on to the client.
    #[default]
    Relayed,
    /// Client received plus client sent.
    Client,
    /// Client sent plus peer sent.
    Egress,
    /// Client received plus peer received; strangers' packets included.
    Ingress,
}

impl Billable {
    /// As in configuration and payloads.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Billable::Relayed => "relayed",
            Billable::Client => "client",
            Billable::Egress => "egress",
            Billable::Ingress => "ingress",
        }
    }

    /// The bytes to bill for counters of which `relayed` bytes were relayed.
    #[must_use]
    pub fn bytes(self, legs: &Legs, relayed: u64) -> u64 {
        match self {
            Billable::Relayed => relayed,
            Billable::Client => legs.client.received_bytes.saturating_add(legs.client.sent_bytes),
            Billable::Egress => legs.client.sent_bytes.saturating_add(legs.peer.sent_bytes),
            Billable::Ingress => legs
                .client
                .received_bytes
                .saturating_add(legs.peer.received_bytes),
        }
    }
}
