//! Internal to turnhook: this Rust API is no promise, and changes with any version.
//!
//! Signed webhook deliveries: what is sent ([`body`], [`signature`]), how ([`client`]), what an answer
//! means ([`verdict`]), when a failed one is tried again ([`schedule`]), and which one may be sent next
//! ([`queue`]: order within a session, fairness between sessions, concurrency, rate, circuit breaker).
//!
//! Endpoints of billing products are spoken to by [`provider`].
//!
//! [`dispatcher::Dispatcher`] drives all of it. It neither knows the store nor decides what is sent to
//! whom: it is offered deliveries, and reads and records them through a port ([`outbox::Outbox`]).
//!
//! What an attempt is signed with, and how a receiver checks it:
//!
//! ```
//! use turnhook_dispatcher::{clock::Clocks, signature::{Secret, sign, verify}};
//!
//! let secrets = [Secret::parse("whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw")?];
//! let (id, body) = ("evt_06epcj2hhm0000000000000001", br#"{"type":"session.end"}"#);
//! let now = Clocks::system().wall().0 / 1000;
//! let signature = sign(&secrets, id, now, body);
//! verify(&secrets, id, &now.to_string(), &signature, body, now)?;
//! // A day later the same request is a replay, and refused.
//! assert!(verify(&secrets, id, &now.to_string(), &signature, body, now + 86_400).is_err());
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

pub mod address;
pub mod body;
pub mod breaker;
pub mod client;
pub mod clock;
pub mod config;
pub mod dispatcher;
pub mod endpoint;
pub mod filter;
pub mod include;
pub mod outbox;
pub mod provider;
pub mod queue;
mod queued;
mod rate;
pub mod samples;
pub mod schedule;
pub mod signature;
mod tls;
mod token;
pub mod verdict;
mod writer;
pub use writer::Writer;
