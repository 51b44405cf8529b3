//! Rows of the store as JSON, in the words of the payload.

use serde_json::{Map, Number, Value, json};
use turnhook_reducer::{
    source::Gap,
    time::Timestamp,
    usage::{Counters, Usage},
};
use turnhook_store::{
    AuditEntry, DeliveryDetail, DeliveryRow, GapRow, SessionEventRow, SessionRow, Sums, UnattributedRow,
};

use crate::answer::rfc3339;

/// Numbers that a program may read as floating point are exact up to here; beyond, they are strings of digits.
const EXACT: u64 = (1 << 53) - 1;

pub(crate) fn number(n: u64) -> Value {
    if n <= EXACT {
        Value::Number(Number::from(n))
    } else {
        Value::String(n.to_string())
    }
}

pub(crate) fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

fn time(at: Option<Timestamp>) -> Value {
    at.map_or(Value::Null, |at| rfc3339(at).into())
}

pub(crate) fn counters(counters: &Counters) -> Value {
    json!({
        "received_packets": number(counters.received_packets),
        "received_bytes": number(counters.received_bytes),
        "sent_packets": number(counters.sent_packets),
        "sent_bytes": number(counters.sent_bytes),
    })
}

pub(crate) fn usage(usage: &Usage, peer_leg: bool) -> Value {
    json!({
        "client": counters(&usage.legs.client),
        "peer": peer_leg.then(|| counters(&usage.legs.peer)),
        "billable_bytes": number(usage.billable_bytes),
    })
}

pub(crate) fn sums(sums: &Sums) -> Value {
    json!({
        "sessions_started": number(sums.started),
        "sessions_ended": number(sums.ended),
        "lower_bound": number(sums.lower_bound),
        "duration_ms": number(sums.duration_ms),
        "usage": usage(&sums.usage, true),
    })
}

pub(crate) fn session(row: &SessionRow) -> Value {
    let labels: Map<String, Value> = row
        .labels
        .iter()
        .map(|(name, value)| (name.clone(), text(value).into()))
        .collect();
    json!({
        "session_id": row.id.to_string(),
        "continues": row.continues.map(|id| id.to_string()),
        "source": row.source,
        "realm": (!row.realm.is_empty()).then(|| text(&row.realm)),
        "user": row.user.as_deref().map(text),
        "usernames": row.usernames.iter().map(|name| text(name)).collect::<Vec<_>>(),
        "labels": labels,
        "started_at": rfc3339(row.started_at),
        "updated_at": rfc3339(row.updated_at),
        "ended_at": time(row.end.map(|(at, ..)| at)),
        "duration_ms": row.end.map(|(at, ..)| number(at.since(row.started_at))),
        "end_reason": row.end.map(|(_, reason, _)| reason.as_str()),
        "accuracy": row.end.map(|(.., accuracy)| accuracy.as_str()),
        "sequence": row.sequence,
        "allocations": number(row.allocations),
        "usage": usage(&row.usage, row.peer_leg),
    })
}

pub(crate) fn event(event: &SessionEventRow) -> Value {
    let deliveries: Map<String, Value> = event
        .deliveries
        .iter()
        .map(|(name, state)| (name.clone(), state.as_str().into()))
        .collect();
    json!({
        "webhook_id": event.event_id.to_string(),
        "type": event.event_type.as_str(),
        "sequence": event.sequence,
        "timestamp": rfc3339(event.timestamp),
        "deliveries": deliveries,
    })
}

pub(crate) fn gap(gap: &Gap) -> Value {
    json!({
        "from": rfc3339(gap.from),
        "to": rfc3339(gap.to),
        "reason": gap.reason.as_str(),
        "server": gap.server.as_deref().map(text),
    })
}

pub(crate) fn gap_row(row: &GapRow) -> Value {
    let mut object = gap(&row.gap);
    object["source"] = row.source.clone().into();
    object
}

pub(crate) fn unattributed(row: &UnattributedRow) -> Value {
    json!({
        "source": row.source,
        "at": rfc3339(row.at),
        "server": row.server.as_deref().map(text),
        "realm": text(&row.realm),
        "username": text(&row.username),
        "allocation": format!("{:018}", row.allocation.0),
        "opened_at": rfc3339(row.opened_at),
        "reason": row.reason,
        "usage": usage(&row.usage, true),
    })
}

pub(crate) fn delivery(row: &DeliveryRow) -> Value {
    json!({
        "webhook_id": row.event_id.to_string(),
        "endpoint": row.endpoint,
        "type": row.event_type.as_str(),
        "session_id": row.session().map(|id| id.to_string()),
        "user": row.user.as_deref().map(text),
        "sequence": row.session().map(|_| row.sequence),
        "timestamp": rfc3339(row.timestamp),
        "state": row.state.as_str(),
        "reason": row.reason,
        "attempts": row.attempts,
        "first_attempt_at": time(row.first_attempt_at),
        "next_attempt_at": time(row.next_attempt_at),
        "finished_at": time(row.finished_at),
        "replay": row.replay.map(|id| id.0),
    })
}

pub(crate) fn detail(detail: &DeliveryDetail) -> Value {
    let attempts: Vec<Value> = detail
        .attempts
        .iter()
        .map(|attempt| {
            json!({
                "number": attempt.number,
                "at": rfc3339(attempt.at),
                "latency_ms": attempt.latency_ms,
                "status": attempt.status,
                "error": attempt.error,
                "answer": attempt.answer.as_deref().map(text),
            })
        })
        .collect();
    let mut object = delivery(&detail.row);
    object["attempt_list"] = attempts.into();
    object
}

pub(crate) fn audit(entry: &AuditEntry) -> Value {
    json!({
        "id": entry.id,
        "at": rfc3339(entry.at),
        "who": entry.who,
        "action": entry.action,
        "target": entry.target,
        "detail": entry.detail,
        "count": number(entry.count),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn large_numbers_are_strings() {
        assert_eq!(number(9_007_199_254_740_991), json!(9_007_199_254_740_991u64));
        assert_eq!(number(9_007_199_254_740_992), json!("9007199254740992"));
        assert_eq!(number(u64::MAX), json!("18446744073709551615"));
    }
}
