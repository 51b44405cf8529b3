//! A million open allocations: for how long the source's task works at most without giving others their turn, while the
//! state is recorded, while their server stops, and while another node takes the source over.

use std::{
    io::{BufRead, BufReader, Read, Write},
    net::{Shutdown, TcpStream},
    os::unix::net::UnixStream,
    path::Path,
    thread,
    time::{Duration, Instant},
};

use crate::{
    fixture::{Result, Turnhook, free_port, redis, wait_for},
    load,
    memory::ALLOCATIONS,
    postgres::Postgres,
};

/// Opened at once.
const PART: usize = 50_000;
const SESSION: &str = "usage_interval = \"0s\"";

pub fn run() -> Result<()> {
    let dir = tempfile::tempdir()?;
    let port = free_port()?;
    let source = format!("[[source]]\nname = \"bench\"\ntype = \"direct\"\nlisten = \"127.0.0.1:{port}\"");
    let turnhook = Turnhook::start(dir.path(), &source, SESSION, "")?;
    // As coturn begins: then its end is known for one.
    let stream = TcpStream::connect(("127.0.0.1", port))?;
    let mut first = Vec::new();
    write!(first, "*2\r\n$6\r\nSELECT\r\n$1\r\n0\r\n*2\r\n$4\r\nKEYS\r\n$1\r\n*\r\n")?;
    open(&turnhook, &stream, first)?;
    say(&turnhook, "loading", 0.0)?;
    let before = longest(&turnhook)?;

    let begun = Instant::now();
    let bytes = record(&dir.path().join("turnhook.db.sock"))?;
    println!("recording {ALLOCATIONS} open: {} MiB in {:.1} s", bytes >> 20, begun.elapsed().as_secs_f64());
    say(&turnhook, "a recording", before)?;
    let before = longest(&turnhook)?;

    let begun = Instant::now();
    stream.shutdown(Shutdown::Both)?;
    drop(stream);
    wait_for("the allocations to end", || {
        thread::sleep(Duration::from_millis(50));
        turnhook.metric("turnhook_open_allocations").is_ok_and(|open| open == 0.0)
    })?;
    println!("a server with {ALLOCATIONS} open stopped: all ended after {:.1} s", begun.elapsed().as_secs_f64());
    say(&turnhook, "a server that stops", before)?;
    turnhook.process.terminate()?;
    takeover()
}

/// Two nodes follow one Redis; the one that leads is killed.
fn takeover() -> Result<()> {
    let (_redis, port) = redis()?;
    let postgres = Postgres::start();
    let store = format!("url = \"{}\"\nlease = \"5s\"", postgres.url(&postgres.database()));
    let source = format!("[[source]]\nname = \"bench\"\ntype = \"redis\"\nurl = \"redis://127.0.0.1:{port}\"");
    let (one, other) = (tempfile::tempdir()?, tempfile::tempdir()?);
    let leader = Turnhook::start_on(one.path(), &store, &source, SESSION, "")?;
    leader.wait_for_metric("turnhook_source_leads", 1.0)?;
    let follower = Turnhook::start_on(other.path(), &store, &source, SESSION, "")?;
    let stream = TcpStream::connect(("127.0.0.1", port))?;
    open(&leader, &stream, Vec::new())?;
    follower.wait_for_metric("turnhook_open_allocations", ALLOCATIONS as f64)?;
    // All of it committed.
    thread::sleep(Duration::from_secs(20));
    let before = longest(&follower)?;
    let begun = Instant::now();
    drop(leader);
    follower.wait_for_metric("turnhook_source_leads", 1.0)?;
    println!("a takeover of {ALLOCATIONS} open: leads after {:.1} s", begun.elapsed().as_secs_f64());
    say(&follower, "a takeover", before)
}

/// Opens all allocations, as fast as they are taken.
fn open(turnhook: &Turnhook, mut stream: &TcpStream, mut block: Vec<u8>) -> Result<()> {
    let mut answers = stream.try_clone()?;
    thread::spawn(move || {
        let mut buffer = vec![0; 64 * 1024];
        while answers.read(&mut buffer).is_ok_and(|n| n > 0) {}
    });
    for n in 0..ALLOCATIONS {
        load::publish(&mut block, &load::channel(n, "status"), &load::new(n));
        if (n + 1) % PART == 0 {
            stream.write_all(&block)?;
            block.clear();
            turnhook.wait_for_metric("turnhook_open_allocations", (n + 1) as f64)?;
        }
    }
    Ok(())
}

/// Records until the state has come; how many bytes that were.
fn record(socket: &Path) -> Result<usize> {
    let mut stream = UnixStream::connect(socket)?;
    writeln!(stream, "{{\"record\":\"bench\"}}")?;
    let mut lines = BufReader::with_capacity(1 << 20, stream);
    let (mut line, mut bytes) = (Vec::new(), 0);
    loop {
        line.clear();
        bytes += lines.read_until(b'\n', &mut line)?;
        if line.starts_with(b"{\"ended\"") || line.starts_with(b"{\"error\"") || line.is_empty() {
            return Err(format!("the recording has ended: {}", String::from_utf8_lossy(&line)).into());
        }
        // What comes after the state.
        if line.starts_with(b"{\"time\"") {
            return Ok(bytes);
        }
    }
}

fn longest(turnhook: &Turnhook) -> Result<f64> {
    turnhook.metric("turnhook_source_longest_slice_seconds")
}

/// A pause that is no longer than an earlier one does not show: then it was no longer than that.
fn say(turnhook: &Turnhook, what: &str, before: f64) -> Result<()> {
    let longest = longest(turnhook)?;
    let at_most = if longest > before { "" } else { "at most " };
    let gaps = turnhook.metric("turnhook_gaps_total")?;
    println!("pauses {what}: the longest {at_most}{:.1} ms; {gaps:.0} gaps on record", longest * 1e3);
    Ok(())
}
