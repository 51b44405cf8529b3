//! The dispatcher against a receiver on real sockets.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod clocks;
mod delivering;
mod faults;
mod harness;
mod http2;
mod items;
mod policy;
mod reaching;
mod receiver;
mod security;
