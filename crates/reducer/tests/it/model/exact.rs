//! Where `exact` is said, and where it must be.

use std::collections::{BTreeMap, BTreeSet};

use turnhook_reducer::{
    event::{Accuracy, AllocationReport, CloseReason, SessionEvent},
    rules::PeerLeg,
    usage::Legs,
};

use super::{
    checks::{Judge, cannot_have_wrapped, key},
    coturn::{Key, Life},
};

/// When a client has let an allocation go, it is over so soon, whenever coturn says so.
const LEAVES_WITHIN: u64 = 2_000;

impl Judge<'_> {
    /// Right after a takeover, the `new` of a key's next life cannot be told from one that waited, by a node
    /// that has not heard that of the life before: too little is told of it.
    fn may_have_waited(&self) -> bool {
        let lives = &self.fleet.lives;
        let reused = |i: usize| lives[i + 1..].iter().any(|l| l.key == lives[i].key);
        self.unpromised && (0..lives.len()).any(reused)
    }

    /// `exact` is said where it is true, and wherever it can be said.
    pub(super) fn exact_is_exact(&self) {
        let copies = self.fleet.lives.iter().any(|l| !l.copies.is_zero());
        let claims = self.fleet.lives.iter().any(|l| l.claim.is_some());
        // Whose client moved may look like two lives to a node that did not hear of it.
        let moved = self.several_nodes && self.fleet.lives.iter().any(Life::moved);
        if self.known.all_are_clear() && !self.may_have_waited() && !copies && !claims && !moved {
            assert_eq!(self.outcome.overcounted, 0);
        }
        for event in &self.outcome.events {
            let Some(end) = event.end else { continue };
            // What waited until it was known whether there is a peer leg is told with less than that.
            let waited = self.rules.peer_leg == PeerLeg::Auto && !self.fleet.peer_messages;
            // What comes twice looks like more than there was, for the life that it is taken for.
            let mut could_be_exact = !waited && !copies;
            let mut incarnations = BTreeSet::new();
            for report in &event.allocations {
                let key = key(event, report);
                // It was thought to be over, as its client had asked, and went on: something was missed.
                could_be_exact &= incarnations.insert((key.clone(), report.opened_at));
                let is_exact = end.accuracy == Accuracy::Exact && report.closed.is_some();
                if is_exact && !self.is_hopeless(&key) {
                    self.is_the_truth(event, &key, report);
                }
                let lives = self.lives(&key, report.opened_at.0);
                let [life] = lives[..] else {
                    could_be_exact = false;
                    continue;
                };
                if !self.is_plain(life) {
                    could_be_exact = false;
                    continue;
                }
                let life = &self.fleet.lives[life];
                assert!(
                    !report.opened_seen || life.heard.new || life.has_kin,
                    "{key:?}: its `new` was not heard"
                );
                assert!(
                    !report.totals_seen || self.totals_heard(life),
                    "{key:?}: its totals were not heard"
                );
                if let (Some(asked), Some((closed_at, CloseReason::Closed))) = (life.asked_at, report.closed)
                    && event.continues.is_none()
                    && !life.echoed
                    && !life.readdressed
                    && !life.missed
                    && !life.gap
                {
                    assert!(
                        (asked..=asked + LEAVES_WITHIN).contains(&closed_at.0),
                        "{key:?}: its client let it go at {asked}, and it closed at {closed_at:?}"
                    );
                }
                let sure = report.totals_seen
                    && life.copies.is_zero()
                    && !life.heard.apart
                    && !life.new_copied
                    && self.counts_on(life)
                    && cannot_have_wrapped(life)
                    && (!life.carried.more_came || life.carried.doubt() <= self.rules.residue);
                could_be_exact &= sure || report.closed.is_none();
            }
            if could_be_exact {
                assert_eq!(end.accuracy, Accuracy::Exact, "{event:?}");
            }
        }
    }

    /// What was told of this incarnation up to its session's end, or in all, is what one of the key's lives really
    /// carried, or several that nobody could tell apart.
    fn is_the_truth(&self, end: &SessionEvent, key: &Key, report: &AllocationReport) {
        let incarnation = (key.clone(), report.opened_at.0);
        let part = |of: &BTreeMap<(Key, u64), Legs>| of.get(&incarnation).copied().unwrap_or_default();
        let in_all = part(&self.told).plus(part(&self.recorded));
        let ends = self.outcome.events.iter().filter(|e| e.end.is_some());
        let before = ends.take_while(|e| e.id != end.id).flat_map(|e| {
            let of = |r: &&AllocationReport| self::key(e, r) == *key && r.opened_at == report.opened_at;
            e.allocations.iter().filter(of)
        });
        let by_then = before.fold(report.usage, |sum, r| sum.plus(r.usage));
        let lives = self.lives_of(key);
        let again = |i: &usize| self.fleet.lives[*i].opened_again && !self.fleet.lives[*i].says_addresses();
        if self.lives(key, report.opened_at.0).len() > 1 || lives.iter().any(again) {
            return; // two incarnations of one millisecond, or one that looks like two
        }
        if lives.iter().any(|i| self.known.makes_a_whole(*i)) {
            return;
        }
        let carried = |i: &usize| self.of_source(self.fleet.lives[*i].carried.legs);
        let is_true = |told: Legs| {
            (0..lives.len()).any(|from| {
                let mut sum = Legs::default();
                lives[from..].iter().any(|i| {
                    sum = sum.plus(carried(i));
                    sum == told
                })
            })
        };
        assert!(
            is_true(in_all) || (lives.len() > 1 && is_true(by_then)),
            "{key:?}: exact, it says, with {in_all:#?}; true is {:#?}",
            lives.iter().map(carried).collect::<Vec<_>>()
        );
    }
}
