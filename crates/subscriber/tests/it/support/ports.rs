//! Ports for programs that tests start: one such is let go and taken again by a program that is started anew.

use std::{
    io::{Read, Seek, Write},
    net::{TcpListener, UdpSocket},
};

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
