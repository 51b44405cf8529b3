//! From channel and payload to a [`Message`]: pure, over bytes, without allocation.
//!
//! A channel is read from the right, because realm and username are raw and may hold anything, even
//! `/allocation/`: first the kind, then the 18 digits, then the rest is names. The realm ends
//! at the FIRST `/user/`: a realm is an operator's choice and in practice a domain name, a username is
//! the client's and may hold `/user/` as often as it likes.

use turnhook_reducer::{
    message::{AllocationId, Kind, Leg, Message, Status},
    usage::Counters,
};

/// Why something that was received is passed over. Counted in
/// `turnhook_events_ignored_total{source,reason}`, never fatal (TRAPS.md, trap 18).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Refusal {
    /// Not a channel of coturn's: keyspace events, coturn's pings, other applications.
    Foreign,
    /// A channel of coturn's, with a kind that is not one of the five.
    UnknownKind,
    /// No `/allocation/` with exactly 18 digits before the kind.
    BadId,
    /// The payload is not what the kind calls for, or a number in it does not fit.
    BadPayload,
    /// Larger than any message of coturn's; it was not kept.
    TooLarge,
    /// A realm of more than [`REALM_MAX`] bytes.
    RealmTooLong,
    /// A username of more than [`USERNAME_MAX`] bytes.
    UsernameTooLong,
    /// A value in a status of more than [`VALUE_MAX`] bytes.
    ValueTooLong,
    /// A counter above [`COUNTER_MAX`].
    CounterTooLarge,
}

/// The longest realm: that of a domain name.
pub const REALM_MAX: usize = 255;
/// The longest username: STUN allows 513 bytes, and whatever is below this fits into every index of a store.
pub const USERNAME_MAX: usize = 1024;
/// The longest value in a status: addresses and names of ciphers are far shorter.
pub const VALUE_MAX: usize = 255;
/// The largest counter in one message: 8 PiB, and all sums of a few hundred of them still fit into what databases hold.
pub const COUNTER_MAX: u64 = 1 << 53;

impl Refusal {
    /// Every reason, so that metrics can show zeros.
    pub const ALL: [Refusal; 9] = [
        Refusal::Foreign,
        Refusal::UnknownKind,
        Refusal::BadId,
        Refusal::BadPayload,
        Refusal::TooLarge,
        Refusal::RealmTooLong,
        Refusal::UsernameTooLong,
        Refusal::ValueTooLong,
        Refusal::CounterTooLarge,
    ];

    /// As in the metric's label.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Refusal::Foreign => "foreign",
            Refusal::UnknownKind => "unknown_kind",
            Refusal::BadId => "bad_id",
            Refusal::BadPayload => "bad_payload",
            Refusal::TooLarge => "too_large",
            Refusal::RealmTooLong => "realm_too_long",
            Refusal::UsernameTooLong => "username_too_long",
            Refusal::ValueTooLong => "value_too_long",
            Refusal::CounterTooLarge => "counter_too_large",
        }
    }
}

/// What the end of a channel says that its payload is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum ChannelKind {
    Status,
    Traffic(Leg),
    TotalTraffic(Leg),
}

/// The names in a channel, or in a status key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Names<'a> {
    /// Empty where there is none.
    pub realm: &'a [u8],
    /// Raw; may be empty.
    pub username: &'a [u8],
    /// The allocation.
    pub id: AllocationId,
}

/// Decodes one message of coturn.
///
/// # Errors
/// Whatever is not a message of coturn's, with the reason.
pub fn decode<'a>(channel: &'a [u8], payload: &'a [u8]) -> Result<Message<'a>, Refusal> {
    let (kind, Names { realm, username, id }) = decode_channel(channel)?;
    let kind = match kind {
        ChannelKind::Status => decode_status(payload),
        ChannelKind::Traffic(leg) => decode_counters(payload).map(|c| Kind::Traffic(leg, c)),
        ChannelKind::TotalTraffic(leg) => decode_counters(payload).map(|c| Kind::TotalTraffic(leg, c)),
    };
    Ok(Message {
        realm,
        username,
        id,
        kind: kind?,
    })
}

/// Decodes a status key, which has the words of a status channel. Its value is a payload: `decode(key, value)`.
///
/// # Errors
/// Whatever is not a status key of coturn's, with the reason.
pub fn decode_key(key: &[u8]) -> Result<Names<'_>, Refusal> {
    match decode_channel(key)? {
        (ChannelKind::Status, names) => Ok(names),
        _ => Err(Refusal::UnknownKind),
    }
}

fn decode_channel(channel: &[u8]) -> Result<(ChannelKind, Names<'_>), Refusal> {
    let names = channel.strip_prefix(b"turn/").ok_or(Refusal::Foreign)?;
    let (rest, in_realm) = match names.strip_prefix(b"realm/") {
        Some(rest) => (rest, true),
        None => (names.strip_prefix(b"user/").ok_or(Refusal::Foreign)?, false),
    };

    let (rest, leg) = match rest.strip_suffix(b"/peer") {
        Some(rest) => (rest, Leg::Peer),
        None => (rest, Leg::Client),
    };
    let (rest, kind) = if let Some(rest) = rest.strip_suffix(b"/traffic") {
        (rest, ChannelKind::Traffic(leg))
    } else if let Some(rest) = rest.strip_suffix(b"/total_traffic") {
        (rest, ChannelKind::TotalTraffic(leg))
    } else {
        match rest.strip_suffix(b"/status") {
            Some(rest) if leg == Leg::Client => (rest, ChannelKind::Status),
            _ => return Err(Refusal::UnknownKind),
        }
    };

    let (rest, digits) = rest.split_last_chunk::<18>().ok_or(Refusal::BadId)?;
    let id = decode_id(digits).ok_or(Refusal::BadId)?;
    // Where the username is empty, its slash is the prefix's, and only `/allocation/` is left.
    let names = rest.strip_suffix(b"/allocation/").ok_or(Refusal::BadId)?;

    let (realm, username) = if in_realm {
        // coturn leaves `realm/` out where the realm is empty, so an empty one here is not coturn's.
        split_realm(names)
            .filter(|(realm, _)| !realm.is_empty())
            .ok_or(Refusal::Foreign)?
    } else {
        (&b""[..], names)
    };
    if realm.len() > REALM_MAX {
        return Err(Refusal::RealmTooLong);
    }
    if username.len() > USERNAME_MAX {
        return Err(Refusal::UsernameTooLong);
    }
    Ok((kind, Names { realm, username, id }))
}

/// The relay thread of coturn whose message this is, also where the message cannot be decoded: the first three digits
/// of the allocation's id.
#[must_use]
pub fn relay_thread(channel: &[u8]) -> Option<u16> {
    let rest = channel.strip_suffix(b"/peer").unwrap_or(channel);
    let rest = rest.get(..memchr::memrchr(b'/', rest)?)?;
    let (names, digits) = rest.split_last_chunk::<18>()?;
    if !names.ends_with(b"/allocation/") {
        return None;
    }
    decode_id(digits).map(AllocationId::relay_thread)
}

/// At the first `/user/`.
fn split_realm(names: &[u8]) -> Option<(&[u8], &[u8])> {
    memchr::memchr_iter(b'/', names)
        .find_map(|i| Some((names.get(..i)?, names.get(i..)?.strip_prefix(b"/user/")?)))
}

/// 18 digits always fit in u64.
fn decode_id(digits: &[u8; 18]) -> Option<AllocationId> {
    let mut n = 0u64;
    for d in digits {
        let d = d.wrapping_sub(b'0');
        if d > 9 {
            return None;
        }
        n = n * 10 + u64::from(d);
    }
    Some(AllocationId(n))
}

fn decode_status(payload: &[u8]) -> Result<Kind<'_>, Refusal> {
    if payload == b"deleted" {
        return Ok(Kind::Deleted);
    }
    if let Some(rest) = payload.strip_prefix(b"refreshed ") {
        return decode_pairs(rest).map(Kind::Refreshed);
    }
    let rest = payload.strip_prefix(b"new ").ok_or(Refusal::BadPayload)?;
    decode_pairs(rest).map(Kind::New)
}

/// `lifetime=600`, then any number of `, key=value`.
fn decode_pairs(text: &[u8]) -> Result<Status<'_>, Refusal> {
    let (lifetime, mut rest) = text
        .strip_prefix(b"lifetime=")
        .and_then(decode_number)
        .ok_or(Refusal::BadPayload)?;
    let mut status = Status {
        lifetime: u32::try_from(lifetime).map_err(|_| Refusal::BadPayload)?,
        ..Status::default()
    };
    while !rest.is_empty() {
        let (key, value, after) = split_pair(rest).ok_or(Refusal::BadPayload)?;
        rest = after;
        let field = match key {
            b"type" => &mut status.transport,
            b"local" => &mut status.local,
            b"remote" => &mut status.remote,
            b"ssl" => &mut status.tls_version,
            b"cipher" => &mut status.tls_cipher,
            _ => continue,
        };
        *field = match value {
            b"" => None,
            b"NONE" if matches!(key, b"ssl" | b"cipher") => None,
            value if value.len() > VALUE_MAX => return Err(Refusal::ValueTooLong),
            value => Some(value),
        };
    }
    Ok(status)
}

/// Takes `, key=value` off the front: key, value, and what follows.
fn split_pair(text: &[u8]) -> Option<(&[u8], &[u8], &[u8])> {
    let text = text.strip_prefix(b", ")?;
    // A value ends where the next pair begins, at `, `: a comma alone is part of it.
    let end = memchr::memchr_iter(b',', text)
        .find(|&i| text.get(i + 1) == Some(&b' '))
        .unwrap_or(text.len());
    let (pair, rest) = text.split_at_checked(end)?;
    let equals = memchr::memchr(b'=', pair).filter(|&i| i > 0)?;
    Some((pair.get(..equals)?, pair.get(equals + 1..)?, rest))
}

/// `rcvp=1, rcvb=2, sentp=3, sentb=4`, then any number of `, key=value`.
fn decode_counters(payload: &[u8]) -> Result<Counters, Refusal> {
    let counters = split_counters(payload).ok_or(Refusal::BadPayload)?;
    let largest = counters
        .received_packets
        .max(counters.received_bytes)
        .max(counters.sent_packets)
        .max(counters.sent_bytes);
    if largest > COUNTER_MAX {
        return Err(Refusal::CounterTooLarge);
    }
    Ok(counters)
}

fn split_counters(payload: &[u8]) -> Option<Counters> {
    let (received_packets, rest) = decode_number(payload.strip_prefix(b"rcvp=")?)?;
    let (received_bytes, rest) = decode_number(rest.strip_prefix(b", rcvb=")?)?;
    let (sent_packets, rest) = decode_number(rest.strip_prefix(b", sentp=")?)?;
    let (sent_bytes, mut rest) = decode_number(rest.strip_prefix(b", sentb=")?)?;
    while !rest.is_empty() {
        rest = split_pair(rest)?.2;
    }
    Some(Counters {
        received_packets,
        received_bytes,
        sent_packets,
        sent_bytes,
    })
}

/// Takes a decimal number off the front; `None` where there is none or it is beyond u64.
#[inline]
fn decode_number(text: &[u8]) -> Option<(u64, &[u8])> {
    let mut n = 0u64;
    let mut len = 0;
    for &c in text {
        let d = c.wrapping_sub(b'0');
        if d > 9 {
            break;
        }
        // 18 digits cannot overflow; only what is longer needs looking after.
        n = if len < 18 {
            n * 10 + u64::from(d)
        } else {
            n.checked_mul(10)?.checked_add(u64::from(d))?
        };
        len += 1;
    }
    if len == 0 {
        None
    } else {
        Some((n, text.get(len..)?))
    }
}

#[cfg(test)]
mod tests;
