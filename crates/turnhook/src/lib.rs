//! Internal to turnhook: this Rust API is no promise, and changes with any version.
//!
//! The program's parts, for `main.rs` and for tests: command line, configuration, wiring, health.
//!
//! ```
//! use std::process::ExitCode;
//!
//! // What webhooks look like, by name: as on the command line.
//! let status = turnhook::cli::main_with(["turnhook", "schema", "--list"]);
//! assert_eq!(status, ExitCode::SUCCESS);
//! ```

// What is `pub` in these is so for the others of them: nobody else sees any of it, and so the compiler finds what is dead.
#![allow(unreachable_pub)]

pub mod cli;
mod config;
mod descriptors;
mod engine;
mod health;
mod http;
mod logging;
mod metrics;
mod reconcile;
mod shutdown;
mod store;
mod trial;
use turnhook_admin::untrusted as text;
