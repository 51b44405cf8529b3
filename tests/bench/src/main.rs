//! Benchmarks of the whole program. Each starts what it needs on free loopback ports, measures turnhook and
//! its yardstick in one run, and prints one line a figure. No figure is asserted.

mod delivery;
mod delivery_postgres;
mod fixture;
mod ingest;
mod latency;
mod load;
mod memory;
mod nodes;
mod pauses;
mod providers;
#[path = "../../../crates/store/tests/it/postgres.rs"]
mod postgres;
mod ramp;
mod receiver;
mod upkeep;

use std::process::ExitCode;

fn main() -> ExitCode {
    let _ = rustls::crypto::ring::default_provider().install_default();
    let result = match std::env::args().nth(1).as_deref() {
        Some("ingest-redis") => ingest::redis(),
        Some("ingest-direct") => ingest::direct(),
        Some("delivery") => delivery::run(),
        Some("delivery-postgres") => delivery_postgres::run(),
        Some("latency") => latency::run(),
        Some("latency-postgres") => delivery_postgres::at_a_rate(),
        Some("memory") => memory::run(),
        Some("nodes") => nodes::run(),
        Some("pauses") => pauses::run(),
        Some("providers") => providers::run(),
        Some("ramp") => ramp::run(),
        Some("upkeep") => upkeep::run(),
        _ => Err("which? ingest-redis, ingest-direct, delivery, delivery-postgres, latency, latency-postgres, memory, nodes, pauses, providers, ramp, upkeep".into()),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error}");
            ExitCode::FAILURE
        }
    }
}
