//! Orb (`type = "orb"`).
//!
//! What is older than the account's grace period is refused: 12 hours unless it was agreed otherwise. Whether the good
//! events of a refused request were taken is not said: they are sent again, which is safe, since ids are known for good.
//!
//! Options: `customer_id = "external"` (the default; attributed once a subscription exists) | `"internal"` (Orb's own ids,
//! which must exist).

use std::{sync::Arc, time::Duration};

use serde::Deserialize;
use serde_json::json;

use super::{
    answers,
    cloudevents::{array, object},
    product::{
        Answer, Customers, Decoded, Item, ItemVerdict, Meters, Order, Product, Record, Request, Settings,
        Terms, Window, Wrong,
    },
};
use crate::body::rfc3339;

/// Whose ids customers are named by.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum Ids {
    #[default]
    External,
    Internal,
}

impl Ids {
    pub(super) fn field(self) -> &'static str {
        match self {
            Ids::External => "external_customer_id",
            Ids::Internal => "customer_id",
        }
    }

    /// An external one that is not known yet is attributed later; the product's own must exist.
    pub(super) fn customers(self) -> Customers {
        match self {
            Ids::External => Customers::AttributedLater,
            Ids::Internal => Customers::Known,
        }
    }
}

#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct Options {
    customer_id: Ids,
}

#[derive(Debug)]
struct Orb {
    ids: Ids,
    terms: Terms,
}

/// `type = "orb"`.
///
/// # Errors
/// If an option is not known.
pub fn make(settings: &Settings) -> Result<Arc<dyn Product>, Wrong> {
    let Options { customer_id } = settings.options()?;
    Ok(Arc::new(Orb {
        ids: customer_id,
        terms: Terms {
            url: Some("https://api.withorb.com"),
            meters: Meters::Grouped,
            batch: 500,
            bytes: 1 << 20,
            window: Window::Forever,
            oldest: Some(Duration::from_secs(12 * 3600)),
            future: Some(Duration::from_secs(300)),
            // Not said; so the others of a refused request may have been taken.
            all_or_nothing: false,
            order: Order::Session,
            customers: customer_id.customers(),
            time_in_key: false,
            accepted: None,
        },
    }))
}

impl Product for Orb {
    fn terms(&self) -> &Terms {
        &self.terms
    }

    fn encode(&self, record: &Record<'_>) -> Result<Vec<Item>, String> {
        let timestamp = rfc3339(record.at);
        let mut items = Vec::new();
        for group in record.groups() {
            // A customer's field is named by a setting: not by `json!`.
            let mut event = json!({
                "idempotency_key": group.id,
                "event_name": group.event,
                "timestamp": timestamp,
                "properties": object(record, &group.amounts),
            });
            event[self.ids.field()] = record.customer.into();
            items.push(record.item(group, event.to_string()));
        }
        Ok(items)
    }

    fn request(&self, items: &[Item], _: u32) -> Request {
        let body = format!(r#"{{"events":{}}}"#, array(items));
        Request::post("/v1/ingest", "application/json", body)
    }

    fn decode(&self, answer: &Answer<'_>, items: &[Item]) -> Decoded {
        match answer.status {
            200..=299 => failures(answer, items, &ItemVerdict::Delivered)
                .unwrap_or_else(|| Decoded::all(ItemVerdict::Delivered, items)),
            400 => failures(answer, items, &ItemVerdict::Uncertain(None))
                .unwrap_or_else(|| answers::by_status(answer, items)),
            _ => answers::by_status(answer, items),
        }
    }
}

#[derive(Deserialize)]
struct Body {
    validation_failed: Vec<Failure>,
}

#[derive(Deserialize)]
struct Failure {
    idempotency_key: String,
    #[serde(default)]
    validation_errors: Vec<String>,
}

/// The verdicts where some are named by their keys, and `others` is that of the rest; `None` where none of ours is named.
fn failures(answer: &Answer<'_>, items: &[Item], others: &ItemVerdict) -> Option<Decoded> {
    let failed = serde_json::from_slice::<Body>(answer.body)
        .ok()?
        .validation_failed;
    let mut named = false;
    let verdicts = items
        .iter()
        .map(|item| {
            let failure = failed.iter().find(|failure| failure.idempotency_key == item.id);
            let Some(failure) = failure else {
                return others.clone();
            };
            named = true;
            let why = failure.validation_errors.join("; ");
            ItemVerdict::Rejected(format!("refused by Orb: {why}").chars().take(300).collect())
        })
        .collect();
    named.then_some(Decoded::Each(verdicts))
}

#[cfg(test)]
mod tests;
