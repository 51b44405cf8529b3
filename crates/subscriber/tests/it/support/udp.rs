//! Whether somebody has a UDP port of 127.0.0.1: a coturn opens it after its TCP port, and its own client sends nothing twice.

pub(crate) fn is_open(port: u16) -> bool {
    let local = format!("0100007F:{port:04X}");
    let sockets = std::fs::read_to_string("/proc/net/udp").unwrap();
    sockets
        .lines()
        .any(|line| line.split_whitespace().nth(1) == Some(&*local))
}
