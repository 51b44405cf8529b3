//! Which node heard what, and what must therefore come out in the end, whoever led.

use std::collections::{BTreeMap, BTreeSet};

use turnhook_reducer::rules::PeerLeg;

use super::run::Run;
use crate::model::{
    coturn::{Fleet, Heard, Life},
    run::Mark,
};

/// Lives of one key that follow each other so closely may be taken for one.
const CLOSE: u64 = 60_000;

/// Who heard what, and what is therefore promised.
#[derive(Debug, Default)]
pub(crate) struct Ears {
    /// By life: which nodes heard its `new`, and anything else of it; when.
    pub(super) new: BTreeMap<usize, u8>,
    pub(super) other: BTreeMap<usize, u8>,
    pub(super) report: BTreeMap<usize, u8>,
    pub(super) client_total: BTreeMap<usize, u8>,
    pub(super) peer_total: BTreeMap<usize, u8>,
    pub(super) at: BTreeMap<usize, Vec<u64>>,
    pub(super) promised: BTreeMap<usize, Heard>,
    /// Which nodes led with the client's total, and with the peers'.
    pub(super) led_with: BTreeMap<usize, [u8; 2]>,
    pub(super) batches: u64,
    /// Lives of which a node heard so late that its times say little.
    pub(crate) late: BTreeSet<usize>,
    /// What happens is written to stderr.
    pub(crate) trace: bool,
}

impl Ears {
    pub(crate) fn heard(&mut self, node: usize, life: usize, mark: Mark, at: u64) {
        let bit = 1u8 << node;
        if !matches!(mark, Mark::Report) {
            self.at.entry(life).or_default().push(at);
        }
        let map = match mark {
            Mark::New => &mut self.new,
            Mark::Other => &mut self.other,
            Mark::Report => &mut self.report,
            Mark::ClientTotal => &mut self.client_total,
            Mark::PeerTotal => &mut self.peer_total,
            Mark::Snapshot => return,
        };
        *map.entry(life).or_default() |= bit;
    }

    pub(crate) fn next_batch(&mut self) -> u64 {
        self.batches += 1;
        self.batches
    }

    pub(crate) fn promise(&mut self, node: usize, marks: &[(usize, Mark)]) {
        for (life, mark) in marks {
            let led_with = self.led_with.entry(*life).or_default();
            match mark {
                Mark::ClientTotal => led_with[0] |= 1 << node,
                Mark::PeerTotal => led_with[1] |= 1 << node,
                _ => {}
            }
            let heard = self.promised.entry(*life).or_default();
            match mark {
                Mark::New => heard.new = true,
                Mark::Other => heard.other = true,
                Mark::ClientTotal => heard.client_total = true,
                Mark::PeerTotal => heard.peer_total = true,
                Mark::Report | Mark::Snapshot => {}
            }
        }
    }
}

impl Run<'_> {
    /// The fleet, as heard by whom `heard` says.
    pub(crate) fn fleet_by(&self, heard: impl Fn(&Self, usize) -> Heard) -> Fleet {
        let mut fleet = Fleet::new(false, self.history.addresses);
        fleet.forged = self.fleet.forged.clone();
        fleet.lives = self.fleet.lives.clone();
        for (i, life) in fleet.lives.iter_mut().enumerate() {
            let life: &mut Life = life;
            // Each node heard something else.
            (life.missed, life.unsigned) = (true, true);
            life.guess_down();
            life.heard = Heard {
                at: self.ears.at.get(&i).cloned().unwrap_or_default(),
                ..heard(self, i)
            };
        }
        fleet
    }

    fn heard(&self, life: usize, is: impl Fn(u8) -> bool) -> Heard {
        let by = |map: &BTreeMap<usize, u8>| is(map.get(&life).copied().unwrap_or(0));
        let (client_total, peer_total) = (by(&self.ears.client_total), by(&self.ears.peer_total));
        Heard {
            new: by(&self.ears.new),
            other: by(&self.ears.other) || client_total || peer_total,
            report: by(&self.ears.report),
            client_total,
            peer_total,
            apart: self.ears.client_total.get(&life) != self.ears.peer_total.get(&life),
            at: Vec::new(),
        }
    }

    pub(crate) fn heard_by_all(&self, life: usize) -> Heard {
        let all = (1u8 << self.history.nodes) - 1;
        let mut heard = self.heard(life, |nodes| nodes == all);
        // Lives that follow each other so closely may be taken for one.
        let at = |life: usize| self.ears.at.get(&life).into_iter().flatten();
        let first = at(life).min().copied().unwrap_or(0);
        let earlier = (0..life).filter(|e| self.fleet.lives[*e].key == self.fleet.lives[life].key);
        let earlier: Vec<usize> = earlier.collect();
        heard.new &= earlier.iter().flat_map(|e| at(*e)).all(|at| at + CLOSE < first);
        // What was heard and not committed is lost with those who heard it.
        heard.new &= self.ears.promised.get(&life).is_some_and(|promised| promised.new);
        // Neither can those be told apart of which a node heard at a wrong time.
        heard.new &= !earlier.iter().chain([&life]).any(|l| self.ears.late.contains(l));
        heard
    }

    pub(crate) fn heard_by_any(&self, life: usize) -> Heard {
        self.heard(life, |nodes| nodes != 0)
    }

    pub(crate) fn promised(&self, life: usize) -> Heard {
        let key = &self.fleet.lives[life].key;
        let reused = self.fleet.lives[life + 1..].iter().any(|l| l.key == *key);
        // Totals of which each was heard by another node are not promised to come together.
        let [client, peer] = self.ears.led_with.get(&life).copied().unwrap_or_default();
        let halves = client & peer == 0;
        if halves && self.history.rules.peer_leg != PeerLeg::Absent {
            return Heard::default();
        }
        // With the next life of its key an ended one is forgotten.
        if self.fleet.lives[life].moved() || self.ears.late.contains(&life) || reused {
            // Whose client moves at once may look like another one to a node that was behind.
            return Heard::default();
        }
        self.ears.promised.get(&life).cloned().unwrap_or_default()
    }
}
