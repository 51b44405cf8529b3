//! What is kept of a session that has not ended.

use std::{cmp::Reverse, sync::Arc};

use serde::{Deserialize, Serialize};
use smallvec::SmallVec;

use crate::{
    allocation::{Allocation, Details},
    event::{CloseReason, SessionId},
    flags::Flags,
    internal::InternalErrors,
    message::AllocationId,
    packed::{self, Half},
    time::{Moment, Timestamp},
    usage::{Legs, Usage},
};

/// How many allocations and usernames an event lists.
pub(crate) const LISTED: usize = 50;

/// Where a session stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Phase {
    /// `start_on = "relay"`, and nothing was relayed: nothing is emitted.
    Waiting,
    /// Its start was emitted, and it is open for further allocations of its group.
    Open,
    /// Nothing joins any more; closing allocations are waited for.
    Ending,
}

/// An allocation that a session counted and no longer holds.
#[derive(Clone, Debug)]
pub(crate) struct Past {
    pub(crate) id: AllocationId,
    pub(crate) server: u32,
    pub(crate) name: u32,
    pub(crate) opened_at: Timestamp,
    pub(crate) opened_seen: bool,
    /// `None` for one that was parked.
    pub(crate) closed: Option<(Timestamp, CloseReason)>,
    pub(crate) totals_seen: bool,
    pub(crate) details: Details,
    pub(crate) part: Legs,
}

impl Past {
    /// An allocation as it is now, with its part in the session.
    pub(crate) fn of(a: &Allocation, totals_seen: bool, part: Legs) -> Past {
        Past {
            id: a.id,
            server: a.server,
            name: a.name,
            opened_at: a.opened_at.get(),
            opened_seen: a.flags.contains(Flags::OPENED_SEEN),
            closed: a.rare.as_ref().and_then(|r| r.closed),
            totals_seen,
            details: a.details(),
            part,
        }
    }
}

/// What a session keeps of the allocations that it no longer holds, and of its past, and what of its
/// counters is above 32 bits. Most sessions have none yet.
#[derive(Clone, Debug)]
pub(crate) struct Former {
    pub(crate) continues: Option<SessionId>,
    /// The first of those that it no longer holds, how many there were, and what they carried.
    pub(crate) past: Vec<Past>,
    pub(crate) past_count: u32,
    pub(crate) past_usage: Usage,
    pub(crate) past_relayed: u64,
    pub(crate) last_close: Option<(Timestamp, CloseReason)>,
    pub(crate) last_relayed_close: Option<(Timestamp, CloseReason)>,
    /// The last close of one that kept it alive.
    pub(crate) last_counting_close: Timestamp,
    /// Why one of its allocations was cut off, in the words of whoever blocked its user.
    pub(crate) block_reason: Option<Arc<str>>,
    usage_high: Half<9>,
    billed_high: Half<9>,
}

/// Of a session that has no past.
static NO_FORMER: Former = Former::NONE;

impl Former {
    const NONE: Former = Former {
        continues: None,
        past: Vec::new(),
        past_count: 0,
        past_usage: Usage::ZERO,
        past_relayed: 0,
        last_close: None,
        last_relayed_close: None,
        last_counting_close: Timestamp(0),
        block_reason: None,
        usage_high: [0; 9],
        billed_high: [0; 9],
    };
}

/// Slots of allocations.
pub(crate) type Members = SmallVec<[u32; 4]>;

/// A session that has not ended. In C's order: what a report touches lies together, at the front.
#[derive(Debug)]
#[repr(C)]
pub(crate) struct Session {
    /// How many bytes its allocations relayed.
    pub(crate) relayed: u64,
    /// What all of its allocations carried: the lower halves.
    usage: Half<9>,
    /// When usage is to be emitted; never if there is none.
    pub(crate) usage_at: Moment,
    pub(crate) phase: Phase,
    pub(crate) dirty: bool,
    /// One of its allocations is not known exactly.
    pub(crate) inexact: bool,
    /// Some of its counters have an upper half, in [`Former`].
    large: bool,
    /// How many allocations are open, and of these: how many have relayed, how many have yet to report.
    open: u32,
    relaying: u32,
    unreported: u32,
    /// How many are closing.
    closing: u32,
    /// The usage in its previous event: the lower halves.
    billed: Half<9>,
    pub(crate) started_at: Moment,
    pub(crate) last_event_at: Moment,
    /// When it stops waiting for allocations; never while one keeps it alive.
    pub(crate) end_at: Moment,
    /// Its earliest entry in the heap of deadlines.
    pub(crate) wake: Moment,
    pub(crate) group: u32,
    /// The name of its first allocation: realm, user and labels are taken from it.
    pub(crate) first_name: u32,
    /// The sequence number of its next event.
    pub(crate) sequence: u32,
    pub(crate) id: SessionId,
    /// Open and closing allocations: those that the four numbers above count.
    members: Members,
    /// Distinct names of its allocations, at most 50, each held.
    pub(crate) usernames: SmallVec<[u32; 4]>,
    pub(crate) former: Option<Box<Former>>,
}

impl Session {
    /// Open and closing allocations.
    pub(crate) fn members(&self) -> &Members {
        &self.members
    }

    /// A little of each line of the cache that a report touches, so that it is there when that comes.
    pub(crate) fn met(&self) -> u64 {
        self.relayed.wrapping_add(u64::from(self.billed[0]))
    }

    /// How many allocations are open.
    pub(crate) fn open(&self) -> u32 {
        self.open
    }

    /// How many of the open ones have relayed.
    pub(crate) fn relaying(&self) -> u32 {
        self.relaying
    }

    /// How many of the open ones have yet to report.
    pub(crate) fn unreported(&self) -> u32 {
        self.unreported
    }

    /// How many are closing.
    pub(crate) fn closing(&self) -> u32 {
        self.closing
    }

    /// An allocation becomes a member.
    pub(crate) fn add(&mut self, slot: u32, a: &mut Allocation) {
        a.place = self.members.len() as u32;
        self.members.push(slot);
        if a.flags.intersects(Flags::GONE) {
            self.closing += 1;
            if a.flags.contains(Flags::LEAVING) {
                self.left(a);
            }
        } else {
            self.enters(a.flags);
        }
    }

    /// A member is none any more. Returns the one that stands in its place now, if any does.
    pub(crate) fn remove(&mut self, slot: u32, a: &Allocation, errors: &InternalErrors) -> Option<u32> {
        if a.flags.intersects(Flags::GONE) {
            self.closing_leaves(errors);
        } else {
            self.open_leaves(a.flags, errors);
        }
        let place = a.place as usize;
        if self.members.get(place) == Some(&slot) {
            self.members.swap_remove(place);
        } else {
            errors.broken("a member that is not where it stands");
        }
        self.members.get(place).copied()
    }

    /// An open member has relayed, or reported, for the first time: `first` has the flag of what it did.
    pub(crate) fn learn(&mut self, first: Flags, errors: &InternalErrors) {
        self.relaying += u32::from(first.contains(Flags::RELAYED));
        errors.take(
            &mut self.unreported,
            u32::from(first.contains(Flags::REPORTED)),
            "more unreported members report than there are",
        );
    }

    /// An open member was deleted, is about to be, or is found to be gone: it keeps the session alive no more. One that
    /// had yet to report did so while it was `young`.
    pub(crate) fn close(
        &mut self,
        member: Flags,
        closed: (Timestamp, CloseReason),
        young: bool,
        errors: &InternalErrors,
    ) {
        self.open_leaves(member, errors);
        self.closing += 1;
        let former = self.former_mut();
        former.last_close = later(former.last_close, closed);
        if member.contains(Flags::RELAYED) || (young && !member.contains(Flags::REPORTED)) {
            former.last_counting_close = former.last_counting_close.max(closed.0);
        }
    }

    /// A member whose deletion was asked for was of use until [`Allocation::left_at`].
    pub(crate) fn left(&mut self, a: &Allocation) {
        let left_at = a.left_at();
        let former = self.former_mut();
        former.last_close = later(former.last_close, (left_at, CloseReason::Closed));
        if a.flags.contains(Flags::RELAYED) {
            former.last_counting_close = former.last_counting_close.max(left_at);
        }
    }

    /// A closing member is open again.
    pub(crate) fn reopen(&mut self, member: Flags, errors: &InternalErrors) {
        self.closing_leaves(errors);
        self.enters(member);
    }

    fn enters(&mut self, member: Flags) {
        self.open += 1;
        self.relaying += u32::from(member.contains(Flags::RELAYED));
        self.unreported += u32::from(!member.contains(Flags::REPORTED));
    }

    fn open_leaves(&mut self, member: Flags, errors: &InternalErrors) {
        errors.take(&mut self.open, 1, "more open members leave than there are");
        let relaying = u32::from(member.contains(Flags::RELAYED));
        errors.take(
            &mut self.relaying,
            relaying,
            "more relaying members leave than there are",
        );
        let unreported = u32::from(!member.contains(Flags::REPORTED));
        errors.take(
            &mut self.unreported,
            unreported,
            "more unreported members leave than there are",
        );
    }

    fn closing_leaves(&mut self, errors: &InternalErrors) {
        errors.take(&mut self.closing, 1, "more closing members leave than there are");
    }

    pub(crate) fn new(id: SessionId, group: u32, first_name: u32, started_at: Timestamp) -> Session {
        Session {
            relayed: 0,
            usage: [0; 9],
            usage_at: Moment::NEVER,
            phase: Phase::Waiting,
            dirty: false,
            inexact: false,
            large: false,
            open: 0,
            relaying: 0,
            unreported: 0,
            closing: 0,
            billed: [0; 9],
            started_at: started_at.into(),
            last_event_at: Timestamp(0).into(),
            end_at: Moment::NEVER,
            wake: Moment::NEVER,
            group,
            first_name,
            sequence: 0,
            id,
            members: SmallVec::new(),
            usernames: SmallVec::new(),
            former: None,
        }
    }

    /// What all of its allocations carried.
    #[inline(always)]
    pub(crate) fn usage(&self) -> Usage {
        let former = self.former.as_ref().filter(|_| self.large);
        packed::join(&self.usage, former.map(|f| &f.usage_high)).into()
    }

    #[inline(always)]
    pub(crate) fn set_usage(&mut self, usage: Usage) {
        let wide = usage.into();
        if packed::put_low(&mut self.usage, &wide) || self.large {
            self.large = true;
            packed::put_high(&mut self.former_mut().usage_high, &wide);
        }
    }

    /// Its allocations carried more. The upper halves are looked at only where that reaches them.
    #[inline(always)]
    pub(crate) fn add_usage(&mut self, more: Usage) {
        if !packed::add_low(&mut self.usage, &more.into()) {
            self.set_usage(self.usage().plus(more));
        }
    }

    /// The usage in its previous event.
    pub(crate) fn billed(&self) -> Usage {
        let former = self.former.as_ref().filter(|_| self.large);
        packed::join(&self.billed, former.map(|f| &f.billed_high)).into()
    }

    pub(crate) fn set_billed(&mut self, billed: Usage) {
        let wide = billed.into();
        if packed::put_low(&mut self.billed, &wide) || self.large {
            self.large = true;
            packed::put_high(&mut self.former_mut().billed_high, &wide);
        }
    }

    pub(crate) fn former(&self) -> &Former {
        self.former.as_deref().unwrap_or(&NO_FORMER)
    }

    #[inline]
    pub(crate) fn former_mut(&mut self) -> &mut Former {
        self.former.get_or_insert_with(|| Box::new(Former::NONE))
    }

    pub(crate) fn take_former(&mut self) -> Former {
        self.former.take().map_or(Former::NONE, |former| *former)
    }

    /// Whether it has relayed more than connectivity checks.
    pub(crate) fn is_call(&self, residue: u64) -> bool {
        self.relayed >= residue.max(1)
    }

    /// How many allocations it counts or counted.
    pub(crate) fn allocations(&self) -> usize {
        self.members.len() + self.former().past_count as usize
    }

    /// What has ended, and why: the last close of one that relayed, or, if none did, of any.
    pub(crate) fn end(&self, now: Timestamp) -> (Timestamp, CloseReason) {
        let former = self.former();
        let (at, reason) = former
            .last_relayed_close
            .or(former.last_close)
            .unwrap_or((now, CloseReason::Closed));
        (at.max(self.started_at.get()), reason)
    }
}

/// The later of two closes. Of two at once the milder reason stands, whichever was looked at first.
pub(crate) fn later(
    old: Option<(Timestamp, CloseReason)>,
    new: (Timestamp, CloseReason),
) -> Option<(Timestamp, CloseReason)> {
    let order = |(at, reason): (Timestamp, CloseReason)| (at, Reverse(reason as u8));
    Some(old.map_or(new, |old| if order(old) >= order(new) { old } else { new }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_session_is_small() {
        assert!(size_of::<Session>() <= 216, "{}", size_of::<Session>());
        assert_eq!(size_of::<Option<Session>>(), size_of::<Session>());
    }

    #[test]
    fn upper_halves_are_kept_only_where_there_are_any() {
        let mut s = Session::new(SessionId([0; 16]), 0, 0, Timestamp(0));
        let usage = |n: u64| Usage::from([n, 1, 2, 3, 4, 5, 6, 7, n]);
        s.set_usage(usage(u64::from(u32::MAX)));
        s.set_billed(usage(7));
        assert!(s.former.is_none());
        for (carried, billed) in [(1 << 32, 7), (u64::MAX, 1 << 32), (u64::MAX, u64::MAX), (8, 7)] {
            s.set_usage(usage(carried));
            s.set_billed(usage(billed));
            assert_eq!((s.usage(), s.billed()), (usage(carried), usage(billed)));
        }
        let mut sum = s.usage();
        for more in [1, (1 << 32) - 9, 1, 1 << 40, 7, u64::MAX, 1] {
            s.add_usage(usage(more));
            sum = sum.plus(usage(more));
            assert_eq!(s.usage(), sum);
        }
    }
}
