//! What is kept of an allocation. A million of them must fit: what only few of them need is boxed.

use std::{net::SocketAddrV4, sync::Arc};

use serde::{Deserialize, Serialize};

use crate::{
    event::{CloseReason, SessionId},
    flags::Flags,
    intern::NONE,
    labels::{Labels, NO_LABELS},
    message::AllocationId,
    packed::{self, Half},
    relayed::{Carried, largest_framing},
    time::{Moment, Timestamp},
    usage::{Counters, Legs},
};

/// An address as coturn wrote it. Most are IPv4, and fit without memory of their own.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Address {
    #[default]
    None,
    V4(SocketAddrV4),
    /// Boxed twice: rare, and a fat pointer would make every address half as large again.
    Text(Box<Box<[u8]>>),
}

impl Address {
    pub(crate) fn new(text: Option<&[u8]>) -> Address {
        let Some(text) = text else {
            return Address::None; // a status that names none
        };
        match std::str::from_utf8(text)
            .ok()
            .and_then(|t| t.parse::<SocketAddrV4>().ok())
        {
            Some(v4) if v4.to_string().as_bytes() == text => Address::V4(v4),
            _ => Address::Text(Box::new(text.into())),
        }
    }

    pub(crate) fn to_text(&self) -> Option<Box<[u8]>> {
        match self {
            Address::None => None,
            Address::V4(v4) => Some(v4.to_string().into_bytes().into()),
            Address::Text(text) => Some(text.as_ref().clone()),
        }
    }

    /// Whether both are known and differ.
    pub(crate) fn differs(&self, other: &Address) -> bool {
        *self != Address::None && *other != Address::None && self != other
    }
}

/// What a status says besides the lifetime.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Details {
    pub(crate) remote: Address,
    /// The number of a [`crate::labels::LabelSet`].
    pub(crate) labels: u16,
}

impl Default for Details {
    fn default() -> Details {
        Details {
            remote: Address::None,
            labels: NO_LABELS,
        }
    }
}

/// What few allocations need.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Rare {
    /// The counters billed (or recorded) before the present session.
    pub(crate) base: Legs,
    /// The session in which it was last billed, if it is in none now.
    pub(crate) continues: Option<SessionId>,
    /// When and why it closed.
    pub(crate) closed: Option<(Timestamp, CloseReason)>,
    /// Until when totals are waited for.
    pub(crate) totals_due: Timestamp,
    /// The client leg's total, as reported.
    pub(crate) client_total: Option<Counters>,
    /// The peer leg's total, as reported: modulo 2^32.
    pub(crate) peer_total: Option<Counters>,
    /// Distinguishes two incarnations of one key in the same millisecond.
    pub(crate) twin: u16,
    /// Up to when the statuses are known to be complete, because a snapshot dated the key.
    pub(crate) dated_at: Timestamp,
    /// What follows is kept in a row's second part ([`crate::reducer::rows`]), but for the upper halves of the
    /// counters, which a row has in the counters themselves.
    #[serde(skip)]
    high: Half<8>,
    /// How many bytes from peers went on to the client, where that is not all of them.
    #[serde(skip)]
    pub(crate) sent_on: u64,
    /// The same of `base`, and what was relayed up to then.
    #[serde(skip)]
    pub(crate) base_sent_on: u64,
    #[serde(skip)]
    pub(crate) base_relayed: u64,
    /// How many bytes of that time wait to be billed by themselves until it is known whether there is a peer leg.
    #[serde(skip)]
    pub(crate) withheld: u64,
    /// After its deletion was asked for: when it last reported traffic, at most [`LAST_WORDS`] later.
    #[serde(skip)]
    pub(crate) quiet_at: Timestamp,
    /// Its `new` came twice, so that what followed may have, too.
    #[serde(skip)]
    pub(crate) copied: bool,
    /// Another server may have it: what its totals say beyond the deltas may have been billed there.
    #[serde(skip)]
    pub(crate) kin: bool,
    /// What the totals of an earlier life of its key said that had ended shortly before (`redis` sources): where they
    /// are heard once more, they are copies.
    #[serde(skip)]
    pub(crate) before: Option<Box<Legs>>,
    /// Its end was asked for of coturn, by this program or by an earlier one.
    #[serde(skip)]
    pub(crate) cut: Option<Box<Cut>>,
}

/// That an allocation was to be ended by coturn, at our word.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Cut {
    pub(crate) at: Timestamp,
    /// A close that comes later is another's doing.
    pub(crate) until: Timestamp,
    /// In the words of whoever blocked the user, or ended the session.
    pub(crate) reason: Arc<str>,
}

/// How long after its deletion was asked for an allocation may still carry something, in milliseconds: coturn
/// looks once a second.
pub(crate) const LAST_WORDS: u64 = 2_000;

/// An open or closing allocation. In C's order: what a report touches lies in the first of two lines of the
/// cache.
#[derive(Debug)]
#[repr(C, align(64))]
pub(crate) struct Allocation {
    pub(crate) id: AllocationId,
    /// Of its whole key: see [`crate::Reducer::find_allocation`].
    pub(crate) hash: u64,
    /// What it carried, as far as is known: the lower halves.
    low: Half<8>,
    /// The session that counts it; `NONE` while it is parked.
    pub(crate) session: u32,
    /// The last message of any kind.
    pub(crate) heard_at: Moment,
    pub(crate) flags: Flags,
    /// The number of a [`crate::labels::LabelSet`].
    pub(crate) labels: u16,
    pub(crate) dirty: Dirty,
    /// Its realm in short: see [`crate::key::realm_tag`].
    pub(crate) realm: u8,

    pub(crate) remote: Address,
    pub(crate) rare: Option<Box<Rare>>,
    pub(crate) server: u32,
    pub(crate) name: u32,
    pub(crate) group: u32,
    /// Its place among its session's members.
    pub(crate) place: u32,
    /// In seconds, as of the last status; 0: its deletion was asked for.
    pub(crate) lifetime: u32,
    /// When it opened or was first heard of: its incarnation.
    pub(crate) opened_at: Moment,
    /// The last `new` or `refreshed`.
    pub(crate) status_at: Moment,
    /// Its earliest entry in the heap of deadlines.
    pub(crate) wake: Moment,
}

/// Whether the store has what is known, and how soon it must.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Dirty {
    #[default]
    Clean,
    /// Only counters moved; totals would heal their loss.
    Soft,
    /// In the next commit.
    Hard,
}

impl Allocation {
    /// Of a key that was first heard of at `now`, and of which nothing else is known.
    pub(crate) fn new(id: AllocationId, server: u32, name: u32, group: u32, now: Timestamp) -> Allocation {
        let now = Moment::from(now);
        Allocation {
            id,
            hash: 0,
            low: [0; 8],
            session: NONE,
            heard_at: now,
            flags: Flags::empty(),
            labels: NO_LABELS,
            dirty: Dirty::Clean,
            realm: 0,
            remote: Address::None,
            rare: None,
            server,
            name,
            group,
            place: 0,
            lifetime: 0,
            opened_at: now,
            status_at: now,
            wake: Moment::NEVER,
        }
    }

    /// What it carried, as far as is known.
    #[inline(always)]
    pub(crate) fn legs(&self) -> Legs {
        let rare = self.rare.as_ref().filter(|_| self.flags.contains(Flags::LARGE));
        packed::join(&self.low, rare.map(|r| &r.high)).into()
    }

    #[inline(always)]
    pub(crate) fn set_legs(&mut self, legs: &Legs) {
        let wide = (*legs).into();
        let large = packed::put_low(&mut self.low, &wide);
        if large || self.flags.contains(Flags::LARGE) {
            self.flags.set(Flags::LARGE, large);
            packed::put_high(&mut self.rare().high, &wide);
        }
    }

    /// What it carried, and how much of it went on to the client.
    #[inline(always)]
    pub(crate) fn carried(&self) -> Carried {
        let legs = self.legs();
        let rare = self
            .rare
            .as_ref()
            .filter(|_| self.flags.contains(Flags::WITHHELD));
        Carried {
            legs,
            sent_on: rare.map_or(legs.peer.received_bytes, |r| r.sent_on),
        }
    }

    #[inline(always)]
    pub(crate) fn set_carried(&mut self, carried: &Carried) {
        self.set_legs(&carried.legs);
        let withheld = carried.sent_on != carried.legs.peer.received_bytes;
        if withheld || self.flags.contains(Flags::WITHHELD) {
            self.flags.set(Flags::WITHHELD, withheld);
            self.rare().sent_on = if withheld { carried.sent_on } else { 0 };
        }
    }

    /// The bytes that it relayed.
    #[inline(always)]
    pub(crate) fn relayed(&self, peer_leg: bool) -> u64 {
        if self.flags.contains(Flags::RELAYED) {
            self.carried().relayed(peer_leg)
        } else {
            0
        }
    }

    /// What was billed (or recorded) of it before the present session, and how much of that was relayed.
    pub(crate) fn base_carried(&self) -> Carried {
        self.rare.as_ref().map_or_else(Carried::default, |r| Carried {
            legs: r.base,
            sent_on: r.base_sent_on,
        })
    }

    pub(crate) fn base_relayed(&self) -> u64 {
        let rare = self.rare.as_ref();
        rare.map_or(0, |r| r.base_relayed.saturating_add(r.withheld))
    }

    /// All that it carried so far is billed, or on record: what follows is counted from here.
    pub(crate) fn rebase(&mut self, peer_leg: bool) {
        let carried = self.carried();
        // Until it has relayed, what an earlier life did stands.
        let relayed = self.relayed(peer_leg).max(self.base_relayed());
        let rare = self.rare();
        rare.base = carried.legs;
        rare.base_sent_on = carried.sent_on;
        rare.base_relayed = relayed.saturating_sub(rare.withheld);
    }

    /// The most that coturn adds to a packet for its client.
    pub(crate) fn framing(&self) -> u64 {
        largest_framing(
            self.flags.contains(Flags::IPV4),
            self.flags.contains(Flags::MOVED),
        )
    }

    /// When it closed, or stopped being of use, if its deletion was asked for.
    pub(crate) fn left_at(&self) -> Timestamp {
        let asked_at = self.status_at.get();
        let quiet_at = self.rare.as_ref().map_or(Timestamp(0), |r| r.quiet_at);
        let left_at = quiet_at.max(asked_at).min(asked_at.plus(LAST_WORDS));
        // It may have been asked of a node whose clock is behind that of the one that saw it open.
        left_at.max(self.opened_at.get())
    }

    pub(crate) fn details(&self) -> Details {
        Details {
            remote: self.remote.clone(),
            labels: self.labels,
        }
    }

    /// What a status says takes the place of what was known; what it does not say stays.
    pub(crate) fn update(&mut self, details: Details, labels: &mut Labels) {
        if self.remote.differs(&details.remote) {
            self.flags.insert(Flags::MOVED);
        }
        if details.remote != Address::None {
            self.remote = details.remote;
        }
        self.set_labels(labels.update(self.labels, details.labels), labels);
    }

    /// The labels of a status, and what they say of its server.
    pub(crate) fn set_labels(&mut self, number: u16, labels: &Labels) {
        self.labels = number;
        let local = labels.get(labels.set(number).local);
        // An IPv6 address stands in brackets, or has more than one colon.
        let ipv4 =
            local.is_some_and(|l| l.first() != Some(&b'[') && l.iter().filter(|b| **b == b':').count() < 2);
        self.flags.set(Flags::IPV4, ipv4);
    }

    /// For a row; `None` where there is nothing that a row does not have elsewhere.
    pub(crate) fn rare_row(&self) -> Option<Rare> {
        let rare = self.rare.as_deref()?.clone();
        let first = Rare {
            high: [0; 8],
            sent_on: 0,
            base_sent_on: 0,
            base_relayed: 0,
            quiet_at: Timestamp(0),
            copied: false,
            kin: false,
            before: None,
            cut: None,
            ..rare
        };
        Some(first).filter(|rare| *rare != Rare::default())
    }

    pub(crate) fn base(&self) -> Legs {
        self.rare.as_ref().map_or_else(Legs::default, |r| r.base)
    }

    #[inline]
    pub(crate) fn rare(&mut self) -> &mut Rare {
        self.rare.get_or_insert_default()
    }

    pub(crate) fn twin(&self) -> u16 {
        self.rare.as_ref().map_or(0, |r| r.twin)
    }

    /// The totals heard so far.
    pub(crate) fn totals(&self) -> (Option<Counters>, Option<Counters>) {
        self.rare
            .as_ref()
            .map_or((None, None), |r| (r.client_total, r.peer_total))
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
    fn addresses_keep_their_text() {
        for text in [
            "127.0.0.1:36636",
            "127.0.0.01:3",
            "[::1]:3478",
            "?",
            "1.2.3.4:80 ",
        ] {
            assert_eq!(
                Address::new(Some(text.as_bytes())).to_text().as_deref(),
                Some(text.as_bytes())
            );
        }
        assert_eq!(size_of::<Address>(), 16);
    }

    /// As slots are laid out.
    #[allow(dead_code)]
    enum Entry {
        Vacant(usize),
        Occupied(Allocation),
    }

    #[test]
    fn an_allocation_takes_two_lines_of_the_cache() {
        assert_eq!(size_of::<Allocation>(), 128);
        assert_eq!(size_of::<Option<Allocation>>(), 128);
        assert_eq!(size_of::<Entry>(), 128);
        assert_eq!(std::mem::offset_of!(Allocation, remote), 64);
    }

    #[test]
    fn upper_halves_are_kept_only_where_there_are_any() {
        let mut a = Allocation::new(AllocationId(1), NONE, 0, 0, Timestamp(0));
        let four_gib = bytes(1 << 32);
        for client in [bytes(7), bytes((1 << 32) - 1)] {
            let legs = Legs { client, peer: client };
            a.set_legs(&legs);
            assert_eq!(a.legs(), legs);
            assert!(a.rare.is_none());
        }
        for peer in [four_gib, bytes(u64::MAX), bytes(3)] {
            let legs = Legs {
                client: bytes(7),
                peer,
            };
            a.set_legs(&legs);
            assert_eq!(a.legs(), legs);
            assert_eq!(a.flags.contains(Flags::LARGE), peer != bytes(3));
        }
        assert!(a.rare.is_some());
        assert_eq!(a.rare_row(), None, "a row has whole counters");
        a.rare().twin = 1;
        assert_eq!(a.rare_row().map(|r| r.twin), Some(1));
    }
}
