//! Commands that look: lists, sums, exports, tails, and what the running program says of itself.

use std::process::Output;

use serde_json::Value;

use crate::harness::{
    billing::Billing,
    eventually,
    feeder::{Allocation, Feeder},
    process::Process,
    program::Program,
    turnhook::{command, stderr, stdout},
};

/// What somebody with valid credentials may be called.
const HOSTILE: [&str; 5] = [
    "1795413634:=HYPERLINK(\"http://evil\")",
    "1795413634:\u{1b}[2J\u{1b}]0;owned\u{7}",
    "1795413634:forged\r\n1970-01-01 ERROR",
    "1795413634:\u{202e}txt.exe\u{2066}",
    "1795413634:\u{9b}31m\u{85}",
];

/// No terminal obeys any of it: one line is one line, and nothing but line feeds controls.
#[track_caller]
fn is_harmless(text: &str) {
    for c in text.chars().filter(|c| *c != '\n') {
        assert!(
            !c.is_control()
                && !('\u{202a}'..='\u{202e}').contains(&c)
                && !('\u{2066}'..='\u{2069}').contains(&c),
            "{c:?} in {text:?}"
        );
    }
    assert!(
        !text.lines().any(|line| line.starts_with("1970-01-01 ERROR")),
        "{text}"
    );
}

fn as_if(program: &Program, columns: u32, arguments: &[&str]) -> Output {
    command(program.directory.path())
        .args(arguments)
        .env("COLUMNS", columns.to_string())
        .output()
        .unwrap()
}

#[test]
fn names_from_outside_are_shown_and_not_obeyed() {
    let billing = Billing::start();
    let mut program = Program::new(&format!(
        "{}[log]\nformat = \"text\"\nlevel = \"debug\"\n",
        billing.endpoint()
    ));
    program.launch();
    program.line("running");
    let mut tail = Process::start(command(program.directory.path()).args(["sessions", "tail"]));
    tail.line("the tail", |line| line.contains("waiting").then_some(()));
    let mut feeder = Feeder::connect(program.source);
    for (id, name) in (1..).zip(HOSTILE) {
        feeder.call(name, id);
        let user = &name[11..];
        let told = billing.ended(user, 1);
        let (session, event) = (&told[0].id, &told[0].events[1].id);
        for arguments in [&["sessions", "show", session][..], &["deliveries", "show", event]] {
            let shown = program.ask(arguments);
            is_harmless(&shown);
            assert!(shown.contains(session), "{shown}");
        }
        tail.line("its end", |line| {
            (line.contains(session) && line.contains("session.end")).then_some(())
        });
    }
    is_harmless(&tail.stdout().join("\n"));
    for arguments in [
        &["sessions", "list"][..],
        &["sessions", "export"],
        &["sessions", "export", "--by", "session"],
        &["usage"],
        &["usage", "--by", "hour,user"],
        &["deliveries", "list"],
        &["unattributed", "list"],
        &["gaps", "list"],
        &["status"],
    ] {
        is_harmless(&program.ask(arguments));
        is_harmless(&program.ask(&[arguments, &["--format", "json"]].concat()));
    }
    // The exact names are there for programs, and spreadsheets have no formula.
    let csv = program.ask(&["sessions", "export"]);
    assert!(csv.contains(",\"'=HYPERLINK(\"\"http://evil\"\")\","), "{csv}");
    assert!(!csv.contains(",=") && !csv.contains(",\"="), "{csv}");
    let raw = program.ask(&["sessions", "export", "--raw"]);
    assert!(raw.contains(",\"=HYPERLINK(\"\"http://evil\"\")\","), "{raw}");
    let rows = program.objects(&["sessions", "export"]);
    for name in HOSTILE {
        let exact = rows.iter().find(|row| row["user"] == name[11..]);
        assert!(exact.is_some(), "no {name:?} in {rows:#?}");
        let asked = program.objects(&["sessions", "list", "--user", &name[11..]]);
        assert_eq!(asked.len(), 1, "{name:?}");
    }
    is_harmless(&program.stop().join("\n"));
}

/// So many calls of one user, one of another, and one that is open.
fn books() -> (Program, Billing, Feeder) {
    let billing = Billing::start();
    let mut program = Program::new(&billing.endpoint());
    program.start();
    let mut feeder = Feeder::connect(program.source);
    for id in 1..=60 {
        feeder.call("1795413634:alice", id);
    }
    feeder.call("1795413634:bob", 61);
    feeder
        .open(&Allocation::new("1795413634:carol", 62), 600)
        .unwrap();
    billing.ended("alice", 60);
    billing.ended("bob", 1);
    billing.started("carol");
    (program, billing, feeder)
}

fn billable(rows: &[Value]) -> u64 {
    rows.iter()
        .map(|row| row["usage"]["billable_bytes"].as_u64().unwrap())
        .sum()
}

#[test]
fn lists_are_whole_sums_agree_and_tables_fit() {
    let (program, billing, _feeder) = books();
    let told: u64 = billing
        .webhooks()
        .iter()
        .map(|event| {
            event.body["data"]["usage_delta"]["billable_bytes"]
                .as_u64()
                .unwrap()
        })
        .sum();
    // A program gets all of it, a person a page.
    let all = program.objects(&["sessions", "list"]);
    assert_eq!(all.len(), 62);
    assert_eq!(program.objects(&["deliveries", "list"]).len(), 123);
    let cut = program.command(&["sessions", "list", "--format", "json", "--limit", "7"]);
    assert_eq!(stdout(&cut).lines().count(), 7);
    assert!(stderr(&cut).starts_with("more: --after ses_"), "{}", stderr(&cut));
    let page = program.command(&["sessions", "list"]);
    assert_eq!(stdout(&page).lines().count(), 51);
    assert!(stdout(&page).starts_with("STARTED (UTC)"), "{}", stdout(&page));

    // However it is summed up, it is what billing was told.
    for by in ["user", "day", "hour", "month", "source,realm", "hour,user"] {
        let rows = program.objects(&["usage", "--by", by]);
        assert_eq!(billable(&rows), told, "{by}: {rows:#?}");
        let ended: u64 = rows
            .iter()
            .map(|row| row["sessions_ended"].as_u64().unwrap())
            .sum();
        assert_eq!(ended, 61, "{by}");
    }
    let elsewhere = program.objects(&[
        "usage",
        "--by",
        "day",
        "--tz",
        "Asia/Kolkata",
        "--from",
        "2020-01-01",
    ]);
    assert_eq!(billable(&elsewhere), told, "{elsewhere:#?}");
    // The same by user and day, and by the days of their ends.
    let of_zone = |by: &str, more: &[&str]| {
        let asked = ["sessions", "export", "--tz", "Asia/Kolkata", "--by", by];
        program.objects(&[&asked[..], more].concat())
    };
    let (days, ends) = (of_zone("day", &[]), of_zone("session", &[]));
    assert_eq!((billable(&days), billable(&ends)), (told, told), "{days:#?}");
    let mut found: Vec<_> = days.iter().map(|row| row["day"].as_str().unwrap()).collect();
    found.dedup();
    let wanted: Vec<_> = elsewhere.iter().map(|row| row["day"].as_str().unwrap()).collect();
    assert_eq!(found, wanted);
    let first = ["--from", wanted[0], "--to", wanted[0]];
    assert_eq!(billable(&of_zone("day", &first)), billable(&elsewhere[..1]));
    assert_eq!(billable(&of_zone("session", &first)), billable(&elsewhere[..1]));
    let bobs = of_zone("day", &["--user", "bob"]);
    assert!(!bobs.is_empty() && bobs.iter().all(|row| row["user"] == "bob"));
    for list in ["sessions", "deliveries"] {
        let table = program.ask(&[list, "list", "--tz", "Asia/Kolkata", "--since", wanted[0]]);
        assert!(
            table.contains("(Asia/Kolkata)") && !table.contains("UTC"),
            "{table}"
        );
        assert!(table.contains("alice") || list == "deliveries", "{table}");
    }
    // What has times of its own takes --tz, too.
    let session = all[0]["session_id"].as_str().unwrap();
    program.ask(&["block", "zed"]);
    program.ask(&["replay", "--session", session, "--state", "all"]);
    for (asked, there) in [
        (&["sessions", "show", session][..], "(Asia/Kolkata)"),
        (&["blocks", "list"], "(Asia/Kolkata)"),
        (&["status"], "(Asia/Kolkata)"),
        (&["replay", "--history"], "(Asia/Kolkata)"),
        (&["endpoints", "list"], "billing"),
    ] {
        let table = program.ask(&[asked, &["--tz", "Asia/Kolkata"]].concat());
        assert!(
            table.contains(there) && !table.contains("UTC"),
            "{asked:?}: {table}"
        );
    }
    let top = program.objects(&["usage", "--top", "1"]);
    assert_eq!((top.len(), top[0]["user"].as_str()), (1, Some("alice")));
    let bob = program.objects(&["usage", "--user", "bob", "--by", "day,user"]);
    let export = program.objects(&["sessions", "export", "--user", "bob"]);
    assert_eq!((bob.len(), billable(&bob)), (1, billable(&export)));
    assert_eq!(program.objects(&["usage", "--source", "elsewhere"]).len(), 0);

    // Whoever bills by session.end has the sessions that ended, by the day of their end.
    let ends = program.objects(&["sessions", "export", "--by", "session"]);
    assert_eq!((ends.len(), billable(&ends)), (61, told));
    let with_open = program.objects(&["sessions", "export", "--by", "session", "--open"]);
    assert_eq!(with_open.len(), 62);
    let day = &ends[0]["ended_at"].as_str().unwrap()[..10];
    let of_day = program.objects(&[
        "sessions", "export", "--by", "session", "--from", day, "--user", "alice",
    ]);
    assert_eq!(of_day.len(), 60);
    for nothing in [&["--realm", "elsewhere"][..], &["--to", "2000-01-01"]] {
        for by in ["day", "session"] {
            let text = program.ask(&[&["sessions", "export", "--by", by], nothing].concat());
            assert_eq!(text.lines().count(), 1, "the headings alone: {text}");
            assert!(
                text.contains(",user,") && text.trim_end().ends_with(",realm_base64,user_base64"),
                "{text}"
            );
        }
    }
    for command in [&["sessions", "export"][..], &["usage"]] {
        let reversed = program.command(&[command, &["--from", "2026-11-02", "--to", "2026-11-01"]].concat());
        assert_eq!(reversed.status.code(), Some(2));
        assert!(
            stderr(&reversed).contains("--from 2026-11-02 is after --to 2026-11-01"),
            "{}",
            stderr(&reversed)
        );
    }

    for arguments in [
        &["sessions", "list"][..],
        &["deliveries", "list"],
        &["endpoints", "list"],
        &["usage", "--by", "day,source,user"],
        &["gaps", "list"],
        &["unattributed", "list"],
        &["status"],
    ] {
        let narrow = as_if(&program, 80, arguments);
        let text = stdout(&narrow);
        assert!(
            text.lines().all(|line| line.chars().count() <= 80),
            "{arguments:?}\n{text}"
        );
    }
    let narrow = as_if(&program, 80, &["sessions", "list", "--user", "carol"]);
    assert!(
        stdout(&narrow).contains("  -  "),
        "an open session is not told yet: {}",
        stdout(&narrow)
    );
    let open = program.ask(&["sessions", "list", "--user", "carol"]);
    let cells: Vec<&str> = open.lines().nth(1).unwrap().split_whitespace().collect();
    assert_eq!(
        cells[2..8],
        ["carol", "-", "-", "-", "-", "(open)"],
        "nothing is known of how long it lasts, either: {open}"
    );
}

#[test]
fn gaps_and_what_is_told_nowhere_are_listed() {
    let billing = Billing::start();
    let mut program = Program::new(&format!(
        "[session]\ngroup_by = \"allocation\"\nlinger = \"0s\"\nstart_on = \"relay\"\n{}",
        billing.endpoint()
    ));
    program.start();
    let mut feeder = Feeder::connect(program.source);
    feeder.call("1795413634:alice", 1);
    billing.ended("alice", 1);
    drop(feeder);
    program.stop();
    assert_eq!(program.ask(&["gaps", "list"]), "no gaps\n");
    program.start();
    let gaps = eventually("the gap of the restart", || {
        let gaps = program.objects(&["gaps", "list"]);
        (!gaps.is_empty()).then_some(gaps)
    });
    assert_eq!(
        (gaps[0]["source"].as_str(), gaps[0]["reason"].as_str()),
        (Some("eu-1"), Some("restart"))
    );
    assert!(gaps[0]["from"].as_str() <= gaps[0]["to"].as_str());
    let there = program.ask(&["gaps", "list", "--tz", "Asia/Kolkata"]);
    let utc = program.ask(&["gaps", "list"]);
    assert!(there.starts_with("FROM (Asia/Kolkata)"), "{there}");
    let minute = |table: &str| table.lines().nth(1).unwrap()[14..16].to_owned();
    assert_ne!(minute(&there), minute(&utc), "half an hour beside: {there}{utc}");
    let table = program.ask(&["gaps", "list", "--source", "eu-1", "--since", "1h"]);
    assert!(
        table.starts_with("FROM (UTC)") && table.contains("restart"),
        "{table}"
    );
    assert_eq!(
        program.ask(&["gaps", "list", "--until", "2000-01-01"]),
        "no gaps\n"
    );
    assert_eq!(program.ask(&["gaps", "list", "--source", "us-1"]), "no gaps\n");

    // Signalling alone, where a session starts with the first relayed bytes.
    let mut feeder = Feeder::connect(program.source);
    let mut idle = Allocation::new("1795413634:eve", 2);
    idle.client = [3, 300, 3, 300];
    feeder.open(&idle, 600).unwrap();
    feeder.close(&idle).unwrap();
    let rows = eventually("the bytes on record", || {
        let rows = program.objects(&["unattributed", "list"]);
        (!rows.is_empty()).then_some(rows)
    });
    assert_eq!(rows[0]["username"], "1795413634:eve");
    assert_eq!(
        (&rows[0]["reason"], &rows[0]["allocation"]),
        (&"never_relayed".into(), &idle.name().into())
    );
    assert_eq!(rows[0]["usage"]["client"]["received_bytes"], 300);
    let table = program.ask(&["unattributed", "list"]);
    assert!(
        table.contains("1795413634:eve") && table.contains("never_relayed"),
        "{table}"
    );

    // What the database would not take.
    program.stop();
    let store = rusqlite::Connection::open(program.directory.path().join("turnhook.db")).unwrap();
    store
        .execute(
            "INSERT INTO refused (source, at, kind, name, error, data) VALUES (1, 1795327257624, 'event', 'evt_1', 'too \u{1b}[2J large', NULL)",
            [],
        )
        .unwrap();
    drop(store);
    let shown = program.ask(&["unattributed", "list"]);
    assert!(
        shown.contains("What the database would not take:") && shown.contains("too \\u{1b}[2J large"),
        "{shown}"
    );
    let rows = program.objects(&["unattributed", "list"]);
    assert_eq!(rows[1]["refused"], "event");
}

#[test]
fn a_tail_tells_each_attempt() {
    let billing = Billing::start();
    let mut program = Program::new(&format!(
        "{}{}",
        billing.endpoint(),
        crate::harness::program::endpoint("down", "http://127.0.0.1:9/", "")
    ));
    program.start();
    let tail = |arguments: &[&str]| {
        let mut tail = Process::start(
            command(program.directory.path())
                .args(["deliveries", "tail"])
                .args(arguments),
        );
        tail.line("the tail", |line| line.contains("waiting").then_some(()));
        tail
    };
    let mut there =
        Process::start(command(program.directory.path()).args(["sessions", "tail", "--tz", "Asia/Kolkata"]));
    there.line("the tail", |line| line.contains("waiting").then_some(()));
    let (mut text, mut json) = (tail(&[]), tail(&["--endpoint", "billing", "--format", "json"]));
    Feeder::connect(program.source).call("1795413634:alice", 1);
    let told = &billing.ended("alice", 1)[0];
    for event in &told.events {
        text.line("a delivery", |line| {
            (line.contains(&event.id) && line.contains("billing: delivered after 1 attempts")).then_some(())
        });
        json.line("a delivery", |line| {
            let row: Value = serde_json::from_str(line).ok()?;
            (row["webhook_id"] == event.id && row["state"] == "delivered").then_some(())
        });
    }
    // Half an hour beside the hours of UTC.
    let minute = |time: &str| time[14..16].parse::<u32>().unwrap();
    let at = there.line("its end", |line| {
        line.contains("session.end").then(|| line.to_owned())
    });
    let utc = told.events[1].body["timestamp"].as_str().unwrap();
    assert_eq!(minute(&at), (minute(utc) + 30) % 60, "{at} {utc}");
    // One that fails is told again and again.
    let start = &told.events[0].id;
    for attempts in ["after 1 attempts", "after 2 attempts"] {
        let _ = text.line("an attempt", |line| {
            (line.contains(start)
                && line.contains("down: pending")
                && line.contains("attempts, next attempt"))
            .then_some(attempts)
        });
    }
    assert!(
        json.stdout()
            .iter()
            .all(|line| line.contains("\"endpoint\":\"billing\""))
    );
    text.signal("INT");
    assert!(text.wait().success());

    // The body as it was signed, to the byte.
    let event = &told.events[1];
    let body = program.command(&["deliveries", "show", &event.id, "--body"]);
    assert_eq!(body.stdout, event.bytes);
    let shown = program.ask(&["deliveries", "show", &event.id]);
    assert_eq!(shown.lines().nth(1).unwrap().as_bytes(), event.bytes);
    let shown = program.ask(&["deliveries", "show", &event.id, "--tz", "Asia/Kolkata"]);
    assert!(shown.contains("AT (Asia/Kolkata)"), "{shown}");
}

#[test]
fn a_replay_that_waits_ends_in_time_and_says_why() {
    let billing = Billing::start();
    let mut program = Program::new(&billing.endpoint());
    program.start();
    Feeder::connect(program.source).call("1795413634:alice", 1);
    billing.ended("alice", 1);
    program.ask(&["endpoints", "pause", "billing", "--reason", "an upgrade"]);
    let replay = program.command(&[
        "replay",
        "--state",
        "delivered",
        "--endpoint",
        "billing",
        "--wait",
        "--timeout",
        "1s",
    ]);
    assert_eq!(replay.status.code(), Some(1), "{}", stderr(&replay));
    let said = stderr(&replay);
    assert!(said.contains("waiting: billing is paused: an upgrade"), "{said}");
    assert!(said.contains("2 of 2 deliveries are still pending"), "{said}");
    program.ask(&["endpoints", "resume", "billing"]);
    let replay = program.command(&[
        "replay",
        "--state",
        "delivered",
        "--user",
        "alice",
        "--wait",
        "--timeout",
        "60s",
    ]);
    assert_eq!(replay.status.code(), Some(0), "{}", stderr(&replay));
}
