//! A million open allocations: resident memory, and how soon a start with them is ready.

use std::{
    io::{Read, Write},
    net::TcpStream,
    thread,
    time::{Duration, Instant},
};

use crate::{
    fixture::{Result, Turnhook, free_port},
    load,
};

pub const ALLOCATIONS: usize = 1_000_000;
/// Opened at once.
const PART: usize = 50_000;

pub fn run() -> Result<()> {
    let dir = tempfile::tempdir()?;
    let port = free_port()?;
    let source = format!("[[source]]\nname = \"bench\"\ntype = \"direct\"\nlisten = \"127.0.0.1:{port}\"");
    let session = "usage_interval = \"0s\"";
    let turnhook = Turnhook::start(dir.path(), &source, session, "")?;
    let empty = turnhook.process.resident()?;
    let mut stream = TcpStream::connect(("127.0.0.1", port))?;
    let mut answers = stream.try_clone()?;
    thread::spawn(move || {
        let mut buffer = vec![0; 64 * 1024];
        while answers.read(&mut buffer).is_ok_and(|n| n > 0) {}
    });
    let mut block = Vec::new();
    for n in 0..ALLOCATIONS {
        load::publish(&mut block, &load::channel(n, "status"), &load::new(n));
        // As fast as they are taken: a burst of a million would be a gap.
        if (n + 1) % PART == 0 {
            stream.write_all(&block)?;
            block.clear();
            turnhook.wait_for_metric("turnhook_open_allocations", (n + 1) as f64)?;
        }
    }
    // Until everything is committed and the store has nothing to do.
    let mut last = 0;
    loop {
        thread::sleep(Duration::from_secs(2));
        let written = turnhook.process.written()?;
        if written == last {
            break;
        }
        last = written;
    }
    let full = settled(&turnhook)?;
    println!("memory {} MiB resident with {ALLOCATIONS} open allocations ({} MiB with none)", full >> 20, empty >> 20);
    drop(turnhook);
    let again = Turnhook::start(dir.path(), &source, session, "")?;
    let ready = again.started.elapsed();
    let at_once = again.process.resident()?;
    println!(
        "start {:.1} s until ready with {} open allocations, {} MiB resident then, {} MiB once settled",
        ready.as_secs_f64(),
        again.metric("turnhook_open_allocations")?,
        at_once >> 20,
        settled(&again)? >> 20
    );
    Ok(())
}

/// What is resident when no more of it is given back: the allocator takes its time.
fn settled(turnhook: &Turnhook) -> Result<u64> {
    let (mut least, mut since) = (turnhook.process.resident()?, Instant::now());
    while since.elapsed() < Duration::from_secs(6) {
        thread::sleep(Duration::from_millis(500));
        let now = turnhook.process.resident()?;
        if now + (1 << 20) < least {
            (least, since) = (now, Instant::now());
        }
    }
    Ok(turnhook.process.resident()?)
}
