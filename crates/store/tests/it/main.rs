//! The store on real files and on a real PostgreSQL, in real processes.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs)]

mod backup;
mod blocks;
mod blocks_over;
mod commits;
mod copying;
mod crash;
mod deliveries;
mod endpoints;
mod full_disk;
mod heal;
mod ledger;
mod measure;
mod opening;
mod outbox;
mod poison;
mod postgres;
mod postgres_certificates;
mod postgres_cluster;
mod postgres_connection;
mod postgres_lanes;
mod postgres_measure;
mod postgres_schema;
mod postgres_together;
mod postgres_wire;
mod reads;
mod retention;
mod schemas;
mod sent;
mod summed;
mod support;
mod usage;
mod user_events;
