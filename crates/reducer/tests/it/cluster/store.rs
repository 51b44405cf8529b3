//! The shared store: rows, the lease, and a commit that is fenced by its epoch.

use std::collections::{BTreeMap, BTreeSet};

use turnhook_reducer::{Output, Reducer, rules::Rules, state::Table, time::Timestamp};

use crate::{
    model::run::{Mark, Outcome},
    world::{START, identity},
};

pub(crate) const LEASE: u64 = 10_000;

#[derive(Debug)]
pub(crate) struct Batch {
    pub(crate) id: u64,
    pub(crate) output: Output,
    pub(crate) clock: Timestamp,
    pub(crate) marks: Vec<(usize, Mark)>,
}

#[derive(Debug, PartialEq, Eq)]
pub(crate) struct LeaseLost;

#[derive(Debug)]
pub(crate) struct Store {
    pub(crate) down: bool,
    pub(crate) rows: BTreeMap<(Table, u64), Vec<u8>>,
    pub(crate) clock: Timestamp,
    pub(crate) epoch: u64,
    pub(crate) holder: Option<usize>,
    pub(crate) expires_at: u64,
    applied: BTreeSet<u64>,
}

impl Store {
    pub(crate) fn new() -> Store {
        Store {
            down: false,
            rows: BTreeMap::new(),
            clock: Timestamp(START),
            epoch: 0,
            holder: None,
            expires_at: 0,
            applied: BTreeSet::new(),
        }
    }

    pub(crate) fn is_free(&self, now: u64) -> bool {
        self.holder.is_none() || self.expires_at <= now
    }

    pub(crate) fn take(&mut self, node: usize, now: u64) -> u64 {
        self.epoch += 1;
        self.holder = Some(node);
        self.expires_at = now + LEASE;
        self.epoch
    }

    pub(crate) fn renew(&mut self, node: usize, epoch: u64, now: u64) -> Result<(), LeaseLost> {
        if self.holder != Some(node) || self.epoch != epoch {
            return Err(LeaseLost);
        }
        self.expires_at = now + LEASE;
        Ok(())
    }

    /// A batch that was applied before is not applied again.
    pub(crate) fn commit(
        &mut self,
        node: usize,
        epoch: u64,
        batch: &mut Batch,
        outcome: &mut Outcome,
    ) -> Result<(), LeaseLost> {
        if self.holder != Some(node) || self.epoch != epoch {
            return Err(LeaseLost);
        }
        if !self.applied.insert(batch.id) {
            return Ok(());
        }
        for change in &batch.output.changes {
            match &change.value {
                Some(value) => self.rows.insert((change.table, change.key), value.clone()),
                None => self.rows.remove(&(change.table, change.key)),
            };
        }
        assert!(self.clock <= batch.clock, "the committed clock went back");
        self.clock = batch.clock;
        outcome.events.append(&mut batch.output.events);
        outcome.unattributed.append(&mut batch.output.unattributed);
        outcome.notices.append(&mut batch.output.notices);
        Ok(())
    }

    pub(crate) fn confirming(&self) -> impl Iterator<Item = (Table, u64, &Vec<u8>)> {
        self.rows
            .iter()
            .filter(|((table, _), _)| Reducer::CONFIRMING.contains(table))
            .map(|((table, key), value)| (*table, *key, value))
    }

    pub(crate) fn restore(&self, rules: &Rules) -> Reducer {
        let rows = self
            .rows
            .iter()
            .map(|((table, key), value)| (*table, *key, value));
        Reducer::restore(identity(), rules.clone(), self.clock, rows).unwrap()
    }
}
