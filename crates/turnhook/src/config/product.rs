//! Keys of `[[endpoint]]` that say whom it hears of, how much, and what is billed at a billing product.

use serde::{Deserialize, Serialize};
use turnhook_reducer::outbox;

use super::units::{Size, Span};

/// `include` of an endpoint.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(deny_unknown_fields, default)]
pub struct Include {
    /// Allocations at most.
    pub allocations: u32,
    /// Whether they have the clients' addresses.
    pub addresses: bool,
}

impl Default for Include {
    fn default() -> Include {
        let outbox::Include {
            allocations,
            addresses,
        } = outbox::Include::default();
        Include {
            allocations,
            addresses,
        }
    }
}

/// One of `meters`.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Meter {
    /// What the product calls it.
    pub event: String,
    /// What is counted.
    pub value: String,
    /// The property that holds it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub property: Option<String>,
}

/// `count`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Count {
    /// `usage_delta` of all three types.
    #[default]
    Delta,
    /// `usage` of the end.
    End,
}

/// `unknown`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Unknown {
    /// It waits.
    Hold,
    /// A dead letter.
    Dead,
    /// Not billed.
    Skip,
    /// Sent under its own name.
    Pass,
}

/// `late`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Late {
    /// A dead letter.
    Dead,
    /// It gets the time of its sending.
    Now,
    /// Sent as it is.
    Send,
}

/// `batch`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Batch {
    /// Items in a request.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max: Option<usize>,
    /// How long one waits to become full.
    #[serde(default = "wait")]
    pub wait: Span,
    /// Bytes of a request's body.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub bytes: Option<Size>,
}

impl Default for Batch {
    fn default() -> Batch {
        Batch {
            max: None,
            wait: wait(),
            bytes: None,
        }
    }
}

fn wait() -> Span {
    Span::seconds(1)
}
