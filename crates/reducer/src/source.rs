//! What a source says about itself, besides coturn's messages.

use crate::time::Timestamp;

/// A time during which messages may have been missed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Gap {
    /// The last time at which the source surely heard.
    pub from: Timestamp,
    /// When it heard again.
    pub to: Timestamp,
    /// The reason why they may have been missed.
    pub reason: GapReason,
    /// The server concerned (`direct` sources), or `None` for all of the source.
    pub server: Option<Box<[u8]>>,
}

/// Why messages may have been missed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[non_exhaustive]
pub enum GapReason {
    /// turnhook was not running.
    Restart,
    /// The connection to Redis was lost, or a coturn's connection to the listener.
    Reconnect,
    /// Redis closed the subscription because its output buffer was full.
    ThrownOut,
    /// A bound was reached, and messages were given up.
    Overflow,
    /// The process, or the server that it listens to, did not run for a while.
    Stall,
    /// The wall clock was stepped forwards.
    ClockStep,
    /// The store could not take what was heard.
    StoreFull,
    /// The store could not be reached, so that nobody could lead the source.
    StoreUnavailable,
    /// A relay thread of coturn fell silent (TRAPS.md, trap 11).
    Wedged,
    /// The listener turned away connections that may have been a coturn's.
    TurnedAway,
}

impl GapReason {
    /// All of them.
    pub const ALL: &'static [GapReason] = &[
        GapReason::Restart,
        GapReason::Reconnect,
        GapReason::ThrownOut,
        GapReason::Overflow,
        GapReason::Stall,
        GapReason::ClockStep,
        GapReason::StoreFull,
        GapReason::StoreUnavailable,
        GapReason::Wedged,
        GapReason::TurnedAway,
    ];

    /// From its text.
    #[must_use]
    pub fn from_text(text: &str) -> Option<GapReason> {
        GapReason::ALL
            .iter()
            .copied()
            .find(|reason| reason.as_str() == text)
    }

    /// As in metrics, `/status` and the store.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            GapReason::Restart => "restart",
            GapReason::Reconnect => "reconnect",
            GapReason::ThrownOut => "thrown_out",
            GapReason::Overflow => "overflow",
            GapReason::Stall => "stall",
            GapReason::ClockStep => "clock_step",
            GapReason::StoreFull => "store_full",
            GapReason::StoreUnavailable => "store_unavailable",
            GapReason::Wedged => "wedged",
            GapReason::TurnedAway => "turned_away",
        }
    }
}
