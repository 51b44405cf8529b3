//! Ids of sessions and of events: [ULIDs](https://github.com/ulid/spec) behind a prefix. The 48 bits of time come first,
//! so that ids sort by it; the 80 bits after them, which are random in other ULIDs, are a hash of what the id names, so
//! that the same history gives the same ids. Written in lower case; read in either.

use std::{fmt, str::FromStr};

/// Names a session: `ses_` and a ULID of its opening time.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, serde::Serialize, serde::Deserialize)]
pub struct SessionId(pub [u8; 16]);

/// Names an event, and is its `webhook-id`: `evt_` and a ULID of its timestamp.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct EventId(pub [u8; 16]);

/// A text that is no id.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum IdError {
    /// It is not a session's.
    Session,
    /// It is not an event's.
    Event,
}

impl fmt::Display for IdError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            IdError::Session => "a session's id is ses_ and 26 letters and digits",
            IdError::Event => "an event's id is evt_ and 26 letters and digits",
        })
    }
}

impl std::error::Error for IdError {}

impl fmt::Display for SessionId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write(self.0, SESSION, f)
    }
}

impl FromStr for SessionId {
    type Err = IdError;

    fn from_str(text: &str) -> Result<SessionId, IdError> {
        read(text, SESSION).map(SessionId).ok_or(IdError::Session)
    }
}

impl fmt::Display for EventId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write(self.0, EVENT, f)
    }
}

impl FromStr for EventId {
    type Err = IdError;

    fn from_str(text: &str) -> Result<EventId, IdError> {
        read(text, EVENT).map(EventId).ok_or(IdError::Event)
    }
}

const SESSION: &str = "ses_";
const EVENT: &str = "evt_";

/// Crockford's base 32: no letters that look like digits, and the order of the bytes is kept.
const ALPHABET: &[u8; 32] = b"0123456789abcdefghjkmnpqrstvwxyz";

fn write(ulid: [u8; 16], prefix: &str, f: &mut fmt::Formatter<'_>) -> fmt::Result {
    let n = u128::from_be_bytes(ulid);
    let mut text = [0u8; 26];
    for (i, c) in text.iter_mut().enumerate() {
        *c = ALPHABET[((n >> (5 * (25 - i))) & 31) as usize];
    }
    f.write_str(prefix)?;
    f.write_str(std::str::from_utf8(&text).unwrap_or_default())
}

fn read(text: &str, prefix: &str) -> Option<[u8; 16]> {
    let text = text.strip_prefix(prefix)?;
    if text.len() != 26 {
        return None;
    }
    let mut n = 0u128;
    for (i, c) in text.bytes().enumerate() {
        let digit = ALPHABET.iter().position(|a| *a == c.to_ascii_lowercase())? as u128;
        // 26 digits are 130 bits, of which the first two are none of the id's.
        if i == 0 && digit > 7 {
            return None;
        }
        n = (n << 5) | digit;
    }
    Some(n.to_be_bytes())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    #[test]
    fn an_id_is_read_as_it_was_written() {
        for bytes in [[0u8; 16], [255; 16], *b"0123456789abcdef"] {
            let (event, session) = (EventId(bytes), SessionId(bytes));
            assert_eq!(event.to_string().parse(), Ok(event));
            assert_eq!(session.to_string().parse(), Ok(session));
            let upper = event.to_string().to_uppercase().replace("EVT", "evt");
            assert_eq!(upper.parse(), Ok(event));
            assert_eq!(session.to_string().parse::<EventId>(), Err(IdError::Event));
        }
        // As the specification of ULIDs writes it.
        let ulid: EventId = "evt_01ARZ3NDEKTSV4RRFFQ69G5FAV".parse().unwrap();
        assert_eq!(
            u128::from_be_bytes(ulid.0),
            0x0156_3e3a_b5d3_d676_4c61_efb9_9302_bd5b
        );
        for wrong in [
            "",
            "evt_",
            "evt_0",
            "evt_z0000000000000000000000000",
            "evt_0000000000000000000000000u",
            "evt_äääääääääääää",
        ] {
            assert_eq!(wrong.parse::<EventId>(), Err(IdError::Event), "{wrong}");
        }
    }
}
