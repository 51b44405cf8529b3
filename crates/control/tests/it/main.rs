//! coturn's CLI: the real one, and some that misbehave.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
#![allow(
    unreachable_pub,
    missing_docs,
    reason = "one binary: everything in it is private"
)]

mod coturn;
mod fakes;
mod gate;
mod support;
