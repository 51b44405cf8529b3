//! A delivery as it is shown.

use serde_json::{Value, json};
use turnhook_admin::Zone;
use turnhook_dispatcher::{body::rfc3339, clock::wall_clock};
use turnhook_store::DeliveryRow;

use crate::cli::running::Running;

pub(super) fn to_json(row: &DeliveryRow, running: &Running) -> Value {
    json!({
        "webhook_id": row.event_id.to_string(),
        "endpoint": row.endpoint,
        "type": row.event_type.as_str(),
        "session_id": row.session().map(|id| id.to_string()),
        "sequence": row.session().map(|_| row.sequence),
        "user": row.user.as_deref().map(String::from_utf8_lossy),
        "timestamp": rfc3339(row.timestamp),
        "state": row.state.as_str(),
        "attempts": row.attempts,
        "first_attempt_at": row.first_attempt_at.map(rfc3339),
        "next_attempt_at": running.next_attempt(row, wall_clock()).map(rfc3339),
        "finished_at": row.finished_at.map(rfc3339),
        "reason": row.reason,
        "replay": row.replay.map(|replay| replay.0),
    })
}

/// When a delivery is tried next, for people; empty where it is over.
pub(super) fn next_attempt(row: &DeliveryRow, running: &Running, zone: &Zone) -> String {
    let now = wall_clock();
    match (row.next_attempt_at, running.next_attempt(row, now)) {
        (None, _) => String::new(),
        (Some(_), None) => "when resumed".to_owned(),
        (Some(_), Some(at)) if at <= now => "now".to_owned(),
        (Some(_), Some(at)) => zone.show(at),
    }
}
