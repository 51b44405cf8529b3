//! Guessing passwords is slow, and slower with each wrong one. Pure: time is an input.
//!
//! Each address has its turn: beyond a few wrong passwords, its next one is looked at only some time after the one
//! before, over whichever connection it comes. A coturn that shares its address with somebody who guesses (behind NAT,
//! on one machine) waits for its turn too, but not for long: an address from which somebody has logged in has short turns.

use std::{
    collections::HashMap,
    net::{IpAddr, Ipv6Addr},
};

use turnhook_reducer::time::Timestamp;

/// Wrong passwords that cost no time: as many as a coturn with the wrong one gives when it starts.
const FREE: u32 = 16;
/// The first turn that has to be waited for, in milliseconds; each next one is twice as long.
const FIRST: u64 = 50;
/// The longest.
const LONGEST: u64 = 2_000;
/// Where somebody has logged in: a guess for each of these is few, and who has the password is not kept waiting.
const SHORT: u64 = 5;
/// After so long, in milliseconds, half of the wrong passwords are forgotten.
const HALF_LIFE: u64 = 60_000;
/// Addresses that are remembered.
const REMEMBERED: usize = 1_024;

/// What stands for one remote machine: an IPv4 address, or the /64 that one machine has of IPv6.
pub(super) fn block(ip: IpAddr) -> IpAddr {
    match ip.to_canonical() {
        IpAddr::V6(v6) => IpAddr::V6(Ipv6Addr::from_bits(v6.to_bits() & !u128::from(u64::MAX))),
        v4 => v4,
    }
}

/// Who gave wrong passwords, and who gave the right one.
#[derive(Debug, Default)]
pub(super) struct Guard(HashMap<IpAddr, Record>);

#[derive(Debug, Default)]
struct Record {
    wrong: u32,
    /// When the last one was looked at.
    last: Timestamp,
    /// When the next one will be.
    next: Timestamp,
    trusted: bool,
}

impl Guard {
    /// `None`: the password is to be looked at now. Else how many milliseconds to wait before asking again.
    pub(super) fn wait(&mut self, block: IpAddr, now: Timestamp) -> Option<u64> {
        let record = self.0.get_mut(&block)?;
        let halves = now.since(record.last) / HALF_LIFE;
        if halves > 0 {
            record.wrong = record
                .wrong
                .checked_shr(u32::try_from(halves).unwrap_or(u32::MAX))
                .unwrap_or(0);
            record.last = now;
        }
        if record.wrong < FREE {
            return None;
        }
        if now < record.next {
            return Some(record.next.since(now));
        }
        let wait = if record.trusted {
            SHORT
        } else {
            let doublings = (record.wrong - FREE).min(16);
            (FIRST << doublings).min(LONGEST)
        };
        record.next = now.plus(wait);
        None
    }

    /// The password was wrong.
    pub(super) fn failed(&mut self, block: IpAddr, now: Timestamp) {
        let record = self.record(block);
        record.wrong = record.wrong.saturating_add(1);
        record.last = now;
    }

    /// It was right.
    pub(super) fn passed(&mut self, block: IpAddr, now: Timestamp) {
        let record = self.record(block);
        *record = Record {
            last: now,
            trusted: true,
            ..Record::default()
        };
    }

    /// Whether somebody has logged in from there.
    pub(super) fn trusts(&self, block: IpAddr) -> bool {
        self.0.get(&block).is_some_and(|r| r.trusted)
    }

    fn record(&mut self, block: IpAddr) -> &mut Record {
        if self.0.len() >= REMEMBERED && !self.0.contains_key(&block) {
            let oldest = self.0.iter().min_by_key(|(_, r)| (r.trusted, r.last));
            if let Some(oldest) = oldest.map(|(block, _)| *block) {
                self.0.remove(&oldest);
            }
        }
        self.0.entry(block).or_default()
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    fn ip(text: &str) -> IpAddr {
        block(text.parse().unwrap())
    }

    /// How many guesses are looked at in a minute, if as many are made as can be.
    fn guesses(guard: &mut Guard, from: &str) -> u64 {
        let mut looked_at = 0;
        for now in 100_000..160_000 {
            // Ten thousand a second, over any number of connections.
            for _ in 0..10 {
                if guard.wait(ip(from), Timestamp(now)).is_none() {
                    looked_at += 1;
                    guard.failed(ip(from), Timestamp(now));
                }
            }
        }
        looked_at
    }

    #[test]
    fn who_guesses_gets_slower() {
        let mut guard = Guard::default();
        let looked_at = guesses(&mut guard, "192.0.2.1");
        assert!((16..60).contains(&looked_at), "{looked_at}");
        // Another address is not made to wait.
        assert_eq!(guard.wait(ip("192.0.2.2"), Timestamp(160_000)), None);
        // Nor is the same one for ever.
        assert_eq!(guard.wait(ip("192.0.2.1"), Timestamp(1_000_000)), None);
    }

    #[test]
    fn who_has_logged_in_waits_a_little_whoever_guesses_beside_it() {
        let mut guard = Guard::default();
        guard.passed(ip("192.0.2.1"), Timestamp(1));
        let looked_at = guesses(&mut guard, "192.0.2.1");
        assert!(looked_at <= 60_000 / SHORT + 16, "{looked_at}");
        let wait = guard.wait(ip("192.0.2.1"), Timestamp(160_000)).unwrap_or(0);
        assert!(wait <= SHORT, "{wait}");
    }

    #[test]
    fn addresses_without_end_take_no_memory_and_push_out_nobody_who_logged_in() {
        let mut guard = Guard::default();
        guard.passed(ip("192.0.2.1"), Timestamp(1));
        for i in 0..10_000u32 {
            guard.failed(IpAddr::V4(i.into()), Timestamp(2 + u64::from(i)));
        }
        assert!(guard.0.len() <= REMEMBERED);
        assert!(guard.trusts(ip("192.0.2.1")));
    }

    #[test]
    fn one_machine_is_one_however_many_ipv6_addresses_it_has() {
        assert_eq!(ip("2001:db8:1:2::1"), ip("2001:db8:1:2:ffff::9"));
        assert_ne!(ip("2001:db8:1:2::1"), ip("2001:db8:1:3::1"));
        assert_eq!(ip("::ffff:192.0.2.1"), ip("192.0.2.1"));
    }
}
