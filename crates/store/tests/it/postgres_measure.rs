//! Figures, not tests: `cargo test --release -p turnhook-store --test it -- --ignored --nocapture postgres_measure`.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use turnhook_reducer::state::Table;
use turnhook_store::{Commit, DeliveryId, NewEvent};

use crate::{
    postgres::Postgres,
    support::{Backend, Fixture, at, body, delivered, event, put},
};

fn knob(name: &str, default: u64) -> u64 {
    std::env::var(name)
        .ok()
        .and_then(|v| v.parse().ok())
        .unwrap_or(default)
}

fn rss_mib(what: &str) -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find_map(|l| l.strip_prefix(what)).unwrap();
    line.trim_matches(|c: char| !c.is_ascii_digit())
        .parse::<u64>()
        .unwrap()
        / 1024
}

async fn timed(what: &str, mut request: impl AsyncFnMut() -> String) {
    let mut took = Vec::new();
    let mut told = String::new();
    for _ in 0..7 {
        let began = Instant::now();
        told = request().await;
        took.push(began.elapsed());
    }
    took.sort();
    println!("{what}: median {:.1?}, worst {:.1?} ({told})", took[3], took[6]);
}

/// What a backlog costs: nothing that is asked for each second may grow with it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "a measurement"]
async fn with_a_million_pending() {
    let total = knob("EVENTS", 1_000_000);
    let server = Arc::new(Postgres::with(&[]));
    let f = Fixture::new(&Backend::Postgres(Arc::clone(&server)), &["billing"]).await;
    let endpoint = f.endpoints[0];
    let began = Instant::now();
    let mut ids = Vec::new();
    for step in 0..total / 5000 {
        let events = (0..5000)
            .map(|n| event(step * 5000 + n, step, 0, step, "a", false))
            .collect();
        let done = f.store.state().commit(f.commit(step, events)).await.unwrap();
        ids.extend(done.deliveries.iter().map(|d| d.id));
    }
    println!(
        "{total} events in commits of 5000: {:.0} a second",
        total as f64 / began.elapsed().as_secs_f64()
    );
    for round in ["as it is", "analyzed"] {
        println!("--- {round}");
        if round == "analyzed" {
            let crate::support::Place::Database(server, name) = &f.place else {
                return;
            };
            server.sql(name, "VACUUM ANALYZE");
        }
        let middle = ids[ids.len() / 2];
        timed("backlog", async || {
            format!(
                "{:?}",
                f.store.outbox().backlog().await.unwrap()[&endpoint].pending
            )
        })
        .await;
        timed("changed_by_others", async || {
            format!("{}", f.store.outbox().changed_by_others().await.unwrap())
        })
        .await;
        timed("newest_due, 500", async || {
            format!(
                "{}",
                f.store
                    .outbox()
                    .newest_due(endpoint, at(total), 500)
                    .await
                    .unwrap()
                    .len()
            )
        })
        .await;
        for (name, after) in [("first", DeliveryId(0)), ("middle", middle)] {
            timed(&format!("pending_after {name}, 1000"), async || {
                format!(
                    "{}",
                    f.store
                        .outbox()
                        .pending_after(endpoint, after, 1000)
                        .await
                        .unwrap()
                        .len()
                )
            })
            .await;
        }
        f.store.outbox().set_lanes((0..21).collect());
        timed("pending_after, a third of the lanes, 1000", async || {
            format!(
                "{}",
                f.store
                    .outbox()
                    .pending_after(endpoint, middle, 1000)
                    .await
                    .unwrap()
                    .len()
            )
        })
        .await;
        f.store.outbox().set_lanes(turnhook_store::Lanes::ALL);
        let last = ids[ids.len() - 100];
        timed("pending_since, the last 99", async || {
            format!(
                "{}",
                f.store.outbox().pending_since(last, 1000).await.unwrap().len()
            )
        })
        .await;
        let some: Vec<DeliveryId> = ids.iter().step_by((ids.len() / 500).max(1)).copied().collect();
        timed("still_pending, 500", async || {
            format!(
                "{}",
                f.store.outbox().still_pending(some.clone()).await.unwrap().len()
            )
        })
        .await;
        timed("pending_rows, 500", async || {
            format!(
                "{}",
                f.store.outbox().pending_rows(some.clone()).await.unwrap().len()
            )
        })
        .await;
        let mut next = ids.iter().copied();
        let mut n = total;
        timed("record, 500 delivered", async || {
            let outcomes = next.by_ref().take(500).map(|id| delivered(id, 1)).collect();
            format!("{}", f.store.outbox().record(outcomes).await.unwrap().ignored)
        })
        .await;
        timed("commit, 1 event", async || {
            n += 1;
            let events = vec![event(
                n,
                if round == "analyzed" { 7 } else { 8 },
                0,
                9,
                "a",
                false,
            )];
            format!(
                "{}",
                f.store
                    .state()
                    .commit(f.commit(n, events))
                    .await
                    .unwrap()
                    .deliveries
                    .len()
            )
        })
        .await;
        ids.drain(..3500);
    }
}

/// Commits of one event each, one after the other and by many sources at once.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "a measurement"]
async fn small_commits() {
    let server = Arc::new(Postgres::with(&[]));
    let f = Fixture::new(&Backend::Postgres(server), &["billing"]).await;
    for sources in [1u64, 8] {
        let began = Instant::now();
        let mut tasks = Vec::new();
        for s in 0..sources {
            let (store, endpoint) = (f.store.clone(), f.endpoints[0]);
            tasks.push(tokio::spawn(async move {
                let source = store.state().source(&format!("s{s}")).await.unwrap();
                let mut n = 0;
                while began.elapsed() < Duration::from_secs(5) {
                    let event = event(sources * 1_000_000 + s * 100_000 + n, 0, 0, 1, "a", false);
                    let events = vec![NewEvent {
                        body: body(&event),
                        event,
                        endpoints: vec![endpoint].into(),
                    }];
                    store
                        .state()
                        .commit(Commit {
                            events,
                            ..Commit::new(source, at(n))
                        })
                        .await
                        .unwrap();
                    n += 1;
                }
                n
            }));
        }
        let mut made = 0;
        for task in tasks {
            made += task.await.unwrap();
        }
        println!(
            "{sources} sources: {:.0} commits a second",
            made as f64 / began.elapsed().as_secs_f64()
        );
    }
}

/// A source with a million rows is read row by row.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "a measurement"]
async fn a_million_rows_of_state() {
    let total = knob("ROWS", 1_000_000);
    let server = Arc::new(Postgres::with(&[]));
    let f = Fixture::new(&Backend::Postgres(server), &[]).await;
    let value = [7u8; 120];
    let began = Instant::now();
    for step in 0..total / 20_000 {
        let changes = (0..20_000)
            .map(|n| put(Table::Allocation, step * 20_000 + n, &value))
            .collect();
        f.store
            .state()
            .commit(Commit {
                changes,
                ..Commit::new(f.source, at(step))
            })
            .await
            .unwrap();
    }
    println!("{total} rows written in {:.1?}", began.elapsed());
    let before = rss_mib("VmHWM:");
    let began = Instant::now();
    let count = |n: &mut (u64, u64), _: Table, key: u64, value: &[u8]| {
        *n = (n.0 + 1, n.1 ^ key ^ value.len() as u64);
    };
    let ((rows, _), _) = f.store.state().load(f.source, (0, 0), count).await.unwrap();
    println!(
        "{rows} rows read in {:.1?}; peak memory {before} MiB before, {} MiB after",
        began.elapsed(),
        rss_mib("VmHWM:")
    );
}
