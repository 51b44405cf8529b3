//! How often wrong passwords may be given: by address, and by name, since one who guesses has many addresses. Time is an
//! input.

use std::{
    collections::HashMap,
    hash::Hash,
    net::IpAddr,
    sync::{Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

/// Wrong ones in a row, and the time after which one more is free.
const OF_AN_ADDRESS: Bound = Bound {
    most: 10,
    each: Duration::from_secs(15),
};
const OF_A_NAME: Bound = Bound {
    most: 20,
    each: Duration::from_secs(30),
};
/// Entries of each table. Beyond that the ones that were used longest ago go.
const ENTRIES: usize = 4096;

#[derive(Clone, Copy)]
struct Bound {
    most: u32,
    each: Duration,
}

/// Counts of the wrong ones.
#[derive(Debug, Default)]
pub(super) struct Guesses {
    addresses: Mutex<HashMap<IpAddr, Used>>,
    names: Mutex<HashMap<String, Used>>,
}

/// When all that was used is free again: one number says how much is.
#[derive(Clone, Copy, Debug)]
struct Used(Instant);

impl Guesses {
    /// Seconds to wait; `None`: one may be tried.
    pub(super) fn wait(&self, address: Option<IpAddr>, name: Option<&str>, now: Instant) -> Option<u64> {
        let of_address = address.and_then(|address| {
            let used = lock(&self.addresses).get(&network(address)).copied();
            OF_AN_ADDRESS.wait(used, now)
        });
        let of_name = name.and_then(|name| {
            let used = lock(&self.names).get(&short(name)).copied();
            OF_A_NAME.wait(used, now)
        });
        of_address.max(of_name)
    }

    /// One was wrong.
    pub(super) fn wrong(&self, address: Option<IpAddr>, name: Option<&str>, now: Instant) {
        if let Some(address) = address {
            OF_AN_ADDRESS.count(&mut lock(&self.addresses), network(address), now);
        }
        if let Some(name) = name {
            OF_A_NAME.count(&mut lock(&self.names), short(name), now);
        }
    }
}

impl Bound {
    fn wait(self, used: Option<Used>, now: Instant) -> Option<u64> {
        let Used(free) = used?;
        let over = free
            .saturating_duration_since(now)
            .checked_sub(self.each * (self.most - 1))?;
        (!over.is_zero()).then(|| over.as_secs() + 1)
    }

    fn count<K: Eq + Hash + Clone>(self, table: &mut HashMap<K, Used>, key: K, now: Instant) {
        if table.len() >= ENTRIES && !table.contains_key(&key) {
            table.retain(|_, used| used.0 > now);
            if table.len() >= ENTRIES
                && let Some(first) = table
                    .iter()
                    .min_by_key(|(_, used)| used.0)
                    .map(|(key, _)| key.clone())
            {
                table.remove(&first);
            }
        }
        let used = table.entry(key).or_insert(Used(now));
        used.0 = used.0.max(now) + self.each;
    }
}

/// Whoever has one IPv6 address has 2^64 of them.
fn network(address: IpAddr) -> IpAddr {
    match address {
        IpAddr::V6(v6) => match v6.to_ipv4_mapped() {
            Some(v4) => v4.into(),
            None => {
                let [a, b, c, d, ..] = v6.segments();
                [a, b, c, d, 0, 0, 0, 0].into()
            }
        },
        v4 => v4,
    }
}

fn short(name: &str) -> String {
    name.chars().take(64).collect()
}

fn lock<T>(table: &Mutex<T>) -> MutexGuard<'_, T> {
    table.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn address(text: &str) -> Option<IpAddr> {
        Some(text.parse().unwrap())
    }

    #[test]
    fn an_address_has_ten_and_then_one_in_fifteen_seconds() {
        let (guesses, now) = (Guesses::default(), Instant::now());
        for n in 0..10 {
            let name = format!("name-{n}");
            assert_eq!(guesses.wait(address("192.0.2.1"), Some(&name), now), None, "{n}");
            guesses.wrong(address("192.0.2.1"), Some(&name), now);
        }
        let wait = guesses.wait(address("192.0.2.1"), Some("other"), now).unwrap();
        assert!((14..=16).contains(&wait), "{wait}");
        assert_eq!(guesses.wait(address("192.0.2.2"), Some("other"), now), None);
        let later = now + Duration::from_secs(16);
        assert_eq!(guesses.wait(address("192.0.2.1"), Some("other"), later), None);
        guesses.wrong(address("192.0.2.1"), Some("other"), later);
        assert!(guesses.wait(address("192.0.2.1"), Some("other"), later).is_some());
    }

    #[test]
    fn a_name_is_guessed_from_many_addresses() {
        let (guesses, now) = (Guesses::default(), Instant::now());
        for n in 0..20 {
            let from = address(&format!("192.0.2.{n}"));
            assert_eq!(guesses.wait(from, Some("anna"), now), None, "{n}");
            guesses.wrong(from, Some("anna"), now);
        }
        assert!(guesses.wait(address("192.0.2.99"), Some("anna"), now).is_some());
    }

    #[test]
    fn a_network_of_ipv6_is_one_address() {
        let (guesses, now) = (Guesses::default(), Instant::now());
        for n in 0..10 {
            guesses.wrong(address(&format!("2001:db8::{n}")), None, now);
        }
        assert!(guesses.wait(address("2001:db8::ffff:1"), None, now).is_some());
        assert!(guesses.wait(address("2001:db8:0:1::1"), None, now).is_none());
    }

    #[test]
    fn tables_are_bounded() {
        let (guesses, now) = (Guesses::default(), Instant::now());
        for n in 0..ENTRIES + 100 {
            guesses.wrong(None, Some(&n.to_string()), now);
        }
        assert_eq!(lock(&guesses.names).len(), ENTRIES);
    }
}
