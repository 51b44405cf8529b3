//! OpenMeter (`type = "openmeter"`): self-hosted, Cloud, and Kong Konnect.
//!
//! Each item is a CloudEvent whose `type` is the meter's `event`, with the values as properties of `data`. `source` and
//! `id` together are what OpenMeter knows an event again by, so `source` is the source's name and nothing that changes.
//!
//! Options: `api = "v1"` (`/api/v1/events`; the default) | `"v3"` (`/api/v3/openmeter/events`) | `"konnect"`
//! (`/v3/openmeter/events`).

use std::{sync::Arc, time::Duration};

use serde::Deserialize;

use super::{
    answers,
    cloudevents::{CloudEvent, ONE, SEVERAL, array, object},
    product::{
        Answer, Customers, Decoded, Item, ItemVerdict, Meters, Order, Product, Record, Request, Settings,
        Terms, Window, Wrong,
    },
};
use crate::body::rfc3339;

#[derive(Clone, Copy, Debug, Default, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Api {
    #[default]
    V1,
    V3,
    Konnect,
}

#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct Options {
    api: Api,
}

#[derive(Debug)]
struct OpenMeter {
    path: &'static str,
    terms: Terms,
}

/// `type = "openmeter"`.
///
/// # Errors
/// If an option is not known.
pub fn make(settings: &Settings) -> Result<Arc<dyn Product>, Wrong> {
    let Options { api } = settings.options()?;
    Ok(Arc::new(OpenMeter {
        path: match api {
            Api::V1 => "/api/v1/events",
            Api::V3 => "/api/v3/openmeter/events",
            Api::Konnect => "/v3/openmeter/events",
        },
        terms: Terms {
            url: Some("https://openmeter.cloud"),
            meters: Meters::Grouped,
            batch: 100,
            bytes: 1 << 20,
            // Hosted: 32 days. One of one's own forgets sooner if its sink's dedupe is set to less, see its page.
            window: Window::For(Duration::from_secs(32 * 86_400)),
            oldest: None,
            future: None,
            // A batch is taken event by event: those before one that fails are in.
            all_or_nothing: false,
            order: Order::Session,
            customers: Customers::AttributedLater,
            time_in_key: false,
            accepted: Some(
                "an event that matches no meter or no customer is taken as well: its `validationError` in the list of events says so",
            ),
        },
    }))
}

impl Product for OpenMeter {
    fn terms(&self) -> &Terms {
        &self.terms
    }

    fn encode(&self, record: &Record<'_>) -> Result<Vec<Item>, String> {
        let source = format!("turnhook/{}", record.event.source);
        let time = rfc3339(record.at);
        let mut items = Vec::new();
        for group in record.groups() {
            let data = object(record, &group.amounts);
            let text = CloudEvent {
                specversion: "1.0",
                id: &group.id,
                source: &source,
                r#type: group.event,
                subject: Some(record.customer.into()),
                time: &time,
                datacontenttype: None,
                data,
            }
            .text()?;
            items.push(record.item(group, text));
        }
        Ok(items)
    }

    fn request(&self, items: &[Item], _: u32) -> Request {
        // Version 1 compares the content type to the letter.
        match items {
            [item] => Request::post(self.path, ONE, item.text.as_str()),
            items => Request::post(self.path, SEVERAL, array(items)),
        }
    }

    fn decode(&self, answer: &Answer<'_>, items: &[Item]) -> Decoded {
        match answer.status {
            200..=299 => Decoded::all(ItemVerdict::Accepted, items),
            _ => answers::by_status(answer, items),
        }
    }

    fn probe(&self) -> Option<Request> {
        Some(Request::get(&format!("{}?limit=1", self.path)))
    }
}
