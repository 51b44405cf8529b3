#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use serde_json::json;

use super::*;
use crate::provider::kit::{self, Bench, EVT};

/// Again at once, without those that are named.
const REST: ItemVerdict = ItemVerdict::Retry(None);

fn bench() -> Bench {
    let meters = [("turn_relay", "billable_bytes", "bytes")];
    Bench::new(make, &meters, &["session_id", "realm"], &json!({})).unwrap()
}

#[test]
fn a_batch() {
    let bench = bench();
    let request = bench.product.request(&bench.usage(), 1);
    assert_eq!(request.path, "/api/v1/events/batch");
    assert_eq!(request.content_type, "application/json");
    assert_eq!(
        kit::json(&request),
        json!({"events": [{"transaction_id": EVT, "external_subscription_id": "cust_42", "code": "turn_relay",
            "timestamp": "1795327257.624",
            "properties": {"bytes": 540_000, "session_id": "ses_01m7zsyfmsq2sxgjxtfsxm0e7b", "realm": "example.org"}}]})
    );
}

#[test]
fn p1_a_repeat_in_a_batch_fails_it_and_is_delivered() {
    let bench = bench();
    let items = bench.several(3);
    let body = r#"{"status":422,"code":"validation_errors","error_details":{"1":{"transaction_id":["value_already_exist"]}}}"#;
    assert_eq!(
        bench.answer(&items, 422, &[], body),
        Decoded::Each(vec![REST, ItemVerdict::Duplicate, REST])
    );
    // The answer to an event by itself is not by place, and cannot come here: it is halved down to one.
    let single = r#"{"status":422,"error_details":{"transaction_id":["value_already_exist"]}}"#;
    assert!(matches!(
        bench.answer(&items, 422, &[], single),
        Decoded::Halve(_)
    ));
}

#[test]
fn p5_one_bad_item_takes_no_neighbour_along() {
    let bench = bench();
    let items = bench.several(4);
    let body = r#"{"error_details":{"0":{"code":["value_is_mandatory"]},
        "2":{"transaction_id":["value_already_exist"],"code":["value_is_mandatory"]},
        "3":{"transaction_id":["value_already_exist"]}}}"#;
    let Decoded::Each(verdicts) = bench.answer(&items, 422, &[], body) else {
        panic!()
    };
    assert!(matches!(&verdicts[0], ItemVerdict::Rejected(why) if why.contains("value_is_mandatory")));
    assert_eq!(verdicts[1], REST);
    assert!(
        matches!(verdicts[2], ItemVerdict::Rejected(_)),
        "more than a repeat"
    );
    assert_eq!(verdicts[3], ItemVerdict::Duplicate);
    let many = r#"{"error_details":{"events":["too_many_events"]}}"#;
    assert!(matches!(bench.answer(&items, 422, &[], many), Decoded::Halve(_)));
    assert!(bench.product.terms().all_or_nothing);
}

#[test]
fn p6_what_matches_nothing_is_taken_as_well() {
    let bench = bench();
    assert_eq!(bench.verdict(200, &[], r#"{"events":[]}"#), ItemVerdict::Accepted);
    assert!(bench.product.terms().accepted.unwrap().contains("events.errors"));
}

#[test]
fn p4_the_time_is_a_part_of_the_key_for_some() {
    let terms = bench();
    let terms = terms.product.terms();
    assert!(terms.time_in_key);
    assert_eq!((terms.oldest, terms.window), (None, Window::Forever));
}

#[test]
fn a_limit_names_its_end_in_a_header_of_its_own() {
    let second = Some(Duration::from_secs(1));
    let bench = bench();
    assert_eq!(
        bench.verdict(429, &["x-ratelimit-reset: 1"], ""),
        ItemVerdict::Retry(second)
    );
    assert_eq!(
        bench.verdict(429, &["x-ratelimit-reset: soon"], ""),
        ItemVerdict::Retry(None)
    );
}

#[test]
fn other_answers() {
    kit::common_answers(&bench());
}
