//! Commands that look: lists, sums, exports, tails, and what the running program says of itself.

use std::process::Output;

use serde_json::Value;

use crate::harness::{
    billing::Billing,
    bridge::{Bridge, SECRET},
    eventually,
    feeder::{Allocation, Feeder},
    process::Process,
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

fn as_if(bridge: &Bridge, columns: u32, arguments: &[&str]) -> Output {
    command(bridge.directory.path())
        .args(arguments)
        .env("COLUMNS", columns.to_string())
        .output()
        .unwrap()
}

#[test]
fn names_from_outside_are_shown_and_not_obeyed() {
    let billing = Billing::start();
    let mut bridge = Bridge::new(&format!(
        "{}[log]\nformat = \"text\"\nlevel = \"debug\"\n",
        billing.endpoint()
    ));
    bridge.launch();
    bridge.line("running");
    let mut tail = Process::start(command(bridge.directory.path()).args(["sessions", "tail"]));
    tail.line("the tail", |line| line.contains("waiting").then_some(()));
    let mut feeder = Feeder::connect(bridge.source);
    for (id, name) in (1..).zip(HOSTILE) {
        feeder.call(name, id);
        let user = &name[11..];
        let told = billing.ended(user, 1);
        let (session, event) = (&told[0].id, &told[0].events[1].id);
        for arguments in [&["sessions", "show", session][..], &["deliveries", "show", event]] {
            let shown = bridge.ask(arguments);
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
        is_harmless(&bridge.ask(arguments));
        is_harmless(&bridge.ask(&[arguments, &["--format", "json"]].concat()));
    }
    // The exact names are there for programs, and spreadsheets have no formula.
    let csv = bridge.ask(&["sessions", "export"]);
    assert!(csv.contains(",\"'=HYPERLINK(\"\"http://evil\"\")\","), "{csv}");
    assert!(!csv.contains(",=") && !csv.contains(",\"="), "{csv}");
    let raw = bridge.ask(&["sessions", "export", "--raw"]);
    assert!(raw.contains(",\"=HYPERLINK(\"\"http://evil\"\")\","), "{raw}");
    let rows = bridge.objects(&["sessions", "export"]);
    for name in HOSTILE {
        let exact = rows.iter().find(|row| row["user"] == name[11..]);
        assert!(exact.is_some(), "no {name:?} in {rows:#?}");
        let asked = bridge.objects(&["sessions", "list", "--user", &name[11..]]);
        assert_eq!(asked.len(), 1, "{name:?}");
    }
    is_harmless(&bridge.stop().join("\n"));
}

/// So many calls of one user, one of another, and one that is open.
fn books() -> (Bridge, Billing, Feeder) {
    let billing = Billing::start();
    let mut bridge = Bridge::new(&billing.endpoint());
    bridge.start();
    let mut feeder = Feeder::connect(bridge.source);
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
    (bridge, billing, feeder)
}

fn billable(rows: &[Value]) -> u64 {
    rows.iter()
        .map(|row| row["usage"]["billable_bytes"].as_u64().unwrap())
        .sum()
}

#[test]
fn lists_are_whole_sums_agree_and_tables_fit() {
    let (bridge, billing, _feeder) = books();
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
    let all = bridge.objects(&["sessions", "list"]);
    assert_eq!(all.len(), 62);
    assert_eq!(bridge.objects(&["deliveries", "list"]).len(), 123);
    let cut = bridge.command(&["sessions", "list", "--format", "json", "--limit", "7"]);
    assert_eq!(stdout(&cut).lines().count(), 7);
    assert!(stderr(&cut).starts_with("more: --after ses_"), "{}", stderr(&cut));
    let page = bridge.command(&["sessions", "list"]);
    assert_eq!(stdout(&page).lines().count(), 51);
    assert!(stdout(&page).starts_with("STARTED (UTC)"), "{}", stdout(&page));

    // However it is summed up, it is what billing was told.
    for by in ["user", "day", "hour", "month", "source,realm", "hour,user"] {
        let rows = bridge.objects(&["usage", "--by", by]);
        assert_eq!(billable(&rows), told, "{by}: {rows:#?}");
        let ended: u64 = rows
            .iter()
            .map(|row| row["sessions_ended"].as_u64().unwrap())
            .sum();
        assert_eq!(ended, 61, "{by}");
    }
    let elsewhere = bridge.objects(&[
        "usage",
        "--by",
        "day",
        "--tz",
        "Asia/Kolkata",
        "--from",
        "2020-01-01",
    ]);
    assert_eq!(billable(&elsewhere), told, "{elsewhere:#?}");
    let top = bridge.objects(&["usage", "--top", "1"]);
    assert_eq!((top.len(), top[0]["user"].as_str()), (1, Some("alice")));
    let bob = bridge.objects(&["usage", "--user", "bob", "--by", "day,user"]);
    let export = bridge.objects(&["sessions", "export", "--user", "bob"]);
    assert_eq!((bob.len(), billable(&bob)), (1, billable(&export)));
    assert_eq!(bridge.objects(&["usage", "--source", "elsewhere"]).len(), 0);

    // Whoever bills by session.end has the sessions that ended, by the day of their end.
    let ends = bridge.objects(&["sessions", "export", "--by", "session"]);
    assert_eq!((ends.len(), billable(&ends)), (61, told));
    let with_open = bridge.objects(&["sessions", "export", "--by", "session", "--open"]);
    assert_eq!(with_open.len(), 62);
    let day = &ends[0]["ended_at"].as_str().unwrap()[..10];
    let of_day = bridge.objects(&[
        "sessions", "export", "--by", "session", "--from", day, "--user", "alice",
    ]);
    assert_eq!(of_day.len(), 60);
    for nothing in [&["--realm", "elsewhere"][..], &["--to", "2000-01-01"]] {
        for by in ["day", "session"] {
            let text = bridge.ask(&[&["sessions", "export", "--by", by], nothing].concat());
            assert_eq!(text.lines().count(), 1, "the headings alone: {text}");
            assert!(
                text.contains(",user,") && text.trim_end().ends_with(",realm_base64,user_base64"),
                "{text}"
            );
        }
    }
    for command in [&["sessions", "export"][..], &["usage"]] {
        let reversed = bridge.command(&[command, &["--from", "2026-11-02", "--to", "2026-11-01"]].concat());
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
        let narrow = as_if(&bridge, 80, arguments);
        let text = stdout(&narrow);
        assert!(
            text.lines().all(|line| line.chars().count() <= 80),
            "{arguments:?}\n{text}"
        );
    }
    let narrow = as_if(&bridge, 80, &["sessions", "list", "--user", "carol"]);
    assert!(
        stdout(&narrow).contains("  -  "),
        "an open session is not told yet: {}",
        stdout(&narrow)
    );
}

#[test]
fn gaps_and_what_is_told_nowhere_are_listed() {
    let billing = Billing::start();
    let mut bridge = Bridge::new(&format!(
        "[session]\ngroup_by = \"allocation\"\nlinger = \"0s\"\nstart_on = \"relay\"\n{}",
        billing.endpoint()
    ));
    bridge.start();
    let mut feeder = Feeder::connect(bridge.source);
    feeder.call("1795413634:alice", 1);
    billing.ended("alice", 1);
    drop(feeder);
    bridge.stop();
    assert_eq!(bridge.ask(&["gaps", "list"]), "no gaps\n");
    bridge.start();
    let gaps = eventually("the gap of the restart", || {
        let gaps = bridge.objects(&["gaps", "list"]);
        (!gaps.is_empty()).then_some(gaps)
    });
    assert_eq!(
        (gaps[0]["source"].as_str(), gaps[0]["reason"].as_str()),
        (Some("eu-1"), Some("restart"))
    );
    assert!(gaps[0]["from"].as_str() <= gaps[0]["to"].as_str());
    let table = bridge.ask(&["gaps", "list", "--source", "eu-1", "--since", "1h"]);
    assert!(
        table.starts_with("FROM (UTC)") && table.contains("restart"),
        "{table}"
    );
    assert_eq!(
        bridge.ask(&["gaps", "list", "--until", "2000-01-01"]),
        "no gaps\n"
    );
    assert_eq!(bridge.ask(&["gaps", "list", "--source", "us-1"]), "no gaps\n");

    // Signalling alone, where a session starts with the first relayed bytes.
    let mut feeder = Feeder::connect(bridge.source);
    let mut idle = Allocation::new("1795413634:eve", 2);
    idle.client = [3, 300, 3, 300];
    feeder.open(&idle, 600).unwrap();
    feeder.close(&idle).unwrap();
    let rows = eventually("the bytes on record", || {
        let rows = bridge.objects(&["unattributed", "list"]);
        (!rows.is_empty()).then_some(rows)
    });
    assert_eq!(rows[0]["username"], "1795413634:eve");
    assert_eq!(
        (&rows[0]["reason"], &rows[0]["allocation"]),
        (&"never_relayed".into(), &idle.name().into())
    );
    assert_eq!(rows[0]["usage"]["client"]["received_bytes"], 300);
    let table = bridge.ask(&["unattributed", "list"]);
    assert!(
        table.contains("1795413634:eve") && table.contains("never_relayed"),
        "{table}"
    );

    // What the database would not take.
    bridge.stop();
    let store = rusqlite::Connection::open(bridge.directory.path().join("turnhook.db")).unwrap();
    store
        .execute(
            "INSERT INTO refused (source, at, kind, name, error, data) VALUES (1, 1795327257624, 'event', 'evt_1', 'too \u{1b}[2J large', NULL)",
            [],
        )
        .unwrap();
    drop(store);
    let shown = bridge.ask(&["unattributed", "list"]);
    assert!(
        shown.contains("What the database would not take:") && shown.contains("too \\u{1b}[2J large"),
        "{shown}"
    );
    let rows = bridge.objects(&["unattributed", "list"]);
    assert_eq!(rows[1]["refused"], "event");
}

#[test]
fn a_tail_tells_each_attempt() {
    let billing = Billing::start();
    let mut bridge = Bridge::new(&format!(
        "{}{}",
        billing.endpoint(),
        crate::harness::bridge::endpoint("down", "http://127.0.0.1:9/", "")
    ));
    bridge.start();
    let tail = |arguments: &[&str]| {
        let mut tail = Process::start(
            command(bridge.directory.path())
                .args(["deliveries", "tail"])
                .args(arguments),
        );
        tail.line("the tail", |line| line.contains("waiting").then_some(()));
        tail
    };
    let (mut text, mut json) = (tail(&[]), tail(&["--endpoint", "billing", "--format", "json"]));
    Feeder::connect(bridge.source).call("1795413634:alice", 1);
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
    let body = bridge.command(&["deliveries", "show", &event.id, "--body"]);
    assert_eq!(body.stdout, event.bytes);
    let shown = bridge.ask(&["deliveries", "show", &event.id]);
    assert_eq!(shown.lines().nth(1).unwrap().as_bytes(), event.bytes);
}

#[test]
fn a_replay_that_waits_ends_in_time_and_says_why() {
    let billing = Billing::start();
    let mut bridge = Bridge::new(&billing.endpoint());
    bridge.start();
    Feeder::connect(bridge.source).call("1795413634:alice", 1);
    billing.ended("alice", 1);
    bridge.ask(&["endpoints", "pause", "billing", "--reason", "an upgrade"]);
    let replay = bridge.command(&[
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
    bridge.ask(&["endpoints", "resume", "billing"]);
    let replay = bridge.command(&[
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

#[test]
fn what_runs_says_how_it_is() {
    let billing = Billing::start();
    let mut bridge = Bridge::new(&billing.endpoint());
    let url = format!("http://127.0.0.1:{}", bridge.http);
    for asked in [&["status"][..], &["ready"], &["ready", "--url", &url]] {
        let nobody = bridge.command(asked);
        assert_eq!(nobody.status.code(), Some(1));
        assert!(
            stderr(&nobody).contains("nobody answers there"),
            "{}",
            stderr(&nobody)
        );
    }
    let before = bridge.command(&["doctor"]);
    assert_eq!(before.status.code(), Some(0), "{}", stdout(&before));
    for part in [
        "ok    configuration: 1 sources, 1 endpoints",
        "warn  turnhook: none answers at",
        "is made at the first start",
        &format!("source eu-1: 127.0.0.1:{} is free to listen on", bridge.source),
        "ok    endpoint billing: answers",
        "ok    clock: agrees with that of endpoint billing",
    ] {
        assert!(
            stdout(&before).contains(part),
            "no {part:?} in\n{}",
            stdout(&before)
        );
    }

    bridge.start();
    assert_eq!(bridge.ask(&["ready"]), "ready\n");
    let elsewhere = command(&std::env::temp_dir())
        .args(["ready", "--url", &url])
        .output()
        .unwrap();
    assert_eq!(
        elsewhere.status.code(),
        Some(0),
        "no configuration is needed: {}",
        stderr(&elsewhere)
    );
    let none = bridge.command(&["doctor", "--format", "json"]);
    assert_eq!(none.status.code(), Some(1));
    let lines: Vec<Value> = stdout(&none)
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect();
    let failed: Vec<_> = lines.iter().filter(|line| line["level"] == "fail").collect();
    assert_eq!(failed.len(), 1, "{lines:#?}");
    assert_eq!(
        (&failed[0]["what"], &failed[0]["found"]),
        (&"source eu-1".into(), &"no coturn is connected".into())
    );
    assert!(
        failed[0]["cure"].as_str().unwrap().contains("redis-statsdb"),
        "{failed:#?}"
    );

    let mut feeder = Feeder::connect(bridge.source);
    feeder.open(&Allocation::new("1795413634:alice", 1), 600).unwrap();
    billing.started("alice");
    bridge.until("the server", |status| {
        status["sources"]["eu-1"]["servers"][0]["state"] == "connected"
    });
    let healthy = bridge.command(&["doctor"]);
    assert_eq!(healthy.status.code(), Some(0), "{}", stdout(&healthy));
    assert!(
        stdout(&healthy).contains("1 coturns are connected"),
        "{}",
        stdout(&healthy)
    );
    let status = bridge.ask(&["status"]);
    assert!(
        status.contains("takes writes") && status.contains("eu-1") && status.contains("billing"),
        "{status}"
    );
    assert_eq!(
        bridge.objects(&["status"])[0]["sources"]["eu-1"]["open_sessions"],
        1
    );
    let mut watch =
        Process::start(command(bridge.directory.path()).args(["status", "--watch", "--interval", "100ms"]));
    eventually("two looks", || {
        let looks = watch
            .stdout()
            .iter()
            .filter(|line| line.starts_with("turnhook "))
            .count();
        (looks >= 2).then_some(())
    });
    watch.signal("INT");
    assert!(watch.wait().success());

    // A source that is in the store and no longer configured.
    bridge.stop();
    let file = bridge.directory.path().join("turnhook.toml");
    let text = std::fs::read_to_string(&file).unwrap();
    std::fs::write(&file, text.replace("eu-1", "eu-west")).unwrap();
    for asked in [&["check"][..], &["doctor"]] {
        let output = bridge.command(asked);
        let said = format!("{}{}", stdout(&output), stderr(&output));
        assert!(said.contains("source eu-1 (1 sessions, 1 allocations)"), "{said}");
        assert!(said.contains("`turnhook sources rename eu-1 NEW`"), "{said}");
    }
}

#[test]
fn a_doctor_names_what_is_missing() {
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let directory = tempfile::tempdir().unwrap();
    let text = format!(
        "[[source]]\nname = \"eu-1\"\ntype = \"direct\"\nlisten = \"{}\"\npassword = \"sixteen-letters-\"\n\
         [[source]]\nname = \"us-1\"\ntype = \"redis\"\nurl = \"redis://127.0.0.1:9\"\n\
         [store]\npath = \"/nowhere/at/all/turnhook.db\"\n[http]\nlisten = \"127.0.0.1:{}\"\n\
         [[endpoint]]\nname = \"down\"\nurl = \"https://127.0.0.1:9/\"\nsecrets = [\"{SECRET}\"]\n\
         [[endpoint]]\nname = \"nobody\"\nurl = \"https://nobody.invalid/\"\nsecrets = [\"{SECRET}\"]\n",
        taken.local_addr().unwrap(),
        crate::harness::free_port(),
    );
    std::fs::write(directory.path().join("turnhook.toml"), text).unwrap();
    let output = command(directory.path()).arg("doctor").output().unwrap();
    assert_eq!(output.status.code(), Some(1), "{}", stderr(&output));
    let said = stdout(&output);
    for part in [
        "fail  store: there is no directory /nowhere/at/all",
        "another program has it",
        "fail  source us-1: subscription: ",
        "fail  source us-1: commands: cannot connect: Connection refused (os error 111)",
        "fail  endpoint down: could not connect",
        "fail  endpoint nobody: the name nobody.invalid cannot be resolved",
    ] {
        assert!(said.contains(part), "no {part:?} in\n{said}");
    }
    assert!(!said.contains("Os {"), "{said}");
    std::fs::write(directory.path().join("turnhook.toml"), "[[source]]\nname = 5\n").unwrap();
    let output = command(directory.path()).arg("doctor").output().unwrap();
    assert_eq!(output.status.code(), Some(78), "{}", stderr(&output));
    assert!(
        stdout(&output).starts_with("fail  configuration: is wrong"),
        "{}",
        stdout(&output)
    );
}

/// A check that could not fail would be none.
#[test]
fn bodies_are_held_to_the_schema() {
    let samples = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../../schema/examples");
    let text = std::fs::read_to_string(samples.join("session.end.json")).unwrap();
    let body: Value = serde_json::from_str(&text).unwrap();
    assert_eq!(crate::harness::schema::faults(&body), Vec::<String>::new());
    let mut wrong = body.clone();
    wrong["data"]["usage"]["client"]["sent_bytes"] = "many".into();
    assert_eq!(crate::harness::schema::faults(&wrong).len(), 1);
    wrong["type"] = "session.other".into();
    assert_eq!(crate::harness::schema::faults(&wrong).len(), 1);
}
