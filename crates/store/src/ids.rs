//! The store's own small numbers.

/// A source's number in the store; stable for the life of the store.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SourceId(pub u32);

pub use turnhook_reducer::outbox::{DeliveryId, EndpointId};
