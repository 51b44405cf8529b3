//! A product that keeps count, and goes wrong as it is told.

use std::collections::{BTreeMap, HashMap};

use bytes::Bytes;
use http::HeaderMap;
use serde_json::{Value as Json, json};
use turnhook_dispatcher::provider::{
    Request,
    batch::{Heard, Whole},
};

/// Which product it is like.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// Takes a batch event by event, passes over what it knows, refuses what it cannot read as a whole.
    OpenMeter,
    /// Takes a batch whole or not at all, and names each fault by its place; a repeat is one.
    Lago,
    /// Like OpenMeter, with a clock that is behind.
    Ahead,
    /// Names those that it refuses by their keys; the others of that request it takes, or does not: it never says.
    Orb,
    /// Takes a batch whole or not at all, and does not say which event was the fault.
    Metronome,
    /// Takes a batch whole or not at all, and names each fault by its place; how many it knew is said, and not which.
    Polar,
    /// Takes one event a request; a repeat is a 400.
    Stripe,
}

impl Kind {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Kind::OpenMeter | Kind::Ahead => "openmeter",
            Kind::Lago => "lago",
            Kind::Orb => "orb",
            Kind::Metronome => "metronome",
            Kind::Polar => "polar",
            Kind::Stripe => "stripe",
        }
    }

    /// Of a request that breaks off halfway, what came before is in.
    fn takes_one_after_the_other(self) -> bool {
        matches!(self, Kind::OpenMeter | Kind::Ahead | Kind::Orb)
    }
}

/// What goes wrong with a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fault {
    None,
    /// It does not arrive, for certain.
    Refused,
    /// It is taken, and the answer is lost.
    AnswerLost,
    /// It is not taken, and nobody knows.
    RequestLost,
    /// 500, before anything is taken.
    Before,
    /// 500, when some of it is taken.
    Halfway,
    /// 500, when all of it is taken.
    After,
    /// 429 with a time to wait.
    Busy,
    /// 413, but for a lone one.
    TooLarge,
    /// The answer breaks off.
    CutShort,
}

pub(crate) const FAULTS: [Fault; 10] = [
    Fault::None,
    Fault::Refused,
    Fault::AnswerLost,
    Fault::RequestLost,
    Fault::Before,
    Fault::Halfway,
    Fault::After,
    Fault::Busy,
    Fault::TooLarge,
    Fault::CutShort,
];

#[derive(Debug)]
pub(crate) struct Fake {
    pub(crate) kind: Kind,
    /// For how long an id is known again, in milliseconds.
    pub(crate) window: u64,
    pub(crate) key_is_wrong: bool,
    /// Of each id: how often it was counted, and the sum of it.
    pub(crate) counted: BTreeMap<String, (u32, u64)>,
    /// In the order in which they were counted first.
    pub(crate) order: Vec<String>,
    known: HashMap<String, u64>,
    pub(crate) asked: usize,
    pub(crate) largest: usize,
}

struct Event {
    id: String,
    bytes: u64,
    poisoned: bool,
    at: String,
}

impl Event {
    fn new(id: String, customer: &str, bytes: u64, at: String) -> Event {
        assert!(customer.starts_with("cus_"), "billed to {customer:?}");
        let poisoned = customer.ends_with("poison");
        Event {
            id,
            bytes,
            poisoned,
            at,
        }
    }
}

impl Fake {
    pub(crate) fn new(kind: Kind, window: u64) -> Fake {
        Fake {
            kind,
            window,
            key_is_wrong: false,
            counted: BTreeMap::new(),
            order: Vec::new(),
            known: HashMap::new(),
            asked: 0,
            largest: 0,
        }
    }

    pub(crate) fn answer(&mut self, request: &Request, fault: Fault, now: u64) -> Heard {
        self.asked += 1;
        let events = events(self.kind, request);
        self.largest = self.largest.max(events.len());
        let nothing = |perhaps| Heard::Nothing {
            error: "the connection broke".to_owned(),
            perhaps,
        };
        match fault {
            Fault::Refused => return nothing(false),
            Fault::RequestLost => return nothing(true),
            Fault::Before => return answer(500, &[], ""),
            Fault::Busy => return answer(429, &[("retry-after", "7")], ""),
            Fault::TooLarge if events.len() > 1 => return answer(413, &[], ""),
            _ => {}
        }
        if self.key_is_wrong {
            return answer(401, &[], "no such key");
        }
        let poisoned = events.iter().any(|event| event.poisoned);
        if fault == Fault::Halfway && self.kind.takes_one_after_the_other() && !poisoned {
            let half = events.len() / 2;
            self.take(&events[..half], now);
            return answer(500, &[], "");
        }
        let heard = self.taken(&events, now);
        match fault {
            Fault::AnswerLost => nothing(true),
            Fault::After | Fault::Halfway => answer(500, &[], ""),
            Fault::CutShort => match heard {
                Heard::Answer {
                    status,
                    headers,
                    body,
                    ..
                } => Heard::Answer {
                    status,
                    headers,
                    body: body.slice(..body.len() / 2),
                    read: Whole::CutShort,
                },
                nothing @ Heard::Nothing { .. } => nothing,
            },
            _ => heard,
        }
    }

    fn taken(&mut self, events: &[Event], now: u64) -> Heard {
        match self.kind {
            Kind::OpenMeter if events.iter().any(|event| event.poisoned) => {
                answer(400, &[], "an event cannot be read")
            }
            Kind::OpenMeter | Kind::Ahead => {
                self.take(events, now);
                answer(204, &[], "")
            }
            Kind::Lago => {
                let mut faults = serde_json::Map::new();
                for (place, event) in events.iter().enumerate() {
                    if event.poisoned {
                        faults.insert(place.to_string(), json!({"properties": ["value_is_invalid"]}));
                    } else if self.knows(&event.id, now) {
                        faults.insert(
                            place.to_string(),
                            json!({"transaction_id": ["value_already_exist"]}),
                        );
                    }
                }
                if faults.is_empty() {
                    self.take(events, now);
                    return answer(200, &[], r#"{"events":[]}"#);
                }
                let refusal = json!({"status": 422, "code": "validation_errors", "error_details": faults});
                answer(422, &[], &refusal.to_string())
            }
            Kind::Orb => {
                let (bad, good): (Vec<&Event>, Vec<&Event>) = events.iter().partition(|event| event.poisoned);
                if bad.is_empty() || self.asked.is_multiple_of(2) {
                    self.take(good, now);
                }
                let failed: Vec<Json> = bad
                    .iter()
                    .map(|event| json!({"idempotency_key": event.id, "validation_errors": ["no such customer"]}))
                    .collect();
                let status = if failed.is_empty() { 200 } else { 400 };
                answer(status, &[], &json!({"validation_failed": failed}).to_string())
            }
            Kind::Metronome => {
                if events.iter().any(|event| event.poisoned) {
                    return answer(400, &[], r#"{"message":"an event is not valid"}"#);
                }
                self.take(events, now);
                answer(200, &[], "")
            }
            Kind::Polar => {
                let place = events.iter().position(|event| event.poisoned);
                if let Some(place) = place {
                    let fault = json!({"loc": ["body", "events", place, "external_customer_id"], "msg": "no such customer"});
                    return answer(422, &[], &json!({"detail": [fault]}).to_string());
                }
                let known = events.iter().filter(|event| self.knows(&event.id, now)).count();
                self.take(events, now);
                let taken = json!({"inserted": events.len() - known, "duplicates": known});
                answer(200, &[], &taken.to_string())
            }
            Kind::Stripe => {
                let [event] = events else {
                    panic!("{} events in a request", events.len());
                };
                let refused = |words: &str| {
                    let error = json!({"type": "invalid_request_error", "message": words});
                    answer(400, &[], &json!({ "error": error }).to_string())
                };
                if event.poisoned {
                    return refused("No such customer");
                }
                if self.knows(&event.id, now) {
                    return refused(&format!("An event already exists with identifier {}.", event.id));
                }
                self.take(events, now);
                answer(200, &[], "{}")
            }
        }
    }

    fn knows(&self, id: &str, now: u64) -> bool {
        let seen = self.known.get(id);
        seen.is_some_and(|at| now.saturating_sub(*at) < self.window)
    }

    fn take<'a>(&mut self, events: impl IntoIterator<Item = &'a Event>, now: u64) {
        for event in events {
            assert!(!event.at.is_empty());
            if self.knows(&event.id, now) {
                continue;
            }
            self.known.insert(event.id.clone(), now);
            let counted = self.counted.entry(event.id.clone()).or_default();
            if counted.0 == 0 {
                self.order.push(event.id.clone());
            }
            counted.0 += 1;
            counted.1 += event.bytes;
        }
    }
}

fn answer(status: u16, headers: &[(&'static str, &'static str)], body: &str) -> Heard {
    let mut map = HeaderMap::new();
    for (name, value) in headers {
        map.insert(*name, value.parse().unwrap());
    }
    Heard::Answer {
        status,
        headers: map,
        body: Bytes::from(body.to_owned()),
        read: Whole::Yes,
    }
}

fn events(kind: Kind, request: &Request) -> Vec<Event> {
    if kind == Kind::Stripe {
        return vec![form(&request.body)];
    }
    let body: Json = serde_json::from_slice(&request.body).unwrap();
    let list = match (kind, body) {
        (Kind::Lago | Kind::Orb | Kind::Polar, body) => body["events"].as_array().unwrap().clone(),
        (_, Json::Array(list)) => list,
        (Kind::Metronome, one) => panic!("no array: {one}"),
        (_, one) => vec![one],
    };
    let [id, customer, data, at] = match kind {
        Kind::Lago => [
            "transaction_id",
            "external_subscription_id",
            "properties",
            "timestamp",
        ],
        Kind::Orb => [
            "idempotency_key",
            "external_customer_id",
            "properties",
            "timestamp",
        ],
        Kind::Metronome => ["transaction_id", "customer_id", "properties", "timestamp"],
        Kind::Polar => ["external_id", "external_customer_id", "metadata", "timestamp"],
        _ => ["id", "subject", "data", "time"],
    };
    let text = |value: &Json| value.as_str().unwrap().to_owned();
    let event = |event: &Json| {
        let bytes = &event[data]["billable_bytes"];
        let bytes = match kind {
            Kind::Metronome => text(bytes).parse().unwrap(),
            _ => bytes.as_u64().unwrap(),
        };
        Event::new(text(&event[id]), &text(&event[customer]), bytes, text(&event[at]))
    };
    list.iter().map(event).collect()
}

/// The one meter event of a form.
fn form(body: &[u8]) -> Event {
    let fields: HashMap<String, String> = url::form_urlencoded::parse(body).into_owned().collect();
    let field = |name: &str| fields[name].clone();
    Event::new(
        field("identifier"),
        &field("payload[stripe_customer_id]"),
        field("payload[value]").parse().unwrap(),
        field("timestamp"),
    )
}
