//! Metronome (`type = "metronome"`).
//!
//! The customer is Metronome's id or an ingest alias. One event that is older than 34 days, or ahead by more than one,
//! fails its whole request, and the answer does not say which: so bounds are held before sending, and what is refused
//! all the same is halved.

use std::{sync::Arc, time::Duration};

use serde::Deserialize;
use serde_json::{Map, Value as Json, json};

use super::{
    answers,
    cloudevents::{array, object},
    product::{
        Answer, Customers, Decoded, Item, ItemVerdict, Meters, Order, Product, Record, Request, Settings,
        Terms, Window, Wrong,
    },
};
use crate::body::rfc3339;

const DAY: u64 = 86_400;
/// Bytes of a property's value at most.
const PROPERTY: usize = 256;

#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct Options {}

#[derive(Debug)]
struct Metronome {
    terms: Terms,
}

/// `type = "metronome"`.
///
/// # Errors
/// If there is an option: none is known.
pub fn make(settings: &Settings) -> Result<Arc<dyn Product>, Wrong> {
    let Options {} = settings.options()?;
    Ok(Arc::new(Metronome {
        terms: Terms {
            url: Some("https://api.metronome.com"),
            meters: Meters::Grouped,
            batch: 100,
            bytes: 1 << 20,
            window: Window::For(Duration::from_secs(34 * DAY)),
            oldest: Some(Duration::from_secs(34 * DAY)),
            future: Some(Duration::from_secs(DAY)),
            all_or_nothing: true,
            order: Order::Session,
            // It takes them; for how long it keeps what has no customer is not known.
            customers: Customers::Known,
            time_in_key: false,
            accepted: Some(
                "an event that matches no customer or no metric is taken as well: search for its transaction_id among Metronome's events",
            ),
        },
    }))
}

impl Product for Metronome {
    fn terms(&self) -> &Terms {
        &self.terms
    }

    fn encode(&self, record: &Record<'_>) -> Result<Vec<Item>, String> {
        let timestamp = rfc3339(record.at);
        let mut items = Vec::new();
        for group in record.groups() {
            let properties = strings(object(record, &group.amounts));
            if let Some((name, value)) = properties
                .iter()
                .find(|(_, value)| value.as_str().is_some_and(|value| value.len() > PROPERTY))
            {
                let length = value.as_str().unwrap_or_default().len();
                return Err(format!(
                    "the property {name} has {length} bytes, and Metronome takes {PROPERTY}: leave it out of `properties`"
                ));
            }
            let text = json!({
                "transaction_id": group.id,
                "customer_id": record.customer,
                "event_type": group.event,
                "timestamp": timestamp,
                "properties": properties,
            })
            .to_string();
            items.push(record.item(group, text));
        }
        Ok(items)
    }

    fn request(&self, items: &[Item], _: u32) -> Request {
        Request::post("/v1/ingest", "application/json", array(items))
    }

    fn decode(&self, answer: &Answer<'_>, items: &[Item]) -> Decoded {
        match answer.status {
            200..=299 => Decoded::all(ItemVerdict::Accepted, items),
            _ => answers::by_status(answer, items),
        }
    }
}

/// All values as strings, which Metronome reads as decimals of any length.
fn strings(object: Json) -> Map<String, Json> {
    let Json::Object(object) = object else {
        return Map::new();
    };
    object
        .into_iter()
        .map(|(name, value)| match value {
            Json::String(_) => (name, value),
            other => (name, Json::from(other.to_string())),
        })
        .collect()
}

#[cfg(test)]
mod tests;
