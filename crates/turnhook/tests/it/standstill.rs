//! Endpoints that stand still say so, until when and why, and a person can let go of it.

use std::sync::{
    Arc,
    atomic::{AtomicU16, Ordering},
};

use serde_json::Value;
use turnhook_reducer::time::Timestamp;

use crate::harness::{
    eventually,
    feeder::Feeder,
    process::Process,
    program::{Program, endpoint},
    receiver::{Receiver, Reply},
    turnhook,
};

/// A receiver that answers with whatever status is set, and asks to be left alone for a day where that is 503.
async fn busy() -> (Arc<AtomicU16>, Receiver) {
    let answer = Arc::new(AtomicU16::new(503));
    let now = Arc::clone(&answer);
    let receiver = Receiver::start(move |_| match now.load(Ordering::SeqCst) {
        503 => Reply::Headers(503, "retry-after: 86400\r\n".into()),
        status => Reply::Status(status),
    })
    .await;
    (answer, receiver)
}

fn time(value: &Value) -> Timestamp {
    let at: jiff::Timestamp = value.as_str().unwrap().parse().unwrap();
    Timestamp(u64::try_from(at.as_millisecond()).unwrap())
}

/// Lines of the log that say this.
fn said(program: &Program, text: &str) -> usize {
    program.log().iter().filter(|line| line.contains(text)).count()
}

fn has_metric(program: &Program, line: &str) -> bool {
    program.get("/metrics").1.lines().any(|found| found == line)
}

#[tokio::test(flavor = "multi_thread")]
async fn one_that_asks_for_a_day_of_rest_is_held_visibly_and_can_be_resumed() {
    let (answer, receiver) = busy().await;
    let mut program = Program::new(&endpoint("billing", &receiver.url(), "concurrency = 1\n"));
    program.start();
    assert!(has_metric(
        &program,
        "turnhook_endpoint_held{endpoint=\"billing\"} 0"
    ));
    Feeder::connect(program.source).call("alice", 1);
    let status = program.until("the hold", |status| {
        status["endpoints"]["billing"]["state"] == "held"
    });
    let shown = &status["endpoints"]["billing"];
    assert!(shown["reason"].as_str().unwrap().contains("503"), "{shown}");
    // As long as `retry.retry_after_max` allows, and no longer.
    let held = time(&shown["until"]).since(time(&shown["since"]));
    assert_eq!(held, 6 * 3_600_000, "{shown}");
    program.line("endpoint stands still: it asked to be left alone");
    program.until("the metric", |_| {
        has_metric(&program, "turnhook_endpoint_held{endpoint=\"billing\"} 1")
    });

    let listed = &program.objects(&["endpoints", "list"])[0];
    assert_eq!(
        (&listed["state"], &listed["until"]),
        (&"held".into(), &shown["until"])
    );
    let table = program.ask(&["endpoints", "list"]);
    assert!(
        table.contains("held until 20") && table.contains("503"),
        "{table}"
    );
    for delivery in program.deliveries("pending") {
        assert!(
            time(&delivery["next_attempt_at"]) >= time(&shown["until"]),
            "{delivery}"
        );
    }

    let asked = receiver.received().len();
    answer.store(200, Ordering::SeqCst);
    let told = program.ask(&["endpoints", "resume", "billing"]);
    assert!(told.contains("let go"), "{told}");
    program.nothing_pending();
    program.until("it to be active", |status| {
        status["endpoints"]["billing"]["state"] == "active"
    });
    assert!(receiver.received().len() > asked);
    program.line("endpoint moves again");
    assert_eq!(said(&program, "endpoint stands still"), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn one_that_is_down_has_an_open_breaker_that_can_be_resumed() {
    let receiver = Receiver::start(|_| Reply::Status(200)).await;
    receiver.go_down();
    let mut program = Program::new(&endpoint("billing", &receiver.url(), ""));
    program.start();
    let mut feeder = Feeder::connect(program.source);
    for id in 1..=10 {
        feeder.call("alice", id);
    }
    let status = program.until("the breaker", |status| {
        status["endpoints"]["billing"]["state"] == "breaker_open"
    });
    let shown = &status["endpoints"]["billing"];
    assert!(
        shown["reason"].as_str().unwrap().contains("could not connect"),
        "{shown}"
    );
    program.until("the metric", |_| {
        has_metric(&program, "turnhook_endpoint_breaker_open{endpoint=\"billing\"} 1")
    });
    let table = program.ask(&["endpoints", "list"]);
    assert!(
        table.contains("breaker open") && table.contains("could not connect"),
        "{table}"
    );
    let now = turnhook_dispatcher::clock::Clocks::system().wall();
    for delivery in program.deliveries("pending") {
        assert!(time(&delivery["next_attempt_at"]) >= now, "{delivery}");
    }
    receiver.come_back().await;
    program.ask(&["endpoints", "resume", "billing"]);
    program.nothing_pending();
    program.until("the metric", |_| {
        has_metric(&program, "turnhook_endpoint_breaker_open{endpoint=\"billing\"} 0")
    });
    assert_eq!(said(&program, "endpoint stands still"), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_replay_that_waits_says_what_for_and_ends_with_what_came_of_it() {
    let (answer, receiver) = busy().await;
    answer.store(422, Ordering::SeqCst);
    let mut program = Program::new(&endpoint("billing", &receiver.url(), ""));
    program.start();
    Feeder::connect(program.source).call("alice", 1);
    eventually("dead letters", || {
        (program.deliveries("dead").len() == 2).then_some(())
    });

    answer.store(503, Ordering::SeqCst);
    let mut replay = Process::start(turnhook::command(program.directory.path()).args(["replay", "--wait"]));
    replay.line("what it waits for", |line| {
        (line.contains("waiting: billing is held until") && line.contains("endpoints resume billing"))
            .then_some(())
    });
    // Refused again: that is not success.
    answer.store(422, Ordering::SeqCst);
    program.ask(&["endpoints", "resume", "billing"]);
    assert_eq!(replay.wait().code(), Some(1), "{}", replay.output());
    replay.line("what came of it", |line| {
        line.contains("2 of them were not taken").then_some(())
    });
    assert_eq!(program.deliveries("dead").len(), 2);
}
