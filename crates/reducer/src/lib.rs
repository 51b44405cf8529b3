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
//! ```
//! use turnhook_reducer::{
//!     Identity, Reducer, ServerRef, event::EventType,
//!     message::{AllocationId, Kind, Leg, Message, Status},
//!     rules::Rules, time::Timestamp, usage::Counters,
//! };
//!
//! let identity = Identity { store: [0; 16], source: "eu-1".into() };
//! let mut reducer = Reducer::new(identity, Rules::default());
//! let at = |seconds: u64| Timestamp((1_800_000_000 + seconds) * 1000);
//! let totals = Counters { received_packets: 10, received_bytes: 9_000, sent_packets: 10, sent_bytes: 9_000 };
//! for (seconds, kind) in [
//!     (0, Kind::New(Status { lifetime: 600, ..Status::default() })),
//!     (30, Kind::Deleted),
//!     (30, Kind::TotalTraffic(Leg::Client, totals)),
//!     (30, Kind::TotalTraffic(Leg::Peer, totals)),
//! ] {
//!     let message = Message { realm: b"example.org", username: b"1800003600:ann", id: AllocationId(1), kind };
//!     reducer.message(at(seconds), ServerRef::UNKNOWN, &message);
//! }
//! // For a while the session waits for a next allocation; then it ends.
//! reducer.advance(at(60));
//!
//! let events = reducer.drain(true).events;
//! let types: Vec<EventType> = events.iter().map(|event| event.event_type).collect();
//! assert_eq!(types, [EventType::Start, EventType::End]);
//! assert_eq!(events[1].user.as_deref(), Some(b"ann".as_slice()));
//! ```

mod allocation;
mod aside;
pub mod block;
pub mod event;
mod flags;
mod groups;
pub mod heal;
mod identity;
mod ids;
mod index;
mod intern;
mod internal;
mod labels;
mod leftover;
pub mod message;
pub mod outbox;
mod packed;
mod patterns;
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
pub use reducer::{
    HearsSince, Notice, Output, Reducer, RestoreError, Restoring, ServerRef, SilenceLook, SilentThread,
    Stats, TOGETHER,
};
