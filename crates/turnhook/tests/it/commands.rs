//! Commands that look into the store, with a program on it and without.

use std::{fs, os::unix::fs::PermissionsExt};

use serde_json::Value;

use crate::harness::{
    billing::Billing,
    feeder::{Allocation, Feeder},
    program::{Program, text},
    turnhook::{run, stderr, stdout},
};

/// A program that has told of two sessions that ended and one that is open.
fn program() -> (Program, Billing, Vec<Allocation>) {
    let billing = Billing::start();
    let mut program = Program::new(&billing.endpoint());
    program.start();
    let mut feeder = Feeder::connect(program.source);
    let calls = vec![
        feeder.call("1795413634:alice", 1),
        feeder.call("1795413634:bob", 2),
    ];
    let open = Allocation::new("1795413634:carol", 3);
    feeder.open(&open, 600).unwrap();
    billing.ended("alice", 1);
    billing.ended("bob", 1);
    billing.started("carol");
    std::mem::forget(feeder); // its connection stays until the program closes it
    (program, billing, calls)
}

#[test]
fn sessions_are_listed_shown_and_exported() {
    let (mut program, billing, calls) = program();
    // The same while it runs and when it does not.
    for running in [true, false] {
        let all = program.objects(&["sessions", "list"]);
        assert_eq!(all.len(), 3, "{running}: {all:#?}");
        let open = program.objects(&["sessions", "list", "--open"]);
        assert_eq!(open.len(), 1);
        assert_eq!(
            (&open[0]["user"], &open[0]["ended_at"]),
            (&"carol".into(), &Value::Null)
        );
        let alice = &program.objects(&["sessions", "list", "--user", "alice", "--since", "1h", "--ended"])[0];
        let told = &billing.sessions_of("alice")[0];
        assert_eq!(alice["session_id"], told.id);
        assert_eq!(alice["usage"], told.events.last().unwrap().body["data"]["usage"]);
        assert_eq!(alice["usage"]["client"]["received_bytes"], calls[0].client[1]);

        let table = program.ask(&["sessions", "list"]);
        let line = table.lines().find(|line| line.contains("alice")).unwrap();
        assert!(
            line.contains("closed") && line.contains("exact") && line.contains(&told.id),
            "{table}"
        );
        assert_eq!(table.lines().count(), 4, "{table}");

        let first = program.command(&["sessions", "list", "--limit", "2"]);
        let cursor = stderr(&first).strip_prefix("more: --after ").unwrap().trim();
        let rest = program.objects(&["sessions", "list", "--after", cursor]);
        assert_eq!(rest.len(), 1, "{rest:#?}");

        let shown = &program.objects(&["sessions", "show", &told.id])[0];
        assert_eq!(shown["events"].as_array().unwrap().len(), told.events.len());
        assert_eq!(shown["events"][0]["webhook_id"], told.events[0].id);
        assert_eq!(shown["allocations"][0]["username"], "1795413634:alice");
        let page = program.ask(&["sessions", "show", &told.id]);
        for part in [
            "alice",
            "session.end",
            &told.events[0].id,
            "billing: delivered",
            "000000000000000001",
        ] {
            assert!(page.contains(part), "no {part} in\n{page}");
        }
        if running {
            program.stop();
        }
    }
    let unknown = program.command(&["sessions", "show", "ses_00000000000000000000000000"]);
    assert_eq!(unknown.status.code(), Some(1));
    assert_eq!(program.command(&["sessions", "show", "x"]).status.code(), Some(2));

    // The books: by user and day, the same sum as all deltas that billing was told.
    let csv = program.ask(&["sessions", "export"]);
    let (head, rows) = csv.split_once('\n').unwrap();
    let column = head.split(',').position(|name| name == "billable_bytes").unwrap();
    let exported: u64 = rows
        .lines()
        .map(|row| row.split(',').nth(column).unwrap().parse::<u64>().unwrap())
        .sum();
    let deltas = billing.webhooks();
    let told: u64 = deltas
        .iter()
        .map(|event| {
            event.body["data"]["usage_delta"]["billable_bytes"]
                .as_u64()
                .unwrap()
        })
        .sum();
    assert_eq!(exported, told, "{csv}");
    assert!(told > 0);
    let by_session = program.objects(&["sessions", "export", "--by", "session"]);
    assert_eq!(by_session.len(), 2);
    assert_eq!(
        program
            .ask(&["sessions", "export", "--by", "session"])
            .lines()
            .count(),
        3
    );
    assert_eq!(
        program
            .ask(&["sessions", "export", "--to", "2000-01-01"])
            .lines()
            .count(),
        1
    );
}

/// The counters are cut off behind `| head`: no error, no panic.
#[test]
fn a_reader_that_goes_away_is_no_error() {
    let (program, _billing, _) = program();
    let binary = env!("CARGO_BIN_EXE_turnhook");
    let script =
        format!("'{binary}' sessions export --by session --format json | true; echo ${{PIPESTATUS[0]}}");
    let output = std::process::Command::new("bash")
        .args(["-c", &script])
        .current_dir(program.directory.path())
        .output()
        .unwrap();
    assert_eq!((stdout(&output).trim(), stderr(&output)), ("0", ""));
}

#[test]
fn a_backup_is_the_store() {
    let (mut program, _billing, _) = program();
    let here = program.directory.path().to_owned();
    let copy = here.join("copy.db");
    program.ask(&["backup", text(&copy)]);
    assert_eq!(fs::metadata(&copy).unwrap().permissions().mode() & 0o777, 0o600);
    let again = program.command(&["backup", text(&copy)]);
    assert_eq!(again.status.code(), Some(1));
    assert!(stderr(&again).contains("never overwrites"), "{}", stderr(&again));
    let before = program.ask(&["sessions", "list", "--format", "json"]);
    program.stop();
    // Put in the place of the store, it is one.
    for name in ["turnhook.db", "turnhook.db-wal", "turnhook.db-shm"] {
        let _ = fs::remove_file(here.join(name));
    }
    fs::rename(&copy, here.join("turnhook.db")).unwrap();
    assert_eq!(program.ask(&["sessions", "list", "--format", "json"]), before);
    program.start();
    assert_eq!(program.ask(&["sessions", "list", "--format", "json"]), before);
}

#[test]
fn stores_that_are_none() {
    let billing = Billing::start();
    let program = Program::new(&billing.endpoint());
    let here = program.directory.path();
    let missing = run(here, &["sessions", "list"]);
    assert_eq!(missing.status.code(), Some(1));
    assert!(
        stderr(&missing).contains("there is no store here"),
        "{}",
        stderr(&missing)
    );
    fs::write(
        here.join("turnhook.db"),
        "not a database, and longer than a header of one has to be. ".repeat(40),
    )
    .unwrap();
    for command in [&["sessions", "list"][..], &["run"]] {
        let foreign = run(here, command);
        assert_eq!(foreign.status.code(), Some(78), "{}", stderr(&foreign));
        assert!(
            stderr(&foreign).contains("not a turnhook store"),
            "{}",
            stderr(&foreign)
        );
    }
}
