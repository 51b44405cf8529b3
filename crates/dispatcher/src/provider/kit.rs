//! What the products' tests share: an event, an endpoint's settings, an answer.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::sync::Arc;

use http::{HeaderMap, HeaderName, HeaderValue};
use serde_json::Value as Json;
use turnhook_reducer::{event::EventType, time::Timestamp};

use super::{
    Facts, Meter,
    product::{Answer, Decoded, Item, ItemVerdict, Product, Record, Request, Settings, Wrong},
    quantity::property,
};
use crate::{
    body::body,
    samples::{self, Case},
};

pub(super) const EVT: &str = "evt_01m7zsyfmsq2sxgjxtfsxm0e7b";
pub(super) const CUSTOMER: &str = "cust_42";
/// 2026-11-22T06:00:57.624Z
pub(super) const NOW: Timestamp = Timestamp(1_795_327_257_624);

/// An event of the documentation's session.
pub(super) fn event(event_type: EventType) -> Facts {
    let event = Facts::read(EVT, &body(&samples::event(event_type, Case::Exact, NOW))).unwrap();
    Facts {
        source: "eu-1".to_owned(),
        session_id: "ses_01m7zsyfmsq2sxgjxtfsxm0e7b".to_owned(),
        ..event
    }
}

/// A product with an endpoint's settings.
pub(super) struct Bench {
    pub(super) product: Arc<dyn Product>,
    settings: Settings,
}

impl Bench {
    /// `meters`: name, value, property.
    pub(super) fn new(
        make: fn(&Settings) -> Result<Arc<dyn Product>, Wrong>,
        meters: &[(&str, &str, &str)],
        properties: &[&str],
        options: &Json,
    ) -> Result<Bench, Wrong> {
        let settings = Settings {
            meters: meters
                .iter()
                .map(|(event, value, property)| Meter {
                    property: (*property).to_owned(),
                    ..Meter::new(event, value.parse().unwrap())
                })
                .collect(),
            properties: properties.iter().map(|name| (*name).to_owned()).collect(),
            options: options.as_object().cloned().unwrap_or_default(),
            ..Settings::default()
        };
        Ok(Bench {
            product: make(&settings)?,
            settings,
        })
    }

    pub(super) fn encode(&self, event: &Facts, customer: &str) -> Result<Vec<Item>, String> {
        self.product.encode(&Record {
            event,
            customer,
            at: event.timestamp,
            amounts: self
                .settings
                .meters
                .iter()
                .map(|meter| (meter, meter.value.of(event, self.settings.count)))
                .collect(),
            properties: self
                .settings
                .properties
                .iter()
                .filter_map(|name| property(event, name))
                .collect(),
        })
    }

    /// The items of a `session.usage` of 540,000 bytes.
    pub(super) fn usage(&self) -> Vec<Item> {
        self.encode(&event(EventType::Usage), CUSTOMER).unwrap()
    }

    /// So many items of different events.
    pub(super) fn several(&self, count: usize) -> Vec<Item> {
        (0..count)
            .flat_map(|n| {
                let id = format!("evt_{n}");
                let event = Facts {
                    id,
                    ..event(EventType::Usage)
                };
                self.encode(&event, CUSTOMER).unwrap()
            })
            .collect()
    }

    /// What an answer means, with headers as `name: value`.
    pub(super) fn answer(&self, items: &[Item], status: u16, headers: &[&str], body: &str) -> Decoded {
        self.answer_bytes(items, status, headers, body.as_bytes())
    }

    pub(super) fn answer_bytes(&self, items: &[Item], status: u16, headers: &[&str], body: &[u8]) -> Decoded {
        let mut map = HeaderMap::new();
        for header in headers {
            let (name, value) = header.split_once(": ").unwrap();
            map.insert(
                name.parse::<HeaderName>().unwrap(),
                HeaderValue::from_str(value).unwrap(),
            );
        }
        let answer = Answer {
            status,
            headers: &map,
            body,
            at: NOW,
        };
        self.product.decode(&answer, items)
    }

    /// The one verdict of an answer to one item.
    #[track_caller]
    pub(super) fn verdict(&self, status: u16, headers: &[&str], body: &str) -> ItemVerdict {
        match self.answer(&self.usage(), status, headers, body) {
            Decoded::Each(verdicts) => {
                assert_eq!(verdicts.len(), 1);
                verdicts.into_iter().next().unwrap()
            }
            // What becomes of a lone item.
            Decoded::Halve(reason) => ItemVerdict::Rejected(reason),
        }
    }
}

pub(super) fn json(request: &Request) -> Json {
    serde_json::from_slice(&request.body).unwrap()
}

pub(super) fn header<'a>(request: &'a Request, name: &str) -> Option<&'a str> {
    let header = request.headers.iter().find(|(known, _)| known == name);
    header.map(|(_, value)| value.as_str())
}

/// What all products make of answers that say nothing of items.
#[track_caller]
pub(super) fn common_answers(bench: &Bench) {
    for status in [401, 403, 404, 301] {
        let verdict = bench.verdict(status, &[], "");
        assert!(matches!(verdict, ItemVerdict::Held(_)), "{status}: {verdict:?}");
    }
    let soon = Some(std::time::Duration::from_secs(7));
    assert_eq!(
        bench.verdict(429, &["retry-after: 7"], ""),
        ItemVerdict::Retry(soon)
    );
    for status in [500, 502, 503, 504] {
        assert_eq!(
            bench.verdict(status, &["retry-after: 7"], "<html>"),
            ItemVerdict::Uncertain(soon),
            "{status}"
        );
    }
    // Whatever comes, every item has a verdict, and nothing panics.
    let items = bench.several(3);
    for status in [200, 202, 204, 207, 400, 409, 413, 422, 499] {
        for body in [
            "",
            "null",
            "[]",
            "{}",
            "{\"error\":7}",
            "{\"detail\":[{\"loc\":[\"body\",\"events\",99]}]}",
            "{\"error_details\":{\"99\":{}}}",
            "{\"error_details\":{\"x\":{}}}",
            "{\"validation_failed\":[{\"idempotency_key\":\"x\"}]}",
            "\u{0}\u{ff}",
        ] {
            if let Decoded::Each(verdicts) = bench.answer(&items, status, &[], body) {
                assert_eq!(verdicts.len(), 3, "{status} {body}");
            }
        }
    }
}
