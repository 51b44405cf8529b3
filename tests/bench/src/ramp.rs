//! What one node takes: each dimension is raised until something gives, and what gave is said.

use std::{
    io::{Read, Write},
    net::TcpStream,
    sync::atomic::Ordering,
    thread,
    time::{Duration, Instant},
};

use crate::{
    delivery::calls,
    fixture::{Result, Turnhook, free_port, free_ports},
    load,
    receiver::Receiver,
};

/// How long each step lasts.
const STEP: Duration = Duration::from_secs(3);
/// What is reached counts as kept up with from this part of what was asked for.
const KEPT_UP: f64 = 0.95;
const SESSION: &str = "usage_interval = \"0s\"\nlinger = \"0s\"\ngroup_by = \"allocation\"";

pub fn run() -> Result<()> {
    messages()?;
    events()?;
    sources()?;
    allocations()
}

/// Messages a second of one coturn, of 10,000 allocations.
fn messages() -> Result<()> {
    let mut reached = 0.0;
    for rate in [125_000, 250_000, 500_000, 1_000_000, 2_000_000, 4_000_000] {
        let dir = tempfile::tempdir()?;
        let port = free_port()?;
        let turnhook = Turnhook::start(dir.path(), &source("bench", port), SESSION, "")?;
        let mut coturn = Coturn::connect(port)?;
        let total = rate * STEP.as_secs() as usize;
        let blocks = load::blocks(10_000, total);
        let (cpu, start) = (turnhook.process.cpu()?, Instant::now());
        let count = blocks.len();
        for (n, block) in blocks.iter().enumerate() {
            pace(start, n as f64 / count as f64);
            coturn.0.write_all(block)?;
        }
        let counted = until_it_stands(&turnhook, "turnhook_events_total", total as f64)?;
        let took = start.elapsed().saturating_sub(counted.still);
        let now = counted.value / took.as_secs_f64();
        let cores = (turnhook.process.cpu()? - cpu).as_secs_f64() / took.as_secs_f64();
        let gaps = turnhook.metric("turnhook_gaps_total")?;
        println!("ramp messages: {rate}/s asked for, {now:.0}/s counted, {gaps:.0} gaps, {cores:.2} cores busy");
        if gaps > 0.0 || counted.value < total as f64 {
            println!("ramp messages: gave at {rate}/s, by what was lost; kept up with {reached:.0}/s");
            return Ok(());
        }
        if now < KEPT_UP * rate as f64 {
            println!("ramp messages: gave at {rate}/s, by waiting in the sockets, without a loss; it takes {now:.0}/s");
            return Ok(());
        }
        reached = now;
    }
    println!("ramp messages: nothing gave up to {reached:.0}/s");
    Ok(())
}

/// Events a second, each delivered to one endpoint.
fn events() -> Result<()> {
    let mut reached = 0.0;
    for rate in [1_000, 2_000, 4_000, 8_000, 16_000, 32_000, 64_000] {
        let receiver = Receiver::start(false)?;
        let endpoint = format!(
            "[[endpoint]]\nname = \"bench\"\nurl = \"http://127.0.0.1:{}/\"\nrate_limit = \"unlimited\"\n\
             secrets = [\"whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw\"]",
            receiver.port
        );
        let dir = tempfile::tempdir()?;
        let port = free_port()?;
        let turnhook = Turnhook::start(dir.path(), &source("bench", port), SESSION, &endpoint)?;
        let mut coturn = Coturn::connect(port)?;
        let sessions = rate / 2 * STEP.as_secs() as usize;
        let (cpu, start) = (turnhook.process.cpu()?, Instant::now());
        // Fifty times a second.
        let parts = 50 * STEP.as_secs() as usize;
        for part in 0..parts {
            pace(start, part as f64 / parts as f64);
            coturn.0.write_all(&calls(sessions * part / parts..sessions * (part + 1) / parts))?;
        }
        let asked = (2 * sessions) as f64;
        let delivered = receiver.seen.requests.load(Ordering::Relaxed) as f64;
        let behind = asked - delivered;
        let took = start.elapsed();
        let cores = (turnhook.process.cpu()? - cpu).as_secs_f64() / took.as_secs_f64();
        let now = delivered / took.as_secs_f64();
        println!("ramp events: {rate}/s asked for, {now:.0}/s delivered, {behind:.0} behind, {cores:.2} cores busy");
        if now < KEPT_UP * rate as f64 {
            let decided = turnhook.metric("turnhook_outbox_pending")?;
            println!(
                "ramp events: gave at {rate}/s: {decided:.0} wait in the outbox, and nothing is lost; kept up with {reached:.0}/s"
            );
            return Ok(());
        }
        reached = now;
    }
    println!("ramp events: nothing gave up to {reached:.0}/s");
    Ok(())
}

/// The same messages from one source, and spread over more and more of them.
fn sources() -> Result<()> {
    const MESSAGES: usize = 400_000;
    let mut first = 0.0;
    for count in [1, 10, 100, 400] {
        let dir = tempfile::tempdir()?;
        let ports = free_ports(count)?;
        let tables = ports.iter().enumerate().map(|(n, port)| source(&format!("bench-{n}"), *port));
        let turnhook = Turnhook::start(dir.path(), &tables.collect::<Vec<_>>().join("\n"), SESSION, "")?;
        let memory = turnhook.process.resident()?;
        let mut coturns = ports.iter().map(|port| Coturn::connect(*port)).collect::<Result<Vec<_>>>()?;
        let blocks = load::blocks(50_000 / count, MESSAGES / count);
        let cpu = turnhook.process.cpu()?;
        for block in &blocks {
            for coturn in &mut coturns {
                coturn.0.write_all(block)?;
            }
        }
        let total = (MESSAGES / count * count) as f64;
        let counted = until_it_stands(&turnhook, "turnhook_events_total", total)?.value;
        let each = (turnhook.process.cpu()? - cpu).as_secs_f64() * 1e6 / total;
        println!(
            "ramp sources: {count}: {each:.2} µs of CPU a message, {counted:.0} of {total:.0} counted, {} KiB a source before any message",
            (memory >> 10) / count as u64
        );
        if counted < total || (first > 0.0 && each > 2.0 * first) {
            println!("ramp sources: gave at {count}");
            return Ok(());
        }
        if count == 1 {
            first = each;
        }
    }
    println!("ramp sources: nothing gave");
    Ok(())
}

/// Open allocations of one coturn, with the limit out of the way (by default it is what gives, at a million, and is counted).
fn allocations() -> Result<()> {
    const PART: usize = 50_000;
    const MOST: u64 = 1 << 30;
    let dir = tempfile::tempdir()?;
    let port = free_port()?;
    let limits = "[limits]\nallocations = 100000000";
    let turnhook = Turnhook::start(dir.path(), &source("bench", port), "usage_interval = \"0s\"", limits)?;
    let mut coturn = Coturn::connect(port)?;
    let mut open = 0;
    for upto in [125_000, 250_000, 500_000, 1_000_000, 2_000_000, 4_000_000] {
        let (cpu, before) = (turnhook.process.cpu()?, open);
        while open < upto {
            let mut block = Vec::new();
            let next = (open + PART).min(upto);
            for n in open..next {
                load::publish(&mut block, &load::channel(n, "status"), &load::new(n));
            }
            open = next;
            coturn.0.write_all(&block)?;
            turnhook.wait_for_metric("turnhook_open_allocations", open as f64)?;
        }
        let each = (turnhook.process.cpu()? - cpu).as_secs_f64() * 1e6 / (open - before) as f64;
        let memory = turnhook.process.resident()?;
        println!("ramp allocations: {open} open, {} MiB resident, {each:.1} µs of CPU for each that opened", memory >> 20);
        if memory > MOST {
            println!("ramp allocations: gave at {open}, by memory: more than {} MiB", MOST >> 20);
            return Ok(());
        }
    }
    println!("ramp allocations: nothing gave up to {open}");
    Ok(())
}

fn source(name: &str, port: u16) -> String {
    format!("[[source]]\nname = \"{name}\"\ntype = \"direct\"\nlisten = \"127.0.0.1:{port}\"")
}

/// A connection as of one of coturn's relay threads; its answers are read by a thread.
struct Coturn(TcpStream);

impl Coturn {
    fn connect(port: u16) -> Result<Coturn> {
        let stream = TcpStream::connect(("127.0.0.1", port))?;
        let mut answers = stream.try_clone()?;
        thread::Builder::new().stack_size(128 * 1024).spawn(move || {
            let mut buffer = vec![0; 64 * 1024];
            while answers.read(&mut buffer).is_ok_and(|n| n > 0) {}
        })?;
        Ok(Coturn(stream))
    }
}

/// Waits until this part of a step is over.
fn pace(start: Instant, part: f64) {
    let due = start + STEP.mul_f64(part);
    thread::sleep(due.saturating_duration_since(Instant::now()));
}

struct Stood {
    value: f64,
    /// For how long it had not changed when that was found out.
    still: Duration,
}

/// Waits until a metric is as high, or has not changed for two seconds.
fn until_it_stands(turnhook: &Turnhook, metric: &str, at_least: f64) -> Result<Stood> {
    let (mut value, mut since) = (0.0, Instant::now());
    loop {
        let now = turnhook.metric(metric)?;
        if now > value {
            (value, since) = (now, Instant::now());
        }
        if value >= at_least || since.elapsed() > Duration::from_secs(2) {
            return Ok(Stood { value, still: since.elapsed() });
        }
        // A scrape costs CPU too.
        thread::sleep(Duration::from_millis(50));
    }
}
