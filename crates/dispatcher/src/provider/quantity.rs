//! How much an event comes to.

use std::{fmt, str::FromStr};

use serde_json::Value as Json;
use turnhook_reducer::event::EventType;

use super::{
    Facts,
    facts::{Leg, Totals},
};

/// Which usage is counted: one or the other, never both.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Count {
    /// `usage_delta` of every event.
    #[default]
    Delta,
    /// `usage` of the end.
    End,
}

/// What is billed under which name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Meter {
    /// What the product calls it: its event's name, type or code.
    pub event: String,
    /// What is counted.
    pub value: Value,
    /// The property that holds it; by default the value's name with `_` for `.`.
    pub property: String,
}

impl Meter {
    /// With the property's default name.
    #[must_use]
    pub fn new(event: &str, value: Value) -> Meter {
        Meter {
            event: event.to_owned(),
            value,
            property: value.to_string().replace('.', "_"),
        }
    }
}

/// What is counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Value {
    /// `billable_bytes`.
    Billable,
    /// A counter of the client's leg.
    Client(Counter),
    /// A counter of the peers' leg.
    Peer(Counter),
    /// Client sent plus peer sent.
    Egress,
    /// Client received plus peer received.
    Ingress,
    /// 1 for each session that corrects no other.
    Sessions,
    /// How long the session lasted, given with its end, in whole seconds, rounded up.
    Seconds,
}

/// One of a leg's four counters.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Counter {
    /// Bytes received by coturn.
    ReceivedBytes,
    /// Bytes sent by coturn.
    SentBytes,
    /// Packets received by coturn.
    ReceivedPackets,
    /// Packets sent by coturn.
    SentPackets,
}

/// By name, as in the configuration.
const VALUES: [(&str, Value); 13] = [
    ("billable_bytes", Value::Billable),
    ("client.received_bytes", Value::Client(Counter::ReceivedBytes)),
    ("client.sent_bytes", Value::Client(Counter::SentBytes)),
    ("client.received_packets", Value::Client(Counter::ReceivedPackets)),
    ("client.sent_packets", Value::Client(Counter::SentPackets)),
    ("peer.received_bytes", Value::Peer(Counter::ReceivedBytes)),
    ("peer.sent_bytes", Value::Peer(Counter::SentBytes)),
    ("peer.received_packets", Value::Peer(Counter::ReceivedPackets)),
    ("peer.sent_packets", Value::Peer(Counter::SentPackets)),
    ("egress", Value::Egress),
    ("ingress", Value::Ingress),
    ("sessions", Value::Sessions),
    ("duration_s", Value::Seconds),
];

impl fmt::Display for Value {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = VALUES.iter().find(|(_, value)| value == self);
        f.write_str(name.map_or("", |(name, _)| name))
    }
}

impl FromStr for Value {
    type Err = String;

    fn from_str(text: &str) -> Result<Value, String> {
        let known = VALUES.iter().find(|(name, _)| *name == text);
        known.map(|(_, value)| *value).ok_or_else(|| {
            let names: Vec<&str> = VALUES.iter().map(|(name, _)| *name).collect();
            format!("`{text}` cannot be counted; choose {}", names.join(", "))
        })
    }
}

impl Value {
    /// What an event comes to.
    #[must_use]
    pub fn of(self, event: &Facts, count: Count) -> u64 {
        let totals = match count {
            Count::Delta => &event.usage_delta,
            Count::End if event.event_type == EventType::End => &event.usage,
            Count::End => &Totals::default(),
        };
        let peer = totals.peer.unwrap_or_default();
        match self {
            Value::Billable => totals.billable_bytes,
            Value::Client(counter) => counter.of(&totals.client),
            Value::Peer(counter) => counter.of(&peer),
            Value::Egress => totals.client.sent_bytes.saturating_add(peer.sent_bytes),
            Value::Ingress => totals.client.received_bytes.saturating_add(peer.received_bytes),
            Value::Sessions => {
                let counted_with = match count {
                    Count::Delta => EventType::Start,
                    Count::End => EventType::End,
                };
                u64::from(event.event_type == counted_with && event.continues.is_none())
            }
            Value::Seconds if event.event_type == EventType::End => {
                event.duration_ms.unwrap_or_default().div_ceil(1000)
            }
            Value::Seconds => 0,
        }
    }
}

impl Counter {
    fn of(self, leg: &Leg) -> u64 {
        match self {
            Counter::ReceivedBytes => leg.received_bytes,
            Counter::SentBytes => leg.sent_bytes,
            Counter::ReceivedPackets => leg.received_packets,
            Counter::SentPackets => leg.sent_packets,
        }
    }
}

/// The properties that may be sent of an event, beside `label.NAME`.
pub const PROPERTIES: [&str; 9] = [
    "session_id",
    "sequence",
    "type",
    "source",
    "realm",
    "user",
    "continues",
    "end_reason",
    "accuracy",
];

/// Those sent by default.
pub const USUAL: [&str; 4] = ["session_id", "sequence", "source", "realm"];

/// One of an event's properties by its configured name: the name that it is sent under, and its value. `None` where
/// the event has none.
#[must_use]
pub fn property(event: &Facts, name: &str) -> Option<(String, Json)> {
    let text = |text: Option<&str>| text.filter(|text| !text.is_empty()).map(Json::from);
    let value = match name {
        "session_id" => text(Some(&event.session_id)),
        "sequence" => Some(Json::from(event.sequence)),
        "type" => text(Some(event.event_type.as_str())),
        "source" => text(Some(&event.source)),
        "realm" => text(event.realm.as_deref()),
        "user" => text(event.user.as_deref()),
        "continues" => text(event.continues.as_deref()),
        "end_reason" => text(event.end_reason.as_deref()),
        "accuracy" => text(event.accuracy.as_deref()),
        _ => {
            let label = name.strip_prefix("label.")?;
            let value = text(event.labels.get(label).map(String::as_str))?;
            return Some((format!("label_{label}"), value));
        }
    };
    value.map(|value| (name.to_owned(), value))
}
