//! What the tests start and how they wait: real programs on free loopback ports, ended when dropped.

pub(crate) mod billing;
pub(crate) mod coturn;
pub(crate) mod counter;
pub(crate) mod fakes;
pub(crate) mod feeder;
pub(crate) mod line;
pub(crate) mod manager;
pub(crate) mod nodes;
pub(crate) mod page;
pub(crate) mod peer;
/// The subscriber's own: ports that stay free.
#[path = "../../../../subscriber/tests/it/support/ports.rs"]
pub(crate) mod ports;
/// The store's own: a PostgreSQL for a test.
#[path = "../../../../store/tests/it/postgres.rs"]
pub(crate) mod postgres;
pub(crate) mod process;
pub(crate) mod program;
/// The dispatcher's own: a receiver that misbehaves in every way.
#[path = "../../../../dispatcher/tests/it/receiver.rs"]
#[allow(dead_code)] // what only the dispatcher's tests use
pub(crate) mod receiver;
pub(crate) mod redis;
pub(crate) mod schema;
pub(crate) mod stun;
pub(crate) mod tcp_relay;
pub(crate) mod turn;
pub(crate) mod turnhook;
/// The subscriber's own: whether a coturn has its UDP port.
#[path = "../../../../subscriber/tests/it/support/udp.rs"]
pub(crate) mod udp;
pub(crate) mod wire;
pub(crate) mod world;

use std::time::{Duration, Instant};

pub(crate) use ports::free_port;

/// How long anything may take before a test gives up: generous, since it is only ever waited out by a test
/// that fails.
pub(crate) const DEADLINE: Duration = Duration::from_secs(60);

/// Asks until there is an answer.
#[track_caller]
pub(crate) fn eventually<T>(what: &str, mut ask: impl FnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + DEADLINE;
    loop {
        if let Some(answer) = ask() {
            return answer;
        }
        assert!(Instant::now() < deadline, "waited in vain for {what}");
        std::thread::sleep(Duration::from_millis(20));
    }
}
