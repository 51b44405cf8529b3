//! Lago (`type = "lago"`), its cloud or one's own.
//!
//! Usage belongs to a subscription: the customer is its external id, and what names no subscription of that time is
//! taken and not counted. A batch is taken whole or not at all, and a repeat in it is a fault like another: the answer
//! names faults by their place in the batch.
//!
//! Organisations whose events are in ClickHouse refuse nothing; they know an event again by id *and* time.

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

/// What it says of an id that it knows.
const KNOWN: &str = "value_already_exist";

#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct Options {}

#[derive(Debug)]
struct Lago {
    terms: Terms,
}

/// `type = "lago"`.
///
/// # Errors
/// If there is an option: none is known.
pub fn make(settings: &Settings) -> Result<Arc<dyn Product>, Wrong> {
    let Options {} = settings.options()?;
    Ok(Arc::new(Lago {
        terms: Terms {
            url: Some("https://api.getlago.com"),
            meters: Meters::Grouped,
            batch: 100,
            bytes: 1 << 20,
            window: Window::Forever,
            oldest: None,
            future: None,
            all_or_nothing: true,
            order: Order::Session,
            customers: Customers::Known,
            time_in_key: true,
            accepted: Some(
                "an event whose code or subscription Lago does not know is taken and not counted: watch its webhooks event.error and events.errors",
            ),
        },
    }))
}

impl Product for Lago {
    fn terms(&self) -> &Terms {
        &self.terms
    }

    fn encode(&self, record: &Record<'_>) -> Result<Vec<Item>, String> {
        let timestamp = format!("{}.{:03}", record.at.0 / 1000, record.at.0 % 1000);
        let mut items = Vec::new();
        for group in record.groups() {
            let text = json!({
                "transaction_id": group.id,
                "external_subscription_id": record.customer,
                "code": group.event,
                "timestamp": timestamp,
                "properties": object(record, &group.amounts),
            })
            .to_string();
            items.push(record.item(group, text));
        }
        Ok(items)
    }

    fn request(&self, items: &[Item], _: u32) -> Request {
        let body = format!(r#"{{"events":{}}}"#, array(items));
        Request::post("/api/v1/events/batch", "application/json", body)
    }

    fn decode(&self, answer: &Answer<'_>, items: &[Item]) -> Decoded {
        match answer.status {
            200..=299 => Decoded::all(ItemVerdict::Accepted, items),
            422 => faults(answer, items).unwrap_or_else(|| answers::by_status(answer, items)),
            // It says when the second is over in a header of its own.
            429 => Decoded::all(
                ItemVerdict::Retry(answers::after(answer).or_else(|| reset(answer))),
                items,
            ),
            _ => answers::by_status(answer, items),
        }
    }

    fn probe(&self) -> Option<Request> {
        Some(Request::get("/api/v1/events?per_page=1"))
    }
}

#[derive(Deserialize)]
struct Refusal {
    error_details: Map<String, Json>,
}

/// The verdicts that a refusal of the whole gives each item; `None` where it names none.
fn faults(answer: &Answer<'_>, items: &[Item]) -> Option<Decoded> {
    let details = serde_json::from_slice::<Refusal>(answer.body).ok()?.error_details;
    // Nothing of a refused batch is kept, but for versions that kept what was good and did not bill it: that comes
    // back as a repeat, and is healed as far as it can be. The rest can go again at once, without those that are named.
    let mut verdicts = vec![ItemVerdict::Retry(None); items.len()];
    for (place, fault) in &details {
        let verdict = verdicts.get_mut(place.parse::<usize>().ok()?)?;
        *verdict = match fault.as_object() {
            Some(fields) if fields.len() == 1 && is_known(fields) => ItemVerdict::Duplicate,
            _ => ItemVerdict::Rejected(format!("answered 422: {fault}").chars().take(300).collect()),
        };
    }
    (!details.is_empty()).then_some(Decoded::Each(verdicts))
}

fn is_known(fields: &Map<String, Json>) -> bool {
    fields
        .get("transaction_id")
        .and_then(Json::as_array)
        .is_some_and(|faults| faults.len() == 1 && faults.iter().all(|fault| fault == KNOWN))
}

/// `X-RateLimit-Reset`: in how many seconds there is room again.
fn reset(answer: &Answer<'_>) -> Option<Duration> {
    let seconds: u64 = answer
        .headers
        .get("x-ratelimit-reset")?
        .to_str()
        .ok()?
        .trim()
        .parse()
        .ok()?;
    (seconds > 0).then(|| Duration::from_secs(seconds.min(60)))
}

#[cfg(test)]
mod tests;
