//! Figures, not a test: how long each view takes with a million sessions in the store, and whether the writer waits for it.
//!
//!     SESSIONS=1000000 cargo test --release -p turnhook-admin --test it -- --ignored --nocapture million
//!
//! `STORE=FOLDER` keeps the store that is made, and takes it the next time; `STORE=postgres://…` fills an empty database.

use std::{
    env,
    path::PathBuf,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use turnhook_reducer::{
    event::{Accuracy, CloseReason, EventId, EventType, SessionEnd, SessionEvent, SessionId},
    time::Timestamp,
    usage::{Billable, Usage},
};
use turnhook_store::{
    Commit, Mode, NewEvent, Next, Outcome, PostgresOptions, Sent, SessionFilter, SourceId, Store,
};

use crate::support::Fixture;

/// The first day of a month of thirty days.
const BEGIN: u64 = 1_793_491_200_000;
const DAY: u64 = 86_400_000;
const SPAN: u64 = 30 * DAY;
/// Of one user's, among ten million.
const EACH: u64 = 10;
const BATCH: u64 = 2000;

fn knob(name: &str, default: u64) -> u64 {
    let given = env::var(name).ok().and_then(|value| value.parse().ok());
    given.unwrap_or(default)
}

fn id(at: u64, n: u64, event: u8) -> [u8; 16] {
    let mut id = [0; 16];
    id[..6].copy_from_slice(&at.to_be_bytes()[2..]);
    id[6..14].copy_from_slice(&n.to_be_bytes());
    id[15] = event;
    id
}

fn user(n: u64, all: u64) -> Vec<u8> {
    // One in a hundred is of somebody who never sleeps.
    if n.is_multiple_of(100) {
        return b"busy".to_vec();
    }
    let of = n.wrapping_mul(2_654_435_761) % (all / EACH).max(1);
    format!("cust_{of}").into_bytes()
}

fn event(n: u64, all: u64, end: bool) -> SessionEvent {
    let started = BEGIN + n * SPAN / all;
    let at = Timestamp(started + if end { 180_000 } else { 0 });
    let usage = Usage::from([
        300,
        270_000,
        310,
        272_000,
        300,
        270_000,
        310,
        272_000,
        540_000 + n % 1000,
    ]);
    let user = user(n, all);
    SessionEvent {
        id: EventId(id(at.0, n, 1 + u8::from(end))),
        event_type: if end { EventType::End } else { EventType::Start },
        timestamp: at,
        session_id: SessionId(id(started, n, 0)),
        sequence: u32::from(end),
        continues: None,
        source: if n.is_multiple_of(2) { "eu-1" } else { "us-1" }.into(),
        realm: b"example.org".as_slice().into(),
        usernames: vec![[b"1795413634:", user.as_slice()].concat().into()],
        user: Some(user.into()),
        labels: Vec::new(),
        started_at: Timestamp(started),
        end: end.then_some(SessionEnd {
            ended_at: at,
            reason: CloseReason::Closed,
            accuracy: if n.is_multiple_of(50) {
                Accuracy::LowerBound
            } else {
                Accuracy::Exact
            },
        }),
        usage: if end { usage } else { Usage::default() },
        usage_delta: if end { usage } else { Usage::default() },
        duration_ms: None,
        peer_leg: true,
        billable: Billable::Relayed,
        allocations: Vec::new(),
        allocations_omitted: 0,
        block_reason: None,
    }
}

fn body(n: u64) -> Vec<u8> {
    // About as long as one with an allocation is.
    format!(
        r#"{{"data":{{"billable":"relayed","pad":"{:0>700}","allocations":[{{"id":"{n:018}","client_address":"192.0.2.7:{}"}}]}}}}"#,
        n,
        n % 60_000
    )
    .into_bytes()
}

async fn fill(store: &Store, all: u64, from: u64) {
    let endpoints = store
        .outbox()
        .set_endpoints(&["billing"], Timestamp(BEGIN))
        .await
        .unwrap();
    let sources = [
        store.state().source("eu-1").await.unwrap(),
        store.state().source("us-1").await.unwrap(),
    ];
    for first in (from..all).step_by(usize::try_from(BATCH).unwrap()) {
        for (parity, source) in sources.iter().enumerate() {
            let mut commit = Commit::new(*source, Timestamp(BEGIN + first * SPAN / all));
            for n in (first..all.min(first + BATCH)).filter(|n| n % 2 == parity as u64) {
                for end in [false, true] {
                    commit.events.push(NewEvent {
                        event: event(n, all, end),
                        body: body(n).into(),
                        endpoints: endpoints.clone().into(),
                    });
                }
            }
            let committed = store.state().commit(commit).await.unwrap();
            let outcomes = committed
                .deliveries
                .iter()
                .enumerate()
                .filter_map(|(i, delivery)| {
                    // Of the last ones a quarter are dead letters, and a quarter wait.
                    let is_last = all - first <= BATCH;
                    let next = match i % 4 {
                        0 if is_last => Next::REJECTED,
                        1 if is_last => return None,
                        _ => Next::Done,
                    };
                    Some(Outcome {
                        endpoint: "billing".into(),
                        delivery: delivery.id,
                        event_id: delivery.event_id,
                        session: delivery.session_id,
                        event_type: delivery.event_type,
                        decided_at: delivery.timestamp,
                        at: delivery.timestamp,
                        attempt: 1,
                        tried_for: Duration::ZERO,
                        status: Some(200),
                        latency: Duration::from_millis(12),
                        error: None,
                        answer: Default::default(),
                        next,
                        label: next.as_str(),
                        sent: Sent::default(),
                    })
                });
            store.outbox().record(outcomes.collect()).await.unwrap();
        }
        if first.is_multiple_of(100_000) {
            println!("{first} sessions");
        }
    }
}

/// CPU time of all threads of this process: what a busy machine does not change. A PostgreSQL server's is not among it.
fn cpu() -> Duration {
    let tasks = std::fs::read_dir("/proc/self/task").into_iter().flatten();
    let times = tasks.filter_map(|task| std::fs::read_to_string(task.ok()?.path().join("schedstat")).ok());
    let nanos = times.filter_map(|text| text.split(' ').next()?.parse::<u64>().ok());
    Duration::from_nanos(nanos.sum())
}

/// Whoever commits a small commit every 10 ms: how long the slowest and the middle one took.
async fn writes(store: Store, source: SourceId, stop: Arc<AtomicBool>) -> (Duration, Duration) {
    let mut took = Vec::new();
    let mut at = BEGIN + SPAN;
    while !stop.load(Ordering::Relaxed) {
        at += 1;
        let began = Instant::now();
        store
            .state()
            .commit(Commit::new(source, Timestamp(at)))
            .await
            .unwrap();
        took.push(began.elapsed());
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    took.sort_unstable();
    (took[took.len() / 2], took.last().copied().unwrap_or_default())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "a measurement"]
async fn a_million_sessions() {
    let all = knob("SESSIONS", 1_000_000);
    let place = env::var("STORE").unwrap_or_default();
    let temporary = tempfile::tempdir().unwrap();
    let open = async |mode| {
        if place.starts_with("postgres") {
            let options = PostgresOptions::new(place.as_str());
            return Store::connect(options, mode).await.unwrap();
        }
        let folder = if place.is_empty() {
            temporary.path().to_owned()
        } else {
            PathBuf::from(&place)
        };
        Store::open(folder.join("turnhook.db"), mode).await.unwrap()
    };
    let writer = open(Mode::Run).await;
    let has = writer
        .ledger()
        .usage_by_day(0, u32::MAX, None, 1)
        .await
        .unwrap()
        .len();
    let began = Instant::now();
    if has == 0 {
        fill(&writer, all, 0).await;
        println!("{all} sessions in {:.0?}", began.elapsed());
    }
    let source = writer.state().source("eu-1").await.unwrap();
    let f = Fixture::over(open(Mode::Shared).await);
    let month = "from=2026-11-01&to=2026-11-30";
    let usage = f.get(&format!("/api/v1/usage?{month}&by=month")).await.body;
    let usage: serde_json::Value = serde_json::from_str(&usage).unwrap();
    println!("{} sessions in the store", usage["items"][0]["sessions_started"]);
    // Whatever is there, were the filling stopped before its end.
    let newest = writer
        .ledger()
        .sessions(SessionFilter::default(), None, 50)
        .await
        .unwrap();
    let one = newest
        .iter()
        .find(|row| row.user.as_deref().is_some_and(|user| user != b"busy"))
        .unwrap();
    let session = one.id;
    let detail = writer.ledger().session(session).await.unwrap().unwrap();
    let told = detail.events[0].event_id;
    let cust = String::from_utf8(one.user.clone().unwrap()).unwrap();
    let paths = [
        "/".to_owned(),
        "/sessions".to_owned(),
        "/sessions?since=2026-11-10&until=2026-11-11".to_owned(),
        format!("/sessions?user={cust}"),
        "/sessions?open=true".to_owned(),
        format!("/sessions/{session}"),
        format!("/users/{cust}?{month}"),
        format!("/users/{cust}?{month}&tz=Asia/Kolkata"),
        format!("/users/busy?{month}"),
        format!("/api/v1/users/{cust}/usage?{month}"),
        "/deliveries".to_owned(),
        "/deliveries?state=dead".to_owned(),
        "/deliveries?state=pending".to_owned(),
        "/deliveries?state=delivered&since=2026-11-10".to_owned(),
        "/confirm/deliveries/replay?state=dead".to_owned(),
        format!("/events/{told}"),
        format!("/usage?{month}"),
        format!("/usage?{month}&tz=Asia/Kolkata"),
        format!("/api/v1/usage?{month}&by=user&top=10"),
        "/endpoints/billing".to_owned(),
        "/sources/eu-1".to_owned(),
        "/blocks".to_owned(),
        "/audit".to_owned(),
        "/search?q=192.0.2.7".to_owned(),
    ];
    let quiet = Arc::<AtomicBool>::default();
    let alone = tokio::spawn(writes(writer.clone(), source, quiet.clone()));
    tokio::time::sleep(Duration::from_secs(3)).await;
    quiet.store(true, Ordering::Relaxed);
    let alone = alone.await.unwrap();
    let stop = Arc::<AtomicBool>::default();
    let writing = tokio::spawn(writes(writer.clone(), source, stop.clone()));
    println!("{:>9}  {:>9}  {:>9}  view", "median", "worst", "CPU");
    for path in &paths {
        let (mut took, mut used) = (Vec::new(), Vec::new());
        for _ in 0..knob("TIMES", 5) {
            let (began, busy) = (Instant::now(), cpu());
            let answer = f.get(path).await;
            took.push(began.elapsed());
            used.push(cpu().saturating_sub(busy));
            assert!(matches!(answer.status, 200 | 303), "{path}: {}", answer.body);
        }
        took.sort_unstable();
        used.sort_unstable();
        println!(
            "{:>9.1?}  {:>9.1?}  {:>9.1?}  {path}",
            took[took.len() / 2],
            took[took.len() - 1],
            used[used.len() / 2]
        );
    }
    stop.store(true, Ordering::Relaxed);
    let meanwhile = writing.await.unwrap();
    println!("a commit alone: median {:.1?}, worst {:.1?}", alone.0, alone.1);
    println!(
        "a commit meanwhile: median {:.1?}, worst {:.1?}",
        meanwhile.0, meanwhile.1
    );
}
