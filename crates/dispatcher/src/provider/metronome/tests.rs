#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use serde_json::json;

use turnhook_reducer::event::EventType;

use super::*;
use crate::provider::kit::{self, Bench, EVT};

fn bench() -> Bench {
    let meters = [
        ("turn_relay", "billable_bytes", "bytes"),
        ("turn_relay", "sessions", "sessions"),
    ];
    Bench::new(make, &meters, &["realm"], &json!({})).unwrap()
}

#[test]
fn a_batch_is_a_bare_array() {
    let bench = bench();
    let request = bench.product.request(&bench.usage(), 1);
    assert_eq!(request.path, "/v1/ingest");
    assert_eq!(
        kit::json(&request),
        json!([{"transaction_id": EVT, "customer_id": "cust_42", "event_type": "turn_relay",
            "timestamp": "2026-11-22T06:00:57.624Z",
            "properties": {"bytes": "540000", "sessions": "0", "realm": "example.org"}}])
    );
}

#[test]
fn p5_a_refusal_without_a_name_is_halved() {
    let bench = bench();
    let body = r#"{"message":"timestamp is more than 34 days ago"}"#;
    assert!(matches!(
        bench.answer(&bench.several(4), 400, &[], body),
        Decoded::Halve(why) if why.contains("34 days")
    ));
    assert!(bench.product.terms().all_or_nothing);
}

#[test]
fn p2_it_forgets_after_34_days_and_takes_no_older() {
    let bench = bench();
    let terms = bench.product.terms();
    let days = Duration::from_secs(34 * 86_400);
    assert_eq!((terms.window, terms.oldest), (Window::For(days), Some(days)));
    assert_eq!(terms.future, Some(Duration::from_secs(86_400)));
    assert_eq!(bench.verdict(200, &[], ""), ItemVerdict::Accepted);
}

#[test]
fn p8_every_value_is_a_string_and_none_is_too_long() {
    let bench = bench();
    let mut event = kit::event(EventType::Usage);
    event.usage_delta.billable_bytes = u64::MAX;
    let items = bench.encode(&event, "c").unwrap();
    assert!(items[0].text.contains(r#""bytes":"18446744073709551615""#));
    event.realm = Some("x".repeat(257));
    assert!(
        bench
            .encode(&event, "c")
            .unwrap_err()
            .contains("realm has 257 bytes")
    );
}

#[test]
fn other_answers() {
    kit::common_answers(&bench());
}
