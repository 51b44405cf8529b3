//! More than one machine: turnhooks that share a PostgreSQL, killed, stopped and cut off in the midst of real calls. What
//! is billed is what coturn logged, to the byte.

mod books;
mod customers;
mod failing;
mod joining;
mod killed;
mod leases;
mod outages;
mod page;
mod stopped;
mod together;
mod traffic;

use std::time::{SystemTime, UNIX_EPOCH};

use crate::chaos::Random;

/// How often something is done: for those who want to see it more often than anybody would wait for.
fn knob(name: &str, usual: u64) -> u64 {
    let given = std::env::var(name).ok().and_then(|given| given.parse().ok());
    given.unwrap_or(usual)
}

/// Numbers that nobody can foresee; the first is shown, so that a failure can be looked into.
fn random() -> Random {
    let seed = knob("CHAOS_SEED", 0);
    let seed = if seed == 0 {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
        now.subsec_nanos().into()
    } else {
        seed
    };
    println!("CHAOS_SEED={seed}");
    Random(seed)
}
