//! Whatever a product answers, each item has one verdict, and nothing panics: answers come from the network.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use proptest::prelude::*;
use serde_json::{Value as Json, json};

use super::{
    KINDS,
    kit::{Bench, EVT},
    product::Decoded,
};

/// Words that products' answers have, so that generated ones come close to real ones.
const WORDS: [&str; 24] = [
    "error",
    "message",
    "code",
    "type",
    "detail",
    "loc",
    "msg",
    "body",
    "events",
    "timestamp",
    "error_details",
    "transaction_id",
    "value_already_exist",
    "validation_failed",
    "idempotency_key",
    "validation_errors",
    "failures",
    "event_id",
    "reason",
    "duplicates",
    "inserted",
    "0",
    "1",
    EVT,
];

fn word() -> impl Strategy<Value = String> {
    prop_oneof![
        4 => prop::sample::select(&WORDS[..]).prop_map(str::to_owned),
        1 => "\\PC{0,8}",
    ]
}

fn value() -> impl Strategy<Value = Json> {
    let leaf = prop_oneof![
        Just(Json::Null),
        any::<bool>().prop_map(Json::from),
        (-2i64..5).prop_map(Json::from),
        any::<u64>().prop_map(Json::from),
        word().prop_map(Json::from),
    ];
    leaf.prop_recursive(5, 40, 5, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..5).prop_map(Json::from),
            prop::collection::vec((word(), inner), 0..5)
                .prop_map(|fields| Json::Object(fields.into_iter().collect())),
        ]
    })
}

fn answer() -> impl Strategy<Value = Vec<u8>> {
    prop_oneof![
        6 => value().prop_map(|value| value.to_string().into_bytes()),
        1 => prop::collection::vec(any::<u8>(), 0..200),
        // Cut off anywhere.
        2 => (value(), any::<prop::sample::Index>()).prop_map(|(value, at)| {
            let mut text = value.to_string().into_bytes();
            text.truncate(at.index(text.len() + 1));
            text
        }),
    ]
}

/// One of every type, and a template that looks into answers.
fn benches() -> Vec<Bench> {
    let options = |name: &str| match name {
        "template" => {
            json!({"preset": "meteroid", "hold": [{"contains": "error"}], "duplicate": [{"status": 409}]})
        }
        _ => json!({}),
    };
    let meters = [("relay", "billable_bytes", "bytes")];
    KINDS
        .iter()
        .map(|kind| Bench::new(kind.make, &meters, &[], &options(kind.name)).unwrap())
        .collect()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    #[test]
    fn every_item_has_a_verdict(status in prop_oneof![100u16..600, Just(200), Just(400), Just(422)], body in answer(), count in 1usize..4) {
        for bench in benches() {
            let items = bench.several(count);
            if let Decoded::Each(verdicts) = bench.answer_bytes(&items, status, &[], &body) {
                prop_assert_eq!(verdicts.len(), count);
            }
        }
    }
}
