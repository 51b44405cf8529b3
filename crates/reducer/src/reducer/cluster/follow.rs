//! A follower: a reducer that hears the same source as the leader, and tells nothing. It knows what it
//! heard, and of that what the leader committed, so that it can take over (`takeover.rs`).

use hashbrown::{HashMap, HashSet};

use super::{
    super::{
        Reducer, RestoreError,
        restore::{read, read_with},
        rows::{AllocationRow, SOURCE_KEY, SourceRow, TombstoneRow},
    },
    follower::{Follower, LifeKey},
    life::{Life, Sight, Stall, place},
};
use crate::{
    allocation::Details,
    aside::{SETTLED_TTL, TombstoneMore, UNSETTLED_TTL},
    event::CloseReason,
    flags::Flags,
    message::AllocationId,
    relayed::Carried,
    source::{Gap, GapReason},
    state::Table,
    time::Timestamp,
};

/// How many gaps are remembered.
const GAPS: usize = 16;

/// What is committed of a key.
struct Committed {
    sight: Sight,
    /// What was told of one that has ended, and whether both totals were seen.
    ended: Option<(Carried, bool)>,
}

impl Reducer {
    /// The tables whose rows [`Reducer::confirm`] needs.
    pub const CONFIRMING: [Table; 3] = [Table::Allocation, Table::Tombstone, Table::Source];

    /// From now on this reducer follows: it takes messages and time as before, and makes no events and no
    /// rows. `committed` is the clock of the last commit that this state holds whole: after
    /// [`Reducer::restore`] the clock of the rows (which must have been read before the source was
    /// subscribed to), for a leader that lost its lease that of its last commit that is known to have
    /// succeeded. What ended later than that is kept until it is read as committed.
    pub fn follow(&mut self, committed: Timestamp) {
        if self.is_following() {
            return;
        }
        // Which of these are committed shows when they are first compared with what is: until the clock has
        // moved on too far, none can be missing there because it was told and forgotten.
        let unseen = self.allocations.iter().map(|(slot, _)| slot as u32);
        self.cluster.follower = Some(Box::new(Follower {
            clock: committed,
            unseen: unseen.collect(),
            ..Follower::default()
        }));
        self.hearing.end_snapshot();
        let mut ended: Vec<(Timestamp, LifeKey, Life)> = Vec::new();
        for (_, t) in self.tombstones.iter() {
            let ttl = if t.rest.totals_seen {
                SETTLED_TTL
            } else {
                UNSETTLED_TTL
            };
            let ended_at = Timestamp(t.rest.expires_at.0.saturating_sub(ttl));
            // What was told of one that shared its key, or may have been told before, is not known well enough.
            let known = !t.rest.mixed && (t.rest.opened_seen || self.now >= self.evicted_until);
            if ended_at >= committed && known {
                let life = Life::of_ended(t, ended_at, self.peer_leg());
                ended.push((ended_at, (t.server, t.id, t.name), life));
            }
        }
        ended.sort_by_key(|(at, (server, id, name), _)| (*at, *id, *server, *name));
        for (_, key, life) in ended {
            self.names.hold_again(key.2);
            self.keep(key, life);
        }
        let aside: Vec<u32> = self.unconfirmed.iter().map(|(slot, _)| slot).collect();
        for slot in aside {
            self.forget_unconfirmed(slot);
        }
        self.outgoing.mute();
        self.refused.forget_changes();
    }

    /// Whether this reducer tells nothing.
    #[must_use]
    pub fn is_following(&self) -> bool {
        self.cluster.follower.is_some()
    }

    /// Ended allocations that are kept until their end was read as committed.
    #[must_use]
    pub fn kept_ends(&self) -> usize {
        self.cluster.follower.as_ref().map_or(0, |f| f.count)
    }

    /// An allocation is about to be settled.
    pub(crate) fn keep_end(&mut self, slot: u32) {
        let Some(follower) = self.cluster.follower.as_mut() else {
            return;
        };
        let seen = !follower.unseen.remove(&slot);
        let Some(a) = self.allocations.get(slot as usize) else {
            return self.broken("no allocation whose end is kept");
        };
        if a.flags.intersects(Flags::SHARED | Flags::OVERCOUNTED) {
            return; // what it carried is not known well enough to be told by another
        }
        let life = Life {
            ended_at: Some(self.now),
            ..Life::of(a, self.cluster.counted.get(&slot).copied(), seen)
        };
        let key = (a.server, a.id, a.name);
        self.names.hold_again(a.name);
        self.keep(key, life);
    }

    /// One that had ended lives on: whether it was ever committed is known from before.
    pub(crate) fn keep_revived(&mut self, slot: u32, key: LifeKey, opened_at: Timestamp) {
        let Some(follower) = self.cluster.follower.as_mut() else {
            return;
        };
        let kept = follower.kept.get(&key).into_iter().flatten();
        let unseen = kept.filter(|l| l.opened_at == opened_at).any(|l| !l.seen);
        if !unseen {
            follower.unseen.remove(&slot);
        }
    }

    fn keep(&mut self, key: LifeKey, life: Life) {
        let limit = self.rules.tombstone_limit;
        let Some(follower) = self.cluster.follower.as_mut() else {
            return;
        };
        let lives = follower.kept.entry(key).or_default();
        // One that had ended, and lived on, has ended anew.
        let before = lives.len();
        lives.retain(|l| (l.opened_at, l.twin) != (life.opened_at, life.twin));
        let again = before - lives.len();
        lives.push(life);
        lives.sort_by_key(|l| (l.opened_at, l.twin));
        follower.count += 1;
        follower.count -= again;
        follower.order.push_back(key);
        for _ in 0..again {
            self.release_name(key.2);
        }
        while let Some(follower) = self.cluster.follower.as_mut().filter(|f| f.count > limit)
            && let Some(oldest) = follower.order.pop_front()
        {
            self.forget_kept(oldest, |lives| {
                if !lives.is_empty() {
                    lives.remove(0);
                }
            });
        }
        if let Some(follower) = self.cluster.follower.as_mut()
            && follower.order.len() > 2 * follower.count + 64
        {
            let kept = &follower.kept;
            let mut once = HashSet::new();
            follower
                .order
                .retain(|key| kept.contains_key(key) && once.insert(*key));
        }
    }

    /// Lets `forget` take lives of a key out of those that are kept.
    fn forget_kept(&mut self, key: LifeKey, forget: impl FnOnce(&mut Vec<Life>)) {
        let Some(follower) = self.cluster.follower.as_mut() else {
            return;
        };
        let Some(lives) = follower.kept.get_mut(&key) else {
            return;
        };
        let before = lives.len();
        forget(lives);
        let gone = before - lives.len();
        if lives.is_empty() {
            follower.kept.remove(&key);
        }
        follower.count -= gone;
        for _ in 0..gone {
            self.release_name(key.2);
        }
    }

    /// Messages may have waited while the process stood still; a new subscription has nothing that waited.
    pub(crate) fn note_gap(&mut self, gap: &Gap) {
        if gap.reason != GapReason::Stall {
            return;
        }
        self.cluster.gaps.push(Stall::new(gap));
        let more = self.cluster.gaps.len().saturating_sub(GAPS);
        self.cluster.gaps.drain(..more);
        self.stood_still(gap);
    }

    /// Compares what this follower knows with what is committed as of `clock`: the rows of
    /// [`Reducer::CONFIRMING`], all of them. Ended allocations whose end is committed are forgotten, and so
    /// are those that were committed before and are no more: they were ended, and their tombstones are gone.
    /// To be called every 20 s or so. Where the committed clock has moved by more than 40 s since the last
    /// time, something may have been told and forgotten in between; then all that is not among the rows is
    /// taken for that, since telling twice is worse than not telling.
    pub fn confirm<R: AsRef<[u8]>>(
        &mut self,
        clock: Timestamp,
        rows: impl IntoIterator<Item = (Table, u64, R)>,
    ) -> Result<(), RestoreError> {
        if !self.is_following() {
            return Ok(());
        }
        let mut evicted_until = Timestamp(0);
        let mut present: HashMap<u32, bool> = HashMap::new();
        let mut judged: HashSet<LifeKey> = HashSet::new();
        for (table, row, bytes) in rows {
            let bad = RestoreError { table, key: row };
            let bytes = bytes.as_ref();
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
                    self.compare(name, AllocationId(row.id), &committed, &mut present, &mut judged);
                }
                Table::Tombstone => {
                    let (row, more): (TombstoneRow<'_>, Option<TombstoneMore>) = read_with(bytes, bad)?;
                    let told = row.rest.told;
                    let before = told.peer.received_bytes.min(told.client.sent_bytes);
                    let told = Carried {
                        legs: told,
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
                        ended: Some((told, row.rest.totals_seen)),
                    };
                    let name = (row.server, row.realm, row.username);
                    self.compare(name, AllocationId(row.id), &committed, &mut present, &mut judged);
                }
                Table::Source if row == SOURCE_KEY => {
                    let row: SourceRow = read(bytes, bad)?;
                    evicted_until = row.evicted_until;
                }
                Table::Session | Table::Source | Table::Leftover => {}
            }
        }
        let follower = self.cluster.follower.as_ref();
        let sure = follower.is_some_and(|f| f.is_sure(clock, evicted_until));
        self.forget_absent(clock, sure, &present, &judged);
        Ok(())
    }

    /// What is committed of one key, and what is known here of its lives.
    fn compare(
        &mut self,
        (server, realm, username): (Option<&[u8]>, &[u8], &[u8]),
        id: AllocationId,
        committed: &Committed,
        present: &mut HashMap<u32, bool>,
        judged: &mut HashSet<LifeKey>,
    ) {
        let server = self.servers.optional(server);
        let key = self.key(server, id, realm, username);
        let open = self.find_allocation(&key);
        let name = self.names.find(realm, username);
        let Some(follower) = self.cluster.follower.as_ref() else {
            return;
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
            // One that is later than what is committed was not heard of there.
            present.insert(slot, newer_from > kept_len);
        }
        let Some(kept_key) = kept_key.filter(|_| kept_len > 0) else {
            return;
        };
        judged.insert(kept_key);
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
                    // Without totals of its own nothing could be added to what was told.
                    Some((told, totals_seen)) => !totals_seen && life.tells_more_than(&told),
                }
            });
        });
    }

    /// Forgets what was committed and is no more.
    fn forget_absent(
        &mut self,
        clock: Timestamp,
        sure: bool,
        present: &HashMap<u32, bool>,
        judged: &HashSet<LifeKey>,
    ) {
        let now = self.now;
        let gaps = std::mem::take(&mut self.cluster.gaps);
        let Some(follower) = self.cluster.follower.as_mut() else {
            return self.broken("a follower that follows no more");
        };
        let before = Follower {
            compared_at: follower.compared_at,
            ..Follower::default()
        };
        let young = |opened_at: Timestamp| before.is_young(opened_at, &gaps, clock);
        follower.clock = follower.clock.max(clock);
        follower.compared_at = now;
        let keys: Vec<LifeKey> = follower.kept.keys().copied().collect();
        for key in keys {
            let judged = judged.contains(&key);
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
        let mut over = Vec::new();
        for (slot, a) in self.allocations.iter() {
            let slot = slot as u32;
            match present.get(&slot) {
                Some(true) => {
                    follower.unseen.remove(&slot);
                }
                Some(false) => {}
                None if sure && follower.unseen.contains(&slot) && young(a.opened_at.get()) => {}
                None => over.push(slot),
            }
        }
        self.cluster.gaps = gaps;
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

    /// The same in the numbers of another reducer.
    pub(crate) fn translated(&mut self, from: &Reducer, details: &Details) -> Details {
        Details {
            remote: details.remote.clone(),
            labels: self.labels.number_of(from.labels.texts(details.labels)),
        }
    }
}
