//! What a follower knows, compared with what is committed, in parts: messages and time are handed in between them.

use hashbrown::HashSet;

use super::{
    super::{
        Reducer, RestoreError,
        restore::{read, read_with},
        rows::{AllocationRow, SOURCE_KEY, SourceRow, TombstoneRow},
    },
    follower::{Follower, LifeKey},
    life::{Life, Sight, place},
};
use crate::{
    aside::{TombstoneMore, UNSETTLED_TTL},
    event::CloseReason,
    flags::Flags,
    message::AllocationId,
    relayed::Carried,
    state::Table,
    time::Timestamp,
};

/// So many that are open here, or have ended, are looked at in a step.
const LOOKED_AT: usize = 8;

/// A comparison that is under way: what happens here after it began is left to the next one.
#[derive(Debug)]
pub struct Comparison {
    clock: Timestamp,
    began: Timestamp,
    evicted_until: Timestamp,
    /// The places of open allocations that are committed, or of which an earlier life is.
    present: HashSet<(u32, AllocationId)>,
    judged: HashSet<LifeKey>,
    /// Once all rows were compared: what is left of those that have ended, and the place from which on open ones are left.
    rest: Option<Rest>,
}

#[derive(Debug)]
struct Rest {
    /// Nothing can have been billed and forgotten since the last comparison.
    sure: bool,
    kept: std::vec::IntoIter<LifeKey>,
    open: u32,
}

/// What is committed of a key.
struct Committed {
    sight: Sight,
    /// What was billed of one that has ended, and whether both totals were seen.
    ended: Option<(Carried, bool)>,
}

impl Reducer {
    /// The tables whose rows [`Reducer::compare_row`] needs.
    pub const CONFIRMING: [Table; 3] = [Table::Allocation, Table::Tombstone, Table::Source];

    /// Compares what this follower knows with what is committed as of `clock`, in one go: see [`Reducer::compare`].
    pub fn confirm<R: AsRef<[u8]>>(
        &mut self,
        clock: Timestamp,
        rows: impl IntoIterator<Item = (Table, u64, R)>,
    ) -> Result<(), RestoreError> {
        let mut comparison = self.compare(clock);
        for (table, key, row) in rows {
            self.compare_row(&mut comparison, table, key, row.as_ref())?;
        }
        self.compare_rest(&mut comparison, usize::MAX);
        Ok(())
    }

    /// Begins to compare what this follower knows with what is committed as of `clock`: the rows of
    /// [`Reducer::CONFIRMING`], all of them, are handed to [`Reducer::compare_row`], and then
    /// [`Reducer::compare_rest`] is called as long as there is more. Anything else may be handed in between; a
    /// comparison that is given up leaves nothing that is wrong. Ended allocations whose end is committed are
    /// forgotten, and so are those that were committed before and are no more: they were ended, and their
    /// tombstones are gone. To be done every 20 s or so. Where the committed clock has moved by more than 40 s
    /// since the last time, something may have been billed and forgotten in between; then all that is not among the
    /// rows is taken for that, since billing twice is worse than not billing.
    #[must_use]
    pub fn compare(&self, clock: Timestamp) -> Comparison {
        Comparison {
            clock,
            began: self.now,
            evicted_until: Timestamp(0),
            present: HashSet::with_capacity(self.allocations.len()),
            judged: HashSet::new(),
            rest: None,
        }
    }

    /// Compares with one row. Fails if it cannot be read.
    pub fn compare_row(
        &mut self,
        comparison: &mut Comparison,
        table: Table,
        row: u64,
        bytes: &[u8],
    ) -> Result<(), RestoreError> {
        let bad = RestoreError { table, key: row };
        match table {
            Table::Allocation => {
                let row: AllocationRow<'_> = read(bytes, bad)?;
                let committed = Committed {
                    sight: Sight {
                        remote: row.details.remote,
                        opened_at: row.opened_at,
                        earliest: row.opened_at,
                        opened_seen: row.flags.contains(Flags::OPENED_SEEN),
                        heard_at: row.heard_at,
                        refreshed: row.status_at > row.opened_at,
                    },
                    ended: None,
                };
                let name = (row.server, row.realm, row.username);
                self.compare_key(name, AllocationId(row.id), &committed, comparison);
            }
            Table::Tombstone => {
                let (row, more): (TombstoneRow<'_>, Option<TombstoneMore>) = read_with(bytes, bad)?;
                let billed = row.rest.billed;
                let before = billed.peer.received_bytes.min(billed.client.sent_bytes);
                let billed = Carried {
                    legs: billed,
                    sent_on: more.map_or(before, |m| m.sent_on),
                };
                let committed = Committed {
                    sight: Sight {
                        remote: row.rest.remote,
                        opened_at: row.opened_at,
                        earliest: row.opened_at,
                        opened_seen: row.rest.opened_seen,
                        heard_at: row.heard_at,
                        refreshed: row.heard_at > row.opened_at,
                    },
                    ended: Some((billed, row.rest.totals_seen)),
                };
                let name = (row.server, row.realm, row.username);
                self.compare_key(name, AllocationId(row.id), &committed, comparison);
            }
            Table::Source if row == SOURCE_KEY => {
                let row: SourceRow = read(bytes, bad)?;
                comparison.evicted_until = row.evicted_until;
            }
            Table::Session | Table::Source | Table::Leftover => {}
        }
        Ok(())
    }

    /// What is committed of one key, and what is known here of its lives.
    fn compare_key(
        &mut self,
        (server, realm, username): (Option<&[u8]>, &[u8], &[u8]),
        id: AllocationId,
        committed: &Committed,
        comparison: &mut Comparison,
    ) {
        let server = self.servers.optional(server);
        let key = self.key(server, id, realm, username);
        let open = self.find_allocation(&key);
        let name = self.names.find(realm, username);
        let Some(follower) = self.cluster.follower.as_mut() else {
            return; // it has come to lead since the comparison began
        };
        let kept_key = name.map(|name| (server, id, name));
        let kept = kept_key.and_then(|key| follower.kept.get(&key));
        let kept = kept.map_or(&[][..], |lives| lives);
        let mut sights: Vec<Sight> = kept.iter().map(|l| l.sight(&self.cluster.gaps)).collect();
        let alive = open.and_then(|slot| self.allocations.get(slot as usize));
        sights.extend(alive.map(|a| Life::of(a, None, false).sight(&self.cluster.gaps)));
        let (same, newer_from) = place(&sights, &committed.sight);
        let kept_len = kept.len();
        if let Some(slot) = open {
            comparison.present.insert((slot, id));
            // One that is later than what is committed was not heard of there.
            if newer_from > kept_len {
                follower.seen.insert(slot);
            }
        }
        let Some(kept_key) = kept_key.filter(|_| kept_len > 0 || open.is_some()) else {
            return; // nothing of it is known here
        };
        comparison.judged.insert(kept_key);
        self.forget_kept(kept_key, |lives| {
            let mut i = 0;
            lives.retain_mut(|life| {
                let n = i;
                i += 1;
                if Some(n) != same {
                    return n >= newer_from;
                }
                life.seen = true;
                match committed.ended {
                    None => true,
                    // Without totals of its own nothing could be added to what was billed.
                    Some((billed, totals_seen)) => !totals_seen && life.has_more_than(&billed),
                }
            });
        });
    }

    /// All rows were compared: forgets what was committed and is no more, as far as about `steps` steps of some
    /// microseconds each go. Whether there is more to be looked at.
    pub fn compare_rest(&mut self, comparison: &mut Comparison, steps: usize) -> bool {
        let (now, most) = (self.now, steps.saturating_mul(LOOKED_AT));
        let Comparison {
            clock,
            began,
            evicted_until,
            present,
            judged,
            rest,
        } = comparison;
        let (clock, began) = (*clock, *began);
        let Some(follower) = self.cluster.follower.as_ref() else {
            return false; // it has come to lead since the comparison began
        };
        let rest = rest.get_or_insert_with(|| Rest {
            sure: follower.is_sure(clock, *evicted_until),
            kept: follower.kept.keys().copied().collect::<Vec<_>>().into_iter(),
            open: 0,
        });
        let sure = rest.sure;
        let before = Follower {
            compared_at: follower.compared_at,
            ..Follower::default()
        };
        let gaps = self.cluster.gaps.clone();
        let young = |opened_at: Timestamp| before.is_young(opened_at, &gaps, clock);
        for key in rest.kept.by_ref().take(most) {
            let judged = judged.contains(&key);
            self.forget_kept(key, |lives| {
                lives.retain(|life| {
                    let old = life.ended_at.is_none_or(|at| at.plus(UNSETTLED_TTL) < now);
                    let later = life.ended_at.is_some_and(|at| at > began);
                    !old && (later || judged || (sure && !life.seen && young(life.opened_at)))
                });
            });
        }
        if !rest.kept.as_slice().is_empty() {
            return true;
        }
        let places = self.allocations.capacity();
        let until = (rest.open as usize).saturating_add(most).min(places) as u32;
        let mut over = Vec::new();
        for slot in rest.open..until {
            let (Some(a), Some(follower)) = (self.allocation(slot), self.cluster.follower.as_ref()) else {
                continue; // a place that none has
            };
            let opened_at = a.opened_at.get();
            let unheard = sure && !follower.seen.contains(&slot) && young(opened_at);
            if !present.contains(&(slot, a.id)) && !unheard && opened_at <= began {
                over.push(slot);
            }
        }
        rest.open = until;
        self.sort_allocations(&mut over);
        for slot in over {
            let key = self
                .allocations
                .get(slot as usize)
                .map(|a| (a.server, a.id, a.name, a.opened_at.get()));
            self.end_now(slot, now, CloseReason::Expired, None);
            if let Some((server, id, name, opened_at)) = key {
                self.forget_kept((server, id, name), |lives| {
                    lives.retain(|l| l.opened_at != opened_at)
                });
            }
        }
        if (until as usize) < places {
            return true;
        }
        if let Some(follower) = self.cluster.follower.as_mut() {
            follower.clock = follower.clock.max(clock);
            follower.compared_at = began;
        }
        false
    }
}
