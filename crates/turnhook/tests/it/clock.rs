//! The wall clock of a running program is set, by libfaketime: only its own, and not its monotonic clock.

use std::{
    fs,
    path::Path,
    time::{SystemTime, UNIX_EPOCH},
};

use turnhook_dispatcher::signature::{self, HEADER_SIGNATURE, HEADER_TIMESTAMP, Secret};

use crate::harness::{
    eventually,
    feeder::Feeder,
    program::{Program, SECRET, endpoint},
    receiver::{Receiver, Reply},
};

/// Debian's, of the package that `tests/run.sh` installs.
fn libfaketime() -> String {
    let triple = format!("{}-linux-gnu", std::env::consts::ARCH);
    let path = format!("/usr/lib/{triple}/faketime/libfaketimeMT.so.1");
    assert!(Path::new(&path).exists(), "no {path}: tests/run.sh installs it");
    path
}

/// A program whose wall clock is off by what the file says.
fn start(program: &mut Program) {
    let file = program.directory.path().join("clock");
    let file = file.to_str().unwrap();
    program.start_with(&[
        ("LD_PRELOAD", &libfaketime()),
        ("FAKETIME_TIMESTAMP_FILE", file),
        ("FAKETIME_NO_CACHE", "1"),
        ("FAKETIME_DONT_FAKE_MONOTONIC", "1"),
    ]);
}

fn set(program: &Program, off: &str) {
    fs::write(program.directory.path().join("clock"), off).unwrap();
}

/// A receiver that takes what verifies by its own clock, which is right, and answers 401 to the rest, as those do that
/// use a library of Standard Webhooks.
async fn strict() -> Receiver {
    let secret = Secret::parse(SECRET).unwrap();
    Receiver::start(move |request| {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs();
        let verified = signature::verify(
            std::slice::from_ref(&secret),
            request.id(),
            request.header(HEADER_TIMESTAMP),
            request.header(HEADER_SIGNATURE),
            &request.body,
            now,
        );
        Reply::Status(if verified.is_ok() { 200 } else { 401 })
    })
    .await
}

/// A day ahead for a while: what is signed then is refused, and is delivered as soon as the clock is right again,
/// without a restart. Nothing is given up for its age.
#[tokio::test(flavor = "multi_thread")]
async fn a_day_ahead_for_a_while() {
    let receiver = strict().await;
    let mut program = Program::new(&endpoint("billing", &receiver.url(), ""));
    set(&program, "+0");
    start(&mut program);
    let mut feeder = Feeder::connect(program.source);
    feeder.call("1795413634:before", 1);
    eventually("what came before", || {
        (program.deliveries("delivered").len() == 2).then_some(())
    });

    set(&program, "+1d");
    feeder.call("1795413634:during", 2);
    program.until("a refusal", |status| {
        let error = status["endpoints"]["billing"]["last_error"].as_str();
        error.is_some_and(|error| error.contains("401"))
    });
    set(&program, "+0");
    // The program's own time stays ahead, and it is known by how much.
    eventually("the clock that was put back", || {
        let (_, metrics) = program.get("/metrics");
        let line = metrics
            .lines()
            .find(|line| line.starts_with("turnhook_wall_clock_ahead_seconds{source=\"eu-1\"}"));
        let ahead: f64 = line?.rsplit(' ').next()?.parse().ok()?;
        (-86_500.0..-86_000.0).contains(&ahead).then_some(())
    });
    program.line("the wall clock has been put back");
    feeder.call("1795413634:after", 3);
    eventually("what came during and after", || {
        (program.deliveries("delivered").len() == 6).then_some(())
    });
    assert!(program.deliveries("dead").is_empty());
    // What is told is of today again, by the receiver's clock.
    let received = receiver.received().clone();
    let ahead = |user: &str| -> Vec<i64> {
        let bodies = received
            .iter()
            .map(|request| serde_json::from_slice::<serde_json::Value>(&request.body).unwrap());
        let of_user = bodies.filter(|body| body["data"]["user"] == user);
        let told = of_user.map(|body| body["timestamp"].as_str().unwrap().parse::<jiff::Timestamp>());
        told.map(|at| (at.unwrap().as_second() - jiff::Timestamp::now().as_second()) / 3600)
            .collect()
    };
    assert!(
        ahead("during").iter().all(|hours| *hours >= 23),
        "{:?}",
        ahead("during")
    );
    assert_eq!(ahead("after"), [0, 0]);
}

/// What was committed and tried while it was ahead is not waited for until that day has come.
#[tokio::test(flavor = "multi_thread")]
async fn a_restart_after_the_clock_was_ahead() {
    let down = Receiver::start(|_| Reply::Status(503)).await;
    let mut program = Program::new(&endpoint("billing", &down.url(), ""));
    set(&program, "+1d");
    start(&mut program);
    Feeder::connect(program.source).call("1795413634:during", 1);
    eventually("an attempt", || {
        let pending = program.deliveries("pending");
        (pending.len() == 2 && !down.received().is_empty()).then_some(())
    });
    program.stop();

    set(&program, "+0");
    let receiver = strict().await;
    program.configure(&endpoint("billing", &receiver.url(), ""));
    start(&mut program);
    eventually("what waited", || {
        (program.deliveries("delivered").len() == 2).then_some(())
    });
    assert!(program.deliveries("dead").is_empty());
}

/// A restart while the clock is more than a year ahead: what was tried before it has not been tried for a year.
#[tokio::test(flavor = "multi_thread")]
async fn a_start_while_the_clock_is_ahead_gives_nothing_up() {
    let down = Receiver::start(|_| Reply::Status(503)).await;
    let retry = "retry = { initial = \"50ms\", max = \"200ms\", give_up_after = \"1h\" }\n";
    let mut program = Program::new(&endpoint("billing", &down.url(), retry));
    set(&program, "+0");
    start(&mut program);
    Feeder::connect(program.source).call("1795413634:before", 1);
    let tried = |program: &Program, times: u64| {
        let pending = program.deliveries("pending");
        let is_tried = |one: &serde_json::Value| one["attempts"].as_u64().is_some_and(|n| n >= times);
        assert!(program.deliveries("dead").is_empty());
        (pending.len() == 2 && pending.iter().any(is_tried)).then(|| down.received().len() as u64)
    };
    let times = eventually("an attempt", || tried(&program, 1));
    program.stop();

    set(&program, "+400d");
    start(&mut program);
    eventually("attempts while it is ahead", || tried(&program, times + 2));
    program.stop();

    set(&program, "+0");
    let receiver = strict().await;
    program.configure(&endpoint("billing", &receiver.url(), retry));
    start(&mut program);
    eventually("what waited", || {
        (program.deliveries("delivered").len() == 2).then_some(())
    });
}
