//! Several nodes on one PostgreSQL: deliveries a second with one, two and three of them, how long a takeover takes,
//! and the rate of ingest beside SQLite's.

use std::{
    io::{Read, Write},
    net::TcpStream,
    sync::{PoisonError, atomic::Ordering},
    thread,
    time::{Duration, Instant},
};

use crate::{
    fixture::{self, Result, Turnhook, wait_for},
    ingest, load,
    postgres::Postgres,
    receiver::Receiver,
};

const SESSIONS: usize = 10_000;
const TAKEOVERS: usize = 20;
const LEASE: &str = "2s";

pub fn run() -> Result<()> {
    // As it is configured by default: commits wait for the disk.
    let postgres = Postgres::with(&["fsync=on", "full_page_writes=on"]);
    let mut alone = None;
    for nodes in 1..=3 {
        let rate = deliveries(&postgres, nodes)?;
        let ratio = rate / *alone.get_or_insert(rate);
        println!("nodes {nodes}: {rate:.0} deliveries/s, ratio to one node {ratio:.2}");
    }
    for (signal, what) in [("-KILL", "killed"), ("-TERM", "stopped")] {
        let mut took = takeovers(&postgres, signal)?;
        took.sort_unstable();
        println!(
            "takeover from a node that was {what}: median {:.2} s, worst {:.2} s of {TAKEOVERS}, with lease = \"{LEASE}\"",
            took[took.len() / 2].as_secs_f64(),
            took[took.len() - 1].as_secs_f64()
        );
    }
    let database = postgres.database();
    ingest::postgres(&store(&postgres, &database, 1))
}

pub fn store(postgres: &Postgres, database: &str, node: usize) -> String {
    format!("url = \"{}\"\nnode = \"node-{node}\"\nlease = \"{LEASE}\"", postgres.url(database))
}

fn source(port: u16) -> String {
    format!("[[source]]\nname = \"bench\"\ntype = \"redis\"\nurl = \"redis://127.0.0.1:{port}\"")
}

pub fn endpoint(receiver: &Receiver) -> String {
    format!(
        "[[endpoint]]\nname = \"bench\"\nurl = \"http://127.0.0.1:{}/\"\nsecrets = [\"whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw\"]\n\
         concurrency = 48\nrate_limit = \"unlimited\"",
        receiver.port
    )
}

pub const SESSION: &str = "usage_interval = \"0s\"\nlinger = \"0s\"\ngroup_by = \"allocation\"";

/// A connection, to Redis say, whose answers are read and dropped.
pub fn connect(port: u16) -> Result<TcpStream> {
    let stream = TcpStream::connect(("127.0.0.1", port))?;
    stream.set_nodelay(true)?;
    let mut answers = stream.try_clone()?;
    thread::spawn(move || {
        let mut buffer = vec![0; 64 * 1024];
        while answers.read(&mut buffer).is_ok_and(|n| n > 0) {}
    });
    Ok(stream)
}

fn deliveries(postgres: &Postgres, nodes: usize) -> Result<f64> {
    let receiver = Receiver::start(false)?;
    let (_redis, port) = fixture::redis()?;
    let (dir, database) = (tempfile::tempdir()?, postgres.database());
    let mut running = Vec::new();
    for node in 1..=nodes {
        let store = store(postgres, &database, node);
        running.push(Turnhook::start_on(dir.path(), &store, &source(port), SESSION, &endpoint(&receiver))?);
    }
    wait_for("a leader, and lanes for all", || {
        let statuses: Vec<String> = running.iter().filter_map(|node| Some(node.get("/status").ok()?.1)).collect();
        let lanes = format!("\"lanes\":{}", 64 / nodes);
        statuses.iter().any(|s| s.contains("\"leader\"")) && statuses.iter().any(|s| s.contains(&lanes))
    })?;
    let mut block = Vec::new();
    for n in 0..SESSIONS {
        load::call(&mut block, n);
    }
    let start = Instant::now();
    connect(port)?.write_all(&block)?;
    let events = 2 * SESSIONS as u64;
    wait_for("all deliveries", || receiver.seen.requests.load(Ordering::Relaxed) >= events)?;
    Ok(events as f64 / start.elapsed().as_secs_f64())
}

/// From the signal to the leader until the first event arrives whose cause came after it.
fn takeovers(postgres: &Postgres, signal: &str) -> Result<Vec<Duration>> {
    let receiver = Receiver::start(true)?;
    let (_redis, port) = fixture::redis()?;
    let (dir, database) = (tempfile::tempdir()?, postgres.database());
    let start = |node| {
        Turnhook::start_on(
            dir.path(),
            &store(postgres, &database, node),
            &source(port),
            "usage_interval = \"0s\"",
            &endpoint(&receiver),
        )
    };
    let mut stream = connect(port)?;
    let mut leader = start(1)?;
    leader.wait_for_metric("turnhook_source_leads", 1.0)?;
    let mut took = Vec::new();
    let mut n = 0;
    for round in 0..TAKEOVERS {
        let follower = start(round + 2)?;
        // It knows of the leader, and the leader of it.
        wait_for("two nodes", || {
            [&leader, &follower].iter().all(|node| {
                let status = node.get("/status").map_or(String::new(), |(_, status)| status);
                status.contains(&format!("node-{}", round + 2)) && status.contains("\"lanes\":32")
            })
        })?;
        let first = n + 1;
        let at = Instant::now();
        std::process::Command::new("kill").args([signal, &leader.process.0.id().to_string()]).status()?;
        let arrived = |upto: usize| {
            let arrivals = receiver.seen.arrivals.lock().unwrap_or_else(PoisonError::into_inner);
            (first..=upto).any(|n| arrivals.contains_key(&(format!("cust_{n:07}"), "start")))
        };
        let arrived_at = loop {
            n += 1;
            let mut block = Vec::new();
            load::publish(&mut block, &load::channel(3 * n, "status"), &load::new(3 * n));
            stream.write_all(&block)?;
            thread::sleep(Duration::from_millis(5));
            if arrived(n) {
                break Instant::now();
            }
            if at.elapsed() > fixture::PATIENCE {
                return Err("nobody took over".into());
            }
        };
        took.push(arrived_at - at);
        leader = follower;
    }
    Ok(took)
}
