//! The outbox when there is much of it, and when there is no room for it.

use std::{
    path::Path,
    process::Command,
    sync::Arc,
    time::{Duration, Instant},
};

use turnhook_reducer::{
    event::{Accuracy, CloseReason, EventId, EventType, SessionEnd, SessionEvent, SessionId},
    source::GapReason,
    time::Timestamp,
    usage::Usage,
};
use turnhook_store::{Commit, EndpointId, Mode, NewEvent, SessionFilter, Store};

use crate::harness::{
    DEADLINE,
    counter::Counter,
    eventually,
    feeder::{Allocation, Feeder},
    program::{Program, endpoint, text},
};

/// Events of a session in the backlog.
const EVENTS: u32 = 4;

/// Writes a backlog of so many deliveries into a new store, as a program would have left it behind.
async fn write_backlog(path: &Path, deliveries: u64) {
    let store = Store::open(path, Mode::Run).await.unwrap();
    let now = std::time::SystemTime::now()
        .duration_since(std::time::UNIX_EPOCH)
        .unwrap();
    let began = u64::try_from(now.as_millis()).unwrap() - 86_400_000;
    let source = store.state().source("eu-1").await.unwrap();
    let endpoints: Arc<[EndpointId]> = store
        .outbox()
        .set_endpoints(&["billing"], Timestamp(began))
        .await
        .unwrap()
        .into();
    let sessions = deliveries / u64::from(EVENTS);
    // As many open at once as there are in a busy hour.
    for first in (0..sessions).step_by(500) {
        for sequence in 0..EVENTS {
            let events = (first..sessions.min(first + 500)).map(|n| {
                let event = event(
                    n,
                    sequence,
                    Timestamp(began + first * 10 + u64::from(sequence) * 1000),
                );
                NewEvent {
                    body: turnhook_dispatcher::body::body(&event),
                    endpoints: Arc::clone(&endpoints),
                    event,
                }
            });
            let clock = Timestamp(began + first * 10 + u64::from(sequence) * 1000);
            let commit = Commit {
                events: events.collect(),
                ..Commit::new(source, clock)
            };
            store.state().commit(commit).await.unwrap();
        }
    }
    store.close().await;
}

fn event(n: u64, sequence: u32, timestamp: Timestamp) -> SessionEvent {
    let id = |ms: u64, low: u64| {
        let mut id = [0; 16];
        id[..6].copy_from_slice(&ms.to_be_bytes()[2..]);
        id[8..].copy_from_slice(&low.to_be_bytes());
        id
    };
    let started_at = Timestamp(timestamp.0 - u64::from(sequence) * 1000);
    let end = sequence + 1 == EVENTS;
    SessionEvent {
        id: EventId(id(timestamp.0, n * u64::from(EVENTS) + u64::from(sequence))),
        event_type: match (sequence, end) {
            (0, _) => EventType::Start,
            (_, true) => EventType::End,
            _ => EventType::Usage,
        },
        timestamp,
        session_id: SessionId(id(started_at.0, n)),
        sequence,
        continues: None,
        source: "eu-1".into(),
        realm: b"example.org".to_vec().into(),
        user: Some(format!("cust_{}", n % 1000).into_bytes().into()),
        usernames: vec![format!("1795413634:cust_{}", n % 1000).into_bytes().into()],
        labels: Vec::new(),
        started_at,
        end: end.then_some(SessionEnd {
            ended_at: timestamp,
            reason: CloseReason::Closed,
            accuracy: Accuracy::Exact,
        }),
        block_reason: None,
        duration_ms: None,
        peer_leg: true,
        billable: turnhook_reducer::usage::Billable::Relayed,
        usage: Usage::default(),
        usage_delta: Usage::default(),
        allocations: Vec::new(),
        allocations_omitted: 0,
    }
}

/// Deliveries a second while `counter` gets `events` more.
fn rate_of(counter: &Counter, events: u64, mut alongside: impl FnMut()) -> f64 {
    let (before, began) = (counter.events(), Instant::now());
    while counter.events() < before + events {
        assert!(
            began.elapsed() < 10 * DEADLINE,
            "it stands still at {}",
            counter.events()
        );
        alongside();
        std::thread::sleep(Duration::from_millis(5));
    }
    (counter.events() - before) as f64 / began.elapsed().as_secs_f64()
}

/// A backlog of `deliveries`, of which `drained` are awaited.
async fn backlog(deliveries: u64, drained: u64) {
    let counter = Counter::start().await;
    let mut program = Program::new(&endpoint("billing", &counter.url(), ""));
    let began = Instant::now();
    write_backlog(&program.directory.path().join("turnhook.db"), deliveries).await;
    let written = began.elapsed();

    // With nothing behind: what fits into memory, without a store to read it from.
    let idle = Counter::start().await;
    let mut empty = Program::new(&endpoint("billing", &idle.url(), ""));
    write_backlog(&empty.directory.path().join("turnhook.db"), 4000).await;
    empty.start();
    let empty_rate = rate_of(&idle, 3000, || {});
    let empty_memory = empty.memory("VmHWM");
    empty.stop();

    program.start();
    let mut memory = 0;
    let mut feeder = Feeder::connect(program.source);
    let rate = rate_of(&counter, drained / 2, || {
        memory = memory.max(program.memory("VmRSS"))
    });

    // What happens now is told now.
    let (at, before) = (Instant::now(), counter.events());
    feeder.call("newcomer", 1);
    let came = || {
        let newcomer = counter.counts.lock().unwrap().newcomer.clone();
        (newcomer.len() == 2).then_some(newcomer)
    };
    let newcomer = loop {
        assert!(at.elapsed() < 10 * DEADLINE, "the newest came to nothing");
        match came() {
            Some(newcomer) => break newcomer,
            None => std::thread::sleep(Duration::from_millis(1)),
        }
    };
    let (waited, overtook) = (at.elapsed(), deliveries.saturating_sub(newcomer[1]));
    assert!(
        overtook > deliveries / 4,
        "the newest waited for the backlog: {newcomer:?} of {deliveries}"
    );

    let rest = drained.saturating_sub(counter.events()).max(drained / 4);
    let rest_rate = rate_of(&counter, rest.min(deliveries + 2 - counter.events()), || {
        memory = memory.max(program.memory("VmRSS"));
    });
    if drained == deliveries {
        program.until("the rest", |status| {
            status["endpoints"]["billing"]["pending"] == 0
        });
        let counts = counter.counts.lock().unwrap();
        assert_eq!(counts.sessions.len() as u64, deliveries / u64::from(EVENTS) + 1);
        let ended = counts
            .sessions
            .values()
            .filter(|next| **next == u64::from(EVENTS))
            .count() as u64;
        assert_eq!(ended, deliveries / u64::from(EVENTS), "each session whole");
    }
    assert_eq!(counter.counts.lock().unwrap().out_of_order, 0);
    let peak = program.memory("VmHWM").max(memory);
    println!(
        "backlog of {deliveries} (written in {written:.1?}): {rate:.0}/s, {:.2} of the rate without one ({empty_rate:.0}/s), \
         and {rest_rate:.0}/s once something new had come; \
         peak RSS {} MiB ({} MiB without); the newest came after {waited:.1?} and {} others, before {overtook} older ones",
        rate / empty_rate,
        peak / 1024,
        empty_memory / 1024,
        newcomer[1] - before,
    );
    // Its bodies alone are larger; what is held of them is bounded.
    assert!(peak < 400 * 1024, "{peak} KiB for {deliveries} deliveries");
    program.stop();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_backlog_takes_bounded_memory_and_the_newest_do_not_wait_for_it() {
    backlog(40_000, 40_000).await;
}

/// `cargo test --release -p turnhook --test it -- --ignored --nocapture a_million`
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "takes minutes; measured by hand"]
async fn a_million_pending_deliveries() {
    backlog(1_000_000, 1_000_000).await;
}

/// A small disk of its own, in memory; gone when dropped.
struct Disk<'a>(&'a Path);

impl<'a> Disk<'a> {
    /// `None` where it may not be made: it takes root.
    fn mount(at: &'a Path, size: &str) -> Option<Disk<'a>> {
        std::fs::create_dir(at).unwrap();
        let size = format!("size={size}");
        let mounted = Command::new("mount")
            .args(["-t", "tmpfs", "-o", &size, "tmpfs", text(at)])
            .output()
            .ok()?;
        mounted.status.success().then_some(Disk(at))
    }

    fn resize(&self, size: &str) {
        let option = format!("remount,size={size}");
        let status = Command::new("mount")
            .args(["-o", &option, text(self.0)])
            .status()
            .unwrap();
        assert!(status.success());
    }
}

impl Drop for Disk<'_> {
    fn drop(&mut self) {
        // Lazily: what runs on it may still be ending.
        let _ = Command::new("umount").args(["-l", text(self.0)]).status();
    }
}

/// Messages that the source has heard.
fn heard(program: &Program) -> u64 {
    let metrics = program.get("/metrics").1;
    let of_source = metrics
        .lines()
        .filter(|line| line.starts_with("turnhook_events_total{source=\"eu-1\""));
    of_source
        .map(|line| line.rsplit(' ').next().unwrap().parse::<u64>().unwrap())
        .sum()
}

/// Small calls, numbered, no faster than they are heard.
struct Calls {
    feeder: Feeder,
    made: u64,
}

impl Calls {
    fn make(&mut self, program: &Program, calls: u64) {
        let before = heard(program);
        for _ in 0..calls {
            self.made += 1;
            let allocation = Allocation::new("cust_1", self.made);
            self.feeder.open(&allocation, 600).unwrap();
            self.feeder.close(&allocation).unwrap();
        }
        // Four messages each, unless they are given up.
        let full = "the bound is reached";
        eventually("the calls to be heard", || {
            let over = heard(program) >= before + 4 * calls;
            (over || program.log().iter().any(|line| line.contains(full))).then_some(())
        });
    }
}

/// The disk is full for a while; `beyond` the bound of what is kept in memory meanwhile.
async fn full_disk(beyond: bool) {
    let counter = Counter::start().await;
    let mut program = Program::new(&format!(
        "[store]\npath = \"disk/turnhook.db\"\n{}",
        endpoint("billing", &counter.url(), "events = [\"session.end\"]\n"),
    ));
    let at = program.directory.path().join("disk");
    let Some(disk) = Disk::mount(&at, "4m") else {
        eprintln!("SKIPPED: a full disk needs a small one, and mounting that takes root");
        return;
    };
    program.start();
    let mut feeder = Feeder::connect(program.source);
    for id in 1..=20 {
        feeder.call("early", 1_000_000 + id);
    }
    eventually("the first", || (counter.events() == 20).then_some(()));
    eventually("the outcomes", || {
        (program.deliveries("delivered").len() == 20).then_some(())
    });
    program.ask(&["endpoints", "pause", "billing"]);
    program.until("the pause", |status| {
        status["endpoints"]["billing"]["paused"] == true
    });

    // Calls until there is no room left: loudly.
    let mut calls = Calls { feeder, made: 0 };
    while program.get("/readyz").0 == 200 {
        calls.make(&program, 200);
        assert!(calls.made < 100_000, "it is not full after {} calls", calls.made);
    }
    let (_, ready) = program.get("/readyz");
    assert!(ready.contains("no room left"), "{ready}");
    assert_eq!(program.get("/livez").0, 200);
    program.line("commit failed");

    // It goes on reading, within bounds.
    let began = Instant::now();
    calls.make(&program, 1000);
    while beyond
        && !program
            .log()
            .iter()
            .any(|line| line.contains("the bound is reached"))
    {
        calls.make(&program, 2000);
        assert!(
            calls.made < 200_000,
            "no bound was reached after {} calls",
            calls.made
        );
    }
    let heard_all = if beyond { None } else { Some(calls.made) };
    let (held, took) = (program.memory("VmRSS"), began.elapsed());
    assert_eq!(program.get("/readyz").0, 503);

    // There is room again.
    let again = Instant::now();
    disk.resize("1g");
    eventually("it to be ready again", || {
        (program.get("/readyz").0 == 200).then_some(())
    });
    calls.feeder.call("late", 900_000);
    // What has piled up is one commit, and that takes its time.
    let late = || {
        let sessions = program.objects(&["sessions", "list", "--user", "late"]);
        sessions.len() == 1 && sessions[0]["ended_at"].is_string()
    };
    while !late() {
        assert!(
            again.elapsed() < 4 * DEADLINE,
            "waited in vain for what came later"
        );
        std::thread::sleep(Duration::from_millis(100));
    }
    let caught_up = again.elapsed();
    program.kill();

    // Everything up to the gap is there; what was given up is on record as missed.
    let store = Store::open(at.join("turnhook.db"), Mode::Shared).await.unwrap();
    let gaps = store.ledger().gaps(None, 100).await.unwrap();
    let given_up = gaps
        .iter()
        .filter(|row| row.gap.reason == GapReason::StoreFull)
        .count();
    assert_eq!(given_up, usize::from(beyond), "{gaps:?}");
    let of_calls = SessionFilter {
        user: Some(b"cust_1".to_vec()),
        ..SessionFilter::default()
    };
    let sessions = store
        .ledger()
        .sessions(of_calls, None, usize::MAX >> 1)
        .await
        .unwrap();
    let ended = sessions.iter().filter(|row| row.end.is_some()).count() as u64;
    match heard_all {
        Some(all) => assert_eq!((sessions.len() as u64, ended), (all, all), "each of them, whole"),
        None => assert!(
            ended > 49_000 && sessions.len() as u64 - ended <= 1,
            "{ended} of {}",
            calls.made
        ),
    }
    store.close().await;
    program.start();
    program.ask(&["endpoints", "resume", "billing"]);
    let all = 20 + ended + 1;
    let before = Instant::now();
    while counter.events() < all {
        assert!(
            before.elapsed() < 4 * DEADLINE,
            "only {} of {all} came",
            counter.events()
        );
        std::thread::sleep(Duration::from_millis(20));
    }
    assert_eq!(
        counter.counts.lock().unwrap().sessions.len() as u64,
        all,
        "each of them told"
    );
    println!(
        "{} calls, most of them on a full disk for {took:.1?}: RSS {} MiB; all committed {caught_up:.1?} after there was room",
        calls.made,
        held / 1024
    );
    program.stop();
    drop(disk);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_full_disk_is_survived() {
    full_disk(false).await;
}

/// `cargo test --release -p turnhook --test it -- --ignored --nocapture outbox`
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "a hundred thousand events in one commit: minutes where nothing is optimised"]
async fn a_disk_that_stays_full_is_survived_with_a_gap() {
    full_disk(true).await;
}
