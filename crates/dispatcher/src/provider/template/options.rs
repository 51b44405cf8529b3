//! What stands in `[endpoint.options]` of a template.

use std::{collections::BTreeMap, time::Duration};

use serde::{Deserialize, Serialize};
use serde_json::Value as Json;

use super::{Customers, Meters, Window};
use crate::provider;

/// Where the items go in `body`.
pub(super) const ITEMS: &str = "{{ items }}";

#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct Options {
    /// A product of [`presets`]; what stands beside it wins.
    pub(super) preset: Option<String>,
    /// Appended to the endpoint's `url`; a template, each value of which is escaped.
    pub(super) path: String,
    /// Templates.
    pub(super) headers: BTreeMap<String, String>,
    /// A template that gives JSON. Either this or `form`.
    pub(super) item: Option<String>,
    /// Fields of a form, each a template. Then one item is one request.
    pub(super) form: BTreeMap<String, String>,
    /// What stands around the items, which go where it says `{{ items }}`. Without it: the item, or the bare array.
    pub(super) body: Option<String>,
    pub(super) batch: usize,
    pub(super) bytes: usize,
    pub(super) meters: Grouping,
    pub(super) order: By,
    pub(super) customers: Unknown,
    /// `"forever"`, `"never"`, or for how long.
    pub(super) window: Option<String>,
    pub(super) oldest: Option<String>,
    pub(super) future: Option<String>,
    pub(super) all_or_nothing: bool,
    pub(super) time_in_key: bool,
    pub(super) accepted: bool,
    pub(super) duplicate: Vec<Rule>,
    pub(super) rejected: Vec<Rule>,
    pub(super) hold: Vec<Rule>,
    pub(super) retry: Vec<Rule>,
    pub(super) early: Vec<Rule>,
    pub(super) failed_items: Option<FailedItems>,
    /// The path of a GET that changes nothing.
    pub(super) probe: Option<String>,
}

impl Default for Options {
    fn default() -> Options {
        Options {
            preset: None,
            path: String::new(),
            headers: BTreeMap::new(),
            item: None,
            form: BTreeMap::new(),
            body: None,
            batch: 1,
            bytes: 1 << 20,
            meters: Grouping::Grouped,
            order: By::Session,
            customers: Unknown::Known,
            window: None,
            oldest: None,
            future: None,
            all_or_nothing: false,
            time_in_key: false,
            accepted: false,
            duplicate: Vec::new(),
            rejected: Vec::new(),
            hold: Vec::new(),
            retry: Vec::new(),
            early: Vec::new(),
            failed_items: None,
            probe: None,
        }
    }
}

#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum Grouping {
    Grouped,
    Single,
}

impl From<Grouping> for Meters {
    fn from(grouping: Grouping) -> Meters {
        match grouping {
            Grouping::Grouped => Meters::Grouped,
            Grouping::Single => Meters::Single,
        }
    }
}

#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum By {
    Session,
    Customer,
}

impl From<By> for provider::Order {
    fn from(by: By) -> provider::Order {
        match by {
            By::Session => provider::Order::Session,
            By::Customer => provider::Order::Customer,
        }
    }
}

/// What it does with customers that it does not know.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum Unknown {
    /// It wants to know them.
    Known,
    /// It attributes their usage later.
    Later,
}

impl From<Unknown> for Customers {
    fn from(unknown: Unknown) -> Customers {
        match unknown {
            Unknown::Known => Customers::Known,
            Unknown::Later => Customers::AttributedLater,
        }
    }
}

impl Options {
    pub(super) fn check(&self) -> Result<(), String> {
        let say = |problem: &str| Err(problem.to_owned());
        if self.item.is_some() != self.form.is_empty() {
            return say(
                "say what an item is: either `item`, a template that gives JSON, or `form`, or a `preset`",
            );
        }
        if !self.path.is_empty() && !self.path.starts_with('/') {
            return say("`path` begins with a slash");
        }
        if self.batch == 0 {
            return say("`batch` is at least 1");
        }
        if self.batch > 1 {
            let mut of_item = self.headers.values().chain([&self.path]);
            if self.item.is_none() || of_item.any(|template| template.contains("{{")) {
                return say(
                    "a form, and a path or header with a template in it, are of one item: `batch = 1`",
                );
            }
        }
        if let Some(body) = &self.body {
            if body.matches(ITEMS).count() != 1 || self.item.is_none() {
                return Err(format!(
                    "`body` says where the items go, once: {ITEMS}; and it goes with `item`"
                ));
            }
            if serde_json::from_str::<Json>(&body.replacen(ITEMS, "[]", 1)).is_err() {
                return say("`body` is not JSON once the items are in it");
            }
        }
        for name in self.headers.keys() {
            if http::HeaderName::from_bytes(name.as_bytes()).is_err() {
                return Err(format!("`{name}` is no name of a header"));
            }
        }
        let lists = [
            &self.duplicate,
            &self.rejected,
            &self.hold,
            &self.retry,
            &self.early,
        ];
        if lists.into_iter().flatten().any(Rule::is_empty) {
            return say("a rule for answers needs a `status`, or what the answer `contains`, or both");
        }
        Ok(())
    }

    /// Nobody but the product knows, and a wrong guess bills twice.
    pub(super) fn window(&self) -> Result<Window, String> {
        match self.window.as_deref() {
            None => Err(
                "say for how long the product knows an item again by its id: `window = \"24h\"`, \"forever\", or \
                 \"never\" (then nothing that may have arrived is sent again by itself)"
                    .to_owned(),
            ),
            Some("forever") => Ok(Window::Forever),
            Some("never") => Ok(Window::Never),
            Some(text) => duration(text).map(Window::For),
        }
    }

    pub(super) fn oldest(&self) -> Result<Option<Duration>, String> {
        self.oldest.as_deref().map(duration).transpose()
    }

    pub(super) fn future(&self) -> Result<Option<Duration>, String> {
        self.future.as_deref().map(duration).transpose()
    }
}

/// An answer that is meant: all that is given must hold.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct Rule {
    status: Option<u16>,
    /// In the body, whatever the case of its letters.
    contains: Option<String>,
}

impl Rule {
    pub(super) fn is_empty(&self) -> bool {
        self.status.is_none() && self.contains.as_deref().is_none_or(str::is_empty)
    }

    pub(super) fn new(status: u16, contains: Option<&str>) -> Rule {
        Rule {
            status: Some(status),
            contains: contains.map(str::to_owned),
        }
    }

    pub(super) fn matches(&self, status: u16, body: &str) -> bool {
        self.status.is_none_or(|wanted| wanted == status)
            && self
                .contains
                .as_ref()
                .is_none_or(|wanted| body.contains(&wanted.to_lowercase()))
    }
}

/// Where an answer names the items that failed.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct FailedItems {
    /// Names down to the list, with dots between them.
    pub(super) path: String,
    /// The field with the item's id; without it the list is one of ids.
    #[serde(default)]
    pub(super) id: Option<String>,
    /// The field that says why.
    #[serde(default)]
    pub(super) reason: Option<String>,
}

/// `"35d"`.
fn duration(text: &str) -> Result<Duration, String> {
    humantime::parse_duration(text)
        .map_err(|error| format!("`{text}` is no duration: {error}; write \"35d\", \"12h\", \"5m\""))
}
