//! How fast messages are taken, beside a subscriber that only reads and drops.

use std::{
    io::{Read, Write},
    net::TcpStream,
    thread,
    time::{Duration, Instant},
};

use crate::{
    fixture::{self, Result, Turnhook, free_port},
    load,
};

const ALLOCATIONS: usize = 100_000;
const MESSAGES: usize = 2_000_000;

/// Writes all blocks as fast as they are taken, reading the answers on another thread.
fn publish(port: u16, blocks: &[Vec<u8>]) -> Result<()> {
    let mut stream = TcpStream::connect(("127.0.0.1", port))?;
    let mut answers = stream.try_clone()?;
    let reader = thread::spawn(move || {
        let mut buffer = vec![0; 64 * 1024];
        while answers.read(&mut buffer).is_ok_and(|n| n > 0) {}
    });
    for block in blocks {
        stream.write_all(block)?;
    }
    stream.write_all(b"QUIT\r\n")?;
    stream.flush()?;
    let _ = reader.join();
    Ok(())
}

/// A subscriber that reads and drops: how long from the first message to the last byte of the last.
fn drop_all(port: u16, blocks: &[Vec<u8>]) -> Result<Duration> {
    let mut stream = TcpStream::connect(("127.0.0.1", port))?;
    stream.write_all(b"*2\r\n$10\r\nPSUBSCRIBE\r\n$6\r\nturn/*\r\n")?;
    let mut buffer = vec![0; 256 * 1024];
    let n = stream.read(&mut buffer)?;
    if n == 0 {
        return Err("no answer to PSUBSCRIBE".into());
    }
    // `pmessage` and the pattern replace `PUBLISH`: so many bytes more or less a message.
    let sent: usize = blocks.iter().map(Vec::len).sum();
    let expected = sent - MESSAGES * "*3\r\n$7\r\nPUBLISH\r\n".len()
        + MESSAGES * "*4\r\n$8\r\npmessage\r\n$6\r\nturn/*\r\n".len();
    thread::scope(|scope| {
        let start = Instant::now();
        let publisher = scope.spawn(|| publish(port, blocks).map_err(|e| e.to_string()));
        let mut read = 0;
        while read < expected {
            let n = stream.read(&mut buffer)?;
            if n == 0 {
                return Err("the subscriber was thrown out".into());
            }
            read += n;
        }
        let took = start.elapsed();
        publisher.join().map_err(|_| "the publisher panicked")??;
        Ok(took)
    })
}

pub fn redis() -> Result<()> {
    let blocks = load::blocks(ALLOCATIONS, MESSAGES);
    let (_redis, port) = fixture::redis()?;
    let first = drop_all(port, &blocks)?;
    let dir = tempfile::tempdir()?;
    let source = format!("[[source]]\nname = \"bench\"\ntype = \"redis\"\nurl = \"redis://127.0.0.1:{port}\"");
    let turnhook = Turnhook::start(dir.path(), &source, "usage_interval = \"0s\"", "")?;
    let (took, cpu) = feed(&turnhook, port, &blocks)?;
    let gaps = turnhook.metric("turnhook_gaps_total")?;
    drop(turnhook);
    // Before and after: what else the machine does shows in the difference.
    let second = drop_all(port, &blocks)?;
    let yardstick = (first + second) / 2;
    report("ingest-redis", took, cpu, gaps);
    println!(
        "ingest-redis ratio to a subscriber that reads and drops: {:.2} ({:.0} and {:.0} messages/s)",
        yardstick.as_secs_f64() / took.as_secs_f64(),
        rate(first),
        rate(second)
    );
    Ok(())
}

pub fn direct() -> Result<()> {
    let blocks = load::blocks(ALLOCATIONS, MESSAGES);
    let (_redis, redis_port) = fixture::redis()?;
    let by_redis = {
        let dir = tempfile::tempdir()?;
        let source =
            format!("[[source]]\nname = \"bench\"\ntype = \"redis\"\nurl = \"redis://127.0.0.1:{redis_port}\"");
        let turnhook = Turnhook::start(dir.path(), &source, "usage_interval = \"0s\"", "")?;
        feed(&turnhook, redis_port, &blocks)?.0
    };
    let dir = tempfile::tempdir()?;
    let port = free_port()?;
    let source = format!("[[source]]\nname = \"bench\"\ntype = \"direct\"\nlisten = \"127.0.0.1:{port}\"");
    let turnhook = Turnhook::start(dir.path(), &source, "usage_interval = \"0s\"", "")?;
    let (took, cpu) = feed(&turnhook, port, &blocks)?;
    report("ingest-direct", took, cpu, turnhook.metric("turnhook_gaps_total")?);
    println!("ingest-direct ratio to the way through Redis: {:.2}", by_redis.as_secs_f64() / took.as_secs_f64());
    Ok(())
}

/// The same messages into a store in PostgreSQL, and into SQLite.
pub fn postgres(postgres: &str) -> Result<()> {
    let blocks = load::blocks(ALLOCATIONS, MESSAGES);
    let (_redis, port) = fixture::redis()?;
    let source = format!("[[source]]\nname = \"bench\"\ntype = \"redis\"\nurl = \"redis://127.0.0.1:{port}\"");
    let session = "usage_interval = \"0s\"";
    let dir = tempfile::tempdir()?;
    let turnhook = Turnhook::start_on(dir.path(), postgres, &source, session, "")?;
    turnhook.wait_for_metric("turnhook_source_leads", 1.0)?;
    let (in_postgres, cpu) = feed(&turnhook, port, &blocks)?;
    report("ingest-postgres", in_postgres, cpu, turnhook.metric("turnhook_gaps_total")?);
    drop(turnhook);
    let turnhook = Turnhook::start(dir.path(), &source, session, "")?;
    let (in_sqlite, cpu) = feed(&turnhook, port, &blocks)?;
    report("ingest-sqlite", in_sqlite, cpu, turnhook.metric("turnhook_gaps_total")?);
    println!("ingest-postgres ratio to SQLite: {:.2}", in_sqlite.as_secs_f64() / in_postgres.as_secs_f64());
    Ok(())
}

/// Publishes all, and waits until all of it is counted: how long that took, and turnhook's CPU time.
fn feed(turnhook: &Turnhook, port: u16, blocks: &[Vec<u8>]) -> Result<(Duration, Duration)> {
    let before = turnhook.process.cpu()?;
    let start = Instant::now();
    publish(port, blocks)?;
    let took = all_counted(turnhook, start)?;
    // The last commits belong to the price.
    thread::sleep(Duration::from_secs(4));
    Ok((took, turnhook.process.cpu()? - before))
}

/// Waits until all is counted, or nothing more has been for a while: then something was lost, and is said.
fn all_counted(turnhook: &Turnhook, start: Instant) -> Result<Duration> {
    let (mut counted, mut at) = (0.0, start.elapsed());
    loop {
        let now = turnhook.metric("turnhook_events_total")?;
        if now > counted {
            (counted, at) = (now, start.elapsed());
        }
        if now >= MESSAGES as f64 {
            return Ok(at);
        }
        if start.elapsed() - at > Duration::from_secs(5) {
            println!("lost: {counted:.0} of {MESSAGES} messages were counted");
            return Ok(at);
        }
        // A scrape costs CPU too: not more than a few a second.
        thread::sleep(Duration::from_millis(50));
    }
}

fn rate(took: Duration) -> f64 {
    MESSAGES as f64 / took.as_secs_f64()
}

fn report(name: &str, took: Duration, cpu: Duration, gaps: f64) {
    println!(
        "{name} {:.0} messages/s, {:.2} µs of CPU a message all in, {gaps:.0} gaps, {MESSAGES} messages of {ALLOCATIONS} allocations",
        rate(took),
        cpu.as_secs_f64() * 1e6 / MESSAGES as f64
    );
}
