//! A webhook, as a person or a program reads it.

use std::fmt::Write as _;

use axum::body::Bytes;
use serde::Serialize;
use serde_json::{Value, value::RawValue};
use turnhook_dispatcher::{body::rfc3339, signature::VerifyError};
use turnhook_reducer::time::Timestamp;

use crate::{
    cli::units::{bytes, duration},
    text::Untrusted,
};

/// One request, and what was found of it.
pub(super) struct Received {
    pub(super) at: Timestamp,
    pub(super) id: String,
    pub(super) timestamp: String,
    pub(super) body: Bytes,
    pub(super) verified: Result<(), VerifyError>,
}

/// One line of JSON.
pub(super) fn json(received: &Received) -> String {
    #[derive(Serialize)]
    struct Line<'a> {
        received_at: String,
        verified: bool,
        #[serde(skip_serializing_if = "Option::is_none")]
        error: Option<String>,
        webhook_id: &'a str,
        webhook_timestamp: &'a str,
        body: Body<'a>,
    }
    #[derive(Serialize)]
    #[serde(untagged)]
    enum Body<'a> {
        /// As it came, to the byte.
        Json(&'a RawValue),
        /// Broken over lines, or no JSON at all: as a string.
        Text(String),
    }
    let text = String::from_utf8_lossy(&received.body);
    let body = match serde_json::from_str::<&RawValue>(&text) {
        Ok(raw) if !raw.get().contains('\n') => Body::Json(raw),
        _ => Body::Text(text.to_string()),
    };
    let line = Line {
        received_at: rfc3339(received.at),
        verified: received.verified.is_ok(),
        error: received.verified.err().map(|error| error.to_string()),
        webhook_id: &received.id,
        webhook_timestamp: &received.timestamp,
        body,
    };
    // Strings and checked JSON: this cannot fail.
    serde_json::to_string(&line).unwrap_or_default() + "\n"
}

/// A line or two for people.
pub(super) fn text(received: &Received) -> String {
    let time = rfc3339(received.at);
    let clock = time.get(11..19).unwrap_or_default();
    let body: Value = serde_json::from_slice(&received.body).unwrap_or_default();
    let data = &body["data"];
    let word = |value: &Value| value.as_str().map(visible);
    let kind = word(&body["type"]).unwrap_or_else(|| "(no type)".to_owned());
    let mut line = format!("{clock}  {kind:<13}");
    if let Some(session) = word(&data["session_id"]) {
        let user = word(&data["user"]).unwrap_or_else(|| "-".to_owned());
        let _ = write!(line, "  {user:<12}  {session} #{}", data["sequence"]);
        let usage = &data["usage"]["client"];
        let number = |value: &Value| value.as_u64().unwrap_or_default();
        match kind.as_str() {
            "session.start" => {
                let _ = write!(line, "  source {}", word(&data["source"]).unwrap_or_default());
            }
            _ => {
                let _ = write!(
                    line,
                    "  received {}, sent {}, billable {}",
                    bytes(number(&usage["received_bytes"])),
                    bytes(number(&usage["sent_bytes"])),
                    bytes(number(&data["usage"]["billable_bytes"])),
                );
            }
        }
        if kind == "session.end" {
            let _ = write!(
                line,
                "; {} in {}, {}",
                word(&data["end_reason"]).unwrap_or_default(),
                duration(number(&data["duration_ms"])),
                word(&data["accuracy"]).unwrap_or_default(),
            );
        }
    }
    if data["all_realms"].is_boolean() {
        let _ = write!(line, "  {}", of_user(data));
    }
    match received.verified {
        Ok(()) => line.push_str("  [verified]\n"),
        Err(error) => {
            let _ = writeln!(line, "  [REFUSED: {error}]");
        }
    }
    line
}

/// An event of a user.
fn of_user(data: &Value) -> String {
    let word = |value: &Value| value.as_str().map(visible);
    let mut said = format!("{:<12}", word(&data["user"]).unwrap_or_else(|| "-".to_owned()));
    match word(&data["realm"]) {
        _ if data["all_realms"] == true => said.push_str("  in all realms"),
        Some(realm) => said = format!("{said}  in {realm}"),
        None => {}
    }
    for (name, value) in [
        ("", &data["reason"]),
        ("by ", &data["by"]),
        ("until ", &data["until"]),
    ] {
        if let Some(value) = word(value) {
            let _ = write!(said, "; {name}{value}");
        }
    }
    said
}

/// What a sender wrote, without what a terminal would obey.
fn visible(text: &str) -> String {
    Untrusted::from(text).to_string()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use turnhook_dispatcher::signature::VerifyError;
    use turnhook_reducer::time::Timestamp;

    use super::*;

    fn received(body: &str, verified: Result<(), VerifyError>) -> Received {
        Received {
            at: Timestamp(1_795_327_257_624),
            id: "evt_1".to_owned(),
            timestamp: "1795327257".to_owned(),
            body: body.to_owned().into(),
            verified,
        }
    }

    const BLOCKED: &str = r#"{"type":"user.blocked","data":{"user":"cust_42","realm":"r\u001b[2J","all_realms":false,"until":null,"reason":"balance","by":"otto","quota":null}}"#;
    const END: &str = r#"{"type":"session.end","data":{"session_id":"ses_1","sequence":3,"source":"eu-1","user":"cust_42","duration_ms":18351,"end_reason":"closed","accuracy":"exact","usage":{"client":{"received_bytes":272620,"sent_bytes":271856},"billable_bytes":540000}}}"#;

    #[test]
    fn an_end_for_people() {
        assert_eq!(
            text(&received(END, Ok(()))),
            "06:00:57  session.end    cust_42       ses_1 #3  received 272.6 kB, sent 271.9 kB, billable 540.0 kB; closed in 18.3 s, exact  [verified]\n"
        );
    }

    #[test]
    fn a_blocked_user_is_shown_for_people() {
        let shown = text(&received(BLOCKED, Ok(())));
        assert_eq!(
            shown,
            format!(
                "06:00:57  user.blocked   cust_42       in {}; balance; by otto  [verified]\n",
                visible("r\u{1b}[2J")
            )
        );
        assert!(!shown.contains('\u{1b}'), "{shown}");
    }

    #[test]
    fn what_does_not_verify_stands_out_and_cannot_write_to_the_terminal() {
        let shown = text(&received(r#"{"type":"\u001b[2Jx"}"#, Err(VerifyError::Signature)));
        assert!(shown.contains("[REFUSED: no signature"), "{shown}");
        assert!(!shown.contains('\u{1b}'), "{shown}");
    }

    #[test]
    fn json_keeps_the_body_to_the_byte() {
        let odd = r#"{"a": 1.0,  "b":18446744073709551615}"#;
        let line = json(&received(odd, Ok(())));
        assert!(line.contains(odd), "{line}");
        for body in ["not json \"", "{\n}", ""] {
            let line = json(&received(body, Err(VerifyError::Timestamp)));
            assert_eq!(line.matches('\n').count(), 1, "{line}");
            let value: Value = serde_json::from_str(&line).unwrap();
            assert_eq!(value["body"], body);
            assert_eq!(value["verified"], false);
        }
    }
}
