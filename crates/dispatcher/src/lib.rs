//! Signed webhook deliveries: what is sent ([`body`], [`signature`]), how ([`client`]), what an answer
//! means ([`verdict`]), when a failed one is tried again ([`schedule`]), and which one may be sent next
//! ([`queue`]: order within a session, fairness between sessions, concurrency, rate, circuit breaker).
//!
//! [`dispatcher::Dispatcher`] drives all of it. It neither knows the store nor decides what is told to
//! whom: deliveries come in, [`endpoint::Report`]s go out.

pub mod address;
pub mod body;
pub mod breaker;
pub mod client;
pub mod clock;
pub mod config;
pub mod dispatcher;
pub mod endpoint;
pub mod queue;
mod rate;
pub mod schedule;
pub mod signature;
mod tls;
pub mod verdict;
