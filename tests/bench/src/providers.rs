//! Usage records a second into a billing product that takes batches, and one by one: a backlog that waited is delivered, with
//! all that belongs to it (what is about to be sent is written down first, what came of it afterwards).

use std::{
    io::{Read, Write},
    net::TcpStream,
    path::Path,
    process::Command,
    sync::atomic::Ordering,
    thread,
    time::{Duration, Instant},
};

use crate::{
    delivery::calls,
    fixture::{Result, Turnhook, free_port, wait_for},
    receiver::Receiver,
};

/// Sessions that are fed at once.
const PART: usize = 100;

pub fn run() -> Result<()> {
    let batched = drain(100, 100_000)?;
    let alone = drain(1, 20_000)?;
    println!("providers {batched:.0} records/s in batches of 100, {alone:.0} one by one: {:.1} times", batched / alone);
    Ok(())
}

fn drain(max: usize, sessions: usize) -> Result<f64> {
    let receiver = Receiver::start(false)?;
    let dir = tempfile::tempdir()?;
    let port = free_port()?;
    let source = format!("[[source]]\nname = \"bench\"\ntype = \"direct\"\nlisten = \"127.0.0.1:{port}\"");
    let endpoint = format!(
        "[[endpoint]]\nname = \"bench\"\ntype = \"openmeter\"\nurl = \"http://127.0.0.1:{}/\"\nrate_limit = \"unlimited\"\n\
         meters = [{{ event = \"relayed\", value = \"client.received_bytes\" }}]\nbatch = {{ max = {max} }}",
        receiver.port
    );
    let session = "usage_interval = \"0s\"\nlinger = \"0s\"\ngroup_by = \"allocation\"";
    let turnhook = Turnhook::start(dir.path(), &source, session, &endpoint)?;
    let config = dir.path().join(format!("turnhook-{}.toml", turnhook.http));
    endpoints(&config, "pause")?;
    turnhook.wait_for_metric("turnhook_endpoint_paused", 1.0)?;

    let mut stream = TcpStream::connect(("127.0.0.1", port))?;
    let mut answers = stream.try_clone()?;
    thread::spawn(move || {
        let mut buffer = vec![0; 64 * 1024];
        while answers.read(&mut buffer).is_ok_and(|n| n > 0) {}
    });
    for first in (0..sessions).step_by(PART) {
        stream.write_all(&calls(first..first + PART))?;
    }
    // Of starts without traffic no delivery is made.
    turnhook.wait_for_metric("turnhook_outbox_pending", sessions as f64)?;

    let cpu = turnhook.process.cpu()?;
    endpoints(&config, "resume")?;
    let records = || receiver.seen.records.load(Ordering::Relaxed);
    // That somebody resumed an endpoint is noticed within a second, which is no part of the rate.
    wait_for("the first record", || records() > 0)?;
    let (start, before) = (Instant::now(), records());
    wait_for("all records", || records() >= sessions as u64)?;
    let took = start.elapsed();
    turnhook.wait_for_metric("turnhook_deliveries_total", sessions as f64)?;
    let cpu = turnhook.process.cpu()? - cpu;
    thread::sleep(Duration::from_millis(200));
    if records() != sessions as u64 {
        return Err(format!("{} records came of {sessions}", records()).into());
    }
    let rate = (sessions as u64 - before) as f64 / took.as_secs_f64();
    println!(
        "providers batches of {max}: {rate:.0} records/s from a backlog, {:.0} µs of CPU a record, {} requests",
        cpu.as_secs_f64() * 1e6 / sessions as f64,
        receiver.seen.requests.load(Ordering::Relaxed)
    );
    Ok(rate)
}

fn endpoints(config: &Path, what: &str) -> Result<()> {
    let program = std::env::var("TURNHOOK").map_err(|_| "TURNHOOK must name the program")?;
    let status = Command::new(program)
        .args(["endpoints", what, "bench", "--config"])
        .arg(config)
        .stdout(std::process::Stdio::null())
        .status()?;
    if status.success() { Ok(()) } else { Err(format!("endpoints {what}: {status}").into()) }
}
