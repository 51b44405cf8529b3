#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use serde_json::json;

use turnhook_reducer::event::EventType;

use super::*;
use crate::provider::kit::{self, Bench, EVT, header};

fn bench(options: &Json) -> Bench {
    let meters = [("turn_relayed_bytes", "billable_bytes", "value")];
    Bench::new(make, &meters, &[], options).unwrap()
}

#[test]
fn a_meter_event_of_v1() {
    let bench = bench(&json!({}));
    let request = bench.product.request(&bench.usage(), 3);
    assert_eq!(request.path, "/v1/billing/meter_events");
    assert_eq!(request.content_type, "application/x-www-form-urlencoded");
    assert_eq!(
        String::from_utf8(request.body.clone()).unwrap(),
        "event_name=turn_relayed_bytes&identifier=evt_01m7zsyfmsq2sxgjxtfsxm0e7b&timestamp=1795327257\
         &payload[stripe_customer_id]=cust_42&payload[value]=540000"
    );
    assert_eq!(
        header(&request, "idempotency-key"),
        Some("evt_01m7zsyfmsq2sxgjxtfsxm0e7b.3")
    );
    assert_eq!(header(&request, "stripe-version"), None);
}

#[test]
fn a_meter_event_of_v2() {
    let bench = bench(&json!({"api": "v2", "customer_key": "customer", "value_key": "bytes"}));
    let request = bench.product.request(&bench.usage(), 1);
    assert_eq!(request.path, "/v2/billing/meter_events");
    assert_eq!(
        kit::json(&request),
        json!({"event_name": "turn_relayed_bytes", "identifier": EVT, "timestamp": "2026-11-22T06:00:57.624Z",
               "payload": {"customer": "cust_42", "bytes": "540000"}})
    );
    assert!(header(&request, "stripe-version").is_some());
}

#[test]
fn the_stream_takes_batches_for_a_token() {
    let bench = bench(&json!({"api": "stream"}));
    let items = bench.several(2);
    let request = bench.product.request(&items, 1);
    assert_eq!(
        request.path,
        "https://meter-events.stripe.com/v2/billing/meter_event_stream"
    );
    let events = kit::json(&request)["events"].as_array().cloned().unwrap();
    assert_eq!(
        events[1],
        json!({"event_name": "turn_relayed_bytes", "identifier": "evt_1", "timestamp": "2026-11-22T06:00:57.624Z",
               "payload": {"stripe_customer_id": "cust_42", "value": "540000"}})
    );
    let call = bench.product.token().unwrap();
    assert_eq!(call.request.path, "/v2/billing/meter_event_session");
    assert_eq!(bench.product.terms().batch, 100);
    assert_eq!(bench.verdict(200, &[], "{}"), ItemVerdict::Accepted);
    let expired = r#"{"error":{"code":"billing_meter_event_session_expired","message":"x"}}"#;
    assert_eq!(bench.verdict(401, &[], expired), ItemVerdict::Retry(None));
    assert!(self::bench(&json!({})).product.token().is_none());
    for wrong in [
        "http://example.com",
        "https://example.com/",
        "https://169.254.169.254",
        "here",
    ] {
        let options = json!({"api": "stream", "stream_url": wrong});
        assert!(Bench::new(make, &[], &[], &options).is_err(), "{wrong}");
    }
}

#[test]
fn a_customer_is_written_so_that_it_can_be_nothing_else() {
    let bench = bench(&json!({}));
    let items = bench
        .encode(&kit::event(EventType::Usage), "a&payload[value]=1 %é")
        .unwrap();
    let pairs: Vec<_> = url::form_urlencoded::parse(items[0].text.as_bytes()).collect();
    assert_eq!(pairs[3].1, "a&payload[value]=1 %é");
    assert_eq!(pairs[4], ("payload[value]".into(), "540000".into()));
    assert_eq!(pairs.len(), 5);
}

#[test]
fn each_meter_is_an_item_with_an_id_of_its_own() {
    let meters = [
        ("up", "client.received_bytes", "value"),
        ("down", "client.sent_bytes", "value"),
        ("sessions", "sessions", "value"),
    ];
    let bench = Bench::new(make, &meters, &["realm"], &json!({})).unwrap();
    let items = bench.usage();
    let ids: Vec<_> = items.iter().map(|item| item.id.clone()).collect();
    assert_eq!(ids, [EVT.to_owned(), format!("{EVT}.down")]);
    assert!(
        items[1]
            .text
            .ends_with("&payload[value]=271856&payload[realm]=example.org")
    );
}

#[test]
fn p1_a_repeat_is_known_by_its_words_or_its_code() {
    let bench = bench(&json!({}));
    // v1 has no code for it.
    let v1 = r#"{"error":{"message":"An event already exists with identifier evt_01m7zsyfmsq2sxgjxtfsxm0e7b.",
        "type":"invalid_request_error"}}"#;
    assert_eq!(
        bench.verdict(400, &["stripe-should-retry: false"], v1),
        ItemVerdict::Duplicate
    );
    let v2 = r#"{"error":{"code":"duplicate_meter_event","message":"known","type":"invalid_request_error"}}"#;
    assert_eq!(bench.verdict(400, &[], v2), ItemVerdict::Duplicate);
}

#[test]
fn p6_a_200_is_a_promise_and_says_what_to_watch() {
    let bench = bench(&json!({}));
    assert_eq!(bench.verdict(200, &[], "{}"), ItemVerdict::Accepted);
    assert!(
        bench
            .product
            .terms()
            .accepted
            .unwrap()
            .contains("error_report_triggered")
    );
}

#[test]
fn p4_bounds_and_a_clock_that_is_ahead() {
    let bench = bench(&json!({}));
    let old = r#"{"error":{"message":"The event timestamp cannot be more than 35 days in past. Expected a timestamp greater than or equal to 1758141836.","type":"invalid_request_error"}}"#;
    assert!(matches!(bench.verdict(400, &[], old), ItemVerdict::Rejected(why) if why.contains("35 days")));
    let ahead = r#"{"error":{"message":"The event timestamp cannot be more than 5 minutes in the future."}}"#;
    assert_eq!(bench.verdict(400, &[], ahead), ItemVerdict::TooEarly);
    let terms = bench.product.terms();
    assert_eq!(terms.oldest, Some(Duration::from_secs(35 * 86_400)));
    assert_eq!(terms.window, Window::For(Duration::from_secs(86_400)));
}

#[test]
fn p7_a_missing_meter_holds_the_endpoint_and_kills_nothing() {
    let bench = bench(&json!({}));
    for body in [
        r#"{"error":{"code":"no_meter","message":"x"}}"#,
        r#"{"error":{"code":"archived_meter","message":"x"}}"#,
        r#"{"error":{"code":"payload_no_customer_defined","message":"x"}}"#,
        r#"{"error":{"message":"No active meter found for event name x."}}"#,
    ] {
        assert!(
            matches!(bench.verdict(400, &[], body), ItemVerdict::Held(_)),
            "{body}"
        );
    }
    let value = r#"{"error":{"code":"payload_invalid_value","message":"x"}}"#;
    assert!(matches!(bench.verdict(400, &[], value), ItemVerdict::Rejected(_)));
    assert!(matches!(bench.verdict(400, &[], ""), ItemVerdict::Rejected(_)));
}

#[test]
fn p8_whole_numbers_of_fifteen_digits() {
    let bench = bench(&json!({}));
    let mut event = kit::event(EventType::Usage);
    event.usage_delta.billable_bytes = 999_999_999_999_999;
    let items = bench.encode(&event, "c").unwrap();
    assert!(items[0].text.ends_with("payload[value]=999999999999999"));
    event.usage_delta.billable_bytes += 1;
    assert!(bench.encode(&event, "c").unwrap_err().contains("15 digits"));
}

#[test]
fn p9_one_at_a_time_for_a_customer() {
    let bench = bench(&json!({}));
    assert_eq!(bench.product.terms().order, Order::Customer);
    assert_eq!(bench.product.terms().batch, 1);
    let busy = r#"{"error":{"code":"too_many_concurrent_requests","message":"x"}}"#;
    assert_eq!(bench.verdict(409, &[], busy), ItemVerdict::Busy);
    // Whichever way it is said, it is not the rate of all calls that was too high.
    let locked = r#"{"error":{"code":"lock_timeout","message":"x"}}"#;
    assert_eq!(bench.verdict(429, &[], busy), ItemVerdict::Busy);
    assert_eq!(bench.verdict(429, &[], locked), ItemVerdict::Busy);
    let rate = r#"{"error":{"code":"rate_limit","message":"x"}}"#;
    assert_eq!(bench.verdict(429, &[], rate), ItemVerdict::Retry(None));
}

#[test]
fn p10_a_key_that_was_used_for_something_else_is_tried_with_the_next() {
    let bench = bench(&json!({}));
    let used = r#"{"error":{"type":"idempotency_error","message":"Keys for idempotent requests can only be used with the same parameters"}}"#;
    assert_eq!(bench.verdict(400, &[], used), ItemVerdict::Retry(None));
    let again = r#"{"error":{"message":"try again"}}"#;
    assert_eq!(
        bench.verdict(400, &["stripe-should-retry: true"], again),
        ItemVerdict::Retry(None)
    );
}

#[test]
fn other_answers() {
    kit::common_answers(&bench(&json!({})));
}

#[test]
fn wrong_settings_are_named() {
    let long = "x".repeat(70);
    let both = [("up", "ingress", "value"), (long.as_str(), "egress", "value")];
    let error = Bench::new(make, &both, &[], &json!({})).err().unwrap();
    assert!(error.to_string().contains("longer than 69"), "{error}");
    assert!(Bench::new(make, &both[1..], &[], &json!({})).is_ok());
    let error = Bench::new(make, &[], &[], &json!({"apy": "v2"})).err().unwrap();
    assert!(error.to_string().contains("apy"), "{error}");
}
