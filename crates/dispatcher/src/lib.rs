//! Signed webhook deliveries.

pub mod address;
pub mod body;
pub mod breaker;
pub mod client;
pub mod config;
pub mod queue;
mod rate;
pub mod schedule;
pub mod signature;
mod tls;
pub mod verdict;
