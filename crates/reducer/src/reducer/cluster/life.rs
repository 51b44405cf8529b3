//! A life of an allocation as one node knows it, and whether two nodes speak of the same one.

use crate::{
    allocation::{Address, Allocation, Details},
    aside::Tombstone,
    event::CloseReason,
    flags::Flags,
    relayed::{Carried, largest_framing, sent_on},
    source::Gap,
    time::Timestamp,
    totals::{most_of_peer, unwrap_peer},
    usage::{Counters, Legs},
};

/// How far two nodes' clocks may lie apart, and how long what was said may wait in a queue.
const SKEW: u64 = 5_000;
const QUEUE: u64 = 15_000;
/// The same where both heard one client address, so that a node that was stopped for a while counts too.
const PAUSE: u64 = 30_000;

/// From its opening to its end.
#[derive(Clone, Debug)]
pub(crate) struct Life {
    pub(crate) opened_at: Timestamp,
    pub(crate) twin: u16,
    pub(crate) heard_at: Timestamp,
    pub(crate) status_at: Timestamp,
    pub(crate) lifetime: u32,
    pub(crate) details: Details,
    pub(crate) flags: Flags,
    /// What it carried, as far as is known, and what of that was counted from deltas that came here.
    pub(crate) carried: Carried,
    pub(crate) counted: Carried,
    /// What was billed of an earlier life of its key, and may hold some of this one: not in the above.
    pub(crate) billed: Carried,
    pub(crate) closed: Option<(Timestamp, CloseReason)>,
    pub(crate) quiet_at: Timestamp,
    pub(crate) client_total: Option<Counters>,
    pub(crate) peer_total: Option<Counters>,
    /// When it was found to be over; `None` while it is open or closing.
    pub(crate) ended_at: Option<Timestamp>,
    /// It stood among the committed ones.
    pub(crate) seen: bool,
}

impl Life {
    pub(crate) fn of(a: &Allocation, counted: Option<Carried>, seen: bool) -> Life {
        let (client_total, peer_total) = a.totals();
        let doubted = a.flags.contains(Flags::OVERCOUNTED) && !a.flags.contains(Flags::REVIVED);
        let billed = if doubted {
            a.base_carried()
        } else {
            Carried::default()
        };
        Life {
            opened_at: a.opened_at.get(),
            twin: a.twin(),
            heard_at: a.heard_at.get(),
            status_at: a.status_at.get(),
            lifetime: a.lifetime,
            details: a.details(),
            flags: a.flags,
            carried: a.carried().minus(billed),
            counted: counted.unwrap_or(a.carried()).minus(billed),
            billed,
            closed: a.rare.as_ref().and_then(|r| r.closed),
            quiet_at: a.rare.as_ref().map_or(Timestamp(0), |r| r.quiet_at),
            client_total,
            peer_total,
            ended_at: None,
            seen,
        }
    }

    /// What a tombstone still knows of it.
    pub(crate) fn of_ended(t: &Tombstone, ended_at: Timestamp, peer_leg: bool) -> Life {
        let all = t.rest.totals_seen;
        // How much of its totals had been seen as deltas is not known any more.
        let carried = if all { Carried::default() } else { t.rest.carried() };
        let mut flags = Flags::TOUCHED | Flags::REPORTED | Flags::CLOSING;
        flags.set(Flags::OPENED_SEEN, t.rest.opened_seen);
        flags.set(Flags::INEXACT, t.rest.more.inexact);
        let reason = if all {
            CloseReason::Closed
        } else {
            CloseReason::Expired
        };
        Life {
            opened_at: t.opened_at,
            twin: t.rest.twin,
            heard_at: t.heard_at,
            status_at: t.heard_at,
            lifetime: 0,
            details: Details {
                remote: t.rest.remote.clone(),
                ..Details::default()
            },
            flags,
            carried,
            counted: carried,
            billed: Carried::default(),
            closed: Some((t.heard_at.max(t.opened_at).min(ended_at), reason)),
            quiet_at: Timestamp(0),
            client_total: all.then_some(t.rest.billed.client),
            peer_total: (all && peer_leg).then_some(t.rest.billed.peer),
            ended_at: Some(ended_at),
            seen: false,
        }
    }

    /// The peer leg's total, unwrapped from what was billed and what was seen here, and whether it can be its total: a
    /// wrap that the client leg speaks against is not believed.
    pub(crate) fn believed_peer_total(&self, billed: &Legs) -> Option<(Counters, bool)> {
        let most = most_of_peer(self.client_total.unwrap_or(billed.client));
        let seen = billed.peer.max(self.carried.legs.peer);
        Some(unwrap_peer(seen, self.peer_total?, most))
    }

    /// Whether so few packets were carried between coturn and the peers that they cannot hold 4 GiB.
    pub(crate) fn cannot_have_wrapped(&self) -> bool {
        let few = |packets: u64| packets < (1 << 32) / 65_536;
        self.peer_total
            .is_none_or(|c| few(c.sent_packets) && few(c.received_packets))
    }

    /// Whether its totals are those of an allocation of which more was carried than billed, or more of it is certain to
    /// have gone on to the client.
    pub(crate) fn has_more_than(&self, billed: &Carried) -> bool {
        let legs = &billed.legs;
        if self.client_total.is_some_and(|total| legs.client.exceeds(&total)) {
            return false;
        }
        let peer = self.believed_peer_total(legs);
        let (client, peer) = (
            self.client_total.unwrap_or(legs.client),
            peer.map_or(legs.peer, |(peer, _)| peer),
        );
        let both = self.client_total.is_some() && self.peer_total.is_some();
        client != legs.client
            || peer != legs.peer
            || (both && sent_on(&Legs { client, peer }, largest_framing(false, true), 0) > billed.sent_on)
    }

    /// As far as it is sure to be of the committed life that it was matched with. Where that one was first
    /// heard of after ours may have opened, or names another client, ours may be of two lives, of which the leader
    /// has billed and forgotten the earlier.
    pub(crate) fn taken_for(mut self, theirs: &Sight, gaps: &[Stall]) -> Life {
        let refreshed = self.status_at > self.opened_at || theirs.refreshed;
        let moved = self.flags.contains(Flags::OPENED_SEEN) && theirs.opened_seen && refreshed;
        let differs = self.details.remote.differs(&theirs.remote) && !moved;
        if differs || theirs.opened_at > earliest(self.opened_at, gaps).plus(SKEW) {
            (self.carried, self.counted) = Default::default();
            let (late, since) = if differs { (0, QUEUE) } else { (SKEW, 0) };
            // One that its client has let go closed before its totals were heard.
            let over = |(at, _): (Timestamp, CloseReason)| earliest(at.max(self.heard_at), gaps);
            if self
                .closed
                .is_some_and(|closed| over(closed).plus(late) < theirs.opened_at.plus(since))
            {
                (self.client_total, self.peer_total) = (None, None);
                self.closed = None;
            }
        }
        self
    }

    /// Neither deletion nor a total was heard.
    pub(crate) fn is_open(&self) -> bool {
        self.closed.is_none()
    }

    pub(crate) fn sight(&self, gaps: &[Stall]) -> Sight {
        Sight {
            remote: self.details.remote.clone(),
            opened_at: self.opened_at,
            earliest: earliest(self.opened_at, gaps),
            opened_seen: self.flags.contains(Flags::OPENED_SEEN),
            heard_at: self.heard_at,
            refreshed: self.status_at > self.opened_at,
        }
    }
}

/// A time in which the process stood still, and messages waited.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Stall {
    pub(crate) from: Timestamp,
    pub(crate) to: Timestamp,
    /// Until when what waited may be handed in.
    pub(crate) until: Timestamp,
}

impl Stall {
    pub(crate) fn new(gap: &Gap) -> Stall {
        Stall {
            from: gap.from,
            to: gap.to,
            until: gap.to.plus(QUEUE),
        }
    }
}

/// When something may have been said that was handed in at `at`: right after a gap, it may have waited in a
/// queue since before it.
pub(crate) fn earliest(at: Timestamp, gaps: &[Stall]) -> Timestamp {
    let mut earliest = at;
    for stall in gaps.iter().rev() {
        // It may have waited through several of them.
        if stall.to <= at && earliest <= stall.until {
            earliest = earliest.min(stall.from);
        }
    }
    earliest
}

/// What distinguishes lives of one key.
#[derive(Clone, Debug)]
pub(crate) struct Sight {
    pub(crate) remote: Address,
    pub(crate) opened_at: Timestamp,
    /// When it may have opened.
    pub(crate) earliest: Timestamp,
    pub(crate) opened_seen: bool,
    pub(crate) heard_at: Timestamp,
    /// A status came after the first: its client may have moved.
    pub(crate) refreshed: bool,
}

impl Sight {
    pub(crate) fn of(a: &Allocation) -> Sight {
        Sight {
            remote: a.remote.clone(),
            opened_at: a.opened_at.get(),
            earliest: a.opened_at.get(),
            opened_seen: a.flags.contains(Flags::OPENED_SEEN),
            heard_at: a.heard_at.get(),
            refreshed: a.status_at.get() > a.opened_at.get(),
        }
    }

    pub(crate) fn of_ended(t: &Tombstone) -> Sight {
        Sight {
            remote: t.rest.remote.clone(),
            opened_at: t.opened_at,
            earliest: t.opened_at,
            opened_seen: t.rest.opened_seen,
            heard_at: t.heard_at,
            refreshed: t.heard_at > t.opened_at,
        }
    }

    /// Whether whoever missed its `new` may have counted some of it in the life before: what was heard here may have
    /// waited since then, or this node missed it too, and heard of it long after it had opened.
    pub(crate) fn may_be_counted_in(&self, before: &Sight) -> bool {
        !self.opened_seen || self.earliest <= before.heard_at.plus(QUEUE)
    }

    /// How long before or after it theirs opened.
    fn apart(&self, theirs: &Sight) -> u64 {
        self.earliest
            .since(theirs.opened_at)
            .max(theirs.opened_at.since(self.opened_at))
    }

    /// Whether what we know and what was committed is one life. In doubt it is: two that are taken for one
    /// are billed too low, one that is taken for two is billed twice.
    fn is(&self, theirs: &Sight) -> bool {
        let differs = self.remote.differs(&theirs.remote);
        let equal = self.remote != Address::None && self.remote == theirs.remote;
        let near = match (equal, differs) {
            (true, _) => PAUSE,
            (_, true) => SKEW,
            _ => QUEUE,
        };
        if theirs.opened_at > self.opened_at.plus(near) {
            // Its `new` was heard by them, after ours had begun: what we counted is not all of it.
            let later = differs && theirs.opened_at > self.heard_at.plus(SKEW);
            return !theirs.opened_seen && !later;
        }
        let near = if differs { SKEW } else { QUEUE };
        if self.earliest > theirs.opened_at.plus(near) {
            // What came in the midst of theirs was counted there, whether or not they heard our `new`.
            let later = self.earliest > theirs.heard_at.plus(near);
            return equal || !later || !(self.opened_seen || differs);
        }
        // Two at once, of two clients that did not move: a server that was started anew.
        !(differs && self.opened_seen && theirs.opened_seen) || self.refreshed || theirs.refreshed
    }
}

/// Which of our lives of a key (in the order of their openings) is the committed one, and from which on
/// they are later than it.
pub(crate) fn place(ours: &[Sight], theirs: &Sight) -> (Option<usize>, usize) {
    let same = || (0..ours.len()).filter(|i| ours[*i].is(theirs));
    // Of several that are about as near, the last: then nothing is billed that may have been.
    let nearest = same().map(|i| ours[i].apart(theirs)).min().unwrap_or(0);
    match same().rfind(|i| ours[*i].apart(theirs) <= nearest + SKEW) {
        Some(mut i) => {
            // They missed the `new` of the next, and counted it in this one.
            while ours
                .get(i + 1)
                .is_some_and(|o| o.earliest <= theirs.heard_at.plus(SKEW))
            {
                i += 1;
            }
            (Some(i), i + 1)
        }
        None => (
            None,
            ours.iter()
                .position(|o| o.earliest > theirs.opened_at.plus(SKEW))
                .unwrap_or(ours.len()),
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sight(remote: &str, opened_at: u64, opened_seen: bool, heard_at: u64) -> Sight {
        Sight {
            remote: Address::new((!remote.is_empty()).then_some(remote.as_bytes())),
            opened_at: Timestamp(opened_at * 1000),
            earliest: Timestamp(opened_at * 1000),
            opened_seen,
            heard_at: Timestamp(heard_at * 1000),
            refreshed: false,
        }
    }

    const A: &str = "192.0.2.1:1";
    const B: &str = "192.0.2.1:2";

    #[test]
    fn lives_are_matched_by_address_else_by_opening() {
        let theirs = sight(A, 100, true, 200);
        assert!(sight(A, 101, true, 300).is(&theirs), "the same, a second apart");
        assert!(sight(A, 150, false, 300).is(&theirs), "heard of midway");
        assert!(
            !sight(B, 101, true, 300).is(&theirs),
            "a server that was started anew"
        );
        assert!(
            sight(B, 150, false, 300).is(&theirs),
            "moved, and heard of midway"
        );
        assert!(
            sight(B, 150, true, 300).is(&theirs),
            "they counted its deltas in theirs"
        );
        assert!(!sight(B, 250, true, 300).is(&theirs), "a later life");
        assert!(
            !sight(B, 250, false, 300).is(&theirs),
            "a later life, heard of midway"
        );
        assert!(!sight(B, 20, true, 150).is(&theirs), "an earlier life");
        assert!(
            !sight(A, 20, true, 150).is(&theirs),
            "an earlier life from the same address"
        );
        let unnamed = sight("", 100, true, 200);
        assert!(sight("", 102, true, 300).is(&unnamed));
        assert!(!sight("", 250, true, 300).is(&unnamed));
        assert!(
            sight("", 250, false, 300).is(&unnamed),
            "no `new` of another was heard"
        );
    }

    #[test]
    fn of_several_lives_the_nearest_is_meant() {
        let ours = [
            sight(A, 0, true, 90),
            sight(A, 100, true, 190),
            sight(A, 200, true, 290),
        ];
        assert_eq!(place(&ours, &sight(A, 101, true, 150)), (Some(1), 2));
        assert_eq!(place(&ours, &sight(B, 400, true, 400)), (None, 3));
        assert_eq!(place(&ours[1..], &sight(B, 1, true, 50)), (None, 0));
    }
}
