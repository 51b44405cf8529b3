//! The core of turnhook: its vocabulary (what coturn says, what billing is told) and the pure state
//! machine that groups allocations into relay sessions.
//!
//! There is no I/O here, no clock, no randomness and no logging: time is an input, and the same inputs
//! give the same outputs, ids included. Nothing here can fail and nothing panics.

mod allocation;
mod aside;
pub mod event;
mod flags;
mod identity;
mod intern;
mod internal;
mod labels;
pub mod message;
mod packed;
mod realms;
mod reducer;
pub mod rules;
mod session;
mod snapshot;
pub mod source;
pub mod state;
pub mod time;
pub mod usage;

pub use identity::Identity;
pub use reducer::{
    Notice, Output, Reducer, RestoreError, Restoring, ServerRef, SilenceLook, SilentThread, Stats,
};
