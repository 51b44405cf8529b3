//! Two tables with a bound: what was heard of ids that nobody has confirmed, and the tombstones of
//! allocations that have ended. The oldest goes first.

use std::collections::VecDeque;

use crate::{
    allocation::Address,
    event::{CloseReason, SessionId},
    internal::InternalErrors,
    message::AllocationId,
    relayed::Carried,
    slots::Slots,
    time::Timestamp,
    usage::{Counters, Legs},
};
use serde::{Deserialize, Serialize};

/// How long the tombstone of an allocation is kept whose totals were seen, and of any other.
pub(crate) const SETTLED_TTL: u64 = 60_000;
pub(crate) const UNSETTLED_TTL: u64 = 24 * 3_600_000;

/// Traffic under an id that has not been confirmed: perhaps forged, never billed unless confirmed.
#[derive(Debug)]
pub(crate) struct Unconfirmed {
    pub(crate) id: AllocationId,
    pub(crate) server: u32,
    pub(crate) name: u32,
    pub(crate) carried: Carried,
    /// The client's half of a report of which the peer's has yet to come, and when it came.
    pub(crate) half: Option<(Timestamp, Counters)>,
    pub(crate) reported: bool,
    /// coturn's counters may have wrapped in a report of it.
    pub(crate) inexact: bool,
}

/// An allocation that has ended, and whose end was taken in.
#[derive(Debug)]
pub(crate) struct Tombstone {
    pub(crate) id: AllocationId,
    pub(crate) server: u32,
    pub(crate) name: u32,
    pub(crate) opened_at: Timestamp,
    pub(crate) heard_at: Timestamp,
    pub(crate) rest: TombstoneRest,
}

/// The part of a tombstone that its row holds as it is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct TombstoneRest {
    pub(crate) opened_seen: bool,
    pub(crate) twin: u16,
    pub(crate) remote: Address,
    /// What was billed of it, or recorded.
    pub(crate) billed: Legs,
    pub(crate) continues: Option<SessionId>,
    pub(crate) totals_seen: bool,
    /// What was billed holds deltas of another allocation of this key too.
    pub(crate) mixed: bool,
    pub(crate) expires_at: Timestamp,
    /// Kept in a row's second part: how many bytes of `billed` went on to the client, how many were relayed in all,
    /// and why it closed.
    #[serde(skip)]
    pub(crate) more: TombstoneMore,
}

/// The second part of a tombstone's row.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct TombstoneMore {
    pub(crate) sent_on: u64,
    pub(crate) relayed: u64,
    pub(crate) reason: Option<CloseReason>,
    /// Its `new` came twice, so that what follows may, too.
    pub(crate) copied: bool,
    /// Another server may have it.
    pub(crate) kin: bool,
    /// The client leg's total, if it was heard.
    pub(crate) client_total: Option<Counters>,
    /// How many bytes wait to be billed until it is known whether there is a peer leg.
    pub(crate) withheld: u64,
    /// What it carried besides and nobody was billed for: perhaps one half of a report, of which the other was lost.
    pub(crate) unbilled: Option<Carried>,
    /// See [`crate::flags::Flags::INEXACT`].
    pub(crate) inexact: bool,
    /// What the totals of the life before said, where this one has none: see [`crate::allocation::Rare`].
    pub(crate) before: Option<Legs>,
    /// Its client went to another address: a refresh or a `new` from where it was before may be a copy.
    pub(crate) moved: bool,
    /// When its server was taken to have stopped, where that ended it: were the server heard of again, it would be a
    /// gap from then on.
    pub(crate) stopped_at: Option<Timestamp>,
}

/// Why it closed, and when its server was taken to have stopped, where that was it.
pub(crate) fn over(closed: Option<(Timestamp, CloseReason)>) -> (Option<CloseReason>, Option<Timestamp>) {
    let stopped_at = closed.filter(|(_, reason)| *reason == CloseReason::ServerStopped);
    (closed.map(|(_, reason)| reason), stopped_at.map(|(at, _)| at))
}

impl TombstoneRest {
    /// What was billed of it, or recorded.
    pub(crate) fn carried(&self) -> Carried {
        Carried {
            legs: self.billed,
            sent_on: self.more.sent_on,
        }
    }
}

/// Slots in the order in which they were filled, in two classes of which each has its own lifetime, so
/// that in each the first filled is the first to expire. Stale entries are passed over.
#[derive(Debug)]
pub(crate) struct Aside<T> {
    slots: Slots<(u64, T)>,
    orders: [VecDeque<(u64, u32, Timestamp)>; 2],
    next: u64,
}

impl<T> Default for Aside<T> {
    fn default() -> Aside<T> {
        Aside {
            slots: Slots::new(),
            orders: [VecDeque::new(), VecDeque::new()],
            next: 0,
        }
    }
}

impl<T> Aside<T> {
    pub(crate) fn insert(&mut self, value: T, class: usize, expires_at: Timestamp) -> u32 {
        let slot = self.slots.insert((self.next, value)) as u32;
        self.orders[class & 1].push_back((self.next, slot, expires_at));
        self.next += 1;
        slot
    }

    /// Rows that were read back, in the slots that they had: slot, its place in the order in which they
    /// were filled, class, when it expires, value.
    pub(crate) fn restore(&mut self, mut rows: Vec<(u32, u64, usize, Timestamp, T)>) {
        rows.sort_by_key(|(_, number, ..)| *number);
        for (slot, number, class, expires_at, value) in rows {
            self.slots.put(slot as usize, (number, value));
            self.orders[class & 1].push_back((number, slot, expires_at));
            self.next = self.next.max(number + 1);
        }
    }

    /// Its place in the order in which they were filled.
    pub(crate) fn number(&self, slot: u32) -> u64 {
        self.slots.get(slot as usize).map_or(0, |(number, _)| *number)
    }

    pub(crate) fn get(&self, slot: u32) -> Option<&T> {
        self.slots.get(slot as usize).map(|(_, value)| value)
    }

    pub(crate) fn get_mut(&mut self, slot: u32) -> Option<&mut T> {
        self.slots.get_mut(slot as usize).map(|(_, value)| value)
    }

    pub(crate) fn remove(&mut self, slot: u32, errors: &InternalErrors) -> Option<T> {
        let (_, value) = self.slots.try_remove(slot as usize, errors)?;
        let bound = 2 * self.slots.len() + 64;
        for order in &mut self.orders {
            if order.len() > bound {
                let slots = &self.slots;
                order.retain(|(number, slot, _)| slots.get(*slot as usize).is_some_and(|(n, _)| n == number));
            }
        }
        Some(value)
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = (u32, &T)> {
        self.slots.iter().map(|(slot, (_, value))| (slot as u32, value))
    }

    pub(crate) fn len(&self) -> usize {
        self.slots.len()
    }

    /// Slots, whether or not they are filled.
    pub(crate) fn capacity(&self) -> usize {
        self.slots.capacity()
    }

    /// One that expires before `now`.
    pub(crate) fn expired(&mut self, now: Timestamp) -> Option<u32> {
        (0..2).find_map(|class| {
            self.front(class)
                .filter(|(_, _, at)| *at < now)
                .map(|(_, slot, _)| slot)
        })
    }

    /// When the first of the first class expires.
    pub(crate) fn first_expiry(&self) -> Option<Timestamp> {
        let live = |(number, slot, _): &&(u64, u32, Timestamp)| {
            self.slots.get(*slot as usize).is_some_and(|(n, _)| n == number)
        };
        self.orders[0].iter().find(live).map(|(.., at)| *at)
    }

    /// The one that was filled first.
    pub(crate) fn oldest(&mut self) -> Option<u32> {
        let fronts = [self.front(0), self.front(1)];
        fronts.into_iter().flatten().min().map(|(_, slot, _)| slot)
    }

    fn front(&mut self, class: usize) -> Option<(u64, u32, Timestamp)> {
        let order = &mut self.orders[class];
        while let Some((number, slot, expires_at)) = order.front().copied() {
            if self.slots.get(slot as usize).is_some_and(|(n, _)| *n == number) {
                return Some((number, slot, expires_at));
            }
            order.pop_front();
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_oldest_goes_first_and_stale_entries_do_not_pile_up() {
        let (mut aside, errors) = (Aside::default(), InternalErrors::default());
        let a = aside.insert('a', 1, Timestamp(100));
        let b = aside.insert('b', 0, Timestamp(2));
        assert_eq!(aside.oldest(), Some(a));
        assert_eq!(
            (aside.expired(Timestamp(2)), aside.expired(Timestamp(3))),
            (None, Some(b))
        );
        aside.remove(a, &errors);
        assert_eq!(aside.oldest(), Some(b));
        for _ in 0..10_000 {
            let slot = aside.insert('c', 0, Timestamp(3));
            aside.remove(slot, &errors);
        }
        assert!(aside.orders[0].len() < 200);
        assert_eq!((aside.len(), aside.oldest()), (1, Some(b)));
    }
}
