//! The store's own small numbers.

/// A source's number in the store; stable for the life of the store.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SourceId(pub u32);

/// An endpoint's number in the store; stable for the life of the store, also while it is not configured.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct EndpointId(pub u16);

/// One event for one endpoint. Ids of later commits are larger.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct DeliveryId(pub i64);

impl DeliveryId {
    pub(crate) fn new(event: i64, endpoint: EndpointId) -> DeliveryId {
        DeliveryId((event << 16) | i64::from(endpoint.0))
    }

    /// Above all deliveries of an event and of those before it, below those of later ones.
    pub(crate) fn last_of(event: i64) -> DeliveryId {
        DeliveryId((event << 16) | 0xffff)
    }

    pub(crate) fn event(self) -> i64 {
        self.0 >> 16
    }

    /// Whom it goes to.
    #[must_use]
    pub fn endpoint(self) -> EndpointId {
        EndpointId((self.0 & 0xffff) as u16)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_delivery_names_its_event_and_endpoint() {
        let id = DeliveryId::new(70_000, EndpointId(65_535));
        assert_eq!((id.event(), id.endpoint()), (70_000, EndpointId(65_535)));
    }
}
