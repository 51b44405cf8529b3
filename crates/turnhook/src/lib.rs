//! Internal to turnhook: this Rust API is no promise, and changes with any version.
//!
//! The program's parts, for `main.rs` and for tests: command line, configuration, wiring, health.

pub mod cli;
pub mod config;
mod descriptors;
pub mod engine;
pub mod health;
pub mod http;
pub mod logging;
pub mod metrics;
pub mod reconcile;
pub mod shutdown;
pub mod store;
mod trial;
pub use turnhook_admin::untrusted as text;
