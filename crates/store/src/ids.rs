//! The store's own small numbers, and ids from their text.

use turnhook_reducer::event::{EventId, SessionId};

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

/// An event's id from its text (`evt_…`).
#[must_use]
pub fn event_id(text: &str) -> Option<EventId> {
    base32(text.strip_prefix("evt_")?).map(EventId)
}

/// A session's id from its text (`ses_…`).
#[must_use]
pub fn session_id(text: &str) -> Option<SessionId> {
    base32(text.strip_prefix("ses_")?).map(SessionId)
}

/// Crockford's alphabet, lower or upper case, 26 characters for 128 bits.
fn base32(text: &str) -> Option<[u8; 16]> {
    const ALPHABET: &[u8; 32] = b"0123456789abcdefghjkmnpqrstvwxyz";
    if text.len() != 26 {
        return None;
    }
    let mut n = 0u128;
    for (i, c) in text.bytes().enumerate() {
        let digit = ALPHABET.iter().position(|a| *a == c.to_ascii_lowercase())? as u128;
        if i == 0 && digit > 7 {
            return None;
        }
        n = (n << 5) | digit;
    }
    Some(n.to_be_bytes())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
    use super::*;

    #[test]
    fn text_round_trips() {
        for bytes in [[0u8; 16], [255; 16], *b"0123456789abcdef"] {
            assert_eq!(event_id(&EventId(bytes).to_string()), Some(EventId(bytes)));
            assert_eq!(session_id(&SessionId(bytes).to_string()), Some(SessionId(bytes)));
            assert_eq!(
                event_id(&EventId(bytes).to_string().to_uppercase().replace("EVT", "evt")),
                Some(EventId(bytes))
            );
            assert_eq!(event_id(&SessionId(bytes).to_string()), None);
        }
        for wrong in [
            "",
            "evt_",
            "evt_0",
            "evt_z0000000000000000000000000",
            "evt_0000000000000000000000000u",
            "evt_äääääääääääää",
        ] {
            assert_eq!(event_id(wrong), None, "{wrong}");
        }
    }

    #[test]
    fn a_delivery_names_its_event_and_endpoint() {
        let id = DeliveryId::new(70_000, EndpointId(65_535));
        assert_eq!((id.event(), id.endpoint()), (70_000, EndpointId(65_535)));
    }
}
