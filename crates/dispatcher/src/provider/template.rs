//! Any other product that takes JSON or a form over HTTP (`type = "template"`): what an item says is a template, and
//! what an answer means are rules, all in `[endpoint.options]`. For some products they stand in `presets.rs`.
//!
//! Templates are minijinja's, without I/O, includes or loops without an end: each is bounded in work (`render.rs`) and in
//! size. What they give must be JSON, or a form; `turnhook check` tries them on events of every type.

mod options;
mod presets;
mod render;
mod rules;

use std::{collections::BTreeMap, sync::Arc};

use serde::Serialize;
use serde_json::{Value as Json, value::RawValue};
use turnhook_reducer::{event::EventType, time::Timestamp};
use url::form_urlencoded::byte_serialize;

use self::{
    options::{ITEMS, Options},
    render::Renderer,
};
use super::{
    Facts, Meter, Value, answers,
    cloudevents::{array, object},
    product::{
        Answer, Customers, Decoded, Group, Item, Meters, Product, Record, Request, Settings, Terms, Window,
        Wrong,
    },
    quantity::property,
};
use crate::{
    body::body,
    samples::{self, Case},
};

/// Bytes of an item at most.
const MOST: usize = 256 << 10;

#[derive(Debug)]
struct Template {
    options: Options,
    renderer: Renderer,
    terms: Terms,
}

/// What a template may speak of.
#[derive(Serialize)]
struct Context<'a> {
    id: &'a str,
    customer: &'a str,
    event: &'a str,
    at: u64,
    attempt: u32,
    #[serde(flatten)]
    item: Option<OfItem<'a>>,
}

/// What only the templates of an item may speak of: path and headers are made once more for every attempt.
#[derive(Serialize)]
struct OfItem<'a> {
    /// Where the item has several amounts none of them is "the" value.
    #[serde(skip_serializing_if = "Option::is_none")]
    value: Option<u64>,
    amounts: BTreeMap<&'a str, u64>,
    properties: BTreeMap<&'a str, &'a Json>,
    /// Both of them.
    fields: Json,
    r#type: &'static str,
    session_id: &'a str,
    sequence: u32,
    data: Json,
}

/// `type = "template"`.
///
/// # Errors
/// If an option is not known or missing, or a template fails on an event of some type.
pub fn make(settings: &Settings) -> Result<Arc<dyn Product>, Wrong> {
    let wrong = |problem: String| Wrong {
        key: "options",
        problem,
    };
    let (options, preset) = Options::read(settings)?;
    let terms = Terms {
        url: preset.and_then(|preset| preset.url),
        meters: options.meters.into(),
        batch: options.batch,
        bytes: options.bytes,
        window: options.window().map_err(wrong)?,
        oldest: options.oldest().map_err(wrong)?,
        future: options.future().map_err(wrong)?,
        all_or_nothing: options.all_or_nothing,
        order: options.order.into(),
        customers: options.customers.into(),
        time_in_key: options.time_in_key,
        accepted: options.accepted.then_some(
            preset
                .and_then(|preset| preset.accepted)
                .unwrap_or("the product looks at what it took later: see its page"),
        ),
    };
    let template = Template {
        renderer: Renderer::new(),
        options,
        terms,
    };
    template.try_out(settings).map_err(wrong)?;
    Ok(Arc::new(template))
}

impl Template {
    /// Renders for an event of every type, so that what is wrong is found before there is one.
    fn try_out(&self, settings: &Settings) -> Result<(), String> {
        let unnamed = [Meter::new("example", Value::Billable)];
        let meters = if settings.meters.is_empty() {
            &unnamed[..]
        } else {
            &settings.meters[..]
        };
        for event_type in [EventType::Start, EventType::Usage, EventType::End] {
            let sample = samples::event(event_type, Case::Exact, Timestamp(1_795_327_257_624));
            let event = Facts::read("evt_00000000000000000000000000", &body(&sample))?;
            let record = Record {
                event: &event,
                customer: "customer",
                at: event.timestamp,
                // As if each came to something.
                amounts: meters.iter().map(|meter| (meter, 1)).collect(),
                properties: settings
                    .properties
                    .iter()
                    .filter_map(|name| property(&event, name))
                    .collect(),
            };
            self.encode(&record)
                .map_err(|error| format!("tried on a {}: {error}", event_type.as_str()))?;
        }
        Ok(())
    }

    fn text(&self, record: &Record<'_>, group: &Group<'_>) -> Result<String, String> {
        let event = record.event;
        let value = match group.amounts[..] {
            [(_, amount)] => Some(amount),
            _ => None,
        };
        let item = OfItem {
            value,
            amounts: group
                .amounts
                .iter()
                .map(|(name, amount)| (name.as_str(), *amount))
                .collect(),
            properties: record
                .properties
                .iter()
                .map(|(name, value)| (name.as_str(), value))
                .collect(),
            fields: object(record, &group.amounts),
            r#type: event.event_type.as_str(),
            session_id: &event.session_id,
            sequence: event.sequence,
            data: serde_json::from_str(event.data()?.get()).map_err(|error| error.to_string())?,
        };
        let context = render::context(&Context {
            id: &group.id,
            customer: record.customer,
            event: group.event,
            at: record.at.0,
            attempt: 1,
            item: Some(item),
        });
        if let Some(template) = &self.options.item {
            let text = self.renderer.json("item", template, &context)?;
            let text = text.trim();
            // Read and not written again: numbers stay as they are.
            serde_json::from_str::<&RawValue>(text)
                .map_err(|error| format!("what `item` gives is not JSON: {error}: {}", beginning(text)))?;
            return Ok(text.to_owned());
        }
        let mut form = Vec::new();
        for (name, template) in &self.options.form {
            let value = self.renderer.plain(&format!("form.{name}"), template, &context)?;
            let name: String = byte_serialize(name.as_bytes()).collect();
            let value: String = byte_serialize(value.as_bytes()).collect();
            form.push(format!("{name}={value}"));
        }
        Ok(form.join("&"))
    }

    /// Path and headers for an item.
    fn address(&self, item: &Item, attempt: u32) -> Result<(String, Vec<(String, String)>), String> {
        let context = render::context(&Context {
            id: &item.id,
            customer: &item.customer,
            event: &item.meter,
            at: item.at,
            attempt,
            item: None,
        });
        let path = self.renderer.path("path", &self.options.path, &context)?;
        let mut headers = Vec::new();
        for (name, template) in &self.options.headers {
            let value = self
                .renderer
                .plain(&format!("headers.{name}"), template, &context)?;
            if http::HeaderValue::from_str(&value).is_err() {
                return Err(format!("the header {name} would hold control characters"));
            }
            headers.push((name.to_ascii_lowercase(), value));
        }
        Ok((path, headers))
    }
}

impl Product for Template {
    fn terms(&self) -> &Terms {
        &self.terms
    }

    fn encode(&self, record: &Record<'_>) -> Result<Vec<Item>, String> {
        let mut items = Vec::new();
        let event = record.event;
        let groups = if event.event_type.is_of_session() {
            record.groups()
        } else {
            // There is nothing to count: one item, which the event itself names.
            vec![Group {
                id: event.id.clone(),
                event: event.event_type.as_str(),
                amounts: Vec::new(),
            }]
        };
        for group in groups {
            let text = self.text(record, &group)?;
            if text.len() > MOST {
                return Err(format!(
                    "the item has {} bytes, and {MOST} are the most",
                    text.len()
                ));
            }
            let item = record.item(group, text);
            // They are made anew with each request, which cannot fail any more then.
            self.address(&item, 1)?;
            items.push(item);
        }
        Ok(items)
    }

    fn takes_user_events(&self) -> bool {
        true
    }

    fn request(&self, items: &[Item], attempt: u32) -> Request {
        let address = items.first().map(|item| self.address(item, attempt));
        let (path, headers) = match address {
            Some(Ok(address)) => address,
            Some(Err(error)) => {
                turnhook_reducer::internal_error!("an address that was tried out cannot be made: {error}");
                (self.options.path.clone(), Vec::new())
            }
            None => (self.options.path.clone(), Vec::new()),
        };
        let (content_type, body) = match (&self.options.body, items) {
            (_, [item]) if self.options.item.is_none() => {
                ("application/x-www-form-urlencoded", item.text.clone())
            }
            (Some(body), items) => ("application/json", body.replacen(ITEMS, &array(items), 1)),
            (None, [item]) if self.options.batch == 1 => ("application/json", item.text.clone()),
            (None, items) => ("application/json", array(items)),
        };
        let mut request = Request::post(&path, content_type, body);
        request.headers = headers;
        request
    }

    fn decode(&self, answer: &Answer<'_>, items: &[Item]) -> Decoded {
        self.options
            .decode(answer, items)
            .unwrap_or_else(|| answers::by_status(answer, items))
    }

    fn probe(&self) -> Option<Request> {
        self.options.probe.as_deref().map(Request::get)
    }
}

/// What can be shown of a text in a message.
fn beginning(text: &str) -> String {
    text.chars().take(120).collect()
}

#[cfg(test)]
mod tests;
