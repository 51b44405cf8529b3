//! What coturn says about an allocation, decoded. All names are raw bytes: coturn does not escape them.

use std::fmt;

use crate::usage::Counters;

/// coturn's allocation number: relay thread × 10^15 + a counter that starts at 1 whenever coturn starts.
/// It comes back, and two servers use the same ones.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, serde::Serialize, serde::Deserialize)]
pub struct AllocationId(pub u64);

impl AllocationId {
    /// The relay thread of coturn that holds the allocation.
    #[must_use]
    pub fn relay_thread(self) -> u16 {
        // 18 digits: at most 999 threads.
        u16::try_from(self.0 / 1_000_000_000_000_000).unwrap_or(u16::MAX)
    }
}

/// As in coturn's channels: 18 digits.
impl fmt::Display for AllocationId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:018}", self.0)
    }
}

/// One of coturn's two sides.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Leg {
    /// Between client and coturn.
    Client,
    /// Between coturn and peer.
    Peer,
}

/// One message of coturn about one allocation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Message<'a> {
    /// Empty where the channel names none.
    pub realm: &'a [u8],
    /// May be empty, and may hold `/`, spaces or bytes that are not UTF-8.
    pub username: &'a [u8],
    /// The allocation.
    pub id: AllocationId,
    /// What happened to it.
    pub kind: Kind<'a>,
}

/// What happened to an allocation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind<'a> {
    /// It was made.
    New(Status<'a>),
    /// It was refreshed; a lifetime of 0 asks for its deletion.
    Refreshed(Status<'a>),
    /// It is gone; totals follow, perhaps.
    Deleted,
    /// Carried since the last such message of the same leg.
    Traffic(Leg, Counters),
    /// Carried in all; the peer leg's counters are modulo 2^32.
    TotalTraffic(Leg, Counters),
}

/// The details of a `new` or `refreshed`. coturn before 4.6.0 gives only the lifetime.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Status<'a> {
    /// In seconds.
    pub lifetime: u32,
    /// `type=`: `UDP`, `TCP`, `SCTP`.
    pub transport: Option<&'a [u8]>,
    /// `local=`: the server's address.
    pub local: Option<&'a [u8]>,
    /// `remote=`: the client's address.
    pub remote: Option<&'a [u8]>,
    /// `ssl=`: the TLS version; `None` also for coturn's `NONE`.
    pub tls_version: Option<&'a [u8]>,
    /// `cipher=`; `None` also for coturn's `NONE`.
    pub tls_cipher: Option<&'a [u8]>,
}
