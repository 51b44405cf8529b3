//! coturn's own log against the ledger: real coturns that write their logs into files, rotated, restarted, forged.

pub(crate) mod healing;
mod outages;

use std::{
    io::Write as _,
    path::{Path, PathBuf},
};

use serde_json::Value;

use crate::harness::{
    billing::{Billing, QUICK, redis, statsdb},
    coturn::{Coturn, Transport},
    eventually,
    program::Program,
    redis::Redis,
    turn::TurnClient,
    turnhook,
};

/// A coturn that logs into a file, with dates.
fn coturn(directory: &Path, statsdb: &str, log: &Path) -> Coturn {
    let also = format!("--log-file={}", log.display());
    Coturn::start(
        directory,
        statsdb,
        &[&also, "--simple-log", "--new-log-timestamp", "--relay-threads=1"],
    )
}

/// The findings, and the summary; and the status.
#[track_caller]
pub(crate) fn reconcile(
    program: &Program,
    logs: &[&Path],
    more: &[&str],
) -> (Vec<Value>, Value, Option<i32>) {
    let mut arguments = vec!["reconcile", "--source", "eu-1", "--all", "--format", "json"];
    arguments.extend(more);
    arguments.push("--log");
    arguments.extend(logs.iter().map(|log| log.to_str().unwrap()));
    let output = program.command(&arguments);
    let text = turnhook::stdout(&output);
    let mut lines: Vec<Value> = text
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect();
    let summary = lines
        .pop()
        .unwrap_or_else(|| panic!("{}", turnhook::stderr(&output)));
    (lines, summary["summary"].clone(), output.status.code())
}

fn verdicts(findings: &[Value], user: &str) -> Vec<String> {
    let of = |f: &&Value| f["username"].as_str().unwrap().ends_with(&format!(":{user}"));
    let verdict = |f: &Value| f["verdict"].as_str().unwrap().to_owned();
    findings.iter().filter(of).map(verdict).collect()
}

fn wait_for(log: &Path, text: &str) {
    eventually(&format!("{text} in the log"), || {
        std::fs::read_to_string(log)
            .unwrap_or_default()
            .contains(text)
            .then_some(())
    });
}

pub(crate) fn packed(from: &Path, to: &Path) {
    let mut packed =
        flate2::write::GzEncoder::new(std::fs::File::create(to).unwrap(), flate2::Compression::fast());
    packed.write_all(&std::fs::read(from).unwrap()).unwrap();
    packed.finish().unwrap();
}

/// Clients of three transports, a rotation in mid-call, a start anew with the same numbers, and a packed file: equal.
#[test]
fn equal_to_the_byte_over_rotations_and_restarts() {
    let billing = Billing::start();
    let mut program = Program::new(&format!("{QUICK}{}", billing.endpoint()));
    program.start();
    let directory = program.directory.path().to_owned();
    let log = directory.join("turn.log");
    let mut coturn = coturn(&directory, &statsdb(&program, 0), &log);
    let mut ann = TurnClient::tcp(&coturn, "ann").call(&coturn);
    ann.relay(50, 300);
    let older = directory.join("turn.log.1");
    std::fs::rename(&log, &older).unwrap();
    coturn.process.signal("HUP");
    ann.relay(50, 300);
    drop(ann);
    for (user, transport) in [("udp", Transport::Udp), ("tls", Transport::Tls)] {
        let mut client = TurnClient::over(transport, &coturn, user).call(&coturn);
        client.relay(20, 200);
        assert_eq!(client.refresh(0), 0);
    }
    for user in ["ann", "udp", "tls"] {
        assert!(billing.ended(user, 1)[0].is_exact());
    }
    coturn.process.signal("KILL");
    coturn.start_again();
    let mut bob = TurnClient::tcp(&coturn, "bob").call(&coturn);
    bob.relay(30, 100);
    drop(bob);
    assert!(billing.ended("bob", 1)[0].is_exact());
    wait_for(&log, ":bob>, rp=");

    let oldest = directory.join("turn.log.1.gz");
    packed(&older, &oldest);
    // In whatever order they are given.
    let (findings, summary, code) = reconcile(&program, &[&log, &oldest], &[]);
    for user in ["ann", "udp", "tls", "bob"] {
        assert_eq!(verdicts(&findings, user), ["equal"], "{findings:#?}");
    }
    assert_eq!(code, Some(0), "{summary:#}");
    assert_eq!(summary["log"], summary["told"]);
    assert_eq!(summary["read"]["starts"], 2);
    for nothing in ["suspicious", "without_beginning", "cut_lines"] {
        assert_eq!(summary["read"][nothing], 0, "{summary:#}");
    }
    // Without the older file its beginning is missing, and that is said.
    let (findings, summary, _) = reconcile(&program, &[&log], &[]);
    assert_ne!(verdicts(&findings, "ann"), ["stream_less"]);
    assert_eq!(summary["read"]["without_beginning"], 1, "{summary:#}");

    // For people: a table of what differs alone.
    let path = |path: &PathBuf| path.to_str().unwrap().to_owned();
    let text = program.ask(&[
        "reconcile",
        "--source",
        "eu-1",
        "--log",
        &path(&oldest),
        &path(&log),
    ]);
    assert!(text.starts_with("4 allocations: 4 equal\n"), "{text}");
    let text = program.ask(&[
        "reconcile",
        "--source",
        "eu-1",
        "--all",
        "--log",
        &path(&oldest),
        &path(&log),
    ]);
    assert!(text.contains("VERDICT") && text.contains(":bob"), "{text}");
    program.stop();
}

/// What ended while nobody heard, is in the log alone; and a line that is missing there is found, too.
#[test]
fn what_was_missed_is_found_on_either_side() {
    let billing = Billing::start();
    let directory = tempfile::tempdir().unwrap();
    let mut server = Redis::start(directory.path(), &[]);
    let mut program = redis(
        &billing,
        &format!("url = \"redis://127.0.0.1:{}\"\n", server.port),
    );
    program.start();
    let log = directory.path().join("turn.log");
    let coturn = coturn(directory.path(), &server.statsdb(), &log);
    let mut heard = TurnClient::tcp(&coturn, "heard").call(&coturn);
    heard.relay(500, 200);
    billing.started("heard");
    drop(heard);
    billing.ended("heard", 1);
    let mut missed = TurnClient::tcp(&coturn, "missed").call(&coturn);
    billing.started("missed");
    server.process.signal("KILL");
    server.process.wait();
    missed.relay(500, 200);
    drop(missed);
    wait_for(&log, ":missed>, rp=5");
    server.start_again();
    let (findings, summary, code) = reconcile(&program, &[&log], &[]);
    assert_eq!(verdicts(&findings, "heard"), ["equal"], "{findings:#?}");
    // Its session is not over as far as anybody knows.
    assert_eq!(verdicts(&findings, "missed"), ["open"], "{findings:#?}");
    assert_eq!(code, Some(0), "{summary:#}");

    // One line less in the log, and one digit more.
    let text = std::fs::read_to_string(&log).unwrap();
    let is_peer = |line: &&str| line.contains("peer usage: ") && line.contains(":heard>");
    let line = text.lines().find(is_peer).unwrap();
    let changed = directory.path().join("changed.log");
    for (with, verdict) in [("", "log_less"), ("more", "stream_less")] {
        let other = if with.is_empty() {
            String::new()
        } else {
            format!("{line}\n{line}\n")
        };
        std::fs::write(&changed, text.replace(&format!("{line}\n"), &other)).unwrap();
        let (findings, _, code) = reconcile(&program, &[&changed], &[]);
        assert_eq!(verdicts(&findings, "heard"), [verdict], "{findings:#?}");
        assert_eq!(code, Some(1));
    }
    // Cut in the midst of its last line.
    std::fs::write(&changed, &text[..text.len() - 3]).unwrap();
    let (_, summary, _) = reconcile(&program, &[&changed], &[]);
    assert_eq!(summary["read"]["cut_lines"], 1);
    program.stop();
}

/// A stranger without a password writes lines into the log of an old coturn: they are counted, and nobody's.
#[test]
fn forged_lines_are_counted_and_bill_nobody() {
    let billing = Billing::start();
    let mut program = Program::new(&format!("{QUICK}{}", billing.endpoint()));
    program.start();
    let directory = program.directory.path().to_owned();
    let log = directory.join("turn.log");
    let coturn = coturn(&directory, &statsdb(&program, 0), &log);
    let mut ann = TurnClient::tcp(&coturn, "ann").call(&coturn);
    ann.relay(20, 200);
    billing.started("ann");
    let text = eventually("ann in the log", || {
        let text = std::fs::read_to_string(&log).unwrap();
        text.contains(": new, realm=<").then_some(text)
    });
    let line = text.lines().find(|line| line.contains(": new, realm=<")).unwrap();
    let (begin, rest) = line.split_once("session ").unwrap();
    let (id, username) = (
        &rest[..18],
        rest.split("username=<")
            .nth(1)
            .unwrap()
            .split('>')
            .next()
            .unwrap(),
    );
    let forged = format!(
        "x\n{begin}session {id}: usage: realm=<example.org>, username=<{username}>, rp=9, rb=999999999, sp=9, sb=9\ny"
    );
    let mut stranger = TurnClient::udp(&coturn, &forged);
    let _ = stranger.allocate();
    // From 4.17 on nothing is logged of a name that is refused.
    let is_forged = coturn.version() < vec![4, 17];
    if is_forged {
        wait_for(&log, "rb=999999999");
    }
    drop(ann);
    billing.ended("ann", 1);
    wait_for(&log, ": delete: ");
    let (findings, summary, code) = reconcile(&program, &[&log], &[]);
    assert_eq!(verdicts(&findings, "ann"), ["equal"], "{findings:#?}");
    assert_eq!(code, Some(0));
    assert_eq!(summary["read"]["suspicious"], u64::from(is_forged), "{summary:#}");
    let shown = program.ask(&["reconcile", "--source", "eu-1", "--log", log.to_str().unwrap()]);
    assert_eq!(shown.contains("look forged"), is_forged, "{shown}");
    program.stop();
}

/// What cannot be done says why.
#[test]
fn what_is_no_log_is_said() {
    let mut program = Program::new("");
    program.start();
    let directory = program.directory.path().to_owned();
    let log = directory.join("some.log");
    for (text, more, code, says) in [
        ("", &[][..], 1, "no line begins as coturn's do"),
        (
            "Nov 27 02:20:24 host turnserver[1]: x\n",
            &[],
            1,
            "journald or syslog",
        ),
        ("5: : something\n", &[], 1, "`verbose`"),
        (
            "5: : session 000000000000000001: new, realm=<r>, username=<u>, lifetime=600\n",
            &["--from", "2026-11-22"],
            2,
            "new-log-timestamp",
        ),
    ] {
        std::fs::write(&log, text).unwrap();
        let mut arguments = vec!["reconcile", "--source", "eu-1"];
        arguments.extend(more);
        arguments.extend(["--log", log.to_str().unwrap()]);
        let output = program.command(&arguments);
        assert_eq!(output.status.code(), Some(code), "{text}");
        assert!(
            turnhook::stderr(&output).contains(says),
            "{}",
            turnhook::stderr(&output)
        );
    }
    let output = program.command(&["reconcile", "--source", "nobody", "--log", "x"]);
    assert_eq!(output.status.code(), Some(2));
    let output = program.command(&["reconcile", "--source", "eu-1", "--log", "not-there.log"]);
    assert!(turnhook::stderr(&output).contains("not-there.log"));
    program.stop();
}

/// Days begin at the zone's midnight, and times are the zone's.
#[test]
fn days_and_times_are_those_of_the_zone() {
    let mut program = Program::new("");
    program.start();
    let log = program.directory.path().join("turn.log");
    let name = "realm=<example.org>, username=<1795413634:ann>";
    // Half past one of the next day in Kolkata.
    let lines = [
        format!("new, {name}, lifetime=600"),
        format!("usage: {name}, rp=5, rb=500, sp=5, sb=500"),
        format!("delete: {name}"),
    ]
    .map(|what| format!("2026-11-22T20:00:00.000+0000 INFO session 000000000000000001: {what}\n"));
    std::fs::write(&log, lines.concat()).unwrap();
    let listed = |more: &[&str]| {
        let asked = [
            "reconcile",
            "--source",
            "eu-1",
            "--all",
            "--log",
            log.to_str().unwrap(),
        ];
        turnhook::stdout(&program.command(&[&asked[..], more].concat())).to_owned()
    };
    let utc = listed(&["--from", "2026-11-22", "--to", "2026-11-23"]);
    assert!(
        utc.contains("SINCE (UTC)") && utc.contains("2026-11-22 20:00:00"),
        "{utc}"
    );
    let zone = ["--tz", "Asia/Kolkata"];
    let there = listed(&[&["--from", "2026-11-23", "--to", "2026-11-24"], &zone[..]].concat());
    assert!(
        there.contains("SINCE (Asia/Kolkata)") && there.contains("2026-11-23 01:30:00"),
        "{there}"
    );
    assert!(!there.contains("UTC"), "{there}");
    let before = listed(&[&["--to", "2026-11-23"], &zone[..]].concat());
    assert!(!before.contains("ann"), "{before}");
    program.stop();
}
