//! CloudEvents over HTTP (`type = "cloudevents"`): the whole event, as its webhook has it, in a CloudEvent. And the
//! encoding that other products share.
//!
//! Options: `mode = "structured"` (one event, `application/cloudevents+json`; the default) | `"binary"` (the attributes
//! are headers) | `"batch"` (only where the receiver asked for batches).

use std::{fmt::Write as _, sync::Arc};

use serde::{Deserialize, Serialize};
use serde_json::{Value as Json, value::RawValue};

use super::{
    answers,
    product::{
        Answer, Customers, Decoded, Item, Meters, Order, Product, Record, Request, Settings, Terms, Window,
        Wrong,
    },
};
use crate::body::rfc3339;

/// The content type of one event, and of several.
pub const ONE: &str = "application/cloudevents+json";
/// See [`ONE`].
pub const SEVERAL: &str = "application/cloudevents-batch+json";

/// The attributes of a CloudEvent in their usual order.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct CloudEvent<'a, D = &'a RawValue> {
    pub(super) specversion: &'a str,
    pub(super) id: &'a str,
    pub(super) source: &'a str,
    pub(super) r#type: &'a str,
    #[serde(skip_serializing_if = "Option::is_none", default, borrow)]
    pub(super) subject: Option<std::borrow::Cow<'a, str>>,
    pub(super) time: &'a str,
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub(super) datacontenttype: Option<&'a str>,
    pub(super) data: D,
}

impl<D: Serialize> CloudEvent<'_, D> {
    pub(super) fn text(&self) -> Result<String, String> {
        serde_json::to_string(self).map_err(|error| error.to_string())
    }
}

/// Items whose text is JSON, as one or as an array.
pub(super) fn array(items: &[Item]) -> String {
    let size: usize = items.iter().map(|item| item.text.len() + 1).sum();
    let mut array = String::with_capacity(size + 2);
    for item in items {
        array.push(if array.is_empty() { '[' } else { ',' });
        array.push_str(&item.text);
    }
    if array.is_empty() {
        array.push('[');
    }
    array.push(']');
    array
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Mode {
    #[default]
    Structured,
    Binary,
    Batch,
}

#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct Options {
    mode: Mode,
}

#[derive(Debug)]
struct CloudEvents {
    mode: Mode,
    terms: Terms,
}

/// `type = "cloudevents"`.
///
/// # Errors
/// If an option is not known.
pub fn make(settings: &Settings) -> Result<Arc<dyn Product>, Wrong> {
    let Options { mode } = settings.options()?;
    let terms = Terms {
        url: None,
        meters: Meters::Whole,
        batch: if mode == Mode::Batch { 100 } else { 1 },
        bytes: 1 << 20,
        // The receiver's own; `source` and `id` are the same for ever.
        window: Window::Forever,
        oldest: None,
        future: None,
        all_or_nothing: true,
        order: Order::Session,
        customers: Customers::AttributedLater,
        time_in_key: false,
        accepted: None,
    };
    Ok(Arc::new(CloudEvents { mode, terms }))
}

impl Product for CloudEvents {
    fn terms(&self) -> &Terms {
        &self.terms
    }

    fn encode(&self, record: &Record<'_>) -> Result<Vec<Item>, String> {
        let event = record.event;
        let r#type = format!("io.turnhook.{}", event.event_type.as_str());
        let data = event.data()?;
        // A user's event is of no source.
        let source = if event.source.is_empty() {
            "/turnhook".to_owned()
        } else {
            format!("/turnhook/{}", encoded(&event.source))
        };
        let text = CloudEvent {
            specversion: "1.0",
            id: &event.id,
            source: &source,
            r#type: &r#type,
            subject: (!record.customer.is_empty()).then_some(record.customer.into()),
            time: &rfc3339(record.at),
            datacontenttype: Some("application/json"),
            data,
        }
        .text()?;
        Ok(vec![Item {
            id: event.id.clone(),
            customer: record.customer.to_owned(),
            meter: r#type,
            at: record.at.0,
            amounts: Vec::new(),
            text,
        }])
    }

    fn takes_user_events(&self) -> bool {
        true
    }

    fn request(&self, items: &[Item], _: u32) -> Request {
        match (self.mode, items) {
            (Mode::Binary, [item]) => {
                binary(item).unwrap_or_else(|| Request::post("", ONE, item.text.as_str()))
            }
            (Mode::Structured, [item]) => Request::post("", ONE, item.text.as_str()),
            _ => Request::post("", SEVERAL, array(items)),
        }
    }

    fn decode(&self, answer: &Answer<'_>, items: &[Item]) -> Decoded {
        answers::by_status(answer, items)
    }
}

/// The attributes as headers, the data as the body.
fn binary(item: &Item) -> Option<Request> {
    let event: CloudEvent<'_> = serde_json::from_str(&item.text).ok()?;
    let mut request = Request::post("", "application/json", event.data.get());
    let subject = event.subject.as_deref();
    let attributes = [
        ("ce-specversion", Some(event.specversion)),
        ("ce-id", Some(event.id)),
        ("ce-source", Some(event.source)),
        ("ce-type", Some(event.r#type)),
        ("ce-subject", subject),
        ("ce-time", Some(event.time)),
    ];
    for (name, value) in attributes {
        if let Some(value) = value {
            request.headers.push((name.to_owned(), encoded(value)));
        }
    }
    Some(request)
}

/// As header values are written: a space, `"`, `%` and what is not printable ASCII by their bytes.
fn encoded(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for byte in text.bytes() {
        if matches!(byte, b'"' | b'%') || !(0x21..=0x7e).contains(&byte) {
            // Writing to a string cannot fail.
            let _ = write!(out, "%{byte:02X}");
        } else {
            out.push(char::from(byte));
        }
    }
    out
}

/// Properties and amounts as one flat object.
pub(super) fn object(record: &Record<'_>, amounts: &[(String, u64)]) -> Json {
    let mut object = serde_json::Map::new();
    for (name, value) in &record.properties {
        object.insert(name.clone(), value.clone());
    }
    for (name, amount) in amounts {
        object.insert(name.clone(), Json::from(*amount));
    }
    Json::Object(object)
}
