#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use serde_json::json;
use turnhook_reducer::event::EventType;

use std::time::Duration;

use super::{
    super::product::{ItemVerdict, Order},
    *,
};
use crate::provider::kit::{self, Bench, CUSTOMER, EVT, header};

const METER: [(&str, &str, &str); 1] = [("turn_relay", "billable_bytes", "bytes")];

fn bench(options: &Json) -> Bench {
    made(options).unwrap()
}

fn made(options: &Json) -> Result<Bench, Wrong> {
    Bench::new(make, &METER, &["realm"], options)
}

#[track_caller]
fn refused(options: &Json) -> String {
    made(options).err().expect("it was taken").to_string()
}

#[test]
fn an_item_is_what_its_template_says() {
    let bench = bench(&json!({
        "path": "/usage/{{ customer }}",
        "headers": {"Idempotency-Key": "{{ id }}.{{ attempt }}"},
        "item": r#"{"id": {{ id }}, "n": {{ value }}, "gb": {{ value|scale(9) }}, "gb_text": {{ value|scale(9)|text }},
            "s": {{ at|unix }}, "ms": {{ at|unix_ms }}, "t": {{ at|rfc3339 }}, "lago": {{ at|scale(3)|text }},
            "all": {{ fields }}, "texts": {{ fields|texts }}, "type": {{ type }}, "of": {{ event }},
            "session": {{ data.session_id }}, "key": {{ (source if source is defined else "none") if false else "k"|b64 }},
            "hash": {{ "x"|sha256 }}, "label": {{ data.labels.tenant|default("nobody") }}}"#,
        "window": "24h", "oldest": "35d", "future": "5m", "order": "customer", "customers": "later",
    }));
    let request = bench.product.request(&bench.usage(), 4);
    assert_eq!(request.path, format!("/usage/{CUSTOMER}"));
    assert_eq!(
        header(&request, "idempotency-key"),
        Some(format!("{EVT}.4").as_str())
    );
    assert_eq!(request.content_type, "application/json");
    let text = String::from_utf8(request.body.clone()).unwrap();
    assert!(text.contains(r#""gb": 0.00054, "gb_text": "0.00054""#), "{text}");
    let body = kit::json(&request);
    assert_eq!(body["all"], json!({"bytes": 540_000, "realm": "example.org"}));
    assert_eq!(body["texts"], json!({"bytes": "540000", "realm": "example.org"}));
    for (name, value) in [
        ("id", json!(EVT)),
        ("n", json!(540_000)),
        ("s", json!(1_795_327_257)),
        ("ms", json!(1_795_327_257_624_u64)),
        ("t", json!("2026-11-22T06:00:57.624Z")),
        ("lago", json!("1795327257.624")),
        ("type", json!("session.usage")),
        ("of", json!("turn_relay")),
        ("key", json!("aw==")),
        ("label", json!("nobody")),
        (
            "hash",
            json!("2d711642b726b04401627ca9fbac32f5c8530fb1903cc4db02258717921a4881"),
        ),
    ] {
        assert_eq!(body[name], value, "{name}");
    }
    let terms = bench.product.terms();
    let day = Duration::from_secs(86_400);
    assert_eq!((terms.window, terms.oldest), (Window::For(day), Some(35 * day)));
    assert_eq!(
        (terms.order, terms.customers),
        (Order::Customer, Customers::AttributedLater)
    );
}

#[test]
fn a_value_can_be_nothing_but_that_value() {
    let evil = "a/../b?x=\"1\", \"value\": 0} {{ 7 }}\r\n";
    let json = bench(&json!({
        "path": "/of/{{ customer }}", "item": r#"{"c": {{ customer }}, "v": {{ value }}}"#, "window": "never",
    }));
    let items = json.encode(&kit::event(EventType::Usage), evil).unwrap();
    let body: Json = serde_json::from_str(&items[0].text).unwrap();
    assert_eq!(body, json!({"c": evil, "v": 540_000}));
    assert_eq!(
        json.product.request(&items, 1).path,
        "/of/a%2F..%2Fb%3Fx%3D%221%22%2C%20%22value%22%3A%200%7D%20%7B%7B%207%20%7D%7D%0D%0A"
    );
    let error = json.encode(&kit::event(EventType::Usage), "..").unwrap_err();
    assert!(error.contains("cannot stand in a path"), "{error}");
    let form = bench(&json!({"form": {"customer": "{{ customer }}", "n": "{{ value }}"}, "window": "never"}));
    let items = form.encode(&kit::event(EventType::Usage), "a&n=0").unwrap();
    let request = form.product.request(&items, 1);
    assert_eq!(request.content_type, "application/x-www-form-urlencoded");
    assert_eq!(request.body, b"customer=a%26n%3D0&n=540000");
    let header = bench(&json!({
        "headers": {"x-customer": "{{ customer }}"}, "item": "{{ value }}", "window": "never",
    }));
    let error = header
        .encode(&kit::event(EventType::Usage), "a\r\nx: y")
        .unwrap_err();
    assert!(error.contains("control characters"), "{error}");
}

#[test]
fn batches_are_arrays_or_stand_where_the_body_says() {
    let item = "{\"id\": {{ id }}}";
    let array = bench(&json!({"item": item, "batch": 10, "window": "forever"}));
    let items = array.several(2);
    let two = json!([{"id": "evt_0"}, {"id": "evt_1"}]);
    assert_eq!(kit::json(&array.product.request(&items, 1)), two);
    assert_eq!(
        kit::json(&array.product.request(&items[..1], 1)),
        json!([{"id": "evt_0"}])
    );
    let around = bench(&json!({
        "item": item, "batch": 10, "window": "forever", "body": "{\"events\": {{ items }}, \"partial\": true}",
    }));
    assert_eq!(
        kit::json(&around.product.request(&items, 1)),
        json!({"events": two, "partial": true})
    );
}

#[test]
fn what_is_wrong_is_found_before_there_is_an_event() {
    let item = "{\"id\": {{ id }}}";
    for (options, said) in [
        (json!({"item": item}), "for how long"),
        (json!({"window": "24h"}), "say what an item is"),
        (
            json!({"item": item, "form": {"a": "b"}, "window": "24h"}),
            "either `item`",
        ),
        (
            json!({"item": "{\"id\": {{ nope }}}", "window": "24h"}),
            "undefined",
        ),
        (
            json!({"item": "{\"id\": {{ data.nope }}}", "window": "24h"}),
            "session.start",
        ),
        // Only an end has it.
        (
            json!({"item": "{\"e\": {{ data.ended_at }}}", "window": "24h"}),
            "session.start",
        ),
        (json!({"item": "{\"id\": {{ id }}", "window": "24h"}), "not JSON"),
        (
            json!({"item": "{\"id\": {{ id ", "window": "24h"}),
            "syntax error",
        ),
        (json!({"item": "{% include 'x' %}", "window": "24h"}), "template"),
        (
            json!({"item": "\"{{ 'x' * 50000000 }}\"", "window": "24h"}),
            "fuel",
        ),
        (
            json!({"item": "[{% for a in data.usage %}{% for b in data.usage %}{% for c in data.usage %}{% for d in data.usage %}{% for e in data.usage %}{% for f in data.usage %}{% for g in data.usage %}{% for h in data.usage %}{% for i in data.usage %}{% for j in data.usage %}{% for k in data.usage %}1,{% endfor %}{% endfor %}{% endfor %}{% endfor %}{% endfor %}{% endfor %}{% endfor %}{% endfor %}{% endfor %}{% endfor %}{% endfor %}1]", "window": "24h"}),
            "fuel",
        ),
        (
            json!({"item": item, "window": "a while"}),
            "`a while` is no duration",
        ),
        (
            json!({"item": item, "window": "24h", "batch": 2, "path": "/{{ id }}"}),
            "batch = 1",
        ),
        (
            json!({"item": item, "window": "24h", "batch": 2, "body": "{}"}),
            "where the items go",
        ),
        (
            json!({"item": item, "window": "24h", "body": "{{{ items }}"}),
            "not JSON",
        ),
        (json!({"item": item, "window": "24h", "path": "usage"}), "slash"),
        (
            json!({"item": item, "window": "24h", "headers": {"a b": "c"}}),
            "no name of a header",
        ),
        (
            json!({"item": item, "window": "24h", "hold": [{}]}),
            "a rule for answers",
        ),
        (json!({"item": item, "window": "24h", "holds": []}), "holds"),
        (
            json!({"preset": "nothing"}),
            "there is no preset `nothing`; there are flexprice",
        ),
        (json!({"preset": "meteroid", "window": "soon"}), "`soon`"),
    ] {
        let error = refused(&options);
        assert!(error.contains(said), "{options}: {error}");
    }
    // Which of two amounts is the value is not to be guessed.
    let two = [METER[0], ("turn_relay", "sessions", "sessions")];
    let options = json!({"item": "{{ value }}", "window": "24h"});
    let error = Bench::new(make, &two, &[], &options).err().unwrap().to_string();
    assert!(error.contains("undefined"), "{error}");
    let options = json!({"item": "{{ amounts.bytes }}", "window": "24h"});
    assert!(Bench::new(make, &two, &[], &options).is_ok());
}

#[test]
fn p1_rules_say_what_answers_mean() {
    let bench = bench(&json!({
        "item": "{{ value }}", "batch": 10, "window": "24h", "all_or_nothing": true,
        "hold": [{"status": 402}, {"contains": "Meter archived"}],
        "duplicate": [{"status": 409}, {"status": 400, "contains": "already exists"}],
        "early": [{"status": 400, "contains": "future"}],
        "retry": [{"status": 400, "contains": "busy"}],
        "rejected": [{"status": 202, "contains": "never billed"}],
    }));
    for (status, body, verdict) in [
        (200, "", ItemVerdict::Delivered),
        (409, "", ItemVerdict::Duplicate),
        (400, "It ALREADY EXISTS.", ItemVerdict::Duplicate),
        (400, "in the future", ItemVerdict::TooEarly),
        (400, "busy", ItemVerdict::Retry(None)),
        (402, "", ItemVerdict::Held("answered 402".to_owned())),
        (
            200,
            "meter archived",
            ItemVerdict::Held("answered 200: meter archived".to_owned()),
        ),
        (
            202,
            "never billed",
            ItemVerdict::Rejected("answered 202: never billed".to_owned()),
        ),
        (
            400,
            "wrong",
            ItemVerdict::Rejected("answered 400: wrong".to_owned()),
        ),
        (503, "", ItemVerdict::Uncertain(None)),
    ] {
        assert_eq!(bench.verdict(status, &[], body), verdict, "{status} {body}");
    }
    // Of two, it does not say which.
    let items = bench.several(2);
    assert!(matches!(bench.answer(&items, 409, &[], ""), Decoded::Halve(_)));
    kit::common_answers(&bench);
}

#[test]
fn p5_failed_items_are_named_by_path() {
    let rule = |id: Json| json!({"path": "data.failed", "id": id, "reason": "why"});
    let options = |all_or_nothing: bool, id: Json| {
        json!({"item": "{{ value }}", "batch": 10, "window": "24h", "all_or_nothing": all_or_nothing,
               "accepted": true, "failed_items": rule(id)})
    };
    let by_id = r#"{"data":{"failed":[{"id":"evt_1","why":"no such customer"},{"id":"another"}]}}"#;
    let bad = ItemVerdict::Rejected("answered 200: no such customer".to_owned());
    let bench = bench(&options(false, json!("id")));
    let items = bench.several(3);
    assert_eq!(
        bench.answer(&items, 200, &[], by_id),
        Decoded::Each(vec![ItemVerdict::Accepted, bad, ItemVerdict::Accepted])
    );
    for (all_or_nothing, others) in [
        (true, ItemVerdict::Retry(None)),
        (false, ItemVerdict::Uncertain(None)),
    ] {
        let bench = self::bench(&options(all_or_nothing, json!("id")));
        let Decoded::Each(verdicts) = bench.answer(&items, 422, &[], by_id) else {
            panic!()
        };
        assert_eq!((&verdicts[0], &verdicts[2]), (&others, &others));
        assert!(matches!(&verdicts[1], ItemVerdict::Rejected(_)));
    }
    let bench = self::bench(&options(true, Json::Null));
    let Decoded::Each(verdicts) = bench.answer(&items, 200, &[], r#"{"data":{"failed":["evt_2"]}}"#) else {
        panic!()
    };
    assert_eq!(verdicts[1], ItemVerdict::Accepted);
    assert!(matches!(verdicts[2], ItemVerdict::Rejected(_)));
}

#[test]
fn every_preset_can_be_rendered_and_read() {
    for name in presets::names() {
        let bench = bench(&json!({ "preset": name }));
        let items = bench.usage();
        let request = bench.product.request(&items, 1);
        let text = String::from_utf8(request.body.clone()).unwrap();
        assert!(
            kit::json(&request).to_string().contains(EVT) || name == "autumn",
            "{name}: {text}"
        );
        assert!(text.contains("540000"), "{name}: {text}");
        assert!(
            request.path.starts_with('/') && !request.path.contains("{{"),
            "{name}"
        );
        kit::common_answers(&bench);
    }
}

#[test]
fn some_presets_to_the_letter() {
    let of = |name: &str| {
        let bench = bench(&json!({ "preset": name }));
        let request = bench.product.request(&bench.usage(), 1);
        (bench, request)
    };
    let (bench, request) = of("meteroid");
    assert_eq!(
        kit::json(&request),
        json!({"events": [{"event_id": EVT, "code": "turn_relay", "customer_id": "cust_42",
            "timestamp": "2026-11-22T06:00:57.624Z", "properties": {"bytes": "540000", "realm": "example.org"}}],
            "allow_backfilling": true, "allow_partial_failures": true})
    );
    let failed = format!(r#"{{"failures":[{{"event_id":"{EVT}","reason":"unknown customer"}}]}}"#);
    assert_eq!(
        bench.verdict(200, &[], &failed),
        ItemVerdict::Rejected("answered 200: unknown customer".to_owned())
    );
    let (bench, request) = of("autumn");
    assert_eq!(header(&request, "idempotency-key"), Some(EVT));
    assert_eq!(
        kit::json(&request),
        json!({"customer_id": "cust_42", "feature_id": "turn_relay", "value": 540_000,
            "timestamp": 1_795_327_257_624_u64, "properties": {"realm": "example.org"}})
    );
    assert_eq!(bench.verdict(409, &[], ""), ItemVerdict::Duplicate);
    assert_eq!(
        bench.verdict(400, &[], "timestamp must not be in the future"),
        ItemVerdict::TooEarly
    );
    let (bench, _) = of("creem");
    let warned = r#"{"accepted":1,"warnings":[{"code":"no_matching_meter"}]}"#;
    assert!(matches!(
        bench.verdict(202, &[], warned),
        ItemVerdict::Rejected(_)
    ));
    let (bench, request) = of("recurly");
    assert_eq!(request.path, "/subscriptions/cust_42/add_ons/turn_relay/usage");
    assert_eq!(bench.product.terms().window, Window::Never);
    // What stands beside a preset wins.
    let own = self::bench(&json!({"preset": "recurly", "path": "/here", "window": "1h"}));
    assert_eq!(own.product.request(&own.usage(), 1).path, "/here");
    assert_eq!(own.product.terms().window, Window::For(Duration::from_secs(3600)));
}
