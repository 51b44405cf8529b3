//! Deliveries a second, beside a bare reqwest loop with the same concurrency and body size against the same
//! receiver; and what the disk pays for them.

use std::{
    io::{Read, Write},
    net::TcpStream,
    sync::atomic::Ordering,
    thread,
    time::{Duration, Instant},
};

use bytes::Bytes;

use crate::{
    fixture::{Result, Turnhook, cpu_of_threads, free_port, wait_for},
    load,
    receiver::Receiver,
};

const SESSIONS: usize = 30_000;
/// Sessions that are fed at once.
const PART: usize = 100;
/// Events that may be ahead of the receiver: less than the dispatcher keeps in memory.
const UNDER_WAY: u64 = 3000;
const CONCURRENCY: usize = 16;
const SECRET: &str = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw";

pub fn run() -> Result<()> {
    let receiver = Receiver::start(false)?;
    let dir = tempfile::tempdir()?;
    let port = free_port()?;
    let source = format!("[[source]]\nname = \"bench\"\ntype = \"direct\"\nlisten = \"127.0.0.1:{port}\"");
    let endpoint = format!(
        "[[endpoint]]\nname = \"bench\"\nurl = \"http://127.0.0.1:{}/\"\nsecrets = [\"{SECRET}\"]\nconcurrency = {CONCURRENCY}\nrate_limit = \"unlimited\"",
        receiver.port
    );
    let session = "usage_interval = \"0s\"\nlinger = \"0s\"\ngroup_by = \"allocation\"";
    let turnhook = Turnhook::start(dir.path(), &source, session, &endpoint)?;

    let events = 2 * SESSIONS as u64;
    let written = turnhook.process.written()?;
    let cpu = turnhook.process.cpu()?;
    let start = Instant::now();
    let mut stream = TcpStream::connect(("127.0.0.1", port))?;
    let mut answers = stream.try_clone()?;
    thread::spawn(move || {
        let mut buffer = vec![0; 64 * 1024];
        while answers.read(&mut buffer).is_ok_and(|n| n > 0) {}
    });
    let seen = &receiver.seen;
    // As fast as they are delivered, not in one burst: that would measure how a backlog is read.
    for first in (0..SESSIONS).step_by(PART) {
        stream.write_all(&calls(first..first + PART))?;
        let sent = 2 * (first + PART) as u64;
        wait_for("deliveries", || seen.requests.load(Ordering::Relaxed) + UNDER_WAY >= sent)?;
    }
    wait_for("all deliveries", || seen.requests.load(Ordering::Relaxed) >= events)?;
    let took = start.elapsed();
    let cpu = turnhook.process.cpu()? - cpu;
    // Outcomes are written a moment later, and checkpoints now and then: both belong to the price.
    turnhook.wait_for_metric("turnhook_deliveries_total", events as f64)?;
    thread::sleep(Duration::from_secs(3));
    let payload = seen.bytes.load(Ordering::Relaxed);
    let written = {
        let before_stop = turnhook.process.written()?;
        turnhook.process.terminate()?;
        before_stop - written
    };
    let (bare, bare_cpu) = bare(receiver.port, events, usize::try_from(payload / events)?)?;
    let (rate, bare) = (events as f64 / took.as_secs_f64(), events as f64 / bare.as_secs_f64());
    let (cpu_of_each, bare_cpu) = (cpu.as_secs_f64() * 1e6 / events as f64, bare_cpu.as_secs_f64() * 1e6 / events as f64);
    println!("delivery {rate:.0} deliveries/s, durable, signed, ordered, outcomes recorded; {} bytes a payload", payload / events);
    println!(
        "delivery {cpu_of_each:.1} µs of CPU a delivery, {:.1} more than a request of the bare loop ({bare_cpu:.1}); {:.2} cores busy",
        cpu_of_each - bare_cpu,
        cpu.as_secs_f64() / took.as_secs_f64()
    );
    println!("delivery ratio to a bare reqwest loop: {:.2} ({bare:.0} requests/s)", rate / bare);
    println!(
        "disk {:.2} bytes written for each byte of payload delivered ({} bytes an event)",
        written as f64 / payload as f64,
        written / events
    );
    Ok(())
}

/// Short calls.
pub fn calls(sessions: std::ops::Range<usize>) -> Vec<u8> {
    let mut block = Vec::new();
    for n in sessions {
        load::call(&mut block, n);
    }
    block
}

/// How long it takes, and the CPU time of its threads.
fn bare(port: u16, requests: u64, size: usize) -> Result<(Duration, Duration)> {
    const THREADS: &str = "bare";
    let runtime = tokio::runtime::Builder::new_multi_thread().thread_name(THREADS).enable_all().build()?;
    runtime.block_on(async {
        let client = reqwest::Client::builder().no_proxy().build()?;
        let body = Bytes::from(vec![b'x'; size]);
        let url = format!("http://127.0.0.1:{port}/");
        let start = Instant::now();
        let mut tasks = tokio::task::JoinSet::new();
        for i in 0..CONCURRENCY as u64 {
            let (client, body, url) = (client.clone(), body.clone(), url.clone());
            let mine = requests / CONCURRENCY as u64 + u64::from(i < requests % CONCURRENCY as u64);
            tasks.spawn(async move {
                for _ in 0..mine {
                    client.post(&url).body(body.clone()).send().await?.bytes().await?;
                }
                Ok::<_, reqwest::Error>(())
            });
        }
        while let Some(done) = tasks.join_next().await {
            done??;
        }
        Ok((start.elapsed(), cpu_of_threads(THREADS)?))
    })
}
