//! A follower: a reducer that hears the same source as the leader, and emits nothing. It knows what it
//! heard, and of that what the leader committed, so that it can take over (`takeover.rs`).

use hashbrown::HashSet;

use super::{
    super::Reducer,
    follower::{Follower, LifeKey},
    life::{Life, Stall},
};
use crate::{
    allocation::Details,
    aside::{SETTLED_TTL, UNSETTLED_TTL},
    flags::Flags,
    source::{Gap, GapReason},
    time::Timestamp,
};

/// How many gaps are remembered.
const GAPS: usize = 16;

impl Reducer {
    /// From now on this reducer follows: it takes messages and time as before, and makes no events and no
    /// rows. `committed` is the clock of the last commit that this state holds whole: after
    /// [`Reducer::restore`] the clock of the rows (which must have been read before the source was
    /// subscribed to), for a leader that lost its lease that of its last commit that is known to have
    /// succeeded. What ended later than that is kept until it is read as committed.
    pub fn follow(&mut self, committed: Timestamp) {
        if self.is_following() {
            return;
        }
        // Which of those that are open are committed shows when they are first compared with what is: until the clock
        // has moved on too far, none can be missing there because it was billed and forgotten.
        self.cluster.follower = Some(Box::new(Follower {
            clock: committed,
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
            // What was billed of one that shared its key, or may have been billed before, is not known well enough.
            let known = !t.rest.mixed && (t.rest.opened_seen || self.now >= self.evicted_until);
            if ended_at >= committed && known {
                let life = Life::of_ended(t, ended_at, self.peer_leg());
                ended.push((ended_at, (t.server, t.id, t.name), life));
            }
        }
        ended.sort_by_key(|(at, (server, id, name), _)| (*at, *id, *server, *name));
        for (_, key, life) in ended {
            self.names.hold_again(key.2, &self.internal_errors);
            self.keep(key, life);
        }
        let aside: Vec<u32> = self.unconfirmed.iter().map(|(slot, _)| slot).collect();
        for slot in aside {
            self.forget_unconfirmed(slot);
        }
        self.outgoing.mute();
        self.refused.forget_changes();
    }

    /// Whether this reducer emits nothing.
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
            return; // it emits the end itself
        };
        let seen = follower.seen.remove(&slot);
        let Some(a) = self.allocations.get(slot as usize) else {
            return self.broken("no allocation whose end is kept");
        };
        if a.flags.intersects(Flags::SHARED | Flags::OVERCOUNTED) {
            return; // what it carried is not known well enough to be billed by another
        }
        let life = Life {
            ended_at: Some(self.now),
            ..Life::of(a, self.cluster.counted.get(&slot).copied(), seen)
        };
        let key = (a.server, a.id, a.name);
        self.names.hold_again(a.name, &self.internal_errors);
        self.keep(key, life);
    }

    /// One that had ended lives on: whether it was ever committed is known from before.
    pub(crate) fn keep_revived(&mut self, slot: u32, key: LifeKey, opened_at: Timestamp) {
        let Some(follower) = self.cluster.follower.as_mut() else {
            return; // what it bills is committed by itself
        };
        let kept = follower.kept.get(&key).into_iter().flatten();
        let unseen = kept.filter(|l| l.opened_at == opened_at).any(|l| !l.seen);
        if !unseen {
            follower.seen.insert(slot);
        }
    }

    fn keep(&mut self, key: LifeKey, life: Life) {
        let limit = self.rules.tombstone_limit;
        let Some(follower) = self.cluster.follower.as_mut() else {
            return self.broken("an end is kept by one that does not follow");
        };
        let lives = follower.kept.entry(key).or_default();
        // One that had ended, and lived on, has ended anew.
        let before = lives.len();
        lives.retain(|l| (l.opened_at, l.twin) != (life.opened_at, life.twin));
        let again = before - lives.len();
        lives.push(life);
        lives.sort_by_key(|l| (l.opened_at, l.twin));
        follower.count += 1;
        self.internal_errors.take(
            &mut follower.count,
            again,
            "more kept lives are replaced than were kept",
        );
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
    pub(super) fn forget_kept(&mut self, key: LifeKey, forget: impl FnOnce(&mut Vec<Life>)) {
        let Some(follower) = self.cluster.follower.as_mut() else {
            return self.broken("a kept end is forgotten by one that does not follow");
        };
        let Some(lives) = follower.kept.get_mut(&key) else {
            return; // none is kept, or not any more
        };
        let before = lives.len();
        forget(lives);
        let gone = before - lives.len();
        if lives.is_empty() {
            follower.kept.remove(&key);
        }
        self.internal_errors
            .take(&mut follower.count, gone, "more kept lives go than were kept");
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

    /// The same in the numbers of another reducer.
    pub(crate) fn translated(&mut self, from: &Reducer, details: &Details) -> Details {
        Details {
            remote: details.remote.clone(),
            labels: self.labels.number_of(from.labels.texts(details.labels)),
        }
    }
}
