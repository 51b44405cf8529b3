//! What a product is: the shape that all have, what each is like, and what goes to it and comes back.

use std::{fmt, time::Duration};

use http::{HeaderMap, Method};
use serde::{Deserialize, Serialize};
use turnhook_reducer::time::Timestamp;

use super::{
    facts::Facts,
    quantity::{Count, Meter},
};

/// A product's ingest, with the settings of one endpoint.
pub trait Product: fmt::Debug + Send + Sync {
    /// What it is like.
    fn terms(&self) -> &Terms;

    /// What an event comes to: usually one item, and none where there is nothing to bill.
    ///
    /// # Errors
    /// Why it can never be sent (a name that is too long, say): the delivery becomes a dead letter with these words.
    fn encode(&self, record: &Record<'_>) -> Result<Vec<Item>, String>;

    /// The request for these items: at least one, at most [`Terms::batch`], all with different ids. `attempt` is 1 for
    /// the first time that any of them is sent. Credentials come from the endpoint's headers.
    fn request(&self, items: &[Item], attempt: u32) -> Request;

    /// What an answer to that request means. [`super::answers::by_status`] knows what all have in common.
    fn decode(&self, answer: &Answer<'_>, items: &[Item]) -> Decoded;

    /// Whether it is sent events of users, too: who has used up a quota, who is blocked, and who is no more.
    fn takes_user_events(&self) -> bool {
        false
    }

    /// What has to be asked for first, where the endpoint's credentials are exchanged for a token.
    fn token(&self) -> Option<TokenCall> {
        None
    }

    /// A request that changes nothing and shows whether the credentials are good, where there is such a call.
    fn probe(&self) -> Option<Request> {
        None
    }
}

/// What a product is like.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Terms {
    /// Where it usually is; `None`: there is no usual place, and the endpoint needs a `url`.
    pub url: Option<&'static str>,
    /// How the endpoint's meters become items.
    pub meters: Meters,
    /// Items in a request at most; 1: it takes no batches.
    pub batch: usize,
    /// Bytes of a request's body at most.
    pub bytes: usize,
    /// How long it knows an item again that it has seen.
    pub window: Window,
    /// How old an item's time may be. `None`: there is no bound.
    pub oldest: Option<Duration>,
    /// How far ahead an item's time may be; 0: not by an instant. `None`: there is no bound.
    pub future: Option<Duration>,
    /// Whether one bad item refuses the request's others as well, without any of them being taken.
    pub all_or_nothing: bool,
    /// What may be under way once at a time only.
    pub order: Order,
    /// What it does with a customer whom it does not know, and so what is done by default with one the map lacks.
    pub customers: Customers,
    /// Whether the time is a part of what it knows an item by. Then no item that may have been sent gets a new time.
    pub time_in_key: bool,
    /// Where a 2xx is only a promise: what to watch on their side.
    pub accepted: Option<&'static str>,
}

/// How meters become items.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Meters {
    /// There are none: the whole event is sent, also where nothing is to be billed.
    Whole,
    /// One item for each distinct `event` of the meters, with their values as properties.
    Grouped,
    /// One item for each meter: two meters may not share an `event`.
    Single,
}

/// How long a product knows an item again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Window {
    /// No end is stated.
    Forever,
    /// At least so long.
    For(Duration),
    /// Not at all: what may have been taken is never sent again by itself.
    Never,
}

/// What may be under way once at a time only.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Order {
    /// The items of a session.
    Session,
    /// The items of a customer, whichever session they are of.
    Customer,
}

/// What a product does with customers that it does not know.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Customers {
    /// It refuses or loses their items: they are held back until the map knows them.
    Known,
    /// It keeps their items, and attributes them once it knows the customer: they are passed on.
    AttributedLater,
}

/// What an event is encoded from.
#[derive(Clone, Debug)]
pub struct Record<'a> {
    /// The event.
    pub event: &'a Facts,
    /// The customer, as the product knows it. Empty only where [`Meters::Whole`] are sent without one.
    pub customer: &'a str,
    /// The time to give: the event's, but where a late one is stamped anew.
    pub at: Timestamp,
    /// What each of the endpoint's meters comes to, in the order of the configuration, those at 0 too.
    pub amounts: Vec<(&'a Meter, u64)>,
    /// What else may be sent of the event, by name: the endpoint's allow-list. Never empty values.
    pub properties: Vec<(String, serde_json::Value)>,
}

/// The meters that one item carries, and what to call the item.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Group<'a> {
    /// The item's id.
    pub id: String,
    /// The meters' `event`.
    pub event: &'a str,
    /// Property and amount of each, those at 0 too.
    pub amounts: Vec<(String, u64)>,
}

impl Record<'_> {
    /// The meters by their `event`, but for those that all come to 0. The id depends on the configuration's first meter
    /// and on no amount, so that it is the same whatever an event comes to.
    #[must_use]
    pub fn groups(&self) -> Vec<Group<'_>> {
        let mut groups: Vec<Group<'_>> = Vec::new();
        for (meter, amount) in &self.amounts {
            let property = (meter.property.clone(), *amount);
            if let Some(group) = groups.iter_mut().find(|group| group.event == meter.event) {
                group.amounts.push(property);
                continue;
            }
            let id = if groups.is_empty() {
                self.event.id.clone()
            } else {
                format!("{}.{}", self.event.id, meter.event)
            };
            groups.push(Group {
                id,
                event: &meter.event,
                amounts: vec![property],
            });
        }
        groups.retain(|group| group.amounts.iter().any(|(_, amount)| *amount > 0));
        groups
    }

    /// An item of a group, whose part of the body is `text`.
    #[must_use]
    pub fn item(&self, group: Group<'_>, text: String) -> Item {
        Item {
            id: group.id,
            customer: self.customer.to_owned(),
            meter: group.event.to_owned(),
            at: self.at.0,
            amounts: group.amounts,
            text,
        }
    }
}

/// One usage record of a product.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Item {
    /// What the product knows it again by: the event's id, or that, a dot and the meter's `event`.
    pub id: String,
    /// The customer, as the product knows it.
    pub customer: String,
    /// The meter's `event`.
    pub meter: String,
    /// The time that it bears, in milliseconds since 1970.
    pub at: u64,
    /// What it says, by property.
    pub amounts: Vec<(String, u64)>,
    /// As it is sent: its part of the request's body.
    pub text: String,
}

/// A request. Its URL is the endpoint's with `path` appended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Request {
    /// Nearly always POST.
    pub method: Method,
    /// From a slash on, with the query if there is one; empty: the endpoint's URL as it stands. Or a whole URL, where a
    /// product has another host for this.
    pub path: String,
    /// Beside the endpoint's own.
    pub headers: Vec<(String, String)>,
    /// `Content-Type`; empty where there is no body.
    pub content_type: &'static str,
    /// The body.
    pub body: Vec<u8>,
}

impl Request {
    /// A POST.
    #[must_use]
    pub fn post(path: &str, content_type: &'static str, body: impl Into<Vec<u8>>) -> Request {
        Request {
            method: Method::POST,
            path: path.to_owned(),
            headers: Vec::new(),
            content_type,
            body: body.into(),
        }
    }

    /// A GET, to look whether somebody is there.
    #[must_use]
    pub fn get(path: &str) -> Request {
        Request {
            method: Method::GET,
            path: path.to_owned(),
            headers: Vec::new(),
            content_type: "",
            body: Vec::new(),
        }
    }
}

/// How the endpoint's credentials are exchanged for a token that is sent as `Authorization: Bearer` in their place.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TokenCall {
    /// What asks for one.
    pub request: Request,
    /// The field of the answer that it is in.
    pub field: &'static str,
    /// For how long it is used.
    pub good_for: Duration,
}

/// An answer that came whole.
#[derive(Clone, Copy, Debug)]
pub struct Answer<'a> {
    /// Its status.
    pub status: u16,
    /// Its headers.
    pub headers: &'a HeaderMap,
    /// Its body, up to 64 KiB of it.
    pub body: &'a [u8],
    /// When it came, by the wall clock: some name a time to come again.
    pub at: Timestamp,
}

/// What an answer means.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Decoded {
    /// A verdict for each item, in their order.
    Each(Vec<ItemVerdict>),
    /// The request was refused as a whole and does not say for which item, or was too large: it is sent in halves. A
    /// lone item is rejected, for this reason.
    Halve(String),
}

impl Decoded {
    /// The same for all of `items`.
    #[must_use]
    pub fn all(verdict: ItemVerdict, items: &[Item]) -> Decoded {
        Decoded::Each(vec![verdict; items.len()])
    }
}

/// What an answer means for one item.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ItemVerdict {
    /// It was counted.
    Delivered,
    /// It had been counted before.
    Duplicate,
    /// It was taken, and will be looked at later ([`Terms::accepted`]).
    Accepted,
    /// For certain it was not taken; again, not before this time has passed. `None`, where others of its request were
    /// taken or refused: again at once, without those.
    Retry(Option<Duration>),
    /// Nobody knows whether it was taken; again as above, but not after [`Terms::window`].
    Uncertain(Option<Duration>),
    /// For certain it was not taken, since another call for its customer is under way (another node's, say); again by
    /// the schedule. It says nothing of how the endpoint is.
    Busy,
    /// Its time has not come yet by their clock; again in a moment.
    TooEarly,
    /// It will never be taken: a dead letter, for this reason.
    Rejected(String),
    /// Something has to be put right first, and not in the item (a wrong key, a missing meter): the endpoint waits, for
    /// this reason, and nothing dies.
    Held(String),
}

/// What an endpoint says of itself to its product.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Settings {
    /// What is billed.
    pub meters: Vec<Meter>,
    /// Which usage is counted.
    pub count: Count,
    /// What else may be sent of an event.
    pub properties: Vec<String>,
    /// `options = { … }`: what only this type knows. Its maker refuses what it does not know.
    pub options: serde_json::Map<String, serde_json::Value>,
}

impl Settings {
    /// Reads the options, all of which the type must know.
    ///
    /// # Errors
    /// What is wrong with them.
    pub fn options<T: serde::de::DeserializeOwned>(&self) -> Result<T, Wrong> {
        serde_json::from_value(serde_json::Value::Object(self.options.clone())).map_err(|error| Wrong {
            key: "options",
            problem: error.to_string(),
        })
    }
}

/// What is wrong with an endpoint's settings for its product.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{key}: {problem}")]
pub struct Wrong {
    /// The key, as in the configuration file.
    pub key: &'static str,
    /// What is wrong and what to do.
    pub problem: String,
}
