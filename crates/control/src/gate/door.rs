//! Who is at the gate. A stranger must be able neither to take the places of coturns, which fail closed without an
//! answer, nor the process's descriptors: whoever has not logged in has one of a few places, and leaves for a newcomer.

use std::{
    collections::{BTreeMap, HashMap},
    net::{IpAddr, Ipv6Addr},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use tokio::{
    sync::{Notify, OwnedSemaphorePermit, Semaphore},
    time::Instant,
};

/// coturn has a connection for each of its auth workers, and one for what it reads every five seconds.
const KNOWN: usize = 1024;

/// coturn logs in with the first thing that it says: no more are needed of those who have not.
const STRANGERS: usize = 64;

/// Guesses are as many as somebody makes: they are reported this often.
const REPORT_EVERY: Duration = Duration::from_secs(60);

#[derive(Debug)]
pub(super) struct Door {
    known: Arc<Semaphore>,
    /// Oldest first.
    strangers: Mutex<BTreeMap<u64, Stranger>>,
    numbers: AtomicU64,
    guesses: Mutex<Guesses>,
}

#[derive(Debug)]
struct Stranger {
    from: IpAddr,
    leave: Arc<Notify>,
}

#[derive(Debug, Default)]
struct Guesses {
    reported_at: Option<Instant>,
    since: u64,
}

/// A connection's place, free again when it is dropped.
#[derive(Debug)]
pub(super) struct Place {
    door: Arc<Door>,
    number: u64,
    /// It has to leave for somebody else.
    pub(super) leave: Arc<Notify>,
    known: Option<OwnedSemaphorePermit>,
}

impl Door {
    pub(super) fn new() -> Arc<Door> {
        Arc::new(Door {
            known: Arc::new(Semaphore::new(KNOWN)),
            strangers: Mutex::default(),
            numbers: AtomicU64::new(0),
            guesses: Mutex::default(),
        })
    }

    /// A newcomer always gets in. Where there is no room the oldest of the address that has most places leaves, so that
    /// whoever takes many displaces himself.
    pub(super) fn enter(self: &Arc<Door>, peer: IpAddr) -> Place {
        let number = self.numbers.fetch_add(1, Ordering::Relaxed);
        let leave = Arc::new(Notify::new());
        let mut strangers = lock(&self.strangers);
        if strangers.len() >= STRANGERS {
            displace_one(&mut strangers);
        }
        strangers.insert(
            number,
            Stranger {
                from: network(peer),
                leave: Arc::clone(&leave),
            },
        );
        drop(strangers);
        Place {
            door: Arc::clone(self),
            number,
            leave,
            known: None,
        }
    }

    /// Somebody gave a wrong password: how many did since it was last reported, if it is time to report it.
    pub(super) fn guessed(&self, now: Instant) -> Option<u64> {
        let mut guesses = lock(&self.guesses);
        guesses.since += 1;
        if guesses
            .reported_at
            .is_some_and(|at| now.duration_since(at) < REPORT_EVERY)
        {
            return None;
        }
        guesses.reported_at = Some(now);
        Some(std::mem::take(&mut guesses.since))
    }
}

impl Place {
    /// It has logged in, and need not leave any more; or there is no room even for those who have.
    pub(super) fn known(&mut self) -> bool {
        if self.known.is_none() {
            let Ok(permit) = Arc::clone(&self.door.known).try_acquire_owned() else {
                return false;
            };
            lock(&self.door.strangers).remove(&self.number);
            self.known = Some(permit);
        }
        true
    }

    pub(super) fn door(&self) -> &Door {
        &self.door
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        lock(&self.door.strangers).remove(&self.number);
    }
}

fn displace_one(strangers: &mut BTreeMap<u64, Stranger>) {
    let mut counts: HashMap<IpAddr, usize> = HashMap::new();
    for stranger in strangers.values() {
        *counts.entry(stranger.from).or_default() += 1;
    }
    let of = |stranger: &Stranger| counts.get(&stranger.from).copied().unwrap_or_default();
    let leaves = strangers
        .iter()
        .max_by_key(|(number, stranger)| (of(stranger), std::cmp::Reverse(**number)))
        .map(|(number, _)| *number);
    if let Some(stranger) = leaves.and_then(|number| strangers.remove(&number)) {
        stranger.leave.notify_one();
    }
}

/// Of IPv6 a stranger has a whole network of 64 bits at least.
fn network(peer: IpAddr) -> IpAddr {
    match peer.to_canonical() {
        IpAddr::V6(address) => Ipv6Addr::from_bits(address.to_bits() & (u128::MAX << 64)).into(),
        address => address,
    }
}

fn lock<T>(what: &Mutex<T>) -> MutexGuard<'_, T> {
    what.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn ip(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    fn there(door: &Door) -> Vec<u64> {
        lock(&door.strangers).keys().copied().collect()
    }

    #[test]
    fn a_crowd_displaces_itself_and_nobody_who_has_logged_in() {
        let door = Door::new();
        let mut first = door.enter(ip("192.0.2.1"));
        let alone = door.enter(ip("192.0.2.2"));
        assert!(first.known());
        let crowd: Vec<Place> = (0..200)
            .map(|n| door.enter(ip(&format!("2001:db8::{n}"))))
            .collect();
        let there = there(&door);
        assert_eq!(there.len(), STRANGERS);
        assert!(there.contains(&alone.number));
        assert!(!there.contains(&crowd[0].number) && there.contains(&crowd[199].number));
        drop((alone, crowd));
        assert!(lock(&door.strangers).is_empty(), "places are free again");
        assert!(first.known());
        assert_eq!(door.known.available_permits(), KNOWN - 1);
        drop(first);
        assert_eq!(door.known.available_permits(), KNOWN);
    }

    #[test]
    fn guesses_are_reported_once_a_minute_with_their_number() {
        let door = Door::new();
        let now = Instant::now();
        assert_eq!(door.guessed(now), Some(1));
        assert_eq!(door.guessed(now), None);
        assert_eq!(door.guessed(now + REPORT_EVERY / 2), None);
        assert_eq!(door.guessed(now + REPORT_EVERY), Some(3));
    }
}
