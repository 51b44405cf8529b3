//! Figures, not tests: `cargo test --release -p turnhook-store --test it -- --ignored --nocapture measure`.
//!
//! All but the last are of SQLite: they count the pages that it writes.

use std::time::{Duration, Instant};

use turnhook_reducer::state::{Change, Table};
use turnhook_store::{Commit, DeliveryId, Options};

use crate::support::{Backend, Fixture, at, delivered, event, put};

fn written() -> u64 {
    let io = std::fs::read_to_string("/proc/self/io").unwrap();
    io.lines()
        .find_map(|l| l.strip_prefix("write_bytes: "))
        .unwrap()
        .parse()
        .unwrap()
}

fn knob(name: &str, default: u64) -> u64 {
    std::env::var(name)
        .ok()
        .and_then(|v| v.parse().ok())
        .unwrap_or(default)
}

/// Sessions of a start, some usages and an end; with each event two rows of state; every delivery succeeds at once.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "a measurement"]
async fn bytes_written_for_a_delivered_event() {
    let page_size = u32::try_from(knob("PAGE", 1024)).unwrap();
    let open = knob("OPEN", 10_000);
    let total = knob("EVENTS", 400_000);
    let rate = knob("RATE", 0);
    let f = Fixture::with(
        &Backend::Sqlite,
        &["billing"],
        Options {
            page_size,
            ..Options::default()
        },
    )
    .await;
    let mut sequences = vec![0u32; usize::try_from(open).unwrap()];
    let mut generation = vec![0u64; usize::try_from(open).unwrap()];
    let (mut made, mut commits, mut payload) = (0u64, 0u64, 0u64);
    let mut seed = 3u64;
    let mut random = move |n: u64| {
        seed = seed
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        (seed >> 33) % n
    };
    let before = written();
    let began = Instant::now();
    let mut waited = Vec::new();
    let mut records = Vec::new();
    while made < total {
        let want = if rate == 0 {
            knob("BATCH", 400)
        } else {
            loop {
                let due = (began.elapsed().as_secs_f64() * rate as f64) as u64;
                if due > made {
                    break due - made;
                }
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
        };
        let mut events = Vec::new();
        let mut changes: std::collections::BTreeMap<(u8, u64), Change> = Default::default();
        for _ in 0..want {
            let slot = usize::try_from(random(open)).unwrap();
            let (sequence, g) = (sequences[slot], generation[slot]);
            let n = slot as u64 + g * open;
            let end = sequence >= 3;
            let ms = made / 2;
            events.push(event(
                n,
                n % 1000 + g * 100_000,
                sequence,
                ms,
                &format!("cust_{}", slot % 5000),
                end,
            ));
            if end {
                generation[slot] += 1;
                sequences[slot] = 0;
            } else {
                sequences[slot] += 1;
            }
            // As large as the reducer's rows, and as varied.
            for (table, size) in [(Table::Allocation, 136), (Table::Session, 136)] {
                let value: Vec<u8> = (0..size / 8)
                    .flat_map(|i: u64| if i.is_multiple_of(2) { random(1 << 40) } else { n }.to_le_bytes())
                    .collect();
                changes.insert((table as u8, slot as u64), put(table, slot as u64, &value));
            }
            made += 1;
        }
        let commit = Commit {
            changes: changes.into_values().collect(),
            ..f.commit(made, events)
        };
        payload += commit.events.iter().map(|e| e.body.len() as u64).sum::<u64>();
        let asked = Instant::now();
        let done = f.store.state().commit(commit).await.unwrap();
        waited.push(asked.elapsed());
        commits += 1;
        let store = f.store.clone();
        records.push(tokio::spawn(async move {
            store
                .outbox()
                .record(done.deliveries.iter().map(|d| delivered(d.id, made)).collect())
                .await
                .unwrap()
        }));
    }
    for record in records {
        assert_eq!(record.await.unwrap().ignored, 0);
    }
    let took = began.elapsed();
    if knob("WAL", 0) > 0 {
        wal_pages(&f.path());
    }
    f.store.close().await;
    let bytes = written() - before;
    waited.sort();
    println!(
        "page {page_size}, {open} open, batches of {:.1}: {:.0} events/s, payload {} B, written {:.0} B/event = {:.2} x; file {:.0} B/event; commit p50 {:?} p99 {:?} max {:?}",
        made as f64 / commits as f64,
        made as f64 / took.as_secs_f64(),
        payload / made,
        bytes as f64 / made as f64,
        bytes as f64 / payload as f64,
        std::fs::metadata(f.path()).unwrap().len() as f64 / made as f64,
        waited[waited.len() / 2],
        waited[waited.len() * 99 / 100],
        waited[waited.len() - 1],
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "a measurement"]
async fn loading_a_million_rows() {
    let mut f = Fixture::new(&Backend::Sqlite, &[]).await;
    let value = vec![7u8; 300];
    for chunk in 0..100u64 {
        let changes = (0..10_000)
            .map(|k| put(Table::Allocation, chunk * 10_000 + k, &value))
            .collect();
        f.store
            .state()
            .commit(Commit {
                changes,
                ..Commit::new(f.source, at(chunk))
            })
            .await
            .unwrap();
    }
    for _ in 0..2 {
        f = f.reopen().await;
        let began = Instant::now();
        let (n, clock) = f
            .store
            .state()
            .load(f.source, 0u64, |n, _, _, value| *n += value.len() as u64)
            .await
            .unwrap();
        let cpu = std::fs::read_to_string("/proc/self/stat").unwrap();
        let cpu: Vec<&str> = cpu.split(' ').skip(13).take(2).collect();
        println!(
            "{} MB of state loaded in {:?} (clock {clock:?}, so far ticks of CPU user, system {cpu:?})",
            n / 1_000_000,
            began.elapsed()
        );
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "a measurement"]
async fn a_million_pending() {
    let mut f = Fixture::new(&Backend::Sqlite, &["billing"]).await;
    for batch in 0..1000u64 {
        let events = (0..1000)
            .map(|i| event(batch * 1000 + i, batch, 0, batch, "a", false))
            .collect();
        f.store.state().commit(f.commit(batch, events)).await.unwrap();
    }
    let began = Instant::now();
    f = f.reopen().await;
    println!("opened in {:?}", began.elapsed());
    let began = Instant::now();
    println!(
        "{:?} in {:?}",
        f.store.outbox().backlog().await.unwrap(),
        began.elapsed()
    );
    let began = Instant::now();
    println!("again in {:?}", {
        f.store.outbox().backlog().await.unwrap();
        began.elapsed()
    });
    let began = Instant::now();
    let mut n = 0;
    let mut after = DeliveryId(0);
    loop {
        let page = f
            .store
            .outbox()
            .pending_after(f.endpoints[0], after, 1000)
            .await
            .unwrap();
        let Some(last) = page.last() else { break };
        after = last.id;
        n += page.len();
        f.store
            .outbox()
            .record(page.iter().map(|d| delivered(d.id, 5)).collect())
            .await
            .unwrap();
    }
    println!(
        "{n} read and recorded: {:.0}/s",
        n as f64 / began.elapsed().as_secs_f64()
    );
}

/// Which tables the pages in the WAL belong to.
fn wal_pages(path: &std::path::Path) {
    let wal = std::fs::read(path.with_extension("db-wal")).unwrap();
    let word = |at: usize| u32::from_be_bytes(wal[at..at + 4].try_into().unwrap());
    let (page, salt) = (word(8) as usize, &wal[16..24]);
    let conn = rusqlite::Connection::open(path).unwrap();
    let mut stmt = conn.prepare("SELECT pageno, name FROM dbstat").unwrap();
    let names: std::collections::HashMap<u32, String> = stmt
        .query_map([], |r| Ok((r.get(0)?, r.get(1)?)))
        .unwrap()
        .map(Result::unwrap)
        .collect();
    let (mut commits, mut by_name) = (0, std::collections::BTreeMap::<String, u32>::new());
    for frame in (32..wal.len() - page)
        .step_by(24 + page)
        .take_while(|f| &wal[f + 8..f + 16] == salt)
    {
        commits += u32::from(word(frame + 4) > 0);
        *by_name
            .entry(names.get(&word(frame)).cloned().unwrap_or_else(|| "free".into()))
            .or_default() += 1;
    }
    for (name, n) in by_name {
        println!("{name}: {:.2} pages a commit", f64::from(n) / f64::from(commits));
    }
}

/// How fast a store is copied to PostgreSQL, and in how much memory.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "a measurement"]
async fn copying_a_store() {
    let f = Fixture::new(&Backend::Sqlite, &["billing"]).await;
    let total = knob("EVENTS", 400_000);
    for n in 0..total / 1000 {
        let events = (0..1000).map(|s| {
            event(
                n * 250 + s / 4,
                n,
                u32::try_from(s % 4).unwrap(),
                n,
                "a",
                s % 4 == 3,
            )
        });
        let changes = (0..100)
            .map(|k| put(Table::Session, n * 100 + k, &[7; 300]))
            .collect();
        let commit = Commit {
            changes,
            ..f.commit(n, events.collect())
        };
        let made = f.store.state().commit(commit).await.unwrap().deliveries;
        f.store
            .outbox()
            .record(made.iter().map(|d| delivered(d.id, n)).collect())
            .await
            .unwrap();
    }
    f.store
        .ledger()
        .sessions(turnhook_store::SessionFilter::default(), None, 1)
        .await
        .unwrap();
    let server = crate::postgres::Postgres::with(&[]);
    let options = crate::support::patient_options(&server.url(&server.database()));
    let to = turnhook_store::Store::connect(options, turnhook_store::Mode::Run)
        .await
        .unwrap();
    let memory = || {
        let status = std::fs::read_to_string("/proc/self/status").unwrap();
        let line = status
            .lines()
            .find_map(|l| l.strip_prefix("VmRSS:"))
            .unwrap()
            .trim();
        line.trim_end_matches(" kB").parse::<u64>().unwrap() / 1024
    };
    let (before, began) = (memory(), Instant::now());
    let mut most = 0;
    let copied = turnhook_store::copy(&f.store, &to, |_| most = most.max(memory()))
        .await
        .unwrap();
    let seconds = began.elapsed().as_secs_f64();
    println!(
        "{} rows, {} events in {seconds:.1} s, {:.0} rows/s; {before} MiB before, {most} MiB at most",
        copied.rows,
        copied.events,
        copied.rows as f64 / seconds
    );
}
