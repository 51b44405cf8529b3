//! Billing products spoken to directly. One file for each, all of one shape ([`Product`]): what a session's event comes
//! to at that product ([`Item`]s), the request that carries items, and what the answer means for each of them.
//!
//! Pure: no clock, no I/O, no randomness. Which items are due, windows, bounds, batches, halving and what is written
//! down are the queue's business; a product only says what it is like ([`Terms`]).
//!
//! To add a product: copy `openmeter.rs`, write its `encode`, `request` and `decode`, and name it in [`KINDS`].

pub mod account;
pub mod answers;
pub mod batch;
pub mod cloudevents;
pub mod customers;
pub mod facts;
#[cfg(test)]
mod hostile;
#[cfg(test)]
mod kit;
pub mod lago;
pub mod metronome;
pub mod openmeter;
pub mod orb;
pub mod polar;
mod product;
pub mod quantity;
pub mod sent;
pub mod signal;
pub mod stripe;
pub mod template;

use std::sync::Arc;

pub use self::{
    facts::Facts,
    product::{
        Answer, Customers, Decoded, Group, Item, ItemVerdict, Meters, Order, Product, Record, Request,
        Settings, Terms, TokenCall, Window, Wrong,
    },
    quantity::{Count, Meter, USUAL, Value},
};

/// A product as it stands in the configuration: `type`.
pub struct Kind {
    /// `type = "…"`.
    pub name: &'static str,
    /// What is sent of an event beside the amounts, unless the endpoint says.
    pub properties: &'static [&'static str],
    /// Whether its operator says for how long it knows an item again, so that this may be longer than is known here.
    pub own_window: bool,
    /// Makes it.
    pub make: fn(&Settings) -> Result<Arc<dyn Product>, Wrong>,
}

/// All products.
pub const KINDS: &[Kind] = &[
    Kind {
        name: "cloudevents",
        properties: &[],
        own_window: true,
        make: cloudevents::make,
    },
    Kind {
        name: "openmeter",
        properties: &USUAL,
        own_window: true,
        make: openmeter::make,
    },
    Kind {
        name: "stripe",
        properties: &[],
        own_window: false,
        make: stripe::make,
    },
    Kind {
        name: "lago",
        properties: &USUAL,
        own_window: false,
        make: lago::make,
    },
    Kind {
        name: "orb",
        properties: &USUAL,
        own_window: false,
        make: orb::make,
    },
    Kind {
        name: "metronome",
        properties: &USUAL,
        own_window: false,
        make: metronome::make,
    },
    Kind {
        name: "polar",
        properties: &USUAL,
        own_window: false,
        make: polar::make,
    },
    Kind {
        name: "template",
        properties: &USUAL,
        own_window: true,
        make: template::make,
    },
];

/// The product that a `type` names.
#[must_use]
pub fn kind(name: &str) -> Option<&'static Kind> {
    KINDS.iter().find(|kind| kind.name == name)
}

#[cfg(test)]
mod tests;
