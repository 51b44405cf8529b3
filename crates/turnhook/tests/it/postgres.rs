//! A store in PostgreSQL, by the commands: migrated, moved into from SQLite, looked into, shared.

use std::fs;

use jiff::ToSpan as _;
use serde_json::Value;

use crate::{
    configured::blocks,
    deploy::deploy,
    harness::{
        billing::Billing,
        eventually,
        feeder::{Allocation, Feeder},
        free_port,
        postgres::Postgres,
        program::{Program, endpoint, text},
        turnhook::{stderr, stdout},
    },
};

fn store(url: &str, more: &str) -> String {
    format!("[store]\nurl = \"{url}\"\n{more}\n")
}

/// What commands that only look say of a store.
fn looks(program: &Program, session: &str, event: &str) -> Vec<String> {
    let commands: &[&[&str]] = &[
        &["sessions", "list", "--format", "json"],
        &["sessions", "list"],
        &["sessions", "list", "--user", "alice", "--since", "1d", "--ended"],
        &["sessions", "list", "--open"],
        &["sessions", "show", session],
        &["sessions", "show", session, "--format", "json"],
        &["sessions", "export"],
        &["sessions", "export", "--by", "session"],
        &["deliveries", "list", "--format", "json"],
        &["deliveries", "list", "--state", "pending", "--endpoint", "crm"],
        &["deliveries", "show", event],
        &["endpoints", "list", "--format", "json"],
        &["replay", "--history"],
        &[
            "replay",
            "--dry-run",
            "--state",
            "delivered",
            "--endpoint",
            "billing",
        ],
    ];
    let look = |command: &&[&str]| format!("{command:?}\n{}", program.ask(command));
    commands.iter().map(look).collect()
}

#[test]
fn a_store_moves_to_postgres_and_goes_on() {
    let server = Postgres::start();
    let url = server.url(&server.database());
    let (billing, crm) = (Billing::start(), Billing::start());
    // Nobody is there yet.
    let away = endpoint("crm", &format!("http://127.0.0.1:{}/", free_port()), "");
    let endpoints = format!("{}{away}", billing.endpoint());
    let mut program = Program::new(&endpoints);
    let here = program.directory.path().to_owned();
    program.start();
    let mut feeder = Feeder::connect(program.source);
    feeder.call("1795413634:alice", 1);
    feeder.call("1795413634:bob", 2);
    let mut carol = Allocation::new("1795413634:carol", 3);
    feeder.open(&carol, 600).unwrap();
    let alice = billing.ended("alice", 1).remove(0);
    billing.ended("bob", 1);
    billing.started("carol");
    eventually("the deliveries to be on record", || {
        let done = program.deliveries("delivered").len() == 5 && program.deliveries("pending").len() == 5;
        done.then_some(())
    });
    program.ask(&["endpoints", "pause", "crm", "--reason", "not there yet"]);

    let sqlite = fs::read_to_string(here.join("turnhook.toml")).unwrap();
    fs::write(here.join("postgres.toml"), format!("{sqlite}{}", store(&url, ""))).unwrap();
    let copy = |program: &Program, config: &str, from: &str| {
        program.command(&["store", "copy", "--config", config, "--from", from])
    };
    let running = copy(&program, "postgres.toml", "turnhook.db");
    assert_eq!(running.status.code(), Some(1));
    assert!(stderr(&running).contains("stop it first"), "{}", stderr(&running));
    program.stop();
    let before = looks(&program, &alice.id, &alice.events[0].id);

    for (config, from, code, message) in [
        ("turnhook.toml", "turnhook.db", 78, "[store] url: missing"),
        ("postgres.toml", "nowhere.db", 1, "there is no store here"),
        ("postgres.toml", "postgres.toml", 78, "not a turnhook store"),
    ] {
        let refused = copy(&program, config, from);
        assert_eq!(refused.status.code(), Some(code), "{}", stderr(&refused));
        assert!(stderr(&refused).contains(message), "{}", stderr(&refused));
    }
    let copied = copy(&program, "postgres.toml", "turnhook.db");
    assert_eq!(copied.status.code(), Some(0), "{}", stderr(&copied));
    let said = stdout(&copied);
    assert!(
        said.contains("1 sources, 2 endpoints, 3 sessions, 5 events, 10 deliveries"),
        "{said}"
    );
    assert!(
        said.contains("next: ") && said.contains("both would send each event"),
        "{said}"
    );
    // No terminal: lines.
    let progress = stderr(&copied);
    assert!(
        progress.lines().count() >= 1 && !progress.contains('\x1b'),
        "{progress}"
    );
    let twice = copy(&program, "postgres.toml", "turnhook.db");
    assert_eq!(twice.status.code(), Some(1));
    assert!(
        stderr(&twice).contains("copy of this very store"),
        "{}",
        stderr(&twice)
    );

    // To whoever looks it is the same.
    program.configure(&format!("{endpoints}{}", store(&url, "")));
    assert_eq!(looks(&program, &alice.id, &alice.events[0].id), before);

    // And it goes on: the open session, what was pending, the pause.
    let crm_is_there = crm.endpoint().replace("\"billing\"", "\"crm\"");
    program.configure(&format!(
        "{}{crm_is_there}{}",
        billing.endpoint(),
        store(&url, "")
    ));
    program.start();
    let mut feeder = Feeder::connect(program.source);
    feeder.relay(&mut carol, 30, 20).unwrap();
    feeder.close(&carol).unwrap();
    billing.ended("carol", 1);
    assert_eq!(crm.webhooks().len(), 0);
    assert_eq!(
        program.ask(&["endpoints", "resume", "crm"]).trim(),
        "crm is resumed"
    );
    for user in ["alice", "bob", "carol"] {
        let (one, other) = (billing.ended(user, 1), crm.ended(user, 1));
        assert_eq!(
            (one.len(), &one[0].id, one[0].events.len()),
            (1, &other[0].id, other[0].events.len())
        );
    }
    let replayed = program.ask(&[
        "replay",
        "--endpoint",
        "billing",
        "--state",
        "delivered",
        "--wait",
        "--user",
        "alice",
    ]);
    assert!(replayed.contains("deliveries done"), "{replayed}");
    assert!(!replayed.contains("no turnhook is running"), "{replayed}");
    let history = program.objects(&["replay", "--history"]);
    assert_eq!(
        (&history[0]["total"], &history[0]["pending"]),
        (&2.into(), &0.into())
    );
    assert_eq!(program.deliveries("dead").len(), 0);

    let backup = program.command(&["backup", text(&here.join("backup.db"))]);
    assert_eq!(backup.status.code(), Some(1));
    assert!(stderr(&backup).contains("pg_dump"), "{}", stderr(&backup));
    assert!(!here.join("backup.db").exists());
}

/// What SEVERAL-MACHINES.md has a superuser type, as it stands there, but that the superuser himself is `turnhook` here.
fn typed_on_the_page(block: usize) -> String {
    let page = fs::read_to_string(deploy("SEVERAL-MACHINES.md")).unwrap();
    blocks(&page, "sql")[block]
        .replace("turnhook", "relay")
        .replace('…', "hunter2")
}

#[test]
fn a_role_and_a_database_as_on_the_page_are_all_it_needs() {
    let server = Postgres::start();
    server.typed(&typed_on_the_page(0));
    let billing = Billing::start();
    let url = server.url_of("relay", "hunter2", "relay");
    let mut program = Program::new(&format!("{}{}", billing.endpoint(), store(&url, "")));
    program.start();
    Feeder::connect(program.source).call("alice", 1);
    billing.ended("alice", 1);
    program.stop();
}

#[test]
fn a_role_that_may_not_make_tables_runs_on_what_was_migrated() {
    let server = Postgres::start();
    server.typed(&typed_on_the_page(1));
    let database = "relay";
    let url = server.url_of("relay", "hunter2", database);
    let place = format!("postgres://127.0.0.1:{}/{database}", server.port());
    let billing = Billing::start();
    let endpoint = billing.endpoint();
    let mut program = Program::new(&format!("{endpoint}{}", store(&url, "node = \"turnhook-1\"")));
    let here = program.directory.path().to_owned();
    fs::write(
        here.join("owner.url"),
        server.url_of("relay_owner", "hunter2", database) + "\n",
    )
    .unwrap();
    let mut said = Vec::new();
    let mut tell = |program: &Program, code: i32, arguments: &[&str]| {
        let output = program.command(arguments);
        let text = format!("{}{}", stdout(&output), stderr(&output));
        assert_eq!(output.status.code(), Some(code), "{arguments:?}: {text}");
        said.push(text.clone());
        text
    };
    for command in [&["run"][..], &["nodes", "list"], &["sessions", "list"]] {
        let text = tell(&program, 78, command);
        assert!(text.contains("run `turnhook migrate`"), "{text}");
    }
    let text = tell(&program, 1, &["migrate"]);
    assert!(text.contains("permission denied"), "{text}");
    let text = tell(&program, 78, &["migrate", "--url-file", "nowhere"]);
    assert!(text.contains("cannot read nowhere"), "{text}");
    let done = tell(&program, 0, &["migrate", "--url-file", "owner.url"]);
    let schema = turnhook_store::Store::POSTGRES_SCHEMA;
    assert_eq!(done, format!("{place}: schema 0 → {schema}\n"));
    program.start();
    // Also while a node runs, and by whom it is nothing left to do.
    for command in [&["migrate"][..], &["migrate", "--url-file", "owner.url"]] {
        assert_eq!(
            tell(&program, 0, command),
            format!("{place}: schema {schema} is current\n")
        );
    }
    Feeder::connect(program.source).call("alice", 1);
    billing.ended("alice", 1);
    tell(&program, 0, &["endpoints", "pause", "billing"]);
    tell(
        &program,
        0,
        &["replay", "--state", "delivered", "--user", "alice"],
    );
    let check = tell(&program, 0, &["check"]);
    assert!(
        check.starts_with(&format!(
            "# The store: PostgreSQL, \"{place}\"; this node: \"turnhook-1\"\n"
        )),
        "{check}"
    );
    said.extend(program.log());
    assert!(!said.iter().any(|text| text.contains("hunter2")), "{said:#?}");

    // Of a file there is nothing to say.
    program.stop();
    program.configure(&endpoint);
    for command in [&["migrate"][..], &["nodes", "list"]] {
        program.start();
        program.stop();
        let output = program.command(command);
        assert_eq!(output.status.code(), Some(1));
        assert!(stderr(&output).contains("a SQLite file"), "{}", stderr(&output));
    }
}

/// Waits for a list of nodes, sorted by name.
#[track_caller]
fn nodes_until(program: &Program, what: &str, holds: &dyn Fn(&[Value]) -> bool) -> Vec<Value> {
    eventually(what, || {
        let mut nodes = program.objects(&["nodes", "list"]);
        nodes.sort_by_key(|node| node["node"].to_string());
        holds(&nodes).then_some(nodes)
    })
}

#[test]
fn nodes_are_listed() {
    let server = Postgres::start();
    let url = server.url(&server.database());
    let billing = Billing::start();
    let node = |name: &str| {
        Program::new(&format!(
            "{}{}",
            billing.endpoint(),
            store(&url, &format!("node = \"{name}\""))
        ))
    };
    let (mut one, mut other) = (node("one"), node("other"));
    one.start();
    let alone = nodes_until(&other, "a node with everything", &|nodes| {
        nodes.len() == 1 && nodes[0]["lanes"] == 64 && nodes[0]["leads"] == serde_json::json!(["eu-1"])
    });
    assert_eq!(
        (&alone[0]["node"], &alone[0]["live"]),
        (&"one".into(), &true.into())
    );
    assert_eq!(alone[0]["version"], env!("CARGO_PKG_VERSION"));
    assert_eq!(alone[0]["sources"], serde_json::json!(["eu-1"]));
    assert!(alone[0]["expires_in_ms"].as_u64().unwrap() <= 10_000);
    other.start();
    let both = nodes_until(&one, "two nodes that share", &|nodes| {
        nodes.len() == 2 && nodes.iter().all(|node| node["lanes"] == 32)
    });
    assert_eq!(both[0]["leads"], serde_json::json!(["eu-1"]));
    assert_eq!(both[1]["leads"], serde_json::json!([]));
    let table = one.ask(&["nodes", "list"]);
    assert!(
        table.lines().any(|line| line.starts_with("one ")
            && line.contains("live")
            && line.contains("eu-1")
            && line.contains(both[0]["id"].as_str().unwrap())),
        "{table}"
    );
    // Its start, half past five later.
    let there = one.ask(&["nodes", "list", "--tz", "Asia/Kolkata"]);
    let started: jiff::Timestamp = both[0]["started_at"].as_str().unwrap().parse().unwrap();
    let started = (started + 330.minutes())
        .strftime("%Y-%m-%d %H:%M:%S")
        .to_string();
    assert!(
        there.contains("STARTED (Asia/Kolkata)") && there.contains(&started) && !there.contains("UTC"),
        "{there}"
    );
    // One that is killed is gone when its lease is over, and listed as that.
    other.kill();
    let left = nodes_until(&one, "the other node to be gone", &|nodes| {
        nodes.len() == 2 && nodes[1]["live"] == false && nodes[0]["lanes"] == 64
    });
    assert_eq!(
        (&left[1]["lanes"], &left[1]["expires_in_ms"]),
        (&0.into(), &0.into())
    );
    // One that stops is none.
    one.stop();
    let output = one.command(&["nodes", "list"]);
    assert!(
        !stdout(&output).lines().any(|line| line.starts_with("one ")),
        "{}",
        stdout(&output)
    );
    assert!(
        stderr(&output).contains("led by no node: eu-1"),
        "{}",
        stderr(&output)
    );
}
