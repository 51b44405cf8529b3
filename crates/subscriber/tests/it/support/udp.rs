//! What the system says of a UDP port of 127.0.0.1: a coturn opens it after its TCP port, and its own client sends nothing twice.

pub(crate) fn is_open(port: u16) -> bool {
    waiting(port).is_some()
}

/// Bytes that wait there to be read; `None` if nobody has the port.
pub(crate) fn waiting(port: u16) -> Option<u64> {
    let local = format!("0100007F:{port:04X}");
    let sockets = std::fs::read_to_string("/proc/net/udp").unwrap();
    let queues = sockets.lines().filter_map(|line| {
        let mut fields = line.split_whitespace().skip(1);
        let queues = (fields.next()? == local).then(|| fields.nth(2))??;
        let (_, received) = queues.split_once(':')?;
        u64::from_str_radix(received, 16).ok()
    });
    queues.fold(None, |sum, received| Some(sum.unwrap_or(0) + received))
}
