//! `reconcile --heal`: what was told too low is set right, once, whoever is killed meanwhile.

use std::path::{Path, PathBuf};

use serde_json::Value;

use super::reconcile;
use crate::harness::{
    billing::Billing,
    eventually,
    feeder::{Allocation, Feeder},
    nodes::{Shared, leader, ready},
    postgres::Postgres,
    process::Process,
    program::Program,
    turnhook,
};

/// A session each for an allocation, over as soon as it is known to be.
const SESSION: &str = "[session]\ngroup_by = \"allocation\"\nlinger = \"0s\"\ntotals_grace = \"500ms\"\n";

/// An environment in which it is more than a day ago, by the wall clock.
fn yesterday() -> [(&'static str, String); 3] {
    let triple = format!("{}-linux-gnu", std::env::consts::ARCH);
    let library = format!("/usr/lib/{triple}/faketime/libfaketimeMT.so.1");
    assert!(
        Path::new(&library).exists(),
        "no {library}: tests/run.sh installs it"
    );
    [
        ("LD_PRELOAD", library),
        ("FAKETIME", "-26h".to_owned()),
        ("FAKETIME_DONT_FAKE_MONOTONIC", "1".to_owned()),
    ]
}

fn start_yesterday(program: &mut Program) {
    let environment = yesterday();
    program.start_with(
        &environment
            .each_ref()
            .map(|(name, value)| (*name, value.as_str())),
    );
}

/// An allocation whose totals were lost, as it is in the ledger.
#[track_caller]
fn told_too_low(program: &Program, user: &str, id: u64) -> Value {
    lose_totals(&mut Feeder::connect(program.source), user, id);
    in_the_ledger(program, user)
}

fn lose_totals(feeder: &mut Feeder, user: &str, id: u64) {
    let mut allocation = Allocation::new(&format!("1795413634:{user}"), id);
    feeder.open(&allocation, 600).unwrap();
    feeder.relay(&mut allocation, 1000, 1000).unwrap();
    feeder.delete(&allocation).unwrap();
}

#[track_caller]
pub(crate) fn in_the_ledger(program: &Program, user: &str) -> Value {
    let session = eventually("its end", || {
        let ended = program.objects(&["sessions", "list", "--ended", "--user", user]);
        Some(ended.first()?["session_id"].as_str()?.to_owned())
    });
    program.objects(&["sessions", "show", &session]).remove(0)
}

/// What a coturn of 4.17 would have written down of it: `reports` of what was told as one.
pub(crate) fn log(of: &Value, directory: &Path, user: &str, id: u64, reports: u64) -> PathBuf {
    let opened_at = of["allocations"][0]["opened_at"].as_str().unwrap();
    let begin = format!("{}+0000 INFO session {id:018}: ", opened_at.trim_end_matches('Z'));
    let names = format!("realm=<example.org>, username=<1795413634:{user}>");
    let mut text = format!("{begin}new, {names}, lifetime=600\n");
    for _ in 0..reports {
        text += &format!("{begin}usage: {names}, rp=1000, rb=104000, sp=1000, sb=104000\n");
        text += &format!("{begin}peer usage: {names}, rp=1000, rb=100000, sp=1000, sb=100000\n");
    }
    text += &format!("{begin}delete: {names}\n");
    let path = directory.join(format!("{user}.log"));
    std::fs::write(&path, text).unwrap();
    path
}

/// Asked for while nobody runs, and while somebody does; killed in the midst; asked for again.
#[track_caller]
fn is_set_right_once(more: &str) {
    let billing = Billing::start();
    let mut program = Program::new(&format!("{SESSION}{more}"));
    start_yesterday(&mut program);
    let ann = told_too_low(&program, "ann", 1);
    let bob = told_too_low(&program, "bob", 2);
    assert_eq!(ann["accuracy"], "lower_bound", "{ann:#}");
    program.stop();
    let directory = program.directory.path().to_owned();
    let ann_log = log(&ann, &directory, "ann", 1, 3);
    let bob_log = log(&bob, &directory, "bob", 2, 2);
    program.configure(&format!("{SESSION}{more}{}", billing.endpoint()));

    // Without --heal it is only said.
    let (findings, summary, code) = reconcile(&program, &[&ann_log], &[]);
    assert_eq!(findings[0]["verdict"], "stream_less", "{findings:#?}");
    let planned = &findings[0]["heal"];
    assert_eq!(planned["billable_bytes"], 400_000, "{planned}");
    assert_eq!(planned["continues"], ann["session_id"]);
    assert_eq!((&summary["heal"]["asked"], code), (&0.into(), Some(1)));

    // Nobody runs: it waits, however often it is asked for.
    for _ in 0..2 {
        let (_, summary, code) = reconcile(&program, &[&ann_log], &["--heal"]);
        assert_eq!((&summary["heal"]["asked"], code), (&1.into(), Some(0)));
        assert_eq!(summary["heal"]["told"], 0);
    }
    for round in 0..4u64 {
        program.start();
        std::thread::sleep(std::time::Duration::from_millis(40 * round));
        program.kill();
    }
    program.start();
    let healed = billing.ended("ann", 1).remove(0);
    assert_eq!(
        healed.events.last().unwrap().body["data"]["continues"],
        ann["session_id"]
    );
    assert_eq!((healed.billable(), healed.is_exact()), (400_000, false));
    assert_eq!(healed.usage().peer, [2000, 200_000, 2000, 200_000]);
    assert_eq!(healed.id, planned["session"].as_str().unwrap());

    // Somebody runs: it is told at once. What was told is equal, and is not told again.
    let (_, summary, code) = reconcile(&program, &[&bob_log], &["--heal"]);
    assert_eq!(
        (&summary["heal"]["told"], code),
        (&1.into(), Some(0)),
        "{summary:#}"
    );
    assert_eq!(billing.ended("bob", 1)[0].billable(), 200_000);
    for log in [&ann_log, &bob_log] {
        let (findings, summary, code) = reconcile(&program, &[log], &["--heal"]);
        assert_eq!(findings[0]["verdict"], "equal", "{findings:#?}");
        assert_eq!((&summary["heal"]["possible"], code), (&0.into(), Some(0)));
    }
    // A log that has still more waits for a day, as after any session.
    let larger = log(&ann, &directory, "ann", 1, 4);
    let (findings, _, code) = reconcile(&program, &[&larger], &["--heal"]);
    assert_eq!(
        (&findings[0]["heal"]["not"], code),
        (&"too_early".into(), Some(1)),
        "{findings:#?}"
    );
    assert_eq!(billing.ended("ann", 1).len(), 1);
    program.stop();
}

#[test]
fn what_was_told_too_low_is_set_right_once() {
    is_set_right_once("");
}

#[test]
fn in_a_postgres_too() {
    let server = Postgres::start();
    let url = server.url(&server.database());
    is_set_right_once(&format!("[store]\nurl = \"{url}\"\n"));
}

/// Asked for where the source is not led, by nodes of which the one that leads stands still, or is killed, before it tells it
/// or just after.
#[test]
fn of_several_nodes_one_tells_it_once() {
    let billing = Billing::start();
    let mut shared = Shared::start("2s", String::new());
    let users: Vec<String> = (1..=4).map(|n| format!("user-{n}")).collect();
    let mut first = shared.node("node-1");
    let environment = yesterday();
    first.launch_with(
        &environment
            .each_ref()
            .map(|(name, value)| (*name, value.as_str())),
    );
    ready(std::slice::from_ref(&first));
    // Heard by way of Redis, which takes the same words from whoever publishes.
    let mut feeder = Feeder::connect(shared.redis.port);
    for (id, user) in (1..).zip(&users) {
        lose_totals(&mut feeder, user, id);
        // Each log is of a time of its own.
        std::thread::sleep(std::time::Duration::from_millis(20));
    }
    let logs: Vec<PathBuf> = (1..)
        .zip(&users)
        .map(|(id, user)| {
            let told = in_the_ledger(&first.program, user);
            log(&told, shared.directory.path(), user, id, 3)
        })
        .collect();
    first.stop();
    shared.endpoints = billing.endpoint();
    let mut nodes = shared.nodes(2);
    let healed = |user: &str| {
        let sessions = billing.ended(user, 1);
        assert_eq!(sessions.len(), 1, "{sessions:#?}");
        assert!(sessions[0].continues(), "{sessions:#?}");
        assert_eq!(sessions[0].billable(), 400_000);
    };

    // By the node that does not lead.
    let leads = leader(&nodes);
    let (_, summary, code) = reconcile(&nodes[1 - leads].program, &[&logs[0]], &["--heal"]);
    assert_eq!(
        (&summary["heal"]["told"], code),
        (&1.into(), Some(0)),
        "{summary:#}"
    );
    healed(&users[0]);

    // The leader stands still until its lease is over: another tells it, and it does not when it wakes.
    nodes[leads].pause();
    let (_, summary, code) = reconcile(&nodes[1 - leads].program, &[&logs[1]], &["--heal"]);
    assert_eq!(
        (&summary["heal"]["asked"], code),
        (&1.into(), Some(0)),
        "{summary:#}"
    );
    healed(&users[1]);
    nodes[leads].resume();
    ready(&nodes);

    // Killed at once, and about when it tells it: it looks twice a second.
    for (user, (log, wait)) in users[2..].iter().zip(logs[2..].iter().zip([0, 300])) {
        let leads = leader(&nodes);
        let other = nodes[1 - leads].program.directory.path();
        let asked = "SELECT count(*) FROM audit WHERE action = 'heal'";
        let before = shared.sql(asked);
        let mut asking = turnhook::command(other);
        asking
            .args(["reconcile", "--source", "eu-1", "--heal", "--log"])
            .arg(log);
        let mut asking = Process::start(&mut asking);
        eventually("what is asked for", || {
            (shared.sql(asked) != before).then_some(())
        });
        std::thread::sleep(std::time::Duration::from_millis(wait));
        nodes[leads].kill();
        healed(user);
        assert!(asking.wait().success(), "{}", asking.output());
        nodes[leads].launch();
        ready(&nodes);
    }
    eventually("nothing to be left to do", || {
        (shared.sql("SELECT count(*) FROM heal").trim() == "0").then_some(())
    });
    for (user, log) in users.iter().zip(&logs) {
        let (findings, _, code) = reconcile(&nodes[0].program, &[log], &["--heal"]);
        assert_eq!(
            (&findings[0]["verdict"], code),
            (&"equal".into(), Some(0)),
            "{findings:#?}"
        );
        healed(user);
    }
    for node in &mut nodes {
        node.stop();
    }
}

/// What coturn may yet say itself is left to it: also where the clock of whoever asks is wrong.
#[test]
fn what_may_yet_be_heard_is_not_set_right() {
    let billing = Billing::start();
    let mut program = Program::new(&format!("{SESSION}{}", billing.endpoint()));
    program.start();
    let ann = told_too_low(&program, "ann", 1);
    let directory = program.directory.path().to_owned();
    let ann_log = log(&ann, &directory, "ann", 1, 3);
    let (findings, _, code) = reconcile(&program, &[&ann_log], &["--heal"]);
    assert_eq!(findings[0]["heal"]["not"], "too_early", "{findings:#?}");
    assert_eq!(code, Some(1));
    let triple = format!("{}-linux-gnu", std::env::consts::ARCH);
    let mut ahead = turnhook::command(&directory);
    ahead
        .env(
            "LD_PRELOAD",
            format!("/usr/lib/{triple}/faketime/libfaketimeMT.so.1"),
        )
        .env("FAKETIME", "+30h")
        .args(["reconcile", "--source", "eu-1", "--heal", "--log"])
        .arg(&ann_log);
    let output = ahead.output().unwrap();
    let text = turnhook::stdout(&output);
    assert!(
        text.contains("1 are refused"),
        "{text}{}",
        turnhook::stderr(&output)
    );
    assert_eq!(output.status.code(), Some(1));
    program.stop();
    assert_eq!(billing.ended("ann", 1).len(), 1);
}
