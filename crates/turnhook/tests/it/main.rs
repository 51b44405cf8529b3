//! The whole program, from outside: its command line, its ports, its files. One binary, modules by topic.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod harness;

mod captures;
mod chaos;
mod cli;
mod cluster;
mod commands;
mod config;
mod delivery;
mod deploy;
mod end_to_end;
mod http;
mod listen;
mod metering_direct;
mod metering_redis;
mod outages;
mod outbox;
mod postgres;
mod record;
mod restarts;
mod secrets;
mod stopping;
mod strangers;
mod supervision;
mod traps;
mod wedge;
