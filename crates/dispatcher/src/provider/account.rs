//! What is configured of an endpoint that speaks to a billing product: whom is billed for what, and what is done with
//! what cannot be sent.

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use sha2::{Digest as _, Sha256};
use turnhook_reducer::{
    event::{EventType, SessionEvent, SessionId},
    time::Timestamp,
};

use super::{
    Facts, Value,
    customers::Customers,
    product::{Meters, Order, Product, Record, Settings, Terms, Window},
    quantity::{Count, property},
    sent::Sent,
};
use crate::verdict::millis;

/// An endpoint's account at a product.
#[derive(Clone, Debug)]
pub struct Account {
    /// `type`.
    pub kind: &'static str,
    /// How it is spoken to.
    pub product: Arc<dyn Product>,
    /// What it is like: the product's terms, or what the configuration says instead.
    pub terms: Terms,
    /// What is billed.
    pub settings: Settings,
    /// Whom.
    pub customer: CustomerFrom,
    /// The map from there to the product's customers.
    pub customers: Option<Arc<Customers>>,
    /// What is done with whom the map lacks.
    pub unknown: Unknown,
    /// What is done with an event that names nobody.
    pub anonymous: Anonymous,
    /// What is done with what is older than the product takes.
    pub late: Late,
    /// How long a batch waits to become full.
    pub wait: Duration,
}

/// Where the customer is found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum CustomerFrom {
    /// `user`.
    User,
    /// `realm`.
    Realm,
    /// `labels.NAME`.
    Label(String),
}

/// What is done with a customer whom the map lacks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unknown {
    /// The delivery waits until the map has them.
    Hold,
    /// A dead letter.
    Dead,
    /// Not billed: done.
    Skip,
    /// Sent under the name that it has.
    Pass,
}

/// What is done with an event that names nobody.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Anonymous {
    /// A dead letter.
    Dead,
    /// Not billed: done.
    Skip,
    /// Billed to this customer.
    As(String),
}

/// What is done with what is older than the product takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Late {
    /// A dead letter.
    Dead,
    /// It gets the time of its sending, unless it may have been taken already.
    Now,
    /// It is sent as it is.
    Send,
}

/// Why a delivery to a product is a dead letter.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Dead {
    /// The product, or the encoding, refuses it.
    Rejected(String),
    /// It is older than the product takes.
    TooLate(String),
    /// It may have been counted, and a repeat could count it twice.
    Uncertain(String),
    /// The map lacks its customer.
    UnknownCustomer(String),
    /// It names nobody.
    Anonymous,
}

impl Dead {
    /// As in `deliveries list`.
    #[must_use]
    pub fn as_str(&self) -> &'static str {
        match self {
            Dead::Rejected(_) => "rejected",
            Dead::TooLate(_) => "too_late",
            Dead::Uncertain(_) => "uncertain",
            Dead::UnknownCustomer(_) => "unknown_customer",
            Dead::Anonymous => "anonymous",
        }
    }

    /// For people.
    #[must_use]
    pub fn words(&self) -> &str {
        match self {
            Dead::Rejected(why) | Dead::TooLate(why) | Dead::Uncertain(why) | Dead::UnknownCustomer(why) => {
                why
            }
            Dead::Anonymous => "the event names nobody to bill: `anonymous` says what to do with these",
        }
    }
}

/// What is to be done with a delivery.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Prepared {
    /// These items are to be sent, those of them that are open.
    Send(Sent),
    /// There is nothing to bill: it is done.
    Nothing,
    /// It is a dead letter.
    Dead(Dead),
    /// Its customer is not in the map yet.
    Waits,
    /// Its time has not come; so many milliseconds are left.
    Early(u64),
}

/// Whom an event is billed to.
enum Billed {
    To(String),
    Nobody,
    Dead(Dead),
    Waits,
}

impl Account {
    /// Whether an event certainly comes to nothing here, whatever is metered of traffic: no delivery is made of it.
    /// Others that come to nothing are found out when they are about to be sent, by the meters of that time.
    #[must_use]
    pub fn never_bills(&self, event: &SessionEvent) -> bool {
        let meters = &self.settings.meters;
        self.terms.meters != Meters::Whole
            && match self.settings.count {
                Count::End => event.event_type != EventType::End,
                Count::Delta => {
                    event.event_type == EventType::Start
                        && event.usage_delta.is_zero()
                        && meters.iter().all(|meter| meter.value != Value::Sessions)
                }
            }
    }

    /// What is to be done with a delivery of the event `id`: with what may have been sent of it already, if so, and
    /// whether it is begun anew (a first attempt, or a replay).
    #[must_use]
    pub fn prepare(
        &self,
        id: &str,
        body: &Bytes,
        sent: Option<Sent>,
        anew: bool,
        now: Timestamp,
    ) -> Prepared {
        match sent {
            Some(sent) => self.again(sent, anew, now),
            None => self.first(id, body, now),
        }
    }

    /// What may have been taken is sent to the byte as it was, or not at all.
    fn again(&self, mut sent: Sent, anew: bool, now: Timestamp) -> Prepared {
        let age = now.since(Timestamp(sent.began));
        let forgotten = match self.terms.window {
            Window::Forever => false,
            Window::For(window) => age >= millis(window),
            Window::Never => true,
        };
        if forgotten {
            return Prepared::Dead(Dead::Uncertain(format!(
                "an attempt {} ago may have been counted, and {} may not know it again: look there, then \
                 `turnhook replay --may-repeat` or `turnhook deliveries discard`",
                words_of(age),
                self.kind
            )));
        }
        if anew {
            sent = sent.all_open();
        }
        if let Some(late) = sent.open().find_map(|item| self.too_old(item.at, now))
            && self.late != Late::Send
        {
            return Prepared::Dead(Dead::Uncertain(format!(
                "{late}; an earlier attempt may have been counted, so it gets no new time"
            )));
        }
        match sent.open().map(|item| self.early(item.at, now)).max() {
            Some(early) if early > 0 => Prepared::Early(early),
            Some(_) => Prepared::Send(sent),
            None => Prepared::Nothing,
        }
    }

    fn first(&self, id: &str, body: &Bytes, now: Timestamp) -> Prepared {
        let event = match Facts::read(id, body) {
            Ok(event) => event,
            Err(why) => return Prepared::Dead(Dead::Rejected(why)),
        };
        let of_session = event.event_type.is_of_session();
        if !of_session && !self.product.takes_user_events() {
            return Prepared::Nothing;
        }
        // Where nothing is counted, it is not asked what it comes to.
        let whole = self.terms.meters == Meters::Whole || !of_session;
        if !whole && self.amounts(&event).iter().all(|(_, amount)| *amount == 0) {
            return Prepared::Nothing;
        }
        let customer = match self.billed(&event) {
            Billed::To(customer) => customer,
            // Whoever is sent whole events gets those as well.
            Billed::Nobody | Billed::Dead(Dead::Anonymous) if whole => String::new(),
            Billed::Nobody => return Prepared::Nothing,
            Billed::Dead(why) => return Prepared::Dead(why),
            Billed::Waits => return Prepared::Waits,
        };
        let mut at = event.timestamp;
        if let Some(late) = self.too_old(at.0, now) {
            match self.late {
                Late::Dead => return Prepared::Dead(Dead::TooLate(late)),
                Late::Now => at = now,
                Late::Send => {}
            }
        }
        let early = self.early(at.0, now);
        if early > 0 {
            return Prepared::Early(early);
        }
        match self.product.encode(&self.record(&event, &customer, at)) {
            Ok(items) if items.is_empty() => Prepared::Nothing,
            Ok(items) => Prepared::Send(Sent::new(items, now)),
            Err(why) => Prepared::Dead(Dead::Rejected(why)),
        }
    }

    /// What a product encodes.
    #[must_use]
    pub fn record<'a>(&'a self, event: &'a Facts, customer: &'a str, at: Timestamp) -> Record<'a> {
        Record {
            event,
            customer,
            at,
            amounts: self.amounts(event),
            properties: self
                .settings
                .properties
                .iter()
                .filter_map(|name| property(event, name))
                .collect(),
        }
    }

    fn amounts(&self, event: &Facts) -> Vec<(&super::Meter, u64)> {
        let count: Count = self.settings.count;
        let meters = self.settings.meters.iter();
        meters
            .map(|meter| (meter, meter.value.of(event, count)))
            .collect()
    }

    fn billed(&self, event: &Facts) -> Billed {
        let name = match &self.customer {
            CustomerFrom::User => event.user.as_deref(),
            CustomerFrom::Realm => event.realm.as_deref(),
            CustomerFrom::Label(label) => event.labels.get(label).map(String::as_str),
        };
        let Some(name) = name.filter(|name| !name.is_empty()) else {
            return match &self.anonymous {
                Anonymous::Dead => Billed::Dead(Dead::Anonymous),
                Anonymous::Skip => Billed::Nobody,
                Anonymous::As(customer) => Billed::To(customer.clone()),
            };
        };
        let Some(customers) = &self.customers else {
            return Billed::To(name.to_owned());
        };
        if let Some(customer) = customers.find(name) {
            return Billed::To(customer);
        }
        match self.unknown {
            Unknown::Hold => Billed::Waits,
            Unknown::Dead => Billed::Dead(Dead::UnknownCustomer(format!(
                "{} lacks {name:?}",
                customers.path().display()
            ))),
            Unknown::Skip => Billed::Nobody,
            Unknown::Pass => Billed::To(name.to_owned()),
        }
    }

    /// By what deliveries wait for each other: their session, or their customer.
    #[must_use]
    pub fn ordering_key(&self, id: &str, body: &Bytes, session: SessionId) -> SessionId {
        if self.terms.order == Order::Session {
            return session;
        }
        let Ok(event) = Facts::read(id, body) else {
            return session;
        };
        match self.billed(&event) {
            Billed::To(customer) => {
                let digest = Sha256::digest(customer.as_bytes());
                let mut key = [0; 16];
                key.copy_from_slice(&digest[..16]);
                SessionId(key)
            }
            _ => session,
        }
    }

    fn too_old(&self, at: u64, now: Timestamp) -> Option<String> {
        let oldest = self.terms.oldest?;
        let age = now.since(Timestamp(at));
        (age > millis(oldest)).then(|| {
            format!(
                "it is {} old, and {} takes nothing older than {}",
                words_of(age),
                self.kind,
                words_of(millis(oldest))
            )
        })
    }

    fn early(&self, at: u64, now: Timestamp) -> u64 {
        let ahead = Timestamp(at).since(now);
        self.terms
            .future
            .map_or(0, |future| ahead.saturating_sub(millis(future)))
    }
}

/// A time for people, in its largest unit.
fn words_of(ms: u64) -> String {
    match ms / 1000 {
        seconds if seconds >= 2 * 86_400 => format!("{} days", seconds / 86_400),
        seconds if seconds >= 2 * 3600 => format!("{} hours", seconds / 3600),
        seconds if seconds >= 120 => format!("{} minutes", seconds / 60),
        seconds => format!("{seconds} seconds"),
    }
}
