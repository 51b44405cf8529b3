//! The sources against real coturn, real Redis and real sockets.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
#![allow(
    unreachable_pub,
    missing_docs,
    reason = "one binary: everything in it is private"
)]

mod coturn;
mod direct;
mod direct_door;
mod direct_moves;
mod handover;
mod hostile;
mod loss;
mod redis;
mod rights;
mod snapshot;
mod support;
mod topology;
mod wedge;
