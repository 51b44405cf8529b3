//! Page and API over a real store, with a program behind them that says what the test wants.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs)]

mod blocks;
mod million;
mod support;
mod trial;
mod views;
