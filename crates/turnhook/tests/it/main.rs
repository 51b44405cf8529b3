//! The whole program, from outside: its command line, its ports, its files. One binary, modules by topic.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod harness;

mod accounts;
mod captures;
mod chaos;
mod cli;
mod cluster;
mod commands;
mod config;
mod delivery;
mod deploy;
mod end_to_end;
mod files;
mod http;
mod leftovers;
mod listen;
mod metering_direct;
mod metering_redis;
mod outages;
mod outbox;
mod postgres;
mod realm_switch;
mod record;
mod relayed;
mod rename;
mod restarts;
mod secrets;
mod storable;
mod servers;
mod strangers;
mod tcp_relay;
mod traps;
mod wedge;
