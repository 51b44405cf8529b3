//! The settings that the reducer obeys (`[session]`, `[limits]`, and what it must know of its source).

pub use crate::{
    patterns::{PatternError, RealmPatterns, UserPattern},
    usage::Billable,
};

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

/// When the start of a session is emitted.
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
    /// Open allocations that relay.
    #[default]
    Relaying,
    /// Any open allocation.
    Allocated,
}

/// Whether a source's coturn reports the peer leg (4.5.2 and later do).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum PeerLeg {
    /// What is heard decides: yes from the first peer message on; no once three allocations have closed with the client
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
    /// Who the user in a username is.
    pub user_pattern: UserPattern,
    /// When the start of a session is emitted.
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
    /// How often usage is emitted; 0 for never.
    pub usage_interval: u64,
    /// A session that lasts longer ends and continues in another one; 0 for never.
    pub max_session: u64,
    /// Relayed bytes below which an unbilled rest waits before it is billed, and below which a session has seen only
    /// connectivity checks.
    pub residue: u64,
    /// Which bytes are billed.
    pub billable: Billable,
    /// Whether this source's coturn reports the peer leg (4.5.2 and later).
    pub peer_leg: PeerLeg,
    /// The realms of this source; what is heard of others is refused.
    pub realms: RealmPatterns,
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
    /// The defaults of turnhook's configuration.
    fn default() -> Rules {
        Rules {
            group_by: GroupBy::User,
            user_pattern: UserPattern::default(),
            start_on: StartOn::Allocation,
            alive_while: AliveWhile::Relaying,
            linger: 5_000,
            totals_grace: 5_000,
            report_grace: 90_000,
            expiry_grace: 60_000,
            usage_interval: 60_000,
            max_session: 24 * 3_600_000,
            residue: 64 * 1024,
            billable: Billable::Relayed,
            peer_leg: PeerLeg::Auto,
            realms: RealmPatterns::default(),
            direct: false,
            unconfirmed_limit: 100_000,
            tombstone_limit: 200_000,
            leftover_limit: 100_000,
            allocation_limit: 1_000_000,
        }
    }
}

impl Rules {
    /// The user in a username; `None` where the pattern does not match or gives nothing.
    #[must_use]
    pub fn user<'u>(&self, username: &'u [u8]) -> Option<&'u [u8]> {
        self.user_pattern.user(username)
    }
}
