//! Endpoints as the store knows them: also those that are no longer configured.

pub use turnhook_reducer::outbox::Pause;
use turnhook_reducer::time::Timestamp;

use crate::ids::EndpointId;

/// An endpoint.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Endpoint {
    /// Its number.
    pub id: EndpointId,
    /// Its name in the configuration.
    pub name: String,
    /// When it was first configured.
    pub created_at: Timestamp,
    /// When it was first missing in the configuration; `None` while it is configured.
    pub removed_at: Option<Timestamp>,
    /// Its pauses, oldest first, that retention has not trimmed. It is paused if the last has no `to`.
    pub pauses: Vec<Pause>,
}

impl Endpoint {
    /// The pause that holds now.
    #[must_use]
    pub fn paused(&self) -> Option<&Pause> {
        self.pauses.last().filter(|p| p.to.is_none())
    }
}

/// What an endpoint still has to get.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Backlog {
    /// Deliveries that are pending.
    pub pending: u64,
    /// Dead letters.
    pub dead: u64,
    /// The timestamp of the oldest pending delivery's event (the one that was committed first).
    pub oldest: Option<Timestamp>,
}
