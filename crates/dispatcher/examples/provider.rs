//! What is sent to billing products, for other programs to compare: reads lines of JSON, writes one for each.
//!
//!     {"product": "lago", "options": {}, "meters": [["turn_relay", "billable_bytes", "bytes"]], "properties": ["realm"],
//!      "customer": "sub_42", "at": 1795327257624, "ids": ["evt_1", "evt_2"]}
//!
//! gives the request for a `session.usage` of 540,000 bytes under each of the ids; with `"answer": {"status": 422, "headers":
//! {}, "body": "…"}` beside it, what that answer means for each item.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::{
    collections::BTreeMap,
    io::{BufRead, Write},
};

use http::{HeaderMap, HeaderName, HeaderValue};
use serde::Deserialize;
use serde_json::json;
use turnhook_dispatcher::{
    body::body,
    provider::{
        Answer, Decoded, Facts, Item, Meter, Product, Record, Settings, kind,
        quantity::{Count, property},
    },
    samples::{self, Case},
};
use turnhook_reducer::{event::EventType, time::Timestamp};

#[derive(Deserialize)]
struct Wish {
    product: String,
    #[serde(default)]
    options: serde_json::Map<String, serde_json::Value>,
    meters: Vec<(String, String, String)>,
    #[serde(default)]
    properties: Vec<String>,
    customer: String,
    at: u64,
    ids: Vec<String>,
    #[serde(default = "one")]
    attempt: u32,
    answer: Option<Heard>,
}

fn one() -> u32 {
    1
}

#[derive(Deserialize)]
struct Heard {
    status: u16,
    #[serde(default)]
    headers: BTreeMap<String, String>,
    #[serde(default)]
    body: String,
}

fn main() {
    let mut out = std::io::stdout().lock();
    for line in std::io::stdin().lock().lines() {
        let wish: Wish = serde_json::from_str(&line.unwrap()).unwrap();
        writeln!(out, "{}", grant(&wish)).unwrap();
        out.flush().unwrap();
    }
}

fn grant(wish: &Wish) -> serde_json::Value {
    let settings = Settings {
        meters: wish.meters.iter().map(meter).collect(),
        count: Count::Delta,
        properties: wish.properties.clone(),
        options: wish.options.clone(),
    };
    let product = (kind(&wish.product).expect("such a type").make)(&settings).unwrap();
    let items: Vec<Item> = wish
        .ids
        .iter()
        .flat_map(|id| items(&*product, &settings, wish, id))
        .collect();
    match &wish.answer {
        None => {
            let request = product.request(&items, wish.attempt);
            json!({"method": request.method.as_str(), "path": request.path, "content_type": request.content_type,
                   "headers": BTreeMap::from_iter(request.headers), "body": String::from_utf8(request.body).unwrap()})
        }
        Some(heard) => {
            let mut headers = HeaderMap::new();
            for (name, value) in &heard.headers {
                headers.insert(
                    name.parse::<HeaderName>().unwrap(),
                    HeaderValue::from_str(value).unwrap(),
                );
            }
            let answer = Answer {
                status: heard.status,
                headers: &headers,
                body: heard.body.as_bytes(),
                at: Timestamp(wish.at),
            };
            match product.decode(&answer, &items) {
                Decoded::Each(verdicts) => {
                    let names: Vec<String> = verdicts
                        .iter()
                        .map(|verdict| {
                            let told = format!("{verdict:?}");
                            told.split('(').next().unwrap_or_default().to_owned()
                        })
                        .collect();
                    json!(names)
                }
                Decoded::Halve(why) => json!({ "halve": why }),
            }
        }
    }
}

fn meter((event, value, property): &(String, String, String)) -> Meter {
    Meter {
        property: property.clone(),
        ..Meter::new(event, value.parse().unwrap())
    }
}

fn items(product: &dyn Product, settings: &Settings, wish: &Wish, id: &str) -> Vec<Item> {
    let sample = samples::event(EventType::Usage, Case::Exact, Timestamp(wish.at));
    let event = Facts::read(id, &body(&sample)).unwrap();
    let record = Record {
        event: &event,
        customer: &wish.customer,
        at: event.timestamp,
        amounts: settings
            .meters
            .iter()
            .map(|meter| (meter, meter.value.of(&event, settings.count)))
            .collect(),
        properties: settings
            .properties
            .iter()
            .filter_map(|name| property(&event, name))
            .collect(),
    };
    product.encode(&record).unwrap()
}
