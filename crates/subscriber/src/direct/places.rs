//! Who has a place at the listener. Pure: no I/O, no clock.
//!
//! Those who are known (logged in, or, where there is no password, who have said something) are never sent away. A
//! newcomer always gets in: where there is no room, somebody who is not known leaves for it. Who that is, is
//! decided so that whoever takes many places displaces himself.

use std::{
    collections::{BTreeMap, HashMap},
    net::IpAddr,
};

use tokio::sync::oneshot;

/// The answer to somebody who finds no place.
pub(super) const FULL: &[u8] = b"-ERR max number of clients reached\r\n";

/// How many may be there.
#[derive(Clone, Copy, Debug)]
pub(super) struct Room {
    /// Who are known.
    pub(super) known: usize,
    /// Who are not. `None`: what the known ones leave of theirs.
    pub(super) strangers: Option<usize>,
}

/// Everybody who is there.
#[derive(Debug)]
pub(super) struct Places {
    room: Room,
    /// Oldest first.
    strangers: BTreeMap<u64, Stranger>,
    known: HashMap<u64, IpAddr>,
    by_address: HashMap<IpAddr, Held>,
}

#[derive(Debug)]
struct Stranger {
    block: IpAddr,
    /// Dropped when it has to leave.
    _leave: oneshot::Sender<()>,
}

#[derive(Debug, Default)]
struct Held {
    strangers: usize,
    known: usize,
}

impl Places {
    pub(super) fn new(room: Room) -> Places {
        Places {
            room,
            strangers: BTreeMap::new(),
            known: HashMap::new(),
            by_address: HashMap::new(),
        }
    }

    fn room_for_strangers(&self) -> usize {
        let left = self.room.known.saturating_sub(self.known.len());
        self.room.strangers.unwrap_or(left)
    }

    /// A newcomer. The receiver fires when it has to leave; `None` where all places are taken by those who are known.
    /// `trusted`: whether somebody has logged in from an address before; such ones are displaced last.
    pub(super) fn enter(
        &mut self,
        id: u64,
        block: IpAddr,
        trusted: impl Fn(IpAddr) -> bool,
    ) -> Option<oneshot::Receiver<()>> {
        let room = self.room_for_strangers();
        if room == 0 {
            return None;
        }
        let held = self.by_address.get(&block).map_or(0, |h| h.strangers);
        if held >= share(room) {
            self.displace(block);
        } else if self.strangers.len() >= room {
            let most = |(block, held): &(&IpAddr, &Held)| (!trusted(**block), held.strangers);
            let crowd = self.by_address.iter().filter(|(_, held)| held.strangers > 0);
            if let Some(block) = crowd.max_by_key(most).map(|(block, _)| *block) {
                self.displace(block);
            }
        }
        let (leave, left) = oneshot::channel();
        self.strangers.insert(id, Stranger { block, _leave: leave });
        self.by_address.entry(block).or_default().strangers += 1;
        Some(left)
    }

    /// Sends away the oldest stranger of an address.
    fn displace(&mut self, block: IpAddr) {
        let oldest = self.strangers.iter().find(|(_, s)| s.block == block);
        if let Some(id) = oldest.map(|(id, _)| *id) {
            self.leave(id);
        }
    }

    /// It is known from now on, if there is room for it.
    pub(super) fn known(&mut self, id: u64) -> bool {
        if self.known.contains_key(&id) {
            return true;
        }
        let Some(block) = self.strangers.get(&id).map(|s| s.block) else {
            return false;
        };
        let held = self.by_address.get(&block).map_or(0, |h| h.known);
        if self.known.len() >= self.room.known || held >= share(self.room.known) {
            return false;
        }
        self.leave(id);
        self.known.insert(id, block);
        self.by_address.entry(block).or_default().known += 1;
        true
    }

    /// It is gone.
    pub(super) fn leave(&mut self, id: u64) {
        let (block, stranger) = match (self.strangers.remove(&id), self.known.remove(&id)) {
            (Some(stranger), _) => (stranger.block, true),
            (None, Some(block)) => (block, false),
            (None, None) => return,
        };
        if let Some(held) = self.by_address.get_mut(&block) {
            let count = if stranger {
                &mut held.strangers
            } else {
                &mut held.known
            };
            *count = count.saturating_sub(1);
            if held.strangers == 0 && held.known == 0 {
                self.by_address.remove(&block);
            }
        }
    }
}

/// What one address may have of a room: half, since a whole fleet may come by one balancer, and the other half is kept
/// from it.
fn share(room: usize) -> usize {
    room.div_ceil(2)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    fn ip(n: u8) -> IpAddr {
        IpAddr::from([192, 0, 2, n])
    }

    /// The places, and who was asked to leave.
    struct World {
        places: Places,
        there: HashMap<u64, oneshot::Receiver<()>>,
        next: u64,
        trusted: Vec<IpAddr>,
    }

    impl World {
        fn new(known: usize, strangers: Option<usize>) -> World {
            World {
                places: Places::new(Room { known, strangers }),
                there: HashMap::new(),
                next: 0,
                trusted: Vec::new(),
            }
        }

        fn enter(&mut self, from: u8) -> Option<u64> {
            self.next += 1;
            let left = self
                .places
                .enter(self.next, ip(from), |b| self.trusted.contains(&b))?;
            self.there.insert(self.next, left);
            Some(self.next)
        }

        fn is_there(&mut self, id: u64) -> bool {
            let left = self.there.get_mut(&id).unwrap();
            left.try_recv() == Err(oneshot::error::TryRecvError::Empty)
        }
    }

    #[test]
    fn a_newcomer_displaces_the_oldest_who_has_not_logged_in() {
        let mut w = World::new(2, Some(4));
        let ids: Vec<u64> = [1, 2, 1, 2].map(|from| w.enter(from).unwrap()).to_vec();
        let newcomer = w.enter(3).unwrap();
        let there: Vec<bool> = ids.iter().map(|id| w.is_there(*id)).collect();
        assert_eq!(there.iter().filter(|there| !**there).count(), 1, "{there:?}");
        assert!(!there[0] || !there[1], "not the oldest of its address: {there:?}");
        assert!(w.is_there(newcomer));
    }

    #[test]
    fn who_floods_displaces_himself() {
        let mut w = World::new(10, Some(8));
        let coturn = w.enter(7).unwrap();
        for _ in 0..1000 {
            w.enter(1).unwrap();
            w.enter(2).unwrap();
            w.enter(3).unwrap();
        }
        assert!(w.is_there(coturn));
        assert!(w.places.known(coturn));
        assert!(w.places.strangers.len() <= 8);
    }

    #[test]
    fn where_somebody_has_logged_in_the_newcomers_go_last() {
        let mut w = World::new(10, Some(4));
        w.trusted.push(ip(7));
        let coturns = [w.enter(7).unwrap(), w.enter(7).unwrap()];
        for from in 10..250 {
            w.enter(from).unwrap();
        }
        assert!(coturns.iter().all(|id| w.is_there(*id)));
    }

    #[test]
    fn who_is_known_stays_whoever_comes() {
        let mut w = World::new(4, Some(2));
        let known: Vec<u64> = (0..2)
            .map(|_| {
                let id = w.enter(1).unwrap();
                assert!(w.places.known(id));
                id
            })
            .collect();
        for from in 1..200 {
            w.enter(from).unwrap();
        }
        assert!(known.iter().all(|id| w.places.known.contains_key(id)));
        // One address has no more than its share, and what is left is for others.
        let third = w.enter(1).unwrap();
        assert!(!w.places.known(third));
        let other = w.enter(2).unwrap();
        assert!(w.places.known(other));
        w.places.leave(known[0]);
        let third = w.enter(1).unwrap();
        assert!(w.places.known(third));
    }

    #[test]
    fn without_a_password_the_silent_make_room_for_those_who_speak() {
        let mut w = World::new(4, None);
        for from in [1, 2, 3, 4] {
            w.enter(from).unwrap();
        }
        for from in [5, 6, 7, 8] {
            let id = w.enter(from).unwrap();
            assert!(w.places.known(id), "{from}");
        }
        assert_eq!(w.enter(9), None);
        assert_eq!((w.places.strangers.len(), w.places.known.len()), (0, 4));
    }

    #[test]
    fn nothing_is_left_of_those_who_are_gone() {
        let mut w = World::new(4, Some(4));
        let ids: Vec<u64> = (0..9).map(|from| w.enter(from).unwrap()).collect();
        for id in ids {
            w.places.known(id);
            w.places.leave(id);
        }
        assert!(w.places.by_address.is_empty() && w.places.strangers.is_empty() && w.places.known.is_empty());
    }
}
