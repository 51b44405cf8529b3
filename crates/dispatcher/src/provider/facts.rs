//! What of an event a product may be sent, read from the payload that was written down with it.

use std::{collections::BTreeMap, str::FromStr};

use bytes::Bytes;
use serde::Deserialize;
use serde_json::value::RawValue;
use turnhook_reducer::{event::EventType, time::Timestamp};

/// An event, as encoders need it. Of a user's event, which is of no session, much is empty.
#[derive(Clone, Debug)]
pub struct Facts {
    /// `evt_…`.
    pub id: String,
    /// Its type.
    pub event_type: EventType,
    /// When it was decided.
    pub timestamp: Timestamp,
    /// `ses_…`.
    pub session_id: String,
    /// Its number in the session.
    pub sequence: u32,
    /// The session that its session corrects.
    pub continues: Option<String>,
    /// The source's name.
    pub source: String,
    /// The realm, lossily where it is not UTF-8.
    pub realm: Option<String>,
    /// The user, lossily where it is not UTF-8.
    pub user: Option<String>,
    /// By name.
    pub labels: BTreeMap<String, String>,
    /// When its session began.
    pub started_at: Timestamp,
    /// When its session ended; only in an end.
    pub ended_at: Option<Timestamp>,
    /// How long it lasted so far; not in a start.
    pub duration_ms: Option<u64>,
    /// Only in an end.
    pub end_reason: Option<String>,
    /// Only in an end.
    pub accuracy: Option<String>,
    /// The rule that made `billable_bytes`.
    pub billable: String,
    /// Since the session's start.
    pub usage: Totals,
    /// Since the session's previous event.
    pub usage_delta: Totals,
    /// The payload.
    pub(super) body: Bytes,
}

/// Counters of both legs.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
pub struct Totals {
    /// Between client and coturn.
    pub client: Leg,
    /// Between coturn and peers; `None` where coturn does not report it.
    pub peer: Option<Leg>,
    /// What is billed, by the `billable` rule.
    pub billable_bytes: u64,
}

/// Counters of one leg, as coturn counts.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
pub struct Leg {
    /// Packets received by coturn.
    pub received_packets: u64,
    /// Bytes received by coturn.
    pub received_bytes: u64,
    /// Packets sent by coturn.
    pub sent_packets: u64,
    /// Bytes sent by coturn.
    pub sent_bytes: u64,
}

#[derive(Deserialize)]
struct Envelope<'a, D> {
    r#type: &'a str,
    timestamp: &'a str,
    data: D,
}

/// How the payload of a session's event begins: so it is read once, and not first for its type alone.
const OF_SESSION: &[u8] = br#"{"type":"session."#;

#[derive(Deserialize)]
struct Data {
    session_id: String,
    sequence: u32,
    continues: Option<String>,
    source: String,
    realm: Option<String>,
    user: Option<String>,
    labels: BTreeMap<String, String>,
    started_at: String,
    ended_at: Option<String>,
    duration_ms: Option<u64>,
    end_reason: Option<String>,
    accuracy: Option<String>,
    // Payloads of before did not name the rule.
    #[serde(default)]
    billable: String,
    usage: Totals,
    usage_delta: Totals,
}

#[derive(Deserialize)]
struct UserData {
    realm: Option<String>,
    user: String,
}

impl Facts {
    /// Reads the payload of the event `id`.
    ///
    /// # Errors
    /// What of it cannot be read.
    pub fn read(id: &str, body: &Bytes) -> Result<Facts, String> {
        let wrong = |error: serde_json::Error| format!("the payload of {id} cannot be read: {error}");
        if body.starts_with(OF_SESSION) {
            let envelope: Envelope<'_, Data> = serde_json::from_slice(body).map_err(wrong)?;
            let event_type = event_type(id, envelope.r#type)?;
            return Facts::of_session(id, event_type, envelope.timestamp, envelope.data, body);
        }
        let envelope: Envelope<'_, &RawValue> = serde_json::from_slice(body).map_err(wrong)?;
        let (event_type, data) = (event_type(id, envelope.r#type)?, envelope.data.get());
        if event_type.is_of_session() {
            let data = serde_json::from_str(data).map_err(wrong)?;
            return Facts::of_session(id, event_type, envelope.timestamp, data, body);
        }
        let data: UserData = serde_json::from_str(data).map_err(wrong)?;
        let at = time(id, envelope.timestamp)?;
        Ok(Facts::of_user(id, event_type, at, data, body))
    }

    /// The payload's `data`, as it stands there: JSON.
    ///
    /// # Errors
    /// If the payload cannot be read any more.
    pub fn data(&self) -> Result<&RawValue, String> {
        let envelope: Result<Envelope<'_, &RawValue>, _> = serde_json::from_slice(&self.body);
        envelope
            .map(|envelope| envelope.data)
            .map_err(|error| error.to_string())
    }

    fn of_session(
        id: &str,
        event_type: EventType,
        timestamp: &str,
        data: Data,
        body: &Bytes,
    ) -> Result<Facts, String> {
        let time = |text: &str| time(id, text);
        Ok(Facts {
            id: id.to_owned(),
            event_type,
            timestamp: time(timestamp)?,
            session_id: data.session_id,
            sequence: data.sequence,
            continues: data.continues,
            source: data.source,
            realm: data.realm,
            user: data.user,
            labels: data.labels,
            started_at: time(&data.started_at)?,
            ended_at: data.ended_at.as_deref().map(time).transpose()?,
            duration_ms: data.duration_ms,
            end_reason: data.end_reason,
            accuracy: data.accuracy,
            billable: data.billable,
            usage: data.usage,
            usage_delta: data.usage_delta,
            body: body.clone(),
        })
    }
}

impl Facts {
    fn of_user(id: &str, event_type: EventType, at: Timestamp, user: UserData, body: &Bytes) -> Facts {
        Facts {
            id: id.to_owned(),
            event_type,
            timestamp: at,
            session_id: String::new(),
            sequence: 0,
            continues: None,
            source: String::new(),
            realm: user.realm,
            user: Some(user.user),
            labels: BTreeMap::new(),
            started_at: at,
            ended_at: None,
            duration_ms: None,
            end_reason: None,
            accuracy: None,
            billable: String::new(),
            usage: Totals::default(),
            usage_delta: Totals::default(),
            body: body.clone(),
        }
    }
}

fn event_type(id: &str, name: &str) -> Result<EventType, String> {
    EventType::from_name(name).ok_or_else(|| format!("{id} is a {name}, which is nothing to bill"))
}

fn time(id: &str, text: &str) -> Result<Timestamp, String> {
    let ms = jiff::Timestamp::from_str(text)
        .ok()
        .map(|time| time.as_millisecond());
    let ms = ms.and_then(|ms| u64::try_from(ms).ok());
    ms.map(Timestamp)
        .ok_or_else(|| format!("{id} has no time: {text:?}"))
}
