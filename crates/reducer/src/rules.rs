//! The settings that the reducer obeys (`[session]`, `[limits]`, and what it must know of its source).

use std::sync::Arc;

use regex::bytes::{Regex, RegexSet};

pub use crate::usage::Billable;

/// What makes allocations one group.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum GroupBy {
    /// The `user` of `user_pattern`, within a realm.
    #[default]
    User,
    /// The whole username, within a realm.
    Username,
    /// Nothing: each allocation is a group of its own.
    Allocation,
}

/// When a session is told to have begun.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum StartOn {
    /// At its first allocation.
    #[default]
    Allocation,
    /// When the first of them has relayed.
    Relay,
}

/// What keeps a session alive.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum AliveWhile {
    /// Open allocations that relay (METERING.md, "A session").
    #[default]
    Relaying,
    /// Any open allocation.
    Allocated,
}

/// Whether a source's coturn reports the peer leg (4.5.2 and later do).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum PeerLeg {
    /// What is heard tells: yes from the first peer message on; no once three allocations have closed with the client
    /// leg's totals and no peer message was ever heard.
    #[default]
    Auto,
    /// It does.
    Reported,
    /// It does not: the client leg stands in for it.
    Absent,
}

impl From<bool> for PeerLeg {
    fn from(reported: bool) -> PeerLeg {
        if reported {
            PeerLeg::Reported
        } else {
            PeerLeg::Absent
        }
    }
}

/// The settings of one source's reducer. Durations are in milliseconds.
#[derive(Clone, Debug)]
pub struct Rules {
    /// What makes allocations one group.
    pub group_by: GroupBy,
    /// Its group `user` is the user; its further named groups are labels.
    pub user_pattern: Regex,
    /// When a session is told to have begun.
    pub start_on: StartOn,
    /// What keeps it alive.
    pub alive_while: AliveWhile,
    /// How long a session waits for another allocation.
    pub linger: u64,
    /// How long totals are waited for after `deleted`.
    pub totals_grace: u64,
    /// How long an allocation that has not reported counts as relaying.
    pub report_grace: u64,
    /// How long past its lifetime an allocation is given.
    pub expiry_grace: u64,
    /// How often usage is told; 0 for never.
    pub usage_interval: u64,
    /// Relayed bytes below which an untold rest waits before it is told, and below which a session has seen only
    /// connectivity checks.
    pub residue: u64,
    /// Which bytes are billed.
    pub billable: Billable,
    /// Whether this source's coturn reports the peer leg (4.5.2 and later).
    pub peer_leg: PeerLeg,
    /// The realms of this source; what is heard of others is refused. `None` for all.
    pub realms: Option<RegexSet>,
    /// Whether messages name their server (`direct` sources).
    pub direct: bool,
    /// How many unconfirmed allocations are kept.
    pub unconfirmed_limit: usize,
    /// How many tombstones are kept.
    pub tombstone_limit: usize,
    /// How many groups' leftovers are kept.
    pub leftover_limit: usize,
    /// How many allocations of one server may be open at once.
    pub allocation_limit: usize,
}

impl Default for Rules {
    /// CONTRACT.md's defaults.
    fn default() -> Rules {
        Rules {
            group_by: GroupBy::User,
            user_pattern: default_user_pattern(),
            start_on: StartOn::Allocation,
            alive_while: AliveWhile::Relaying,
            linger: 5_000,
            totals_grace: 5_000,
            report_grace: 90_000,
            expiry_grace: 60_000,
            usage_interval: 60_000,
            residue: 64 * 1024,
            billable: Billable::Relayed,
            peer_leg: PeerLeg::Auto,
            realms: None,
            direct: false,
            unconfirmed_limit: 100_000,
            tombstone_limit: 200_000,
            leftover_limit: 100_000,
            allocation_limit: 1_000_000,
        }
    }
}

/// For names of the TURN REST API: `<unix expiry>:<user>` gives its user, and an expiry alone gives none. Any other
/// name is the user. Fewer digits are no expiry: they may be an account's own (`1:victim`).
pub const DEFAULT_USER_PATTERN: &str = r"^(?:\d{9,}:)?(?P<user>.*)$";

#[allow(clippy::expect_used)] // a constant, compiled by a test
fn default_user_pattern() -> Regex {
    // `s`: a username may hold a line feed, and must still match.
    Regex::new(&format!("(?s-u){DEFAULT_USER_PATTERN}")).expect("the default pattern compiles")
}

impl Rules {
    /// Compiles a `user_pattern` over raw bytes: `.` matches any byte, so that a username that is not
    /// UTF-8 has a user too. Fails with regex's own words, or where the group `user` is missing.
    pub fn compile_user_pattern(pattern: &str) -> Result<Regex, String> {
        // Bytes first; a pattern that needs Unicode classes (\p{L}) then matches valid UTF-8 only.
        let regex = Regex::new(&format!("(?s-u){pattern}"))
            .or_else(|_| Regex::new(&format!("(?s){pattern}")))
            .map_err(|e| e.to_string())?;
        if !regex.capture_names().flatten().any(|n| n == "user") {
            return Err("the pattern has no group named `user`: write (?P<user>…) around the part that names the user"
                .to_owned());
        }
        Ok(regex)
    }

    /// Compiles the names of realms, in which `*` stands for any bytes. Fails with regex's own words.
    pub fn compile_realms<P: AsRef<str>>(patterns: &[P]) -> Result<Option<RegexSet>, String> {
        if patterns.iter().any(|p| p.as_ref() == "*") {
            return Ok(None);
        }
        let regexes = patterns.iter().map(|pattern| {
            let parts: Vec<String> = pattern.as_ref().split('*').map(regex::escape).collect();
            format!("(?s-u)^{}$", parts.join(".*"))
        });
        RegexSet::new(regexes).map(Some).map_err(|e| e.to_string())
    }

    /// The user in a username; `None` where the pattern does not match or gives nothing.
    #[must_use]
    pub fn user<'u>(&self, username: &'u [u8]) -> Option<&'u [u8]> {
        let user = self.user_pattern.captures(username)?.name("user")?.as_bytes();
        // An expiry without a user is a new name for each credential.
        let expiry = user.len() >= 9
            && user.iter().all(u8::is_ascii_digit)
            && self.user_pattern.as_str().ends_with(DEFAULT_USER_PATTERN);
        (!user.is_empty() && !expiry).then_some(user)
    }

    /// The labels in a username: the pattern's further named groups that matched.
    pub(crate) fn labels(&self, username: &[u8]) -> Vec<(Arc<str>, Box<[u8]>)> {
        if self.user_pattern.captures_len() <= 2 {
            return Vec::new(); // only the whole match and `user`
        }
        let Some(captures) = self.user_pattern.captures(username) else {
            return Vec::new();
        };
        self.user_pattern
            .capture_names()
            .flatten()
            .filter(|name| *name != "user")
            .filter_map(|name| Some((Arc::from(name), captures.name(name)?.as_bytes().into())))
            .collect()
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    #[test]
    fn the_default_pattern_takes_the_user_out_of_a_turn_rest_name() {
        let rules = Rules::default();
        assert_eq!(rules.user(b"1795413634:cust_42"), Some(&b"cust_42"[..]));
        assert_eq!(
            rules.user(b"1795413336:1999999999:cust_42/eu"),
            Some(&b"1999999999:cust_42/eu"[..])
        );
        assert_eq!(rules.user(b"plain name"), Some(&b"plain name"[..]));
        assert_eq!(rules.user(b"\xff\n\xfe"), Some(&b"\xff\n\xfe"[..]));
        assert_eq!(rules.user(b""), None);
        assert_eq!(rules.user(b"1795413634:"), None);
        assert_eq!(rules.user(b"1795413634"), None);
        assert_eq!(rules.user(b"1:victim"), Some(&b"1:victim"[..]));
        assert_eq!(rules.user(b"12345678:victim"), Some(&b"12345678:victim"[..]));
    }

    #[test]
    fn realms_are_matched_whole() {
        let realms = Rules::compile_realms(&["example.org", "*.tenants.example", "a+b"])
            .unwrap()
            .unwrap();
        for (realm, is) in [
            (&b"example.org"[..], true),
            (b"example.org.evil", false),
            (b"examplexorg", false),
            (b"one.tenants.example", true),
            (b"\xff\n.tenants.example", true),
            (b"tenants.example", false),
            (b"a+b", true),
            (b"aab", false),
            (b"", false),
        ] {
            assert_eq!(realms.is_match(realm), is, "{realm:?}");
        }
        assert!(Rules::compile_realms(&["a", "*"]).unwrap().is_none());
    }

    #[test]
    fn labels_are_the_other_groups() {
        let user_pattern =
            Rules::compile_user_pattern(r"^(?P<tenant>\w+)-(?P<user>\w+)(?:@(?P<zone>\w+))?$").unwrap();
        let rules = Rules {
            user_pattern,
            ..Rules::default()
        };
        assert_eq!(rules.user(b"acme-bob"), Some(&b"bob"[..]));
        assert_eq!(
            rules.labels(b"acme-bob"),
            vec![(Arc::from("tenant"), b"acme"[..].into())]
        );
        assert_eq!(rules.labels(b"nothing"), vec![]);
    }

    #[test]
    fn a_pattern_without_user_is_refused() {
        assert!(
            Rules::compile_user_pattern("(.*)")
                .unwrap_err()
                .contains("(?P<user>")
        );
        assert!(Rules::compile_user_pattern("(").is_err());
    }
}
