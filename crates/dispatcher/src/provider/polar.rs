//! Polar (`type = "polar"`), with an organisation's token.
//!
//! It takes 500 requests a minute, so batches are a must, and not one instant of the future: a clock that is ahead by
//! a moment has its whole request refused. The answer names faults by their place in the request.
//!
//! Options: `customer_id = "external"` (the default; joined later) | `"internal"` (Polar's own, which must exist).

use std::{sync::Arc, time::Duration};

use serde::Deserialize;
use serde_json::{Value as Json, json};

use super::{
    answers,
    cloudevents::{array, object},
    orb::Ids,
    product::{
        Answer, Decoded, Item, ItemVerdict, Meters, Order, Product, Record, Request, Settings, Terms, Window,
        Wrong,
    },
};
use crate::body::rfc3339;

/// Characters of an event's name, of a key and of a string in its metadata; and keys, at most.
const NAME: usize = 128;
const KEY: usize = 40;
const TEXT: usize = 500;
const KEYS: usize = 50;

#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct Options {
    customer_id: Ids,
}

#[derive(Debug)]
struct Polar {
    ids: Ids,
    terms: Terms,
}

/// `type = "polar"`.
///
/// # Errors
/// If an option is not known, or a name is too long.
pub fn make(settings: &Settings) -> Result<Arc<dyn Product>, Wrong> {
    let Options { customer_id } = settings.options()?;
    let names = settings.meters.iter().flat_map(|meter| {
        [
            (&meter.event, NAME),
            // A property is a key of the metadata.
            (&meter.property, KEY),
        ]
    });
    for (name, most) in names {
        if name.chars().count() > most {
            return Err(Wrong {
                key: "meters",
                problem: format!("`{name}` is longer than {most} characters, which is what Polar takes"),
            });
        }
    }
    Ok(Arc::new(Polar {
        ids: customer_id,
        terms: Terms {
            url: Some("https://api.polar.sh"),
            meters: Meters::Grouped,
            batch: 1000,
            // 10 MiB are taken; what lies between may take less.
            bytes: 4 << 20,
            window: Window::Forever,
            oldest: None,
            future: Some(Duration::ZERO),
            all_or_nothing: true,
            order: Order::Session,
            customers: customer_id.customers(),
            time_in_key: false,
            accepted: None,
        },
    }))
}

impl Product for Polar {
    fn terms(&self) -> &Terms {
        &self.terms
    }

    fn encode(&self, record: &Record<'_>) -> Result<Vec<Item>, String> {
        let timestamp = rfc3339(record.at);
        let mut items = Vec::new();
        for group in record.groups() {
            let metadata = object(record, &group.amounts);
            check(&metadata)?;
            let mut event = json!({
                "external_id": group.id,
                "name": group.event,
                "timestamp": timestamp,
                "metadata": metadata,
            });
            event[self.ids.field()] = record.customer.into();
            items.push(record.item(group, event.to_string()));
        }
        Ok(items)
    }

    fn request(&self, items: &[Item], _: u32) -> Request {
        let body = format!(r#"{{"events":{}}}"#, array(items));
        Request::post("/v1/events/ingest", "application/json", body)
    }

    fn decode(&self, answer: &Answer<'_>, items: &[Item]) -> Decoded {
        match answer.status {
            200..=299 => Decoded::all(taken(answer, items.len()), items),
            422 => faults(answer, items).unwrap_or_else(|| answers::by_status(answer, items)),
            _ => answers::by_status(answer, items),
        }
    }
}

/// One bad event would have its neighbours refused as well.
fn check(metadata: &Json) -> Result<(), String> {
    let fields = metadata.as_object().into_iter().flatten();
    let mut keys = 0;
    for (name, value) in fields {
        keys += 1;
        let length = value.as_str().map_or(1, |value| value.chars().count());
        if name.chars().count() > KEY || length > TEXT {
            return Err(format!(
                "the property {name} is longer than Polar takes: leave it out of `properties`"
            ));
        }
    }
    if keys > KEYS {
        return Err(format!(
            "{keys} properties are more than the {KEYS} that Polar takes"
        ));
    }
    Ok(())
}

#[derive(Deserialize)]
struct Taken {
    duplicates: usize,
}

/// How many were known is said, and not which: only where all were is it known of each.
fn taken(answer: &Answer<'_>, sent: usize) -> ItemVerdict {
    match serde_json::from_slice::<Taken>(answer.body) {
        Ok(taken) if taken.duplicates == sent => ItemVerdict::Duplicate,
        _ => ItemVerdict::Delivered,
    }
}

#[derive(Deserialize)]
struct Refusal {
    detail: Vec<Fault>,
}

#[derive(Deserialize)]
struct Fault {
    loc: Vec<Json>,
    #[serde(default)]
    msg: String,
}

/// The verdicts that a refusal of the whole gives each item; `None` where it names none.
fn faults(answer: &Answer<'_>, items: &[Item]) -> Option<Decoded> {
    let faults = serde_json::from_slice::<Refusal>(answer.body).ok()?.detail;
    // Nothing of a refused request is kept: the rest can go again at once.
    let mut verdicts = vec![ItemVerdict::Retry(None); items.len()];
    for fault in &faults {
        // `["body", "events", 3, …, "timestamp"]`
        let place = fault.loc.iter().find_map(Json::as_u64)?;
        let verdict = verdicts.get_mut(usize::try_from(place).ok()?)?;
        // A time of ours is always well formed: it is refused only for being ahead of theirs.
        let early = fault.loc.iter().any(|part| part == "timestamp");
        match (&verdict, early) {
            (ItemVerdict::TooEarly, _) => {}
            (_, true) => *verdict = ItemVerdict::TooEarly,
            (_, false) => {
                let why = format!("refused by Polar: {}", fault.msg);
                *verdict = ItemVerdict::Rejected(why.chars().take(300).collect());
            }
        }
    }
    (!faults.is_empty()).then_some(Decoded::Each(verdicts))
}

#[cfg(test)]
mod tests;
