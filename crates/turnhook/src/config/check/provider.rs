//! `[[endpoint]]` of a billing product: that what is billed is billed once, and by what the product takes.

use std::{sync::Arc, time::Duration};

use turnhook_dispatcher::{
    filter::{Filter, Pattern},
    provider::{
        self, Customers as OfProduct, Facts, KINDS, Kind, Meter, Meters, Product, Record, Settings, Terms,
        Value, Window,
        account::{Account, Anonymous, CustomerFrom, Late, Unknown},
        customers::Customers,
        quantity::{Count, PROPERTIES},
    },
    samples::{self, Case},
    signature::Secret as SigningSecret,
};
use turnhook_reducer::{event::EventType, time::Timestamp};

use super::{Check, key_path};
use crate::config::{Span, file, locate::Step, product};

/// A longer wait for a batch to become full is a slip of the pen.
const LONGEST_WAIT: Span = Span::seconds(600);

impl Check<'_> {
    /// What a billing product's endpoint is; an inner `None` for a webhook.
    pub(super) fn account(&mut self, at: &[Step], endpoint: &file::Endpoint) -> Option<Option<Account>> {
        let key = |name: &str| [at, &key_path![name]].concat();
        if endpoint.r#type == "webhook" {
            return self.only_of_webhooks(at, endpoint).then_some(None);
        }
        let Some(kind) = provider::kind(&endpoint.r#type) else {
            let known: Vec<&str> = KINDS.iter().map(|kind| kind.name).collect();
            return self.wrong(
                &key("type"),
                format!(
                    "`{}` is no type; choose webhook, {}",
                    endpoint.r#type,
                    known.join(", ")
                ),
            );
        };
        let count = match endpoint.count.unwrap_or_default() {
            product::Count::Delta => Count::Delta,
            product::Count::End => Count::End,
        };
        let settings = Settings {
            meters: self.meters(at, endpoint)?,
            count,
            properties: self.properties(at, endpoint, kind.properties)?,
            options: endpoint.options.clone(),
        };
        let product = match (kind.make)(&settings) {
            Ok(product) => product,
            Err(error) => return self.wrong(&key(error.key), error.problem),
        };
        let mut terms = product.terms().clone();
        self.meters_fit(at, &settings, &terms)?;
        if terms.meters != Meters::Whole {
            self.types_that_are_counted(at, endpoint, count)?;
        }
        self.events_of_users(at, endpoint, &*product)?;
        self.bounds(at, endpoint, kind, &mut terms)?;
        let wait = self.batch(at, endpoint, &mut terms)?;
        let customer = match endpoint.customer.as_deref().unwrap_or("user") {
            "user" => CustomerFrom::User,
            "realm" => CustomerFrom::Realm,
            other => match other.strip_prefix("label.").filter(|label| !label.is_empty()) {
                Some(label) => CustomerFrom::Label(label.to_owned()),
                None => {
                    return self.wrong(
                        &key("customer"),
                        format!("`{other}` names nobody; choose user, realm or label.NAME"),
                    );
                }
            },
        };
        let customers = match &endpoint.customers_file {
            None => None,
            Some(file) => match Customers::read(file) {
                Ok(customers) => Some(Arc::new(customers)),
                Err(error) => return self.wrong(&key("customers_file"), error),
            },
        };
        if endpoint.unknown.is_some() && customers.is_none() {
            self.doubtful(
                &key("unknown"),
                "has no effect: it says what to do with whom the map lacks, and there is no `customers_file`",
            );
        }
        let unknown = match endpoint.unknown {
            Some(product::Unknown::Hold) => Unknown::Hold,
            Some(product::Unknown::Dead) => Unknown::Dead,
            Some(product::Unknown::Skip) => Unknown::Skip,
            Some(product::Unknown::Pass) => Unknown::Pass,
            None if terms.customers == OfProduct::Known => Unknown::Hold,
            None => Unknown::Pass,
        };
        let anonymous = match endpoint.anonymous.as_deref() {
            None | Some("dead") => Anonymous::Dead,
            Some("skip") => Anonymous::Skip,
            Some("") => {
                return self.wrong(&key("anonymous"), "is empty; choose dead, skip or a customer");
            }
            Some(customer) => Anonymous::As(customer.to_owned()),
        };
        self.time_for_trying(at, endpoint, &terms);
        Some(Some(Account {
            kind: kind.name,
            product,
            terms,
            settings,
            customer,
            customers,
            unknown,
            anonymous,
            late: match endpoint.late {
                None | Some(product::Late::Dead) => Late::Dead,
                Some(product::Late::Now) => Late::Now,
                Some(product::Late::Send) => Late::Send,
            },
            wait,
        }))
    }

    fn only_of_webhooks(&mut self, at: &[Step], endpoint: &file::Endpoint) -> bool {
        let given = [
            ("meters", !endpoint.meters.is_empty()),
            ("count", endpoint.count.is_some()),
            ("properties", endpoint.properties.is_some()),
            ("options", !endpoint.options.is_empty()),
            ("customer", endpoint.customer.is_some()),
            ("customers_file", endpoint.customers_file.is_some()),
            ("unknown", endpoint.unknown.is_some()),
            ("anonymous", endpoint.anonymous.is_some()),
            ("batch", endpoint.batch.is_some()),
            ("late", endpoint.late.is_some()),
            ("oldest", endpoint.oldest.is_some()),
            ("future", endpoint.future.is_some()),
            ("window", endpoint.window.is_some()),
        ];
        let mut well = true;
        for (name, is_given) in given {
            if is_given {
                self.wrong::<()>(
                    &[at, &key_path![name]].concat(),
                    "is of billing products only: a webhook is sent whole events; say which product by `type`",
                );
                well = false;
            }
        }
        well
    }

    /// A billing product does not look at signatures: its credentials say who turnhook is.
    pub(super) fn no_signing_secrets(
        &mut self,
        at: &[Step],
        endpoint: &file::Endpoint,
    ) -> Option<Vec<SigningSecret>> {
        for (name, given) in [
            ("secrets", !endpoint.secrets.is_empty()),
            ("secrets_file", endpoint.secrets_file.is_some()),
        ] {
            if given {
                return self.wrong(
                    &[at, &key_path![name]].concat(),
                    "sign webhooks only; say who turnhook is by `bearer_file`, `basic_file` or `headers`",
                );
            }
        }
        Some(Vec::new())
    }

    fn meters(&mut self, at: &[Step], endpoint: &file::Endpoint) -> Option<Vec<Meter>> {
        let mut meters: Vec<Meter> = Vec::new();
        for (index, given) in endpoint.meters.iter().enumerate() {
            let key = |name: &str| [at, &key_path!["meters", index, name]].concat();
            let value: Value = match given.value.parse() {
                Ok(value) => value,
                Err(why) => return self.wrong(&key("value"), why),
            };
            if given.event.trim().is_empty() || given.event.chars().any(char::is_control) {
                return self.wrong(&key("event"), "is empty, or has control characters");
            }
            let mut meter = Meter::new(&given.event, value);
            if let Some(property) = &given.property {
                meter.property.clone_from(property);
            }
            for other in meters.iter().filter(|other| other.event == meter.event) {
                if other.value == value {
                    return self.wrong(
                        &key("value"),
                        format!(
                            "`{value}` is in `{}` already: it would be billed twice",
                            meter.event
                        ),
                    );
                }
                if other.property == meter.property {
                    return self.wrong(
                        &key("property"),
                        format!("`{}` holds another value of `{}`", meter.property, meter.event),
                    );
                }
            }
            meters.push(meter);
        }
        Some(meters)
    }

    fn meters_fit(&mut self, at: &[Step], settings: &Settings, terms: &Terms) -> Option<()> {
        let key = [at, &key_path!["meters"]].concat();
        match terms.meters {
            Meters::Whole if !settings.meters.is_empty() => {
                self.wrong(&key, "this type is sent whole events; leave them out")
            }
            Meters::Grouped | Meters::Single if settings.meters.is_empty() => self.wrong(
                &key,
                "missing: what is billed? [{ event = \"turn_relayed_bytes\", value = \"billable_bytes\" }]",
            ),
            Meters::Single => {
                for (index, meter) in settings.meters.iter().enumerate() {
                    if settings.meters[..index]
                        .iter()
                        .any(|other| other.event == meter.event)
                    {
                        return self.wrong(
                            &[&key[..], &key_path![index, "event"]].concat(),
                            format!(
                                "`{}` holds another value: this product takes one for each",
                                meter.event
                            ),
                        );
                    }
                }
                Some(())
            }
            _ => Some(()),
        }
    }

    fn properties(&mut self, at: &[Step], endpoint: &file::Endpoint, usual: &[&str]) -> Option<Vec<String>> {
        let Some(given) = &endpoint.properties else {
            return Some(usual.iter().map(|name| (*name).to_owned()).collect());
        };
        for (index, name) in given.iter().enumerate() {
            let is_label = name.strip_prefix("label.").is_some_and(|label| !label.is_empty());
            if !is_label && !PROPERTIES.contains(&name.as_str()) {
                return self.wrong(
                    &[at, &key_path!["properties", index]].concat(),
                    format!(
                        "`{name}` is not sent; choose {}, label.NAME",
                        PROPERTIES.join(", ")
                    ),
                );
            }
        }
        Some(given.clone())
    }

    /// What a product is sent of users is tried, and said where it is nothing.
    fn events_of_users(
        &mut self,
        at: &[Step],
        endpoint: &file::Endpoint,
        product: &dyn Product,
    ) -> Option<()> {
        let listed = endpoint.events.iter();
        for event_type in listed.filter_map(|name| EventType::from_name(name)) {
            if event_type.is_of_session() {
                continue;
            }
            let kind = event_type.as_str();
            if !product.takes_user_events() {
                self.doubtful(
                    &[at, &key_path!["events"]].concat(),
                    format!(
                        "an endpoint of type \"{}\" is sent no {kind}: it only counts",
                        endpoint.r#type
                    ),
                );
                return Some(());
            }
            let sample = samples::payload(event_type, Case::Exact, Timestamp(1_795_327_257_624));
            let tried = Facts::read("evt_00000000000000000000000000", &sample).and_then(|event| {
                product.encode(&Record {
                    event: &event,
                    customer: "customer",
                    at: event.timestamp,
                    amounts: Vec::new(),
                    properties: Vec::new(),
                })
            });
            if let Err(error) = tried {
                return self.wrong(
                    &[at, &key_path!["options"]].concat(),
                    format!("tried on a {kind}, which has no value and no session: {error}"),
                );
            }
        }
        Some(())
    }

    fn types_that_are_counted(&mut self, at: &[Step], endpoint: &file::Endpoint, count: Count) -> Option<()> {
        let wanted: &[EventType] = match count {
            Count::Delta => &[EventType::Start, EventType::Usage, EventType::End],
            Count::End => &[EventType::End],
        };
        let lacks = wanted
            .iter()
            .find(|wanted| !endpoint.events.iter().any(|event| event == wanted.as_str()));
        match lacks {
            None => Some(()),
            Some(lacks) => self.wrong(
                &[at, &key_path!["events"]].concat(),
                format!(
                    "lacks {}: with count = \"{}\" not all would be billed",
                    lacks.as_str(),
                    match count {
                        Count::Delta => "delta",
                        Count::End => "end",
                    }
                ),
            ),
        }
    }

    fn bounds(
        &mut self,
        at: &[Step],
        endpoint: &file::Endpoint,
        kind: &Kind,
        terms: &mut Terms,
    ) -> Option<()> {
        if let Some(oldest) = endpoint.oldest {
            terms.oldest = Some(oldest.0);
        }
        if let Some(future) = endpoint.future {
            terms.future = Some(future.0);
        }
        if let Some(window) = endpoint.window {
            // Whoever believes that it is known for longer has it counted twice.
            if let Window::For(known) = terms.window
                && window.0 > known
                && !kind.own_window
            {
                return self.wrong(
                    &[at, &key_path!["window"]].concat(),
                    format!(
                        "is {window}, and this product knows an item again for {}: what is repeated later would be billed twice",
                        Span(known)
                    ),
                );
            }
            terms.window = if window.0.is_zero() {
                Window::Never
            } else {
                Window::For(window.0)
            };
        }
        if terms.oldest.is_some_and(|oldest| oldest.is_zero()) {
            return self.wrong(
                &[at, &key_path!["oldest"]].concat(),
                "is 0: everything would be too late",
            );
        }
        Some(())
    }

    /// How long a batch waits.
    fn batch(&mut self, at: &[Step], endpoint: &file::Endpoint, terms: &mut Terms) -> Option<Duration> {
        let key = |name: &str| [at, &key_path!["batch", name]].concat();
        let batch = endpoint.batch.unwrap_or_default();
        if let Some(max) = batch.max {
            if !(1..=terms.batch).contains(&max) {
                return self.wrong(
                    &key("max"),
                    format!("is {max}; this product takes 1 to {}", terms.batch),
                );
            }
            terms.batch = max;
        }
        if let Some(bytes) = batch.bytes {
            let bytes = usize::try_from(bytes.0).unwrap_or(usize::MAX);
            if !(1024..=terms.bytes).contains(&bytes) {
                return self.wrong(
                    &key("bytes"),
                    format!(
                        "it is at least 1KiB, and this product takes {} bytes",
                        terms.bytes
                    ),
                );
            }
            terms.bytes = bytes;
        }
        if batch.wait > LONGEST_WAIT {
            return self.wrong(&key("wait"), "it is at most 10m");
        }
        Some(if terms.batch == 1 {
            Duration::ZERO
        } else {
            batch.wait.0
        })
    }

    /// What is tried for longer than the product takes it ends among the dead letters.
    fn time_for_trying(&mut self, at: &[Step], endpoint: &file::Endpoint, terms: &Terms) {
        let tried = endpoint.retry.give_up_after;
        let key = [at, &key_path!["retry", "give_up_after"]].concat();
        if let Some(oldest) = terms.oldest.filter(|oldest| tried.0 > *oldest)
            && endpoint.late != Some(product::Late::Send)
        {
            self.doubtful(
                &key,
                format!(
                    "is {tried}, and this product takes nothing older than {}: after an outage that long, usage ends among the dead letters (see `late`)",
                    Span(oldest)
                ),
            );
        }
        if let Window::For(window) = terms.window
            && tried.0 > window
        {
            self.doubtful(
                &key,
                format!(
                    "is {tried}, and this product knows an item again for {}: what may have been counted is not tried longer than that, and ends among the dead letters (uncertain)",
                    Span(window)
                ),
            );
        }
    }
}

/// None where there is one that matches everything.
pub(super) fn patterns(texts: &[String]) -> Vec<Pattern> {
    if texts.iter().any(|text| text == "*") {
        return Vec::new();
    }
    texts.iter().map(|text| Pattern::new(text)).collect()
}

/// Whom an endpoint hears of.
pub(super) fn filter(endpoint: &file::Endpoint) -> Filter {
    Filter {
        sources: patterns(&endpoint.sources),
        realms: patterns(&endpoint.realms),
        labels: endpoint
            .labels
            .iter()
            .map(|(name, text)| (name.clone(), Pattern::new(text)))
            .collect(),
    }
}
