#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use serde_json::json;

use super::*;
use crate::provider::kit::{self, Bench, EVT};

fn bench(options: &serde_json::Value) -> Bench {
    let meters = [
        ("turn_relay", "billable_bytes", "bytes"),
        ("turn_relay", "sessions", "sessions"),
    ];
    Bench::new(make, &meters, &["realm"], options).unwrap()
}

#[test]
fn a_batch() {
    let bench = bench(&json!({}));
    let request = bench.product.request(&bench.usage(), 1);
    assert_eq!(request.path, "/v1/ingest");
    assert_eq!(
        kit::json(&request),
        json!({"events": [{"idempotency_key": EVT, "event_name": "turn_relay", "external_customer_id": "cust_42",
            "timestamp": "2026-11-22T06:00:57.624Z",
            "properties": {"bytes": 540_000, "sessions": 0, "realm": "example.org"}}]})
    );
    let internal = self::bench(&json!({"customer_id": "internal"}));
    let event = &kit::json(&internal.product.request(&internal.usage(), 1))["events"][0];
    assert_eq!(
        (&event["customer_id"], event.get("external_customer_id")),
        (&json!("cust_42"), None)
    );
}

#[test]
fn p1_a_repeat_is_answered_like_the_first_time() {
    assert_eq!(
        bench(&json!({})).verdict(200, &[], r#"{"validation_failed":[]}"#),
        ItemVerdict::Delivered
    );
}

#[test]
fn p5_the_failed_are_named_by_key_and_the_others_may_have_been_taken() {
    let bench = bench(&json!({}));
    let items = bench.several(3);
    let body = r#"{"status":400,"validation_failed":[{"idempotency_key":"evt_1","validation_errors":["too old","and wrong"]}]}"#;
    assert_eq!(
        bench.answer(&items, 400, &[], body),
        Decoded::Each(vec![
            ItemVerdict::Uncertain(None),
            ItemVerdict::Rejected("refused by Orb: too old; and wrong".to_owned()),
            ItemVerdict::Uncertain(None),
        ])
    );
    assert!(!bench.product.terms().all_or_nothing);
}

#[test]
fn p10_a_known_key_with_another_body_is_found_by_halving() {
    let bench = bench(&json!({}));
    let body = r#"{"status":400,"validation_errors":["an idempotency_key was used with another body"]}"#;
    assert!(matches!(
        bench.answer(&bench.several(2), 400, &[], body),
        Decoded::Halve(why) if why.contains("another body")
    ));
}

#[test]
fn p4_twelve_hours_of_grace() {
    let bench = bench(&json!({}));
    let terms = bench.product.terms();
    assert_eq!(terms.oldest, Some(Duration::from_secs(12 * 3600)));
    assert_eq!(terms.window, Window::Forever);
}

#[test]
fn p7_who_is_attributed_later() {
    let of = |options| bench(&options).product.terms().customers;
    assert_eq!(of(json!({})), Customers::AttributedLater);
    assert_eq!(of(json!({"customer_id": "internal"})), Customers::Known);
}

#[test]
fn other_answers() {
    kit::common_answers(&bench(&json!({})));
}
