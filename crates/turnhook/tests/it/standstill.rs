//! Endpoints that stand still say so, until when and why, and a person can let go of it.

use std::sync::{
    Arc,
    atomic::{AtomicU16, Ordering},
};

use serde_json::Value;
use turnhook_reducer::time::Timestamp;

use crate::harness::{
    bridge::{Bridge, endpoint},
    eventually,
    feeder::Feeder,
    process::Process,
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
fn said(bridge: &Bridge, text: &str) -> usize {
    bridge.log().iter().filter(|line| line.contains(text)).count()
}

fn has_metric(bridge: &Bridge, line: &str) -> bool {
    bridge.get("/metrics").1.lines().any(|found| found == line)
}

#[tokio::test(flavor = "multi_thread")]
async fn one_that_asks_for_a_day_of_rest_is_held_visibly_and_can_be_resumed() {
    let (answer, receiver) = busy().await;
    let mut bridge = Bridge::new(&endpoint("billing", &receiver.url(), "concurrency = 1\n"));
    bridge.start();
    assert!(has_metric(
        &bridge,
        "turnhook_endpoint_held{endpoint=\"billing\"} 0"
    ));
    Feeder::connect(bridge.source).call("alice", 1);
    let status = bridge.until("the hold", |status| {
        status["endpoints"]["billing"]["state"] == "held"
    });
    let shown = &status["endpoints"]["billing"];
    assert!(shown["reason"].as_str().unwrap().contains("503"), "{shown}");
    // As long as `retry.retry_after_max` allows, and no longer.
    let held = time(&shown["until"]).since(time(&shown["since"]));
    assert_eq!(held, 6 * 3_600_000, "{shown}");
    bridge.line("endpoint stands still: it asked to be left alone");
    bridge.until("the metric", |_| {
        has_metric(&bridge, "turnhook_endpoint_held{endpoint=\"billing\"} 1")
    });

    let listed = &bridge.objects(&["endpoints", "list"])[0];
    assert_eq!(
        (&listed["state"], &listed["until"]),
        (&"held".into(), &shown["until"])
    );
    let table = bridge.ask(&["endpoints", "list"]);
    assert!(
        table.contains("held until 20") && table.contains("503"),
        "{table}"
    );
    for delivery in bridge.deliveries("pending") {
        assert!(
            time(&delivery["next_attempt_at"]) >= time(&shown["until"]),
            "{delivery}"
        );
    }

    let asked = receiver.received().len();
    answer.store(200, Ordering::SeqCst);
    let told = bridge.ask(&["endpoints", "resume", "billing"]);
    assert!(told.contains("let go"), "{told}");
    let status = bridge.until("all of it", |status| {
        status["endpoints"]["billing"]["pending"] == 0
    });
    assert_eq!(status["endpoints"]["billing"]["state"], "active", "{status}");
    assert!(receiver.received().len() > asked);
    bridge.line("endpoint moves again");
    assert_eq!(said(&bridge, "endpoint stands still"), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn one_that_is_down_has_an_open_breaker_that_can_be_resumed() {
    let receiver = Receiver::start(|_| Reply::Status(200)).await;
    receiver.go_down();
    let mut bridge = Bridge::new(&endpoint("billing", &receiver.url(), ""));
    bridge.start();
    let mut feeder = Feeder::connect(bridge.source);
    for id in 1..=10 {
        feeder.call("alice", id);
    }
    let status = bridge.until("the breaker", |status| {
        status["endpoints"]["billing"]["state"] == "breaker_open"
    });
    let shown = &status["endpoints"]["billing"];
    assert!(
        shown["reason"].as_str().unwrap().contains("could not connect"),
        "{shown}"
    );
    bridge.until("the metric", |_| {
        has_metric(&bridge, "turnhook_endpoint_breaker_open{endpoint=\"billing\"} 1")
    });
    let table = bridge.ask(&["endpoints", "list"]);
    assert!(
        table.contains("breaker open") && table.contains("could not connect"),
        "{table}"
    );
    let now = turnhook_dispatcher::clock::Clocks::system().wall();
    for delivery in bridge.deliveries("pending") {
        assert!(time(&delivery["next_attempt_at"]) >= now, "{delivery}");
    }
    receiver.come_back().await;
    bridge.ask(&["endpoints", "resume", "billing"]);
    bridge.until("all of it", |status| {
        status["endpoints"]["billing"]["pending"] == 0
    });
    bridge.until("the metric", |_| {
        has_metric(&bridge, "turnhook_endpoint_breaker_open{endpoint=\"billing\"} 0")
    });
    assert_eq!(said(&bridge, "endpoint stands still"), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_replay_that_waits_says_what_for_and_ends_with_what_came_of_it() {
    let (answer, receiver) = busy().await;
    answer.store(422, Ordering::SeqCst);
    let mut bridge = Bridge::new(&endpoint("billing", &receiver.url(), ""));
    bridge.start();
    Feeder::connect(bridge.source).call("alice", 1);
    eventually("dead letters", || {
        (bridge.deliveries("dead").len() == 2).then_some(())
    });

    answer.store(503, Ordering::SeqCst);
    let mut replay = Process::start(turnhook::command(bridge.directory.path()).args(["replay", "--wait"]));
    replay.line("what it waits for", |line| {
        (line.contains("waiting: billing is held until") && line.contains("endpoints resume billing"))
            .then_some(())
    });
    // Refused again: that is not success.
    answer.store(422, Ordering::SeqCst);
    bridge.ask(&["endpoints", "resume", "billing"]);
    assert_eq!(replay.wait().code(), Some(1), "{}", replay.output());
    replay.line("what came of it", |line| {
        line.contains("2 of them were not taken").then_some(())
    });
    assert_eq!(bridge.deliveries("dead").len(), 2);
}
