//! The core of turnhook, and a library of its own: it takes what coturn publishes about its allocations, groups these into
//! relay sessions, and says what is to be billed.
//!
//! There is no I/O here, no clock, no randomness and no logging: time is an input, and the same inputs give the same
//! outputs, ids included. Nothing here can fail and nothing panics, but for what is read or compiled: each of these has an
//! error of its own ([`RestoreError`], [`rules::PatternError`], [`event::IdError`]).
//!
//! # The most important types
//!
//! * [`Reducer`] is the state machine of one source. [`Reducer::message`] and its other inputs carry their time,
//!   [`Reducer::next_deadline`] says when it wants to be woken with [`Reducer::advance`], and [`Reducer::drain`] gives what
//!   came of all that.
//! * [`message::Message`] is what coturn said about one allocation, decoded; [`source::Gap`] a time in which something may
//!   have been missed.
//! * [`Output`] is what is to be committed together: [`event::SessionEvent`]s, [`state::Change`]s of rows that mean nothing
//!   to the store that keeps them, and [`Notice`]s for the operator. Commit it before anything is sent.
//! * [`Restoring`] makes a reducer of its rows again; [`Identity`] is what makes its ids its own.
//! * [`rules::Rules`] are its settings. They have defaults: take `Rules { linger: 10_000, ..Rules::default() }`.
//! * [`usage::Usage`] is what was carried, and the bytes to bill.
//!
//! Of several nodes that share a source, one leads; the others hand the same messages to reducers that
//! [follow](Reducer::follow), any of which can [take over](Reducer::take_over).
//!
//! # A call of half a minute
//!
//! `cargo run -p turnhook-reducer --example call`:
//!
//! ```
#![doc = include_str!("../examples/call.rs")]
//! ```
//!
//! # What may come
//!
//! Enums to which values may be added are `#[non_exhaustive]`. The others are not, for whoever keeps or sends them has to
//! have a word for each ([`event::EventType`], [`event::Accuracy`]), because they are inputs ([`message::Kind`]), or because
//! there are no more (two [legs](message::Leg)).

mod allocation;
mod aside;
pub mod block;
mod deadline;
pub mod event;
mod flags;
mod groups;
pub mod heal;
mod identity;
mod ids;
mod index;
mod intern;
mod internal;
mod key;
mod labels;
mod leftover;
pub mod message;
pub mod outbox;
mod packed;
mod patterns;
mod peer_leg;
mod realms;
mod reducer;
mod relayed;
pub mod rules;
mod servers;
mod session;
mod slots;
mod snapshot;
pub mod source;
pub mod state;
pub mod time;
mod totals;
pub mod usage;
pub mod user_event;
mod wall;

pub use identity::Identity;
pub use internal::Broken;
pub use reducer::{
    HearsSince, Notice, Output, Reducer, RestoreError, Restoring, ServerRef, SilenceLook, SilentThread,
    Stats, TOGETHER,
};
