//! The JSON payload of a webhook, made once when its event is written down: every attempt, every endpoint
//! and every replay send the same bytes.

use std::borrow::Cow;

use base64::{Engine as _, engine::general_purpose::STANDARD};
use bytes::Bytes;
use serde::{Serialize, Serializer, ser::SerializeMap};
use turnhook_reducer::{
    event::{AllocationReport, SessionEvent},
    time::Timestamp,
    usage::{Counters, Legs, Usage},
    user_event::{QuotaReached, UserEvent},
};

/// The `type` of a trial webhook, which `turnhook endpoints test` sends.
pub const PING: &str = "endpoint.ping";

/// The payload of a session's event: JSON, its fields always in the same order. Empty if it cannot be written, which is an
/// internal error: nothing that is empty is ever signed.
#[must_use]
pub fn body(event: &SessionEvent) -> Bytes {
    session_body(event, false)
}

/// The same; `test` is in what is sent for a trial.
pub(crate) fn session_body(event: &SessionEvent, test: bool) -> Bytes {
    to_bytes(&Envelope {
        r#type: event.event_type.as_str(),
        timestamp: Time(event.timestamp),
        test,
        data: data(event),
    })
}

/// The payload of a user's event. Empty if it cannot be written, as [`body`].
#[must_use]
pub fn user_body(event: &UserEvent) -> Bytes {
    user_event_body(event, false)
}

/// The same; `test` is in what is sent for a trial.
pub(crate) fn user_event_body(event: &UserEvent, test: bool) -> Bytes {
    to_bytes(&Envelope {
        r#type: event.event_type.as_str(),
        timestamp: Time(event.timestamp),
        test,
        data: user_data(event),
    })
}

/// The payload of a trial webhook.
#[must_use]
pub fn ping_body(at: Timestamp, endpoint: &str) -> Bytes {
    to_bytes(&Envelope {
        r#type: PING,
        timestamp: Time(at),
        test: true,
        data: Ping { endpoint },
    })
}

/// An RFC 3339 time in UTC with milliseconds, as in payloads.
#[must_use]
pub fn rfc3339(at: Timestamp) -> String {
    Rfc3339::new(at).as_str().to_owned()
}

/// Its text. A payload has five of them, and by digits they cost a fourth of what formatting does.
struct Rfc3339([u8; 24]);

impl Rfc3339 {
    fn new(at: Timestamp) -> Rfc3339 {
        let time = i64::try_from(at.0)
            .ok()
            .and_then(|ms| jiff::Timestamp::from_millisecond(ms).ok());
        // No year beyond 9999, and none before 1970.
        let time = jiff::tz::Offset::UTC.to_datetime(time.unwrap_or(jiff::Timestamp::MAX));
        let mut text = *b"0000-00-00T00:00:00.000Z";
        let mut put = |place: std::ops::Range<usize>, number: i16| {
            let mut rest = number.unsigned_abs();
            for digit in text[place].iter_mut().rev() {
                *digit = DIGITS[usize::from(rest % 10)];
                rest /= 10;
            }
        };
        put(0..4, time.year());
        put(5..7, time.month().into());
        put(8..10, time.day().into());
        put(11..13, time.hour().into());
        put(14..16, time.minute().into());
        put(17..19, time.second().into());
        put(20..23, time.millisecond());
        Rfc3339(text)
    }

    fn as_str(&self) -> &str {
        std::str::from_utf8(&self.0).unwrap_or_default()
    }
}

const DIGITS: &[u8; 10] = b"0123456789";

/// As much room as most payloads take: with less, each would be moved several times while it is written.
const ROOM: usize = 1536;

fn to_bytes(value: &impl Serialize) -> Bytes {
    let mut body = Vec::with_capacity(ROOM);
    match serde_json::to_writer(&mut body, value) {
        Ok(()) => Bytes::from(body),
        // Nothing in these types can fail to serialise: keys are strings, and the writer is memory.
        Err(error) => {
            turnhook_reducer::internal_error!("a payload cannot be written: {error}");
            Bytes::new()
        }
    }
}

#[derive(Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
struct Envelope<D> {
    r#type: &'static str,
    timestamp: Time,
    /// Receivers bill nobody for it.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    test: bool,
    data: D,
}

#[derive(Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
struct Ping<'a> {
    endpoint: &'a str,
}

/// Written as RFC 3339.
struct Time(Timestamp);

impl Serialize for Time {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(Rfc3339::new(self.0).as_str())
    }
}

/// Written by its `Display`.
struct Shown<T>(T);

impl<T: std::fmt::Display> Serialize for Shown<T> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(&self.0)
    }
}

#[derive(Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
struct Data<'a> {
    session_id: Shown<turnhook_reducer::event::SessionId>,
    sequence: u32,
    continues: Option<Shown<turnhook_reducer::event::SessionId>>,
    source: &'a str,
    realm: Option<Cow<'a, str>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    realm_base64: Option<String>,
    user: Option<Cow<'a, str>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    user_base64: Option<String>,
    usernames: Vec<Cow<'a, str>>,
    labels: Labels<'a>,
    started_at: Time,
    #[serde(skip_serializing_if = "Option::is_none")]
    ended_at: Option<Time>,
    #[serde(skip_serializing_if = "Option::is_none")]
    duration_ms: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    end_reason: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    accuracy: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    block_reason: Option<&'a str>,
    billable: &'static str,
    usage: UsageData,
    usage_delta: UsageData,
    allocations: Vec<AllocationData<'a>>,
    allocations_omitted: u32,
}

struct Labels<'a>(&'a [(std::sync::Arc<str>, Box<[u8]>)]);

impl Serialize for Labels<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(Some(self.0.len()))?;
        for (name, value) in self.0 {
            map.serialize_entry(&**name, &text(value))?;
        }
        map.end()
    }
}

#[derive(Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[cfg_attr(test, schemars(rename = "Usage"))]
struct UsageData {
    client: CountersData,
    peer: Option<CountersData>,
    billable_bytes: u64,
}

#[derive(Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[cfg_attr(test, schemars(rename = "Legs"))]
struct LegsData {
    client: CountersData,
    peer: Option<CountersData>,
}

#[derive(Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[cfg_attr(test, schemars(rename = "Counters"))]
struct CountersData {
    received_packets: u64,
    received_bytes: u64,
    sent_packets: u64,
    sent_bytes: u64,
}

#[derive(Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[cfg_attr(test, schemars(rename = "Allocation"))]
struct AllocationData<'a> {
    id: Shown<turnhook_reducer::message::AllocationId>,
    username: Cow<'a, str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    username_base64: Option<String>,
    opened_at: Time,
    opened_seen: bool,
    closed_at: Option<Time>,
    close_reason: Option<&'static str>,
    totals_seen: bool,
    server: Option<Cow<'a, str>>,
    transport: Option<Cow<'a, str>>,
    server_address: Option<Cow<'a, str>>,
    client_address: Option<Cow<'a, str>>,
    tls: Option<Tls<'a>>,
    usage: LegsData,
}

#[derive(Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
struct Tls<'a> {
    version: Cow<'a, str>,
    cipher: Option<Cow<'a, str>>,
}

#[derive(Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
struct UserData<'a> {
    user: Cow<'a, str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    user_base64: Option<String>,
    realm: Option<Cow<'a, str>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    realm_base64: Option<String>,
    all_realms: bool,
    until: Option<Time>,
    reason: &'a str,
    by: Option<&'a str>,
    quota: Option<QuotaData<'a>>,
}

#[derive(Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[cfg_attr(test, schemars(rename = "Quota"))]
struct QuotaData<'a> {
    name: &'a str,
    limit: u64,
    used: u64,
    unit: &'static str,
    period: &'static str,
    period_start: Option<Time>,
    period_end: Option<Time>,
    session_id: Option<Shown<turnhook_reducer::event::SessionId>>,
}

fn user_data(event: &UserEvent) -> UserData<'_> {
    let realm = event.realm.as_deref().filter(|realm| !realm.is_empty());
    UserData {
        user: text(&event.user),
        user_base64: not_utf8(&event.user),
        realm: realm.map(text),
        realm_base64: realm.and_then(not_utf8),
        all_realms: event.realm.is_none(),
        until: event.until.map(Time),
        reason: &event.reason,
        by: event.by.as_deref(),
        quota: event.quota.as_ref().map(quota),
    }
}

fn quota(quota: &QuotaReached) -> QuotaData<'_> {
    QuotaData {
        name: &quota.name,
        limit: quota.limit,
        used: quota.used,
        unit: quota.unit.as_str(),
        period: quota.period.as_str(),
        period_start: quota.span.map(|(start, _)| Time(start)),
        period_end: quota.span.map(|(_, end)| Time(end)),
        session_id: quota.session.map(Shown),
    }
}

fn data(event: &SessionEvent) -> Data<'_> {
    let realm = (!event.realm.is_empty()).then_some(&*event.realm);
    let user = event.user.as_deref();
    Data {
        session_id: Shown(event.session_id),
        sequence: event.sequence,
        continues: event.continues.map(Shown),
        source: &event.source,
        realm: realm.map(text),
        realm_base64: realm.and_then(not_utf8),
        user: user.map(text),
        user_base64: user.and_then(not_utf8),
        usernames: event.usernames.iter().map(|name| text(name)).collect(),
        labels: Labels(&event.labels),
        started_at: Time(event.started_at),
        ended_at: event.end.map(|end| Time(end.ended_at)),
        duration_ms: event.duration_ms,
        end_reason: event.end.map(|end| end.reason.as_str()),
        accuracy: event.end.map(|end| end.accuracy.as_str()),
        block_reason: event.block_reason.as_deref(),
        billable: event.billable.as_str(),
        usage: usage(&event.usage, event.peer_leg),
        usage_delta: usage(&event.usage_delta, event.peer_leg),
        allocations: event
            .allocations
            .iter()
            .map(|a| allocation(a, event.peer_leg))
            .collect(),
        allocations_omitted: event.allocations_omitted,
    }
}

fn allocation(a: &AllocationReport, peer_leg: bool) -> AllocationData<'_> {
    AllocationData {
        id: Shown(a.id),
        username: text(&a.username),
        username_base64: not_utf8(&a.username),
        opened_at: Time(a.opened_at),
        opened_seen: a.opened_seen,
        closed_at: a.closed.map(|(at, _)| Time(at)),
        close_reason: a.closed.map(|(_, reason)| reason.as_str()),
        totals_seen: a.totals_seen,
        server: a.server.as_deref().map(text),
        transport: a.transport.as_deref().map(text),
        server_address: a.server_address.as_deref().map(text),
        client_address: a.client_address.as_deref().map(text),
        tls: a.tls_version.as_deref().map(|version| Tls {
            version: text(version),
            cipher: a.tls_cipher.as_deref().map(text),
        }),
        usage: legs(&a.usage, peer_leg),
    }
}

fn usage(u: &Usage, peer_leg: bool) -> UsageData {
    let LegsData { client, peer } = legs(&u.legs, peer_leg);
    UsageData {
        client,
        peer,
        billable_bytes: u.billable_bytes,
    }
}

fn legs(legs: &Legs, peer_leg: bool) -> LegsData {
    LegsData {
        client: counters(&legs.client),
        peer: peer_leg.then(|| counters(&legs.peer)),
    }
}

fn counters(c: &Counters) -> CountersData {
    CountersData {
        received_packets: c.received_packets,
        received_bytes: c.received_bytes,
        sent_packets: c.sent_packets,
        sent_bytes: c.sent_bytes,
    }
}

fn text(bytes: &[u8]) -> Cow<'_, str> {
    String::from_utf8_lossy(bytes)
}

/// The bytes in base64 where they are not UTF-8, since their text is lossy then.
fn not_utf8(bytes: &[u8]) -> Option<String> {
    std::str::from_utf8(bytes)
        .is_err()
        .then(|| STANDARD.encode(bytes))
}

#[cfg(test)]
mod schema;
#[cfg(test)]
mod tests;
