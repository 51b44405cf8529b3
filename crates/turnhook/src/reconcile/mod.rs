//! coturn's own log against the ledger, to the byte: the second witness.
//!
//! The log has each report that coturn published, and nothing can be lost on its way into a file; but names in it are
//! what clients say, and before 4.17 a client can write whole lines. So what is found here is a finding for people:
//! nothing in it changes a session; what may be billed besides, by a narrow rule and if somebody asks for it, is in
//! `heal.rs`.

mod compare;
mod files;
pub mod heal;
mod ledger;
pub mod line;
pub mod log;

pub use compare::{Compared, Finding, Verdict, compare};
pub use files::read;
pub use ledger::read as ledger;

/// A line is written right before its message is published. Dates of whole seconds, and a busy machine, differ by more,
/// in milliseconds.
const TOLERANCE: u64 = 3_000;
