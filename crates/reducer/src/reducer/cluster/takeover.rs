//! A takeover: what was committed, and what the follower heard besides.
//!
//! The committed state is the base: its sessions, ids and sequence numbers stand. Each allocation that the
//! follower knows is looked up in it, by key and then by life (`life.rs`), and what the leader did not
//! commit is brought in (`bring_in.rs`) by the same rules as if it were heard now, each thing at its own time but never
//! before the committed clock.

use hashbrown::HashSet;

use super::{
    super::Reducer,
    behind::{Behind, Stale},
    follower::{Follower, LifeKey, PATIENCE},
    life::{Life, Sight, earliest, place},
};
use crate::{flags::Flags, intern::NONE, relayed::Carried, session::Phase, time::Timestamp};

/// Something that the follower heard and the leader did not commit.
struct Step {
    at: Timestamp,
    what: What,
    key: LifeKey,
    life: Life,
    /// What was committed of the life before may hold so much of this one.
    doubted: Carried,
}

#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum What {
    /// It opened, and any other life of its key was over.
    Open,
    /// It closed, or totals were heard. `true` where the committed state does not know the life.
    Close(bool),
    /// Totals of one that was committed as ended.
    LateTotals,
}

/// One of the follower's lives that is the committed one in a slot.
struct Met {
    slot: u32,
    key: LifeKey,
    /// Its place among the kept ones of its key; none for the open one.
    kept: Option<usize>,
}

struct TakeOver<'a> {
    ours: &'a Reducer,
    follower: &'a Follower,
    base: &'a mut Reducer,
    clock: Timestamp,
    at: Timestamp,
    /// As committed.
    evicted_until: Timestamp,
    stale: Stale,
    met: Vec<Met>,
    steps: Vec<Step>,
    met_allocations: HashSet<u32>,
    met_tombstones: HashSet<u32>,
}

impl Reducer {
    /// A follower becomes the leader, at `at`. `committed` is restored from the rows as they were after the
    /// lease was taken, so that nobody else can change them any more; it goes on with what this follower
    /// heard, and has events to be drained. Servers ([`Reducer::server`]) must be numbered anew.
    ///
    /// Never is anything billed above the truth: each counter goes on from the larger of what was committed
    /// and what was counted here, and deltas add to the latter alone. What was committed as ended is not
    /// billed again.
    #[must_use]
    pub fn take_over(mut self, mut committed: Reducer, at: Timestamp) -> Reducer {
        let follower = self.cluster.follower.take().unwrap_or_default();
        let clock = committed.now;
        let evicted_until = committed.evicted_until;
        let at = at.max(clock);
        committed.cluster.taken_over_at = at;
        if committed.peer_leg.reported.is_none() {
            committed.peer_leg = self.peer_leg;
        }
        // One of which nothing was emitted yet may have been overtaken by the next of its group, which has ended.
        let errors = &committed.internal_errors;
        for (slot, s) in committed.sessions.iter() {
            if s.phase == Phase::Waiting && committed.groups.current(s.group) != slot as u32 {
                committed.groups.session_ended(s.group, clock, errors);
            }
        }
        let Reducer { hearing, servers, .. } = &mut committed;
        hearing.take_over(&self.hearing, |server| servers.optional(self.servers.get(server)));
        committed.outgoing.source();
        let mut take_over = TakeOver {
            ours: &self,
            follower: &follower,
            base: &mut committed,
            clock,
            at,
            evicted_until,
            stale: Stale::new(clock, at),
            met: Vec::new(),
            steps: Vec::new(),
            met_allocations: HashSet::new(),
            met_tombstones: HashSet::new(),
        };
        take_over.look_up();
        take_over.mark_unmet();
        take_over.bring_in();
        committed.internal_errors.inherit(&self.internal_errors);
        committed.begin(at);
        committed
    }
}

impl TakeOver<'_> {
    /// Finds every life that the follower knows among the committed ones.
    fn look_up(&mut self) {
        let (ours, follower) = (self.ours, self.follower);
        for (key, kept) in &follower.kept {
            let (realm, username) = (ours.names.realm(key.2), ours.names.username(key.2));
            let open = ours.find_allocation(&ours.key(key.0, key.1, realm, username));
            self.look_up_key(*key, kept, open);
        }
        for (slot, a) in ours.allocations.iter() {
            let key = (a.server, a.id, a.name);
            if !follower.kept.contains_key(&key) {
                self.look_up_key(key, &[], Some(slot as u32));
            }
        }
    }

    fn our_life(&self, slot: u32) -> Option<Life> {
        let a = self.ours.allocations.get(slot as usize)?;
        let seen = self.follower.seen.contains(&slot);
        Some(Life::of(a, self.ours.cluster.counted.get(&slot).copied(), seen))
    }

    fn look_up_key(&mut self, key: LifeKey, kept: &[Life], open: Option<u32>) {
        let alive = open.and_then(|slot| self.our_life(slot));
        // One that had ended and lives on is in both.
        let again = |l: &Life| {
            alive
                .as_ref()
                .is_some_and(|a| (a.opened_at, a.twin) == (l.opened_at, l.twin))
        };
        let mut lives: Vec<(Option<usize>, Life)> = Vec::new();
        for (i, life) in kept.iter().enumerate().filter(|(_, l)| !again(l)) {
            lives.push((Some(i), life.clone()));
        }
        lives.extend(alive.map(|life| (None, life)));
        let sights: Vec<Sight> = lives
            .iter()
            .map(|(_, l)| l.sight(&self.ours.cluster.gaps))
            .collect();

        let realm = self.ours.names.realm(key.2);
        let username = self.ours.names.username(key.2);
        let server = self.base.servers.optional(self.ours.servers.get(key.0));
        let base_key = self.base.key(server, key.1, realm, username);
        let mut doubted = Carried::default();
        let newer_from = if let Some(slot) = self.base.find_allocation(&base_key) {
            let Some(theirs) = self.base.allocations.get(slot as usize).map(Sight::of) else {
                return self.base.broken("an allocation that was just found");
            };
            let (mut same, mut newer_from) = place(&sights, &theirs);
            if self
                .base
                .allocations
                .get(slot as usize)
                .is_some_and(|a| a.flags.contains(Flags::SHARED))
            {
                // Of two servers' messages under one key, all that came since was counted in this one.
                (same, newer_from) = (same.or(lives.len().checked_sub(1)), lives.len());
            }
            self.met_allocations.insert(slot);
            match same.and_then(|i| lives.get(i)) {
                Some((kept, life)) => {
                    let met = Met {
                        slot,
                        key,
                        kept: *kept,
                    };
                    let closing = self
                        .base
                        .allocations
                        .get(slot as usize)
                        .is_some_and(|a| a.flags.contains(Flags::CLOSING));
                    // Its `new` may still wait where it was known from a snapshot.
                    let new = life.flags.contains(Flags::FROM_SNAPSHOT);
                    if life.is_open() && (closing || new) {
                        self.stale.open(
                            slot,
                            Behind {
                                new,
                                ..Behind::default()
                            },
                        );
                    }
                    self.met.push(met);
                }
                None if newer_from == lives.len() => self.behind(slot, lives.last()),
                None => {}
            }
            let there = self.base.allocations.get(slot as usize).map(|a| a.carried());
            let here = same.and_then(|i| lives.get(i)).map(|(_, life)| life);
            doubted = may_be_of_next(sights.get(newer_from), &theirs, here, there);
            newer_from
        } else if let Some(slot) = self.base.find_tombstone(&base_key) {
            let Some(theirs) = self.base.tombstones.get(slot).map(Sight::of_ended) else {
                return self.base.broken("a tombstone that was just found");
            };
            let (same, newer_from) = place(&sights, &theirs);
            self.met_tombstones.insert(slot);
            match same.and_then(|i| lives.get(i)) {
                Some((_, life)) => {
                    let life = life.clone().taken_for(&theirs, &self.ours.cluster.gaps);
                    if life.ended_at.is_none() {
                        self.stale.ended(
                            slot,
                            Behind {
                                new: life.flags.contains(Flags::FROM_SNAPSHOT),
                                counted: life.counted,
                                ..Behind::default()
                            },
                        );
                    }
                    if life.client_total.is_some() || life.peer_total.is_some() {
                        self.step(life.heard_at, What::LateTotals, key, &life);
                    }
                }
                None if newer_from == lives.len() => {
                    let skip = lives.last().is_some_and(|(_, l)| l.ended_at.is_none());
                    self.stale.ended(
                        slot,
                        Behind {
                            new: true,
                            skip,
                            ..Behind::default()
                        },
                    );
                }
                None => {}
            }
            let there = self.base.tombstones.get(slot).map(|t| t.rest.carried());
            let here = same.and_then(|i| lives.get(i)).map(|(_, life)| life);
            doubted = may_be_of_next(sights.get(newer_from), &theirs, here, there);
            newer_from
        } else {
            // Nobody committed it, or it was billed and forgotten.
            let sure = self.follower.is_sure(self.clock, self.evicted_until);
            let young = |life: &Life| {
                self.follower
                    .is_young(life.opened_at, &self.ours.cluster.gaps, self.clock)
            };
            lives.retain(|(_, life)| sure && !life.seen && young(life));
            0
        };
        // A node that took over before, and has still to hear what waits from before that.
        let behind = match open {
            Some(slot) => self.ours.stale_of(slot),
            None => self
                .ours
                .find_tombstone(&self.ours.key(key.0, key.1, realm, username))
                .and_then(|t| self.ours.stale_of_ended(t)),
        };
        if let Some(behind) = behind {
            if let Some(slot) = self.base.find_allocation(&base_key) {
                self.stale.open(slot, behind);
            } else if let Some(slot) = self.base.find_tombstone(&base_key) {
                self.stale.ended(slot, behind);
            }
        }
        for (_, life) in lives.into_iter().skip(newer_from) {
            let doubted = std::mem::take(&mut doubted);
            self.step(life.opened_at, What::Open, key, &life);
            if let Some(open) = self.steps.last_mut() {
                open.doubted = doubted;
            }
            if let Some((closed_at, _)) = life.closed {
                self.step(closed_at.max(life.opened_at), What::Close(true), key, &life);
            }
        }
    }

    /// An open allocation of which our stream has yet to speak.
    fn behind(&mut self, slot: u32, last: Option<&(Option<usize>, Life)>) {
        let skip = last.is_some_and(|(_, life)| life.ended_at.is_none());
        self.stale.open(
            slot,
            Behind {
                new: true,
                skip,
                ..Behind::default()
            },
        );
        self.base.cluster.counted.insert(slot, Default::default());
    }

    fn step(&mut self, at: Timestamp, what: What, key: LifeKey, life: &Life) {
        self.steps.push(Step {
            at: at.max(self.clock),
            what,
            key,
            life: life.clone(),
            doubted: Carried::default(),
        });
    }

    /// What was committed and the follower knows nothing of.
    fn mark_unmet(&mut self) {
        let open = self.base.allocations.iter().map(|(slot, _)| slot as u32);
        let unmet: Vec<u32> = open.filter(|slot| !self.met_allocations.contains(slot)).collect();
        for slot in unmet {
            self.behind(slot, None);
        }
        // Nothing that was said before still waits here.
        let waits_since = earliest(self.at, &self.ours.cluster.gaps);
        for (slot, t) in self.base.tombstones.iter() {
            if self.met_tombstones.contains(&slot) {
                continue;
            }
            let (realm, username) = (self.base.names.realm(t.name), self.base.names.username(t.name));
            let server = self.base.servers.get(t.server);
            let behind = match known_end(self.ours, server, t.id, (realm, username), &Sight::of_ended(t)) {
                // Perhaps only from the rows, of a node that took over before.
                Some(ended) => self.ours.stale_of_ended(ended),
                None => Some(Behind {
                    new: t.opened_at.plus(PATIENCE) >= waits_since,
                    ..Behind::default()
                }),
            };
            if let Some(behind) = behind {
                self.stale.ended(slot, behind);
            }
        }
    }

    fn bring_in(mut self) {
        self.bring_in_counters();
        self.base.cluster.stale = Some(Box::new(self.stale));
        let (ours, base) = (self.ours, self.base);
        let mut steps = self.steps;
        steps.sort_by(|a, b| {
            let name = |s: &Step| (ours.names.realm(s.key.2), ours.names.username(s.key.2));
            (a.at, a.life.opened_at, a.life.twin, a.what, a.key.1)
                .cmp(&(b.at, b.life.opened_at, b.life.twin, b.what, b.key.1))
                .then_with(|| name(a).cmp(&name(b)))
        });
        for step in steps {
            base.begin(step.at);
            let (realm, username) = (ours.names.realm(step.key.2), ours.names.username(step.key.2));
            let server = base.servers.optional(ours.servers.get(step.key.0));
            let key = base.key(server, step.key.1, realm, username);
            match step.what {
                What::Open => {
                    let details = base.translated(ours, &step.life.details);
                    base.open_life(&key, &step.life, &step.doubted, details, self.clock);
                }
                What::Close(brought) => base.close_life(&key, &step.life, brought),
                What::LateTotals => base.late_totals(&key, &step.life),
            }
        }
    }

    /// Counters and statuses have no order: all of them are brought in at the committed clock.
    fn bring_in_counters(&mut self) {
        let mut met: Vec<Met> = std::mem::take(&mut self.met);
        met.sort_by_key(|m| m.slot);
        let mut slots: Vec<u32> = met.iter().map(|m| m.slot).collect();
        self.base.sort_allocations(&mut slots);
        self.base.reviews_wait = true;
        for slot in slots {
            let Ok(i) = met.binary_search_by_key(&slot, |m| m.slot) else {
                self.base.broken("an allocation that was not met");
                continue;
            };
            let Met { key, kept, .. } = met[i];
            let life = match kept {
                Some(i) => self
                    .follower
                    .kept
                    .get(&key)
                    .and_then(|lives| lives.get(i))
                    .cloned(),
                None => {
                    let (realm, username) = (self.ours.names.realm(key.2), self.ours.names.username(key.2));
                    let open = self
                        .ours
                        .find_allocation(&self.ours.key(key.0, key.1, realm, username));
                    open.and_then(|slot| self.our_life(slot))
                }
            };
            let theirs = self.base.allocations.get(slot as usize).map(Sight::of);
            let Some((life, theirs)) = life.zip(theirs) else {
                self.base.broken("an allocation that was met and is gone");
                continue;
            };
            let life = life.taken_for(&theirs, &self.ours.cluster.gaps);
            let details = self.base.translated(self.ours, &life.details);
            self.base.merge_life(slot, &life, details);
            if let Some((closed_at, _)) = life.closed {
                // Totals that are waited for are there: the wait must not run out before them.
                let waiting = self
                    .base
                    .allocations
                    .get(slot as usize)
                    .is_some_and(|a| a.flags.contains(Flags::CLOSING));
                let at = if waiting { self.clock } else { closed_at };
                self.step(at, What::Close(false), key, &life);
            }
        }
        self.base.reviews_wait = false;
    }
}

/// How much of what was committed of a life may be of the next: they may have missed its `new`, and it waited here for
/// longer than they counted it.
fn may_be_of_next(
    next: Option<&Sight>,
    theirs: &Sight,
    here: Option<&Life>,
    there: Option<Carried>,
) -> Carried {
    if !next.is_some_and(|next| next.may_be_counted_in(theirs)) {
        return Carried::default();
    }
    // Not what its totals say: what was counted here of another life is not in them.
    let here = here
        .map(|life| life.billed.plus(life.counted))
        .unwrap_or_default();
    there.unwrap_or_default().minus(here)
}

/// The follower's tombstone of a life, if it too knows that it has ended.
fn known_end(
    ours: &Reducer,
    server: Option<&[u8]>,
    id: crate::message::AllocationId,
    (realm, username): (&[u8], &[u8]),
    theirs: &Sight,
) -> Option<u32> {
    let server = match server {
        None => NONE,
        Some(text) => ours.servers.find(text)?,
    };
    let key = ours.key(server, id, realm, username);
    let slot = ours.find_tombstone(&key)?;
    let t = ours.tombstones.get(slot)?;
    let life = Life::of_ended(t, t.heard_at, false);
    place(&[life.sight(&ours.cluster.gaps)], theirs).0.map(|_| slot)
}
