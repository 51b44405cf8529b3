//! What a follower knows, compared with what is committed. In one go: with messages between its parts some usage was
//! billed twice in generated histories.

use hashbrown::HashSet;

use super::{
    super::{
        Reducer, RestoreError,
        read_row::{read, read_with},
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

/// What was read of what is committed.
#[derive(Default)]
struct Comparison {
    evicted_until: Timestamp,
    /// The places of open allocations that are committed, or of which an earlier life is.
    present: HashSet<u32>,
    judged: HashSet<LifeKey>,
}

/// What is committed of a key.
struct Committed {
    sight: Sight,
    /// What was billed of one that has ended, and whether both totals were seen.
    ended: Option<(Carried, bool)>,
}

impl Reducer {
    /// The tables whose rows [`Reducer::confirm`] needs.
    pub const CONFIRMING: [Table; 3] = [Table::Allocation, Table::Tombstone, Table::Source];

    /// Compares what this follower knows with what is committed as of `clock`: the rows of [`Reducer::CONFIRMING`], all of
    /// them. Ended allocations whose end is committed are forgotten, and so are those that were committed before and are no
    /// more: they were ended, and their tombstones are gone. To be called every 20 s or so. Where the committed clock has
    /// moved by more than 40 s since the last time, something may have been billed and forgotten in between; then all that
    /// is not among the rows is taken for that, since billing twice is worse than not billing.
    ///
    /// # Errors
    /// A row that cannot be read.
    pub fn confirm<R: AsRef<[u8]>>(
        &mut self,
        clock: Timestamp,
        rows: impl IntoIterator<Item = (Table, u64, R)>,
    ) -> Result<(), RestoreError> {
        if !self.is_following() {
            return Ok(());
        }
        let mut comparison = Comparison::default();
        for (table, key, row) in rows {
            self.compare_row(&mut comparison, table, key, row.as_ref())?;
        }
        self.forget_absent(clock, &comparison);
        Ok(())
    }

    /// Compares with one row. Fails if it cannot be read.
    fn compare_row(
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
            return self.broken("one that does not follow compares");
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
            comparison.present.insert(slot);
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

    /// Forgets what was committed and is no more.
    fn forget_absent(&mut self, clock: Timestamp, comparison: &Comparison) {
        let now = self.now;
        let Some(follower) = self.cluster.follower.as_ref() else {
            return self.broken("a follower that follows no more");
        };
        // Nothing can have been billed and forgotten since the last comparison.
        let sure = follower.is_sure(clock, comparison.evicted_until);
        let before = Follower {
            compared_at: follower.compared_at,
            ..Follower::default()
        };
        let gaps = self.cluster.gaps.clone();
        let young = |opened_at: Timestamp| before.is_young(opened_at, &gaps, clock);
        let keys: Vec<LifeKey> = follower.kept.keys().copied().collect();
        for key in keys {
            let judged = comparison.judged.contains(&key);
            self.forget_kept(key, |lives| {
                lives.retain(|life| {
                    let old = life.ended_at.is_none_or(|at| at.plus(UNSETTLED_TTL) < now);
                    !old && (judged || (sure && !life.seen && young(life.opened_at)))
                });
            });
        }
        let Some(follower) = self.cluster.follower.as_mut() else {
            return self.broken("a follower that follows no more");
        };
        follower.clock = follower.clock.max(clock);
        follower.compared_at = now;
        let mut over = Vec::new();
        for (slot, a) in self.allocations.iter() {
            let slot = slot as u32;
            let unheard = sure && !follower.seen.contains(&slot) && young(a.opened_at.get());
            if !comparison.present.contains(&slot) && !unheard {
                over.push(slot);
            }
        }
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
    }
}
