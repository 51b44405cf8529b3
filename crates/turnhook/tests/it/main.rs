//! The whole program, from outside: its command line, its ports, its files. One binary, modules by topic.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod harness;

mod accounts;
mod admin_access;
mod captures;
mod chaos;
mod cli;
mod clock;
mod cluster;
mod commands;
mod config;
mod delivery;
mod deploy;
mod end_to_end;
mod enforce;
mod files;
mod histories;
mod http;
mod http_limits;
mod leftovers;
mod listen;
mod logs;
mod looking;
mod metering_direct;
mod metering_redis;
mod monitoring;
mod outages;
mod outbox;
mod pages;
mod postgres;
mod realm_switch;
mod record;
mod relayed;
mod rename;
mod restarts;
mod secrets;
mod servers;
mod standstill;
mod stopping;
mod storable;
mod strangers;
mod supervision;
mod tcp_relay;
mod traps;
mod wedge;
