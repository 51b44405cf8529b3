//! Stripe's Billing Meters (`type = "stripe"`): one meter event in a request, as Stripe takes no more.
//!
//! Stripe answers before it has looked at the customer and the value: what it finds later it reports by events of its
//! own. The meter must sum the raw values; one with an `event_time_window` keeps only the newest of a window.
//!
//! Options: `api = "v1"` (a form; the default) | `"v2"` (JSON, whose refusals have codes) | `"stream"` (batches, of
//! which nothing is refused at once: only for more than 1000 events a second) · `customer_key`, `value_key` (the
//! meter's keys in the payload, `stripe_customer_id` and `value`) · `version` (`Stripe-Version`; v2 needs one) ·
//! `stream_url`.

use std::{sync::Arc, time::Duration};

use serde::Deserialize;
use serde_json::{Map, Value as Json};
use url::{Host, Url, form_urlencoded::byte_serialize};

use super::{
    answers,
    cloudevents::array,
    product::{
        Answer, Customers, Decoded, Item, ItemVerdict, Meters, Order, Product, Record, Request, Settings,
        Terms, TokenCall, Window, Wrong,
    },
};
use crate::body::rfc3339;

/// Fifteen digits are the most that a value may have.
const MOST: u64 = 999_999_999_999_999;
/// Of `event_name` and of `identifier`.
const NAME: usize = 100;
/// What an event's id, and the dot after it, take of an identifier.
const ID: usize = 31;
const DAY: u64 = 86_400;

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Api {
    #[default]
    V1,
    V2,
    Stream,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct Options {
    api: Api,
    customer_key: String,
    value_key: String,
    version: Option<String>,
    stream_url: String,
}

impl Default for Options {
    fn default() -> Options {
        Options {
            api: Api::V1,
            customer_key: "stripe_customer_id".to_owned(),
            value_key: "value".to_owned(),
            version: None,
            stream_url: "https://meter-events.stripe.com".to_owned(),
        }
    }
}

#[derive(Debug)]
struct Stripe {
    options: Options,
    terms: Terms,
}

/// `type = "stripe"`.
///
/// # Errors
/// If an option is not known, or a meter's name is too long.
pub fn make(settings: &Settings) -> Result<Arc<dyn Product>, Wrong> {
    let mut options: Options = settings.options()?;
    let stream = options.api == Api::Stream;
    if stream {
        check_stream_url(&options.stream_url)?;
    }
    if options.api != Api::V1 {
        // The newest that was read when this was written: without one a v2 call is refused.
        options
            .version
            .get_or_insert_with(|| "2026-10-28.endive".to_owned());
    }
    for (place, meter) in settings.meters.iter().enumerate() {
        let most = if place == 0 { NAME } else { NAME - ID };
        if meter.event.len() > most {
            return Err(Wrong {
                key: "meters",
                problem: format!(
                    "`{}` is longer than {most} bytes, which is what Stripe takes here",
                    meter.event
                ),
            });
        }
    }
    let terms = Terms {
        url: Some("https://api.stripe.com"),
        meters: Meters::Single,
        batch: if stream { 100 } else { 1 },
        bytes: 256 << 10,
        // "At least": what happens later has not been seen by anybody.
        window: Window::For(Duration::from_secs(DAY)),
        oldest: Some(Duration::from_secs(35 * DAY)),
        future: Some(Duration::from_secs(300)),
        all_or_nothing: true,
        // One call at a time for each customer and meter, whichever session it is of; of the stream no such limit is
        // stated.
        order: if stream { Order::Session } else { Order::Customer },
        customers: Customers::Known,
        time_in_key: false,
        accepted: Some(
            "Stripe looks at customer, value and meter later: watch its events v1.billing.meter.error_report_triggered and v1.billing.meter.no_meter_found",
        ),
    };
    Ok(Arc::new(Stripe { options, terms }))
}

impl Product for Stripe {
    fn terms(&self) -> &Terms {
        &self.terms
    }

    fn encode(&self, record: &Record<'_>) -> Result<Vec<Item>, String> {
        let mut items = Vec::new();
        for group in record.groups() {
            let amount: u64 = group.amounts.iter().map(|(_, amount)| amount).sum();
            if amount > MOST {
                return Err(format!(
                    "{amount} has more than the 15 digits that Stripe takes as a value"
                ));
            }
            // All values of a payload are strings.
            let mut payload = vec![
                (self.options.customer_key.clone(), record.customer.to_owned()),
                (self.options.value_key.clone(), amount.to_string()),
            ];
            for (name, value) in &record.properties {
                let value = value.as_str().map_or_else(|| value.to_string(), str::to_owned);
                payload.push((name.clone(), value));
            }
            let text = match self.options.api {
                Api::V1 => form(group.event, &group.id, record.at.0 / 1000, &payload),
                Api::V2 | Api::Stream => json(group.event, &group.id, &rfc3339(record.at), payload),
            };
            items.push(record.item(group, text));
        }
        Ok(items)
    }

    fn request(&self, items: &[Item], attempt: u32) -> Request {
        let version = self.options.version.clone();
        let version = version.map(|version| ("stripe-version".to_owned(), version));
        let (path, content_type) = match self.options.api {
            Api::Stream => {
                // Another host than that of all other calls.
                let path = format!("{}/v2/billing/meter_event_stream", self.options.stream_url);
                let body = format!(r#"{{"events":{}}}"#, array(items));
                let mut request = Request::post(&path, "application/json", body);
                request.headers.extend(version);
                return request;
            }
            Api::V1 => ("/v1/billing/meter_events", "application/x-www-form-urlencoded"),
            Api::V2 => ("/v2/billing/meter_events", "application/json"),
        };
        let item = items.first();
        let body = item.map(|item| item.text.as_str()).unwrap_or_default();
        let mut request = Request::post(path, content_type, body);
        if let Some(item) = item {
            // Another key for each attempt, since Stripe keeps its answers, a 500 too, and repeats them to the same
            // key for a day; beginning with the identifier, since error reports name requests by their keys.
            let key = format!("{}.{attempt}", item.id);
            request.headers.push(("idempotency-key".to_owned(), key));
        }
        request.headers.extend(version);
        request
    }

    fn decode(&self, answer: &Answer<'_>, items: &[Item]) -> Decoded {
        let verdict = match answer.status {
            200..=299 => ItemVerdict::Accepted,
            400 => refusal(answer),
            // The next request has a new token.
            401 if says(answer, "billing_meter_event_session_expired") => ItemVerdict::Retry(None),
            // Of several nodes, each keeps to one call at a time for a customer, and two of them may meet here.
            409 => ItemVerdict::Busy,
            429 if ["too_many_concurrent_requests", "lock_timeout"]
                .iter()
                .any(|code| says(answer, code)) =>
            {
                ItemVerdict::Busy
            }
            _ => return answers::by_status(answer, items),
        };
        Decoded::all(verdict, items)
    }

    fn token(&self) -> Option<TokenCall> {
        if self.options.api != Api::Stream {
            return None;
        }
        let mut request = Request::post("/v2/billing/meter_event_session", "application/json", "{}");
        let version = self.options.version.clone();
        request
            .headers
            .extend(version.map(|version| ("stripe-version".to_owned(), version)));
        Some(TokenCall {
            request,
            field: "authentication_token",
            // Of the 15 minutes that it is good for.
            good_for: Duration::from_secs(12 * 60),
        })
    }

    fn probe(&self) -> Option<Request> {
        Some(Request::get("/v1/billing/meters?limit=1"))
    }
}

/// The stream is at another address than the endpoint's `url`, whose own rules it has to keep as well.
fn check_stream_url(text: &str) -> Result<(), Wrong> {
    let wrong = |problem: &str| {
        Err(Wrong {
            key: "options",
            problem: format!("stream_url: {problem}"),
        })
    };
    let Ok(url) = text.parse::<Url>() else {
        return wrong("is no URL");
    };
    let is_loopback = match url.host() {
        Some(Host::Ipv4(ip)) => ip.is_loopback(),
        Some(Host::Ipv6(ip)) => ip.is_loopback(),
        _ => false,
    };
    // Names are looked at when they are resolved; an address of the inside would not be.
    let is_name = matches!(url.host(), Some(Host::Domain(_)));
    if !(url.scheme() == "https" && is_name || url.scheme() == "http" && is_loopback) {
        return wrong("must be https, and a name");
    }
    if text.ends_with('/') {
        return wrong("ends without a slash");
    }
    Ok(())
}

fn form(event_name: &str, identifier: &str, timestamp: u64, payload: &[(String, String)]) -> String {
    let encoded = |text: &str| byte_serialize(text.as_bytes()).collect::<String>();
    let mut form = format!(
        "event_name={}&identifier={}&timestamp={timestamp}",
        encoded(event_name),
        encoded(identifier)
    );
    for (name, value) in payload {
        // The brackets stay as they are, as in what Stripe's own clients send.
        form.push_str(&format!("&payload[{}]={}", encoded(name), encoded(value)));
    }
    form
}

fn json(event_name: &str, identifier: &str, timestamp: &str, payload: Vec<(String, String)>) -> String {
    let payload: Map<String, Json> = payload
        .into_iter()
        .map(|(name, value)| (name, Json::from(value)))
        .collect();
    serde_json::json!({
        "event_name": event_name,
        "identifier": identifier,
        "timestamp": timestamp,
        "payload": payload,
    })
    .to_string()
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Body {
    error: Error,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Error {
    r#type: Option<String>,
    code: Option<String>,
    message: String,
}

fn says(answer: &Answer<'_>, code: &str) -> bool {
    let body = serde_json::from_slice::<Body>(answer.body).unwrap_or_default();
    body.error.code.as_deref() == Some(code)
}

/// What a 400 means: v2 has codes for it, v1 mostly words.
fn refusal(answer: &Answer<'_>) -> ItemVerdict {
    let error = serde_json::from_slice::<Body>(answer.body)
        .unwrap_or_default()
        .error;
    let code = error.code.as_deref().unwrap_or_default();
    let message = error.message.to_lowercase();
    let asks_for_more = answer
        .headers
        .get("stripe-should-retry")
        .is_some_and(|value| value == "true");
    let words = || answers::words(answer);
    if code == "duplicate_meter_event" || message.contains("already exists with identifier") {
        ItemVerdict::Duplicate
    } else if matches!(
        code,
        "no_meter"
            | "archived_meter"
            | "payload_no_customer_defined"
            | "payload_no_value_defined"
            | "parameter_unknown"
    ) || message.contains("no active meter")
    {
        // The meter or the mapping is wrong, and the next event would fare no better.
        ItemVerdict::Held(words())
    } else if code == "idempotency_error"
        || error.r#type.as_deref() == Some("idempotency_error")
        || asks_for_more
    {
        // The next attempt has another key.
        ItemVerdict::Retry(answers::after(answer))
    } else if code == "timestamp_in_future" || message.contains("in the future") {
        ItemVerdict::TooEarly
    } else {
        ItemVerdict::Rejected(words())
    }
}

#[cfg(test)]
mod tests;
