#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use bytes::Bytes;
use serde_json::{Value as Json, json};
use turnhook_reducer::event::EventType;

use std::time::Duration;

use turnhook_reducer::time::Timestamp;

use super::{
    account::{self, Account},
    quantity::{PROPERTIES, USUAL, property},
    *,
};
use crate::{
    body::body,
    samples::{self, Case},
};

const EVT: &str = "evt_01m7zsyfmsq2sxgjxtfsxm0e7b";
/// 2026-11-22T06:00:57.624Z
const NOW: Timestamp = Timestamp(1_795_327_257_624);

fn facts(event_type: EventType, case: Case) -> Facts {
    Facts::read(EVT, &body(&samples::event(event_type, case, NOW))).unwrap()
}

fn settings(meters: &[(&str, &str)]) -> Settings {
    Settings {
        meters: meters
            .iter()
            .map(|(event, value)| Meter::new(event, value.parse().unwrap()))
            .collect(),
        properties: USUAL.map(str::to_owned).to_vec(),
        ..Settings::default()
    }
}

fn items(kind_name: &str, settings: &Settings, event: &Facts) -> (Arc<dyn Product>, Vec<Item>) {
    let product = (kind(kind_name).unwrap().make)(settings).unwrap();
    let record = Record {
        event,
        customer: "cust_42",
        at: event.timestamp,
        amounts: settings
            .meters
            .iter()
            .map(|meter| (meter, meter.value.of(event, settings.count)))
            .collect(),
        properties: settings
            .properties
            .iter()
            .filter_map(|name| property(event, name))
            .collect(),
    };
    let items = product.encode(&record).unwrap();
    (product, items)
}

#[test]
fn an_event_of_openmeter_carries_the_meters_that_share_its_type() {
    let settings = settings(&[
        ("turn_relay", "billable_bytes"),
        ("turn_relay", "sessions"),
        ("turn_legs", "client.received_bytes"),
    ]);
    let event = facts(EventType::Usage, Case::Exact);
    let (product, items) = items("openmeter", &settings, &event);
    assert_eq!(items.len(), 2);
    let first: Json = serde_json::from_str(&items[0].text).unwrap();
    assert_eq!(
        first,
        json!({"specversion": "1.0", "id": EVT, "source": "turnhook/sample", "type": "turn_relay",
            "subject": "cust_42", "time": "2026-11-22T06:00:57.624Z",
            "data": {"session_id": event.session_id, "sequence": 1, "source": "sample", "realm": "example.org",
                     "billable_bytes": 540_000, "sessions": 0}})
    );
    assert_eq!(items[1].id, format!("{EVT}.turn_legs"));
    let request = product.request(&items, 1);
    assert_eq!(request.path, "/api/v1/events");
    assert_eq!(request.content_type, "application/cloudevents-batch+json");
    let sent: Vec<Json> = serde_json::from_slice(&request.body).unwrap();
    assert_eq!((sent.len(), &sent[0]), (2, &first));
    assert_eq!(
        product.request(&items[..1], 1).body,
        items[0].text.as_bytes(),
        "one goes alone"
    );
}

#[test]
fn p12_nothing_to_bill_is_no_item_and_moves_no_id() {
    let settings = settings(&[("bytes", "billable_bytes"), ("sessions", "sessions")]);
    let start = facts(EventType::Start, Case::Exact);
    let (_, sent) = items("openmeter", &settings, &start);
    let ids: Vec<_> = sent.iter().map(|item| item.id.as_str()).collect();
    assert_eq!(ids, [format!("{EVT}.sessions")]);
    let (_, sent) = items("openmeter", &settings, &facts(EventType::Start, Case::Continues));
    assert_eq!(sent, [], "a session that corrects another costs no fee");
}

#[test]
fn what_counts_by_delta_and_by_end() {
    let value = |text: &str| text.parse::<Value>().unwrap();
    let (start, usage, end) = (
        facts(EventType::Start, Case::Exact),
        facts(EventType::Usage, Case::Exact),
        facts(EventType::End, Case::Exact),
    );
    for (name, delta, at_end) in [
        ("billable_bytes", [0, 540_000, 0], [0, 0, 540_000]),
        ("client.sent_packets", [0, 311, 0], [0, 0, 311]),
        ("peer.received_bytes", [0, 270_000, 0], [0, 0, 270_000]),
        ("egress", [0, 541_856, 0], [0, 0, 541_856]),
        ("ingress", [0, 542_620, 0], [0, 0, 542_620]),
        ("sessions", [1, 0, 0], [0, 0, 1]),
        ("duration_s", [0, 0, 19], [0, 0, 19]),
    ] {
        let of = |count| [&start, &usage, &end].map(|event| value(name).of(event, count));
        assert_eq!(of(Count::Delta), delta, "{name}");
        assert_eq!(of(Count::End), at_end, "{name}");
    }
    assert!("bytes".parse::<Value>().unwrap_err().contains("billable_bytes"));
}

#[test]
fn p13_only_what_is_allowed_is_sent() {
    let event = facts(EventType::End, Case::Many);
    let (_, items) = items("openmeter", &settings(&[("m", "sessions")]), &event);
    assert!(items.is_empty());
    let settings = Settings {
        count: Count::End,
        ..settings(&[("m", "billable_bytes")])
    };
    let (_, items) = self::items("openmeter", &settings, &event);
    for secret in ["198.51.100", "1795413634", "allocations"] {
        assert!(!items[0].text.contains(secret), "{}", items[0].text);
    }
    for name in PROPERTIES {
        let found = property(&facts(EventType::End, Case::Continues), name);
        assert_eq!(found.map(|(name, _)| name).as_deref(), Some(name));
    }
    assert_eq!(
        property(&facts(EventType::End, Case::NoUser), "realm"),
        None,
        "nothing empty"
    );
}

#[test]
fn a_cloudevent_has_the_webhooks_data_to_the_byte() {
    let sample = samples::event(EventType::End, Case::Exact, NOW);
    let event = Facts::read(EVT, &body(&sample)).unwrap();
    let (product, items) = items("cloudevents", &Settings::default(), &event);
    assert!(
        String::from_utf8(body(&sample).to_vec())
            .unwrap()
            .contains(event.data().unwrap().get())
    );
    assert!(
        items[0]
            .text
            .ends_with(&format!("\"data\":{}}}", event.data().unwrap()))
    );
    assert_eq!(
        product.request(&items, 1).content_type,
        "application/cloudevents+json"
    );
}

#[test]
fn a_binary_cloudevent_has_its_attributes_in_headers() {
    let mut settings = Settings::default();
    settings.options.insert("mode".into(), "binary".into());
    let event = facts(EventType::Start, Case::Exact);
    let (product, mut items) = items("cloudevents", &settings, &event);
    items[0].text = items[0].text.replace("cust_42", "Jürgen \\\"x\\\"%");
    let request = product.request(&items, 1);
    assert_eq!(
        request.body,
        event
            .data()
            .unwrap()
            .get()
            .replace("cust_42", "Jürgen \\\"x\\\"%")
            .as_bytes()
    );
    let header = |name: &str| request.headers.iter().find(|(n, _)| n == name).unwrap().1.clone();
    assert_eq!(header("ce-subject"), "J%C3%BCrgen%20%22x%22%25");
    assert_eq!(header("ce-type"), "io.turnhook.session.start");
    assert_eq!(header("ce-id"), EVT);
    let wrong = Settings {
        options: [("mod".to_owned(), Json::from("binary"))].into_iter().collect(),
        ..Settings::default()
    };
    let error = (kind("cloudevents").unwrap().make)(&wrong).unwrap_err();
    assert!(error.to_string().contains("mod"), "{error}");
}

/// Of what certainly comes to nothing no delivery is made: so it must come to nothing, whatever is metered.
#[test]
fn what_never_bills_comes_to_nothing_and_what_counts_is_never_left_out() {
    let mut left_out = 0;
    for value in [
        "billable_bytes",
        "client.received_bytes",
        "peer.sent_packets",
        "egress",
        "ingress",
        "sessions",
        "duration_s",
    ] {
        for count in [Count::Delta, Count::End] {
            for event_type in [EventType::Start, EventType::Usage, EventType::End] {
                for empty in [true, false] {
                    let mut event = samples::event(event_type, Case::Exact, NOW);
                    event.usage_delta = if empty {
                        Default::default()
                    } else {
                        // A start has some where sessions begin with what was relayed.
                        samples::event(EventType::End, Case::Exact, NOW).usage
                    };
                    let settings = Settings {
                        count,
                        ..settings(&[("relayed", value)])
                    };
                    let product = (kind("openmeter").unwrap().make)(&settings).unwrap();
                    let account = Account {
                        kind: "openmeter",
                        terms: product.terms().clone(),
                        product,
                        settings,
                        customer: account::CustomerFrom::User,
                        customers: None,
                        unknown: account::Unknown::Pass,
                        anonymous: account::Anonymous::Dead,
                        late: account::Late::Send,
                        wait: Duration::ZERO,
                    };
                    let prepared = account.prepare(EVT, &body(&event), None, true, NOW);
                    let comes_to_nothing = prepared == account::Prepared::Nothing;
                    let left = account.never_bills(&event);
                    assert!(
                        comes_to_nothing || !left,
                        "{value} {count:?} {event_type:?}: {prepared:?}"
                    );
                    left_out += usize::from(left);
                }
            }
        }
    }
    // Seven values: all starts and usages where ends count, and empty starts where deltas do, but for `sessions`.
    assert_eq!(left_out, 7 * 4 + 6);
}

#[test]
fn of_a_users_event_the_whole_is_sent_or_nothing() {
    use super::account::{Account, Anonymous, CustomerFrom, Late, Prepared, Unknown};
    let template = json!({ "item": "{\"kind\": {{ type }}, \"whose\": {{ customer }}, \"until\": {{ data.until|default(0) }}}", "window": "forever" });
    for kind in KINDS {
        let mut settings = settings(&[("turn_relayed_bytes", "billable_bytes")]);
        if kind.name == "template" {
            settings.options = template.as_object().unwrap().clone();
        } else if kind.name == "cloudevents" {
            settings.meters.clear();
        } else if kind.name == "polar" || kind.name == "stripe" {
            settings.properties.clear();
        }
        let product = (kind.make)(&settings).unwrap_or_else(|wrong| panic!("{}: {wrong}", kind.name));
        let account = Account {
            kind: kind.name,
            terms: product.terms().clone(),
            product,
            settings,
            customer: CustomerFrom::User,
            customers: None,
            unknown: Unknown::Pass,
            anonymous: Anonymous::Dead,
            late: Late::Dead,
            wait: Duration::ZERO,
        };
        for event_type in EventType::OF_USERS {
            let body = samples::payload(event_type, Case::Exact, NOW);
            let prepared = account.prepare(EVT, &body, None, true, NOW);
            let Prepared::Send(sent) = &prepared else {
                assert_eq!(prepared, Prepared::Nothing, "{}", kind.name);
                assert!(!account.product.takes_user_events(), "{}", kind.name);
                continue;
            };
            assert!(account.product.takes_user_events(), "{}", kind.name);
            let items: Vec<&Item> = sent.open().collect();
            assert_eq!(items.len(), 1);
            assert_eq!(
                (items[0].id.as_str(), items[0].customer.as_str()),
                (EVT, "cust_42")
            );
            let text: Json = serde_json::from_str(&items[0].text).unwrap();
            if kind.name == "template" {
                let whole = json!({"kind": event_type.as_str(), "whose": "cust_42", "until": "2026-11-23T00:00:00.000Z"});
                assert_eq!(text, whole);
            } else {
                assert_eq!(text["type"], format!("io.turnhook.{}", event_type.as_str()));
                assert_eq!(
                    (&text["source"], &text["subject"]),
                    (&json!("/turnhook"), &json!("cust_42"))
                );
                assert_eq!(text["data"]["user"], "cust_42");
            }
        }
    }
}

#[test]
fn a_payload_is_read_alike_in_whichever_order_its_fields_are() {
    let payload = body(&samples::event(EventType::End, Case::Exact, NOW));
    let known = Facts::read(EVT, &payload).unwrap();
    let fields: Json = serde_json::from_slice(&payload).unwrap();
    let turned = format!(
        "{{ \"data\":{}, \"timestamp\":{}, \"type\":{} }}",
        known.data().unwrap(),
        fields["timestamp"],
        fields["type"]
    );
    let read = Facts::read(EVT, &turned.into()).unwrap();
    assert_eq!(read.data().unwrap().get(), known.data().unwrap().get());
    let facts = |of: Facts| {
        format!(
            "{:?}",
            Facts {
                body: Bytes::new(),
                ..of
            }
        )
    };
    assert_eq!(facts(read), facts(known));
}
