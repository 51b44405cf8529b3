//! What the nodes that share a store know of each other: leases, epochs, lanes.

use std::{fmt, str::FromStr, time::Duration};

use turnhook_reducer::{event::SessionId, time::Timestamp};

use crate::ids::SourceId;

/// A process that runs on a shared store: random, made at its start.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct NodeId(pub i64);

impl fmt::Display for NodeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}", self.0)
    }
}

/// How often a lease was taken. What a holder writes carries it, so that one who lost the lease can write nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Epoch(pub i64);

/// What one node at a time may do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum LeaseName {
    /// Lead a source.
    Source(SourceId),
    /// Make the deliveries of a lane, below [`Lanes::COUNT`].
    Lane(u8),
}

impl fmt::Display for LeaseName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            LeaseName::Source(id) => write!(f, "source/{}", id.0),
            LeaseName::Lane(n) => write!(f, "lane/{n}"),
        }
    }
}

impl FromStr for LeaseName {
    type Err = ();

    /// From the text that `Display` writes.
    fn from_str(text: &str) -> Result<LeaseName, ()> {
        match text.split_once('/') {
            Some(("source", id)) => id.parse().map(|id| LeaseName::Source(SourceId(id))).map_err(drop),
            Some(("lane", n)) => match n.parse() {
                Ok(n) if n < Lanes::COUNT => Ok(LeaseName::Lane(n)),
                _ => Err(()),
            },
            _ => Err(()),
        }
    }
}

/// Some of the lanes: each session, with all of its deliveries, is in one of 64.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Lanes(pub u64);

impl Lanes {
    /// The number of lanes.
    pub const COUNT: u8 = 64;
    /// All lanes.
    pub const ALL: Lanes = Lanes(u64::MAX);
    /// No lane.
    pub const NONE: Lanes = Lanes(0);

    /// The lane of a session: six bits of the hash in its id (its first six bytes are a time, which many share).
    #[must_use]
    pub fn of(session: SessionId) -> u8 {
        session.0[7] & (Lanes::COUNT - 1)
    }

    /// Whether this lane is among them.
    #[must_use]
    pub fn contains(self, lane: u8) -> bool {
        lane < Lanes::COUNT && self.0 & (1 << lane) != 0
    }

    /// These lanes and that one.
    #[must_use]
    pub fn with(self, lane: u8) -> Lanes {
        Lanes(self.0 | 1u64.checked_shl(u32::from(lane)).unwrap_or(0))
    }

    /// These lanes without that one.
    #[must_use]
    pub fn without(self, lane: u8) -> Lanes {
        Lanes(self.0 & !1u64.checked_shl(u32::from(lane)).unwrap_or(0))
    }

    /// Each of them, lowest first.
    pub fn iter(self) -> impl Iterator<Item = u8> {
        (0..Lanes::COUNT).filter(move |lane| self.contains(*lane))
    }
}

impl FromIterator<u8> for Lanes {
    fn from_iter<I: IntoIterator<Item = u8>>(lanes: I) -> Lanes {
        lanes.into_iter().fold(Lanes::NONE, Lanes::with)
    }
}

/// Nodes and leases at one moment, by the database's clock.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct View {
    /// All nodes, ordered by id.
    pub nodes: Vec<NodeRow>,
    /// All leases, ordered by name: sources first.
    pub leases: Vec<LeaseRow>,
}

/// A node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NodeRow {
    /// Its id.
    pub id: NodeId,
    /// The name that people know it by.
    pub name: String,
    /// The version of turnhook that it runs.
    pub version: String,
    /// When it first beat.
    pub started_at: Timestamp,
    /// Whether its last beat is younger than the lease.
    pub live: bool,
    /// For how long it stays live without another beat.
    pub expires_in: Duration,
    /// Those that it has configured, in order.
    pub sources: Vec<SourceId>,
}

/// A lease.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LeaseRow {
    /// What it is for.
    pub name: LeaseName,
    /// Who took it last and has not released it.
    pub holder: Option<NodeId>,
    /// How often it was taken.
    pub epoch: Epoch,
    /// Whether anybody may take it, its holder notwithstanding. True where there is none.
    pub expired: bool,
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
    use super::*;

    #[test]
    fn names_round_trip() {
        for name in [
            LeaseName::Source(SourceId(7)),
            LeaseName::Lane(0),
            LeaseName::Lane(63),
        ] {
            assert_eq!(name.to_string().parse(), Ok(name));
        }
        for wrong in ["", "lane", "lane/64", "lane/-1", "source/", "source/x", "node/1"] {
            assert_eq!(wrong.parse::<LeaseName>(), Err(()), "{wrong}");
        }
    }

    #[test]
    fn lanes_are_a_set() {
        let some: Lanes = [0, 5, 63, 64, 200].into_iter().collect();
        assert_eq!(some.iter().collect::<Vec<_>>(), [0, 5, 63]);
        assert_eq!(some.without(5).without(64).iter().collect::<Vec<_>>(), [0, 63]);
        assert_eq!(Lanes::ALL.iter().count(), 64);
        assert_eq!(Lanes::NONE.iter().count(), 0);
    }
}
