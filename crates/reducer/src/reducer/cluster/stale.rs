//! After a takeover, two things are not what they seem. What another node counted may hold deltas that
//! have yet to come here: until as much was counted here, deltas go to a count of their own, and what is
//! billed stands still. And messages may come that the old leader had heard, committed and gone beyond:
//! they wait in our queue, and must neither reopen what has ended nor count twice.

use hashbrown::HashMap;

use super::{super::Reducer, behind::Behind};
use crate::{
    allocation::{Address, Details},
    flags::Flags,
    key::Key,
    message::{Kind, Leg, Status},
    relayed::Carried,
    source::Gap,
    time::Timestamp,
    usage::Counters,
};

impl Reducer {
    /// All messages that were published before the committed rows of the last [`Reducer::take_over`] were
    /// read, and before the last stall was over, have been handed in (the source answered a `PING` that was sent
    /// after both). What comes from now on is new to everybody, and counts at once. Without this word the same comes
    /// about by and by: floors are passed or settled by totals, and nothing stale is looked for after 20 s.
    pub fn caught_up(&mut self) {
        self.begin(self.now);
        for stall in &mut self.cluster.gaps {
            stall.until = stall.until.min(self.now);
        }
        self.cluster.stale = None;
        self.cluster.counted = HashMap::new();
    }

    /// While it stood still, nothing stale came out of the queue.
    pub(crate) fn stood_still(&mut self, gap: &Gap) {
        if let Some(stale) = self
            .cluster
            .stale
            .as_mut()
            .filter(|stale| gap.from <= stale.until)
        {
            stale.until = stale.until.plus(gap.to.since(gap.from));
        }
    }

    /// What it carried in all after a delta: what was billed stands still until as much was counted here.
    pub(crate) fn not_below_billed(&mut self, slot: u32, counted: Carried) -> Carried {
        if !self.cluster.counted.contains_key(&slot) {
            return counted;
        }
        let Some(a) = self.allocations.get_mut(slot as usize) else {
            self.broken("no allocation to count what was billed of");
            return counted;
        };
        let all = a.carried().max(counted);
        self.cluster.counted.insert(slot, counted);
        if all.legs == counted.legs {
            self.cluster.counted.remove(&slot);
        }
        all
    }

    /// What is stale is known by its tombstone: none that was committed goes while it is looked for.
    pub(crate) fn tombstones_expire_at(&self) -> Timestamp {
        let stale = self
            .cluster
            .stale
            .as_ref()
            .filter(|stale| self.now <= stale.until);
        stale.map_or(self.now, |stale| stale.since)
    }

    pub(crate) fn forget_counted(&mut self, slot: u32) {
        if !self.cluster.counted.is_empty() {
            self.cluster.counted.remove(&slot);
        }
        if let Some(stale) = self.cluster.stale.as_mut() {
            stale.allocations.remove(&slot);
        }
    }

    /// What its tombstone inherits.
    pub(crate) fn stale_of(&self, slot: u32) -> Option<Behind> {
        let behind = self.cluster.stale.as_ref()?.allocations.get(&slot).copied()?;
        let counted = self.cluster.counted.get(&slot).copied();
        let counted = counted.or_else(|| self.allocation(slot).map(|a| a.carried()));
        Some(Behind {
            counted: counted.unwrap_or_default(),
            ..behind
        })
    }

    /// The same of one that has ended.
    pub(crate) fn stale_of_ended(&self, tombstone: u32) -> Option<Behind> {
        self.cluster.stale.as_ref()?.tombstones.get(&tombstone).copied()
    }

    pub(crate) fn stale_ended(&mut self, tombstone: u32, behind: Option<Behind>) {
        if let Some(stale) = self.cluster.stale.as_mut() {
            match behind {
                Some(behind) => stale.tombstones.insert(tombstone, behind),
                None => stale.tombstones.remove(&tombstone),
            };
        }
    }

    /// A message that may be from before the takeover: `None` where it is to be taken as any other.
    pub(crate) fn on_stale(&mut self, key: &Key<'_>, kind: Kind<'_>) -> Option<bool> {
        if self.cluster.stale.as_ref()?.until < self.now {
            self.cluster.stale = None;
            return None;
        }
        if let Some(slot) = self.find_allocation(key) {
            self.stale_open(slot, kind)
        } else if let Some(slot) = self.find_tombstone(key) {
            self.stale_tombstone(slot, key, kind)
        } else {
            None
        }
    }

    fn stale_open(&mut self, slot: u32, kind: Kind<'_>) -> Option<bool> {
        let behind = self.cluster.stale.as_ref()?.allocations.get(&slot).copied()?;
        let a = self.allocations.get(slot as usize)?;
        let closing = a.flags.contains(Flags::CLOSING);
        let remote = a.remote.clone();
        let caught_up = match kind {
            Kind::New(status) => {
                let differs = self.comes_from_elsewhere(&remote, &status);
                self.cluster.stale.as_mut()?.allocations.remove(&slot);
                if differs || !behind.new {
                    return None; // the next life
                }
                if closing {
                    // Its refreshes wait behind it, and must not look like a next life's.
                    let behind = Behind { new: false, ..behind };
                    self.cluster.stale.as_mut()?.allocations.insert(slot, behind);
                } else {
                    let a = self.allocations.get_mut(slot as usize)?;
                    a.flags.insert(Flags::OPENED_SEEN);
                    a.flags.remove(Flags::FROM_SNAPSHOT);
                    self.refresh(slot, status);
                }
                return Some(!closing);
            }
            Kind::Refreshed(status) if behind.skip => {
                remote != Address::None && Address::new(status.remote) == remote
            }
            Kind::Refreshed(status) if closing => {
                return (!self.comes_from_elsewhere(&remote, &status)).then_some(false);
            }
            Kind::Refreshed(_) | Kind::Traffic(..) => !behind.skip && !closing && !behind.new,
            Kind::Deleted | Kind::TotalTraffic(..) => !behind.skip,
        };
        if caught_up {
            self.cluster.stale.as_mut()?.allocations.remove(&slot);
            return None;
        }
        behind.skip.then_some(false)
    }

    fn stale_tombstone(&mut self, slot: u32, key: &Key<'_>, kind: Kind<'_>) -> Option<bool> {
        let behind = self.cluster.stale.as_ref()?.tombstones.get(&slot).copied()?;
        let t = self.tombstones.get(slot)?;
        let (totals_seen, remote) = (t.rest.totals_seen, t.rest.remote.clone());
        match kind {
            Kind::New(status) => {
                let differs = self.comes_from_elsewhere(&remote, &status);
                let entry = self.cluster.stale.as_mut()?.tombstones.get_mut(&slot)?;
                entry.new = false;
                entry.skip = false;
                if behind.new && !differs {
                    return Some(false);
                }
                None // takes the tombstone away, and with it what is kept here
            }
            Kind::Traffic(leg, counters) => {
                if !behind.skip {
                    let counted = &mut self.cluster.stale.as_mut()?.tombstones.get_mut(&slot)?.counted;
                    match leg {
                        Leg::Client => *counted = counted.plus_client(counters),
                        // With which half it came is not known any more.
                        Leg::Peer => *counted = counted.plus_peer(counters, Counters::ZERO, 0),
                    }
                }
                self.reported_after_total(slot, counters);
                Some(false)
            }
            Kind::Refreshed(status) => {
                if self.comes_from_elsewhere(&remote, &status) {
                    return (behind.skip).then_some(false);
                }
                if totals_seen || behind.skip {
                    return Some(false);
                }
                // It lives on after all; deltas that were billed are not billed again.
                let slot = self.revive(slot, key, Some(status))?;
                self.cluster.counted.insert(slot, behind.counted);
                Some(true)
            }
            Kind::Deleted | Kind::TotalTraffic(..) if behind.skip => Some(false),
            Kind::Deleted if totals_seen => Some(false),
            Kind::Deleted | Kind::TotalTraffic(..) => {
                self.cluster.stale.as_mut()?.tombstones.remove(&slot);
                None
            }
        }
    }

    fn comes_from_elsewhere(&mut self, remote: &Address, status: &Status<'_>) -> bool {
        let Details { remote: from, .. } = self.details(status);
        remote.differs(&from)
    }
}
