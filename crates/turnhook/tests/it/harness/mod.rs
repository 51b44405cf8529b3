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

use std::{
    io::{Read, Seek, Write},
    net::{TcpListener, UdpSocket},
    time::{Duration, Instant},
};

/// How long anything may take before a test gives up: generous, since it is only ever waited out by a test
/// that fails.
pub(crate) const DEADLINE: Duration = Duration::from_secs(60);

/// A port that was free a moment ago. It lies below those that Linux gives to connections, so that none takes it while
/// the program that listens there is started anew, and is counted on over all tests, so that no two get the same.
pub(crate) fn free_port() -> u16 {
    const PORTS: std::ops::Range<u16> = 10_000..32_000;
    let path = concat!(env!("CARGO_TARGET_TMPDIR"), "/last-port");
    let mut last = std::fs::OpenOptions::new()
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .open(path)
        .unwrap();
    last.lock().unwrap();
    let mut text = String::new();
    last.read_to_string(&mut text).unwrap();
    // Elsewhere the same suite may run from another folder.
    let mut port = text
        .trim()
        .parse()
        .unwrap_or_else(|_| PORTS.start + (std::process::id() % u32::from(PORTS.end - PORTS.start)) as u16);
    for _ in PORTS {
        port = if PORTS.contains(&(port + 1)) {
            port + 1
        } else {
            PORTS.start
        };
        if TcpListener::bind(("127.0.0.1", port)).is_ok() && UdpSocket::bind(("127.0.0.1", port)).is_ok() {
            last.rewind().unwrap();
            write!(last, "{port:05}").unwrap();
            return port;
        }
    }
    panic!("no port is free in {PORTS:?}");
}

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
