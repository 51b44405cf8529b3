//! coturn's messages, made up: realistic names, and what a call says of itself.

use std::io::Write;

/// The `n`th of many allocations: three to a user, over sixteen relay threads.
pub fn channel(n: usize, kind: &str) -> String {
    let (user, thread) = (n / 3, n % 16);
    format!("turn/realm/example.org/user/{}:cust_{user:07}/allocation/{thread:03}{n:015}/{kind}", 1_795_413_634 + user)
}

pub fn new(n: usize) -> String {
    let port = 10_000 + n % 50_000;
    let host = n / 50_000 % 250;
    format!("new lifetime=600, type=UDP, local=192.0.2.10:3478, remote=198.51.{host}.{}:{port}, ssl=NONE, cipher=NONE", n % 250)
}

pub const TRAFFIC: &str = "rcvp=2048, rcvb=355328, sentp=2048, sentb=347136";

/// Adds `PUBLISH channel payload`, as coturn sends it.
pub fn publish(out: &mut Vec<u8>, channel: &str, payload: &str) {
    let _ = write!(
        out,
        "*3\r\n$7\r\nPUBLISH\r\n${}\r\n{channel}\r\n${}\r\n{payload}\r\n",
        channel.len(),
        payload.len()
    );
}

/// A short call, as the `n`th allocation: opened, traffic, deleted, totals.
pub fn call(out: &mut Vec<u8>, n: usize) {
    publish(out, &channel(n, "status"), &new(n));
    publish(out, &channel(n, "traffic"), TRAFFIC);
    publish(out, &channel(n, "traffic/peer"), TRAFFIC);
    publish(out, &channel(n, "status"), "deleted");
    publish(out, &channel(n, "total_traffic"), TRAFFIC);
    publish(out, &channel(n, "total_traffic/peer"), TRAFFIC);
}

/// `total` messages of `allocations` allocations: each opened, then traffic of both legs in turn.
/// In blocks of some hundred messages, ready to be written.
pub fn blocks(allocations: usize, total: usize) -> Vec<Vec<u8>> {
    let mut blocks = Vec::new();
    let mut block = Vec::new();
    for i in 0..total {
        let (n, round) = (i % allocations, i / allocations);
        match round {
            0 => publish(&mut block, &channel(n, "status"), &new(n)),
            r if r % 2 == 1 => publish(&mut block, &channel(n, "traffic"), TRAFFIC),
            _ => publish(&mut block, &channel(n, "traffic/peer"), TRAFFIC),
        }
        if block.len() > 64 * 1024 {
            blocks.push(std::mem::take(&mut block));
        }
    }
    blocks.push(block);
    blocks
}
