//! The reducer from outside: histories that must come out so.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod blocks;
mod cluster;
mod heal;
mod histories;
mod lives;
mod loud;
mod max_session;
mod model;
mod names;
mod next_life;
mod notices;
mod relayed;
mod restarts;
mod returned;
mod rows;
mod settings;
mod silence;
mod slices;
mod snapshots;
mod states;
mod takeover;
mod traps;
mod twice;
mod world;
mod wraps;
