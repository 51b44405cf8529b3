//! Whether a source's coturn reports the peer leg: from 4.5.2 on it does. With `peer_leg = "auto"` what is heard
//! decides.

use super::{Notice, Reducer};
use crate::{
    allocation::Allocation,
    flags::Flags,
    intern::NONE,
    message::{Kind, Leg},
    rules::PeerLeg,
};

/// After so many allocations that closed with the client's totals, and never a word of the peer leg, there is none.
const CLOSED_WITHOUT: u8 = 3;

impl Reducer {
    /// Whether the peer leg counts. Until it is known, it is waited for.
    pub(crate) fn peer_leg(&self) -> bool {
        match self.rules.peer_leg {
            PeerLeg::Reported => true,
            PeerLeg::Absent => false,
            PeerLeg::Auto => self.peer_leg.reported.unwrap_or(true),
        }
    }

    /// Whether this source's coturn reports the peer leg, as configured or as heard; `None` while nobody knows.
    #[must_use]
    pub fn reports_peer_leg(&self) -> Option<bool> {
        match self.rules.peer_leg {
            PeerLeg::Reported => Some(true),
            PeerLeg::Absent => Some(false),
            PeerLeg::Auto => self.peer_leg.reported,
        }
    }

    /// Whether a message's leg is one that counts.
    pub(crate) fn hears_leg(&mut self, kind: Kind<'_>) -> bool {
        let of_peer = matches!(
            kind,
            Kind::Traffic(Leg::Peer, _) | Kind::TotalTraffic(Leg::Peer, _)
        );
        if of_peer && self.rules.peer_leg == PeerLeg::Absent {
            return false;
        }
        if of_peer && self.peer_leg.reported != Some(true) {
            self.learn(true);
        }
        true
    }

    /// An allocation has closed with the client leg's total.
    pub(crate) fn closed_with_client_total(&mut self) {
        if self.peer_leg.reported.is_some() || self.peer_leg.closed_without >= CLOSED_WITHOUT {
            return;
        }
        self.peer_leg.closed_without += 1;
        self.outgoing.source();
        if self.peer_leg.closed_without == CLOSED_WITHOUT {
            match self.rules.peer_leg {
                PeerLeg::Auto => self.learn(false),
                PeerLeg::Reported => self.outgoing.notice(Notice::NoPeerLeg),
                PeerLeg::Absent => {}
            }
        }
    }

    fn learn(&mut self, reported: bool) {
        let before = self.peer_leg.reported.replace(reported);
        self.outgoing.source();
        if self.rules.peer_leg != PeerLeg::Auto {
            return;
        }
        self.outgoing.notice(Notice::PeerLeg { reported });
        if before.is_none() {
            self.arm_limits();
        }
        if (before, reported) == (None, true) {
            self.bill_withheld(true);
            return self.nothing_waits();
        }
        let mut slots: Vec<u32> = self.allocations.iter().map(|(slot, _)| slot as u32).collect();
        self.sort_allocations(&mut slots);
        match (before, reported) {
            (None, false) => {
                // Before anything of it is billed: a session's event covers all its allocations at once.
                for slot in &slots {
                    self.set_right_early(*slot);
                }
                for slot in slots {
                    self.count_by_client_leg(slot);
                }
                self.bill_withheld(false);
            }
            // What the client leg was billed for stands; the rest is counted by both legs.
            (Some(false), true) => {
                for slot in slots {
                    self.count_by_both_legs(slot);
                }
            }
            _ => {}
        }
    }

    /// What waited to be billed by its client leg is counted by both.
    fn nothing_waits(&mut self) {
        let waits = |a: &Allocation| a.rare.as_ref().is_some_and(|r| r.withheld > 0);
        let slots = self.allocations.iter().filter(|(_, a)| waits(a));
        let mut slots: Vec<u32> = slots.map(|(slot, _)| slot as u32).collect();
        self.sort_allocations(&mut slots);
        for slot in slots {
            self.count_anew(slot, |a| a.rare().withheld = 0);
        }
    }

    /// Of one that waits for nothing but the peers' total, which will not come: what its client's total sets right.
    fn set_right_early(&mut self, slot: u32) {
        let Some(a) = self.allocation(slot) else {
            return self.broken("no allocation to set right");
        };
        if let (Some(total), _) = a.totals()
            && a.legs().client.exceeds(&total)
        {
            self.set_right(slot, Some(total), None);
        }
    }

    fn count_by_client_leg(&mut self, slot: u32) {
        let Some(a) = self.allocation(slot) else {
            return self.broken("no allocation to count by its client leg");
        };
        let (carried, reported) = (
            a.carried(),
            a.flags.contains(Flags::REPORTED) || !a.legs().client.is_zero(),
        );
        let complete = a.flags.contains(Flags::CLOSING) && a.totals().0.is_some();
        if complete {
            // Its totals may set right what was counted.
            self.settle(slot);
        } else {
            self.count(slot, &carried, reported);
        }
    }

    fn count_by_both_legs(&mut self, slot: u32) {
        let Some(a) = self.allocation(slot) else {
            return self.broken("no allocation to count anew by both legs");
        };
        let session = a.session;
        if session == NONE {
            return;
        }
        self.leave(session, slot, false, true);
        let Some(a) = self.allocations.get_mut(slot as usize) else {
            return self.broken("an allocation that is gone once it left its session");
        };
        let relayed = a.relayed(true);
        a.rare().base_relayed = relayed;
        self.join(slot, session);
    }
}
