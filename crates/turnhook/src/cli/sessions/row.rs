//! A session as it is shown, in the words of the payload.

use ::base64::{Engine as _, engine::general_purpose::STANDARD};
use serde_json::{Value, json};
use turnhook_dispatcher::body::rfc3339;
use turnhook_reducer::usage::{Counters, Usage};
use turnhook_store::SessionRow;

fn counters(counters: &Counters) -> Value {
    json!({
        "received_packets": counters.received_packets,
        "received_bytes": counters.received_bytes,
        "sent_packets": counters.sent_packets,
        "sent_bytes": counters.sent_bytes,
    })
}

/// In the words of the payload.
pub(in super::super) fn usage_json(usage: &Usage, peer_leg: bool) -> Value {
    json!({
        "client": counters(&usage.legs.client),
        "peer": peer_leg.then(|| counters(&usage.legs.peer)),
        "billable_bytes": usage.billable_bytes,
    })
}

/// The bytes of a name in base64 where its text is not all of it: as in the payload.
pub(in super::super) fn base64(name: &[u8]) -> Option<String> {
    std::str::from_utf8(name).is_err().then(|| STANDARD.encode(name))
}

/// In the words of the payload.
pub(super) fn to_json(row: &SessionRow) -> Value {
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    json!({
        "session_id": row.id.to_string(),
        "continues": row.continues.map(|id| id.to_string()),
        "source": row.source,
        "realm": (!row.realm.is_empty()).then(|| text(&row.realm)),
        "realm_base64": base64(&row.realm),
        "user": row.user.as_deref().map(text),
        "user_base64": row.user.as_deref().and_then(base64),
        "usernames": row.usernames.iter().map(|name| text(name)).collect::<Vec<_>>(),
        "labels": row.labels.iter().map(|(name, value)| (name.clone(), text(value).into())).collect::<serde_json::Map<String, Value>>(),
        "started_at": rfc3339(row.started_at),
        "updated_at": rfc3339(row.updated_at),
        "ended_at": row.end.map(|(at, ..)| rfc3339(at)),
        "duration_ms": row.end.map(|(at, ..)| at.since(row.started_at)),
        "end_reason": row.end.map(|(_, reason, _)| reason.as_str()),
        "accuracy": row.end.map(|(_, _, accuracy)| accuracy.as_str()),
        "sequence": row.sequence,
        "allocations": row.allocations,
        "usage": usage_json(&row.usage, row.peer_leg),
    })
}
