//! From PUBLISH of the cause to the request at the receiver, at a thousand events a second.

use std::{
    collections::HashMap,
    io::{Read, Write},
    net::TcpStream,
    sync::{PoisonError, atomic::Ordering},
    thread,
    time::{Duration, Instant},
};

use crate::{
    fixture::{self, Result, Turnhook, wait_for},
    load,
    receiver::Receiver,
};

/// Sessions a second: each has a start and an end.
const RATE: u32 = 500;
const SECONDS: u32 = 10;

pub fn run() -> Result<()> {
    let dir = tempfile::tempdir()?;
    on(&format!("path = \"{}\"", dir.path().join("turnhook.db").display()))?;
    Ok(())
}

/// With these lines of `[store]`; how many events there were.
pub fn on(store: &str) -> Result<usize> {
    let receiver = Receiver::start(true)?;
    let (_redis, port) = fixture::redis()?;
    let dir = tempfile::tempdir()?;
    let source = format!("[[source]]\nname = \"bench\"\ntype = \"redis\"\nurl = \"redis://127.0.0.1:{port}\"");
    let endpoint = format!(
        "[[endpoint]]\nname = \"bench\"\nurl = \"http://127.0.0.1:{}/\"\nsecrets = [\"whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw\"]\nrate_limit = \"unlimited\"",
        receiver.port
    );
    let turnhook = Turnhook::start_on(dir.path(), store, &source, "usage_interval = \"0s\"\nlinger = \"0s\"", &endpoint)?;
    if store.starts_with("url") {
        // It subscribes once it leads.
        turnhook.wait_for_metric("turnhook_source_leads", 1.0)?;
    }
    let written = turnhook.process.written()?;
    let mut stream = TcpStream::connect(("127.0.0.1", port))?;
    stream.set_nodelay(true)?;
    let mut answers = stream.try_clone()?;
    thread::spawn(move || {
        let mut buffer = vec![0; 64 * 1024];
        while answers.read(&mut buffer).is_ok_and(|n| n > 0) {}
    });
    let mut published: HashMap<(String, &'static str), Instant> = HashMap::new();
    let start = Instant::now();
    let sessions = (RATE * SECONDS) as usize;
    for i in 0..sessions + 100 {
        let due = start + Duration::from_secs(1) * u32::try_from(i)? / RATE;
        thread::sleep(due.saturating_duration_since(Instant::now()));
        let mut block = Vec::new();
        // A user of its own each (three allocations would be a user), closed a hundred sessions later.
        let user = |i: usize| (format!("cust_{i:07}"), 3 * i);
        if i < sessions {
            let (name, n) = user(i);
            load::publish(&mut block, &load::channel(n, "status"), &load::new(n));
            published.insert((name, "start"), Instant::now());
        }
        if let Some(ended) = i.checked_sub(100) {
            let (name, n) = user(ended);
            load::publish(&mut block, &load::channel(n, "traffic"), load::TRAFFIC);
            load::publish(&mut block, &load::channel(n, "traffic/peer"), load::TRAFFIC);
            load::publish(&mut block, &load::channel(n, "status"), "deleted");
            load::publish(&mut block, &load::channel(n, "total_traffic"), load::TRAFFIC);
            load::publish(&mut block, &load::channel(n, "total_traffic/peer"), load::TRAFFIC);
            published.insert((name, "end"), Instant::now());
        }
        stream.write_all(&block)?;
    }
    let seen = &receiver.seen;
    let arrived = || seen.arrivals.lock().unwrap_or_else(PoisonError::into_inner).len();
    wait_for("all events", || arrived() >= 2 * sessions)?;
    let arrivals = seen.arrivals.lock().unwrap_or_else(PoisonError::into_inner);
    for event in ["start", "end"] {
        let of_event = published.iter().filter(|((_, e), _)| *e == event);
        let mut took: Vec<Duration> =
            of_event.filter_map(|(key, at)| Some(arrivals.get(key)?.duration_since(*at))).collect();
        took.sort_unstable();
        let at = |q: f64| took.get(((took.len() - 1) as f64 * q) as usize).copied().unwrap_or_default();
        println!(
            "latency session.{event}: median {:.1} ms, 99th percentile {:.1} ms, worst {:.1} ms, of {} at {} events/s",
            at(0.5).as_secs_f64() * 1e3,
            at(0.99).as_secs_f64() * 1e3,
            at(1.0).as_secs_f64() * 1e3,
            took.len(),
            2 * RATE
        );
    }
    let (written, payload) = (turnhook.process.written()? - written, seen.bytes.load(Ordering::Relaxed));
    println!("latency disk {:.2} bytes written for each byte of payload delivered, at that rate", written as f64 / payload as f64);
    Ok(2 * sessions)
}
