#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use serde_json::json;

use turnhook_reducer::event::EventType;

use super::{super::product::Customers, *};
use crate::provider::kit::{self, Bench, EVT};

/// Again at once, without those that are named.
const REST: ItemVerdict = ItemVerdict::Retry(None);

fn bench(options: &Json) -> Bench {
    let meters = [("turn_relay", "billable_bytes", "bytes")];
    Bench::new(make, &meters, &["realm"], options).unwrap()
}

#[test]
fn a_batch() {
    let bench = bench(&json!({}));
    let request = bench.product.request(&bench.usage(), 1);
    assert_eq!(request.path, "/v1/events/ingest");
    assert_eq!(
        kit::json(&request),
        json!({"events": [{"external_id": EVT, "name": "turn_relay", "external_customer_id": "cust_42",
            "timestamp": "2026-11-22T06:00:57.624Z", "metadata": {"bytes": 540_000, "realm": "example.org"}}]})
    );
}

#[test]
fn p1_how_many_were_known_is_said_and_not_which() {
    let bench = bench(&json!({}));
    let items = bench.several(2);
    for (duplicates, verdict) in [
        (0, ItemVerdict::Delivered),
        (1, ItemVerdict::Delivered),
        (2, ItemVerdict::Duplicate),
    ] {
        let body = format!(r#"{{"inserted":{},"duplicates":{duplicates}}}"#, 2 - duplicates);
        assert_eq!(
            bench.answer(&items, 200, &[], &body),
            Decoded::all(verdict, &items)
        );
    }
}

#[test]
fn p11_a_clock_that_is_ahead_is_waited_for() {
    let bench = bench(&json!({}));
    let body = r#"{"error":"RequestValidationError","detail":[
        {"loc":["body","events",1,"EventCreateCustomer","customer_id"],"msg":"Field required"},
        {"loc":["body","events",1,"EventCreateExternalCustomer","timestamp"],"msg":"Timestamp must be in the past."}]}"#;
    assert_eq!(
        bench.answer(&bench.several(3), 422, &[], body),
        Decoded::Each(vec![REST, ItemVerdict::TooEarly, REST])
    );
    assert_eq!(bench.product.terms().future, Some(Duration::ZERO));
}

#[test]
fn p5_the_fault_is_named_by_its_place() {
    let bench = bench(&json!({}));
    let body = r#"{"detail":[{"loc":["body","events",0,"metadata","realm"],"msg":"String should have at most 500 characters","type":"x"}]}"#;
    assert_eq!(
        bench.answer(&bench.several(2), 422, &[], body),
        Decoded::Each(vec![
            ItemVerdict::Rejected("refused by Polar: String should have at most 500 characters".to_owned()),
            REST
        ])
    );
    let whole = r#"{"detail":[{"loc":["body"],"msg":"not JSON"}]}"#;
    assert!(matches!(
        bench.answer(&bench.several(2), 422, &[], whole),
        Decoded::Halve(_)
    ));
}

#[test]
fn p8_nothing_longer_than_it_takes() {
    let bench = bench(&json!({}));
    let mut event = kit::event(EventType::Usage);
    event.realm = Some("x".repeat(501));
    assert!(bench.encode(&event, "c").unwrap_err().contains("realm"));
    event.realm = None;
    assert!(
        bench.encode(&event, "c").unwrap()[0]
            .text
            .contains(r#""metadata":{"bytes":540000}"#)
    );
    let long = "m".repeat(129);
    let error = Bench::new(make, &[(&long, "egress", "v")], &[], &json!({}))
        .err()
        .unwrap();
    assert!(error.to_string().contains("128 characters"), "{error}");
}

#[test]
fn p7_internal_customers_must_exist() {
    let internal = bench(&json!({"customer_id": "internal"}));
    assert_eq!(internal.product.terms().customers, Customers::Known);
    assert!(internal.usage()[0].text.contains(r#""customer_id":"cust_42""#));
}

#[test]
fn other_answers() {
    kit::common_answers(&bench(&json!({})));
}
