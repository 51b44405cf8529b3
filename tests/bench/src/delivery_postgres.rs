//! Deliveries from one node with PostgreSQL, and what each costs: the CPU of the database and of turnhook, transactions,
//! and what is written to the log. With STATEMENTS=1 (which costs some of it) also which statements the database's time
//! goes to.

use std::{
    io::Write,
    sync::atomic::Ordering,
    time::{Duration, Instant},
};

use crate::{
    fixture::{Result, Turnhook, cpu_of_family, free_port, wait_for},
    latency, load,
    nodes::{SESSION, connect, endpoint, store},
    postgres::Postgres,
    receiver::Receiver,
};

const SESSIONS: usize = 10_000;
const ROUNDS: usize = 3;
/// Sessions that are fed at once, and events that may be ahead of the receiver: as fast as they are delivered, since a burst
/// (`nodes`) also measures how a backlog is read.
const PART: usize = 100;
const UNDER_WAY: u64 = 3000;
const STATEMENTS: [&str; 3] = [
    "shared_preload_libraries=pg_stat_statements",
    "pg_stat_statements.track_planning=on",
    "pg_stat_statements.track_utility=off",
];

/// As it is configured by default: commits wait for the disk.
struct Server {
    postgres: Postgres,
    shows_statements: bool,
}

impl Server {
    fn start() -> Server {
        let shows_statements = std::env::var_os("STATEMENTS").is_some();
        let more: &[&str] = if shows_statements { &STATEMENTS } else { &[] };
        Server { postgres: Postgres::with(&[&["fsync=on", "full_page_writes=on"], more].concat()), shows_statements }
    }

    fn database(&self) -> String {
        let database = self.postgres.database();
        if self.shows_statements {
            self.postgres.sql(&database, "CREATE EXTENSION pg_stat_statements; SELECT pg_stat_statements_reset()");
        }
        database
    }

    fn cpu(&self) -> Result<Duration> {
        cpu_of_family(self.postgres.pid())
    }

    fn show_statements(&self, database: &str) {
        if self.shows_statements {
            let sql = "SELECT format('%8s calls %8s rows %9s µs planned %9s µs run %10s bytes of log: %s', calls, rows, \
                       round(total_plan_time * 1000), round(total_exec_time * 1000), wal_bytes, left(query, 70)) \
                       FROM pg_stat_statements ORDER BY total_plan_time + total_exec_time DESC LIMIT 20";
            println!("{}", self.postgres.sql(database, sql));
        }
    }
}

pub fn run() -> Result<()> {
    let server = Server::start();
    for round in 1..=ROUNDS {
        deliveries(&server, round)?;
    }
    Ok(())
}

/// At a thousand events a second.
pub fn at_a_rate() -> Result<()> {
    let server = Server::start();
    let database = server.database();
    let before = server.cpu()?;
    let events = latency::on(&store(&server.postgres, &database, 1))?;
    let cpu = server.cpu()? - before;
    println!("latency: each {:.0} µs of the database's CPU, at that rate", cpu.as_secs_f64() * 1e6 / events as f64);
    server.show_statements(&database);
    Ok(())
}

fn deliveries(server: &Server, round: usize) -> Result<()> {
    let postgres = &server.postgres;
    let receiver = Receiver::start(false)?;
    let (dir, database) = (tempfile::tempdir()?, server.database());
    let port = free_port()?;
    let source = format!("[[source]]\nname = \"bench\"\ntype = \"direct\"\nlisten = \"127.0.0.1:{port}\"");
    let turnhook = Turnhook::start_on(
        dir.path(),
        &store(postgres, &database, 1),
        &source,
        SESSION,
        &endpoint(&receiver),
    )?;
    // It listens once it leads.
    turnhook.wait_for_metric("turnhook_source_leads", 1.0)?;
    let number = |sql: &str| -> Result<f64> { Ok(postgres.sql(&database, sql).parse()?) };
    let of_database = || -> Result<(Duration, f64, f64)> {
        Ok((
            server.cpu()?,
            number("SELECT pg_current_wal_lsn() - '0/0'")?,
            number("SELECT xact_commit FROM pg_stat_database WHERE datname = current_database()")?,
        ))
    };
    let before = of_database()?;
    let cpu = turnhook.process.cpu()?;
    let start = Instant::now();
    let (mut stream, seen) = (connect(port)?, &receiver.seen);
    let events = 2 * SESSIONS as u64;
    for first in (0..SESSIONS).step_by(PART) {
        let mut block = Vec::new();
        (first..first + PART).for_each(|n| load::call(&mut block, n));
        stream.write_all(&block)?;
        let sent = 2 * (first + PART) as u64;
        wait_for("deliveries", || seen.requests.load(Ordering::Relaxed) + UNDER_WAY >= sent)?;
    }
    wait_for("all deliveries", || seen.requests.load(Ordering::Relaxed) >= events)?;
    let took = start.elapsed();
    // Outcomes are written a moment later, and belong to the price.
    turnhook.wait_for_metric("turnhook_deliveries_total", events as f64)?;
    let pending = "SELECT coalesce(sum(pending), -1) FROM backlog";
    wait_for("all outcomes", || {
        number(pending).is_ok_and(|pending| pending == 0.0)
    })?;
    // What the database counts of its transactions comes a second later.
    std::thread::sleep(Duration::from_secs(2));
    let (cpu, after) = (turnhook.process.cpu()? - cpu, of_database()?);
    let each = |sum: f64| sum / events as f64;
    println!(
        "delivery-postgres {round}: {:.0} deliveries/s; each {:.0} µs of the database's CPU, {:.0} µs of turnhook's, {:.0} bytes of \
         its log, {:.3} transactions",
        events as f64 / took.as_secs_f64(),
        each((after.0 - before.0).as_secs_f64() * 1e6),
        each(cpu.as_secs_f64() * 1e6),
        each(after.1 - before.1),
        each(after.2 - before.2),
    );
    server.show_statements(&database);
    Ok(())
}
