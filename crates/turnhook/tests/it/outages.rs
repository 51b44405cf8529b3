//! Redis, or the database, is not there, or goes: said in the log and in `/readyz`, and got over without anybody's help.

use std::net::TcpListener;

use serde_json::Value;

use crate::{
    harness::{
        DEADLINE,
        billing::{Billing, counted, redis},
        coturn::Coturn,
        eventually,
        feeder::{Allocation, Feeder},
        free_port,
        program::Program,
        redis::Redis,
        turn::TurnClient,
        turnhook,
    },
    housekeeping::{Held, a_large_commit},
};

fn ready(answer: &(u16, String)) -> (u16, Value) {
    (answer.0, serde_json::from_str(&answer.1).unwrap())
}

#[test]
fn redis_down_at_start_and_lost_later() {
    let directory = tempfile::tempdir().unwrap();
    let port = free_port();
    let billing = Billing::start();
    let mut program = redis(&billing, &format!("url = \"redis://127.0.0.1:{port}\""));
    program.start();
    let (code, body) = eventually("/readyz to say why", || {
        let (code, body) = ready(&program.get("/readyz"));
        body["sources"]["eu-1"]["error"]
            .is_string()
            .then_some((code, body))
    });
    assert_eq!(code, 503);
    assert_eq!(
        (&body["ready"], &body["store"]["ready"]),
        (&false.into(), &true.into()),
        "{body:#}"
    );
    assert_eq!(body["sources"]["eu-1"]["ready"], false);
    assert_eq!(program.get("/livez").0, 200, "it serves all the same");
    program.line("eu-1");

    let mut redis_server = Redis::start_on(port, directory.path(), &[]);
    let is_ready = || eventually("/readyz", || (program.get("/readyz").0 == 200).then_some(()));
    is_ready();
    let coturn = Coturn::start(directory.path(), &redis_server.statsdb(), &[]);
    let mut client = TurnClient::tcp(&coturn, "alice").call(&coturn);
    billing.started("alice");

    redis_server.process.signal("KILL");
    eventually("/readyz to notice", || {
        (program.get("/readyz").0 == 503).then_some(())
    });
    client.relay(50, 100);
    redis_server.start_again();
    is_ready();
    let status = program.status();
    let gaps = status["sources"]["eu-1"]["recent_gaps"].as_array().unwrap();
    assert!(gaps.iter().any(|gap| gap["reason"] == "reconnect"), "{status:#}");
    let (_, metrics) = program.get("/metrics");
    assert!(
        metrics.contains("turnhook_gaps_total{source=\"eu-1\",reason=\"reconnect\"} 1"),
        "{metrics}"
    );
    // coturn comes back too, with the next thing that it has to say.
    drop(client);
    let mut next = TurnClient::tcp(&coturn, "bob").call(&coturn);
    next.relay(10, 100);
    eventually("a session after the outage", || {
        let calls = TurnClient::tcp(&coturn, "bob").call(&coturn);
        drop(calls);
        (!billing.sessions_of("bob").is_empty()).then_some(())
    });
}

/// A stop while nothing is heard does not make it a time in which all was heard.
#[test]
fn what_is_deaf_when_it_stops_has_a_gap_since_it_was() {
    let directory = tempfile::tempdir().unwrap();
    let port = free_port();
    let billing = Billing::start();
    let mut program = redis(&billing, &format!("url = \"redis://127.0.0.1:{port}\""));
    let mut server = Redis::start_on(port, directory.path(), &[]);
    program.start();
    let is_ready = |program: &Program| {
        eventually("/readyz", || (program.get("/readyz").0 == 200).then_some(()));
    };
    is_ready(&program);
    server.process.signal("KILL");
    program.until("deafness", |status| status["sources"]["eu-1"]["state"] == "deaf");
    let deaf = jiff::Timestamp::now().as_millisecond();
    program.stop();
    // Once more without ever having heard.
    program.start();
    program.until("deafness", |status| {
        status["sources"]["eu-1"]["last_error"].is_string()
    });
    program.stop();
    server.start_again();
    program.start();
    is_ready(&program);
    let hears = jiff::Timestamp::now().as_millisecond();
    let gaps = eventually("the gaps", || {
        let gaps = program.objects(&["gaps", "list"]);
        (gaps.len() >= 3).then_some(gaps)
    });
    let at = |gap: &Value, key: &str| -> i64 {
        let text = gap[key].as_str().unwrap();
        text.parse::<jiff::Timestamp>().unwrap().as_millisecond()
    };
    let mut times: Vec<(i64, i64)> = gaps.iter().map(|gap| (at(gap, "from"), at(gap, "to"))).collect();
    times.sort_unstable();
    assert!(times[0].0 <= deaf, "{gaps:?}");
    let mut known_to = times[0].1;
    for (from, to) in &times {
        assert!(*from <= known_to, "nothing is said of the time between: {gaps:?}");
        known_to = known_to.max(*to);
    }
    assert!(known_to >= deaf && known_to <= hears, "{gaps:?}");
    program.stop();
}

/// The same where it is killed, and had committed something meanwhile: a session that ended while nothing was heard.
#[test]
fn what_is_deaf_when_it_is_killed_has_a_gap_since_it_was() {
    let directory = tempfile::tempdir().unwrap();
    let port = free_port();
    let billing = Billing::start();
    let mut program = redis(&billing, &format!("url = \"redis://127.0.0.1:{port}\""));
    let mut server = Redis::start_on(port, directory.path(), &[]);
    program.start();
    eventually("/readyz", || (program.get("/readyz").0 == 200).then_some(()));
    let says = |what: &str, message: &str| {
        let name = "turn/realm/example.org/user/1795413634:ann/allocation/000000000000000007";
        server.ask(&["PUBLISH", &format!("{name}/{what}"), message]);
    };
    says("status", "new lifetime=600");
    says("traffic", "rcvp=9, rcvb=900, sentp=9, sentb=900");
    says("traffic/peer", "rcvp=9, rcvb=900, sentp=9, sentb=900");
    says("status", "deleted");
    billing.started("ann");
    // Redis answers whoever publishes before it writes to whoever listens.
    eventually("the last message to be heard", || {
        (counted(&program, &["turnhook_events_total", "deleted"]) == 1).then_some(())
    });
    server.process.signal("KILL");
    program.until("deafness", |status| status["sources"]["eu-1"]["state"] == "deaf");
    let deaf = jiff::Timestamp::now().as_millisecond();
    billing.ended("ann", 1);
    program.kill();
    // Once more without ever having heard.
    program.start();
    program.until("deafness", |status| {
        status["sources"]["eu-1"]["last_error"].is_string()
    });
    program.kill();
    server.start_again();
    program.start();
    let gaps = eventually("the gap", || {
        Some(program.objects(&["gaps", "list"])).filter(|gaps| !gaps.is_empty())
    });
    let from = gaps[0]["from"]
        .as_str()
        .unwrap()
        .parse::<jiff::Timestamp>()
        .unwrap();
    assert!(
        from.as_millisecond() <= deaf,
        "it was deaf before, at {deaf}: {gaps:?}"
    );
    assert_eq!(
        (gaps.len(), &gaps[0]["reason"]),
        (1, &"restart".into()),
        "{gaps:?}"
    );
    program.stop();
}

#[test]
fn what_is_taken_is_said() {
    let billing = Billing::start();
    let mut program = crate::harness::billing::direct(&billing);
    program.start();
    // The same store.
    let second = program.command(&["run"]);
    assert_eq!(second.status.code(), Some(1));
    assert!(
        turnhook::stderr(&second).contains("another `turnhook run` uses this store"),
        "{second:?}"
    );
    // The same ports, another store.
    let run = |name: &str, value: &str| {
        turnhook::command(program.directory.path())
            .arg("run")
            .env("TURNHOOK_STORE__PATH", "other.db")
            .env(name, value)
            .output()
            .unwrap()
    };
    let second = run("TURNHOOK_SOURCE__0__LISTEN", "127.0.0.1:0");
    assert_eq!(second.status.code(), Some(1));
    assert!(
        turnhook::stderr(&second).contains("[http] listen: cannot listen on"),
        "{second:?}"
    );
    let cure = "another program has it (`ss -ltnp` names it)";
    assert!(turnhook::stderr(&second).contains(cure), "{second:?}");
    let second = run("TURNHOOK_HTTP__LISTEN", "127.0.0.1:0");
    assert_eq!(second.status.code(), Some(1));
    assert!(turnhook::stderr(&second).contains("eu-1"), "{second:?}");
    assert!(turnhook::stderr(&second).contains(cure), "{second:?}");
    program.stop();
}

/// Whoever starts turnhook before its database sees at once what it waits for, and for how long.
#[test]
fn a_database_that_is_away_at_the_start_is_named_at_once() {
    let store =
        |port: u16| format!("[store]\nurl = \"postgres://u:sesame@127.0.0.1:{port}/th\"\nlease = \"4s\"\n");
    let port = free_port();
    let mut program = Program::new(&store(port));
    program.launch();
    program.line("the database cannot be reached; it is tried for 2 s more");
    let (status, log) = program.ended();
    assert_eq!(status, Some(1), "{log:#?}");
    let said: Vec<&String> = log
        .iter()
        .filter(|line| line.contains("cannot be reached"))
        .collect();
    assert_eq!(said.len(), 1, "{log:#?}");
    assert!(
        said[0].contains(&format!("postgres://127.0.0.1:{port}/th")),
        "{}",
        said[0]
    );
    assert!(!log.concat().contains("sesame"), "{log:#?}");

    // One that takes connections and says nothing.
    let mute = TcpListener::bind("127.0.0.1:0").unwrap();
    let mut program = Program::new(&store(mute.local_addr().unwrap().port()));
    program.launch();
    program.line("no answer so far");
    program.kill();
}

/// While enough waits for a commit that takes long, nothing more is decided: what is heard waits before the reducer, in its
/// queue, and is given up there if it must be.
#[test]
fn while_the_store_has_enough_to_do_messages_wait_in_their_queue() {
    let mut program = Program::new("");
    let (held, environment) = Held::of(&program, "committing");
    let faults = format!("{},small:pending@,small:queue@", environment[0].1);
    program.start_with(&[("FAULT_INJECTION", &faults)]);
    held.begin();
    let many = 700;
    let mut feeder = a_large_commit(&mut program, many);
    held.has_come("a commit that takes long");
    // More than the queue and the bound of what waits for a commit would take together.
    // Little by little: if these were decided, more than the bound would be.
    let more = 8_000;
    for id in 1..=more {
        feeder
            .open(&Allocation::new("cust_43", 1_000_000 + id), 600)
            .unwrap();
        if id % 100 == 0 {
            eventually("all to be read", || (feeder.read() == many + id).then_some(()));
        }
    }
    held.end();
    eventually("the gap", || {
        (counted(&program, &["turnhook_gaps_total", "overflow"]) == 1).then_some(())
    });
    assert!(
        !program
            .log()
            .iter()
            .any(|line| line.contains("the bound is reached"))
    );
    assert_eq!(counted(&program, &["turnhook_gaps_total", "store_full"]), 0);
    program.stop();
}

/// A store that takes nothing for so long that the bound is reached: what was heard before is told when it takes something
/// again, and what was given up is on record.
#[test]
fn what_a_store_that_takes_nothing_costs_is_on_record() {
    let mut program = Program::new("");
    program.start_with(&[("FAULT_INJECTION", "small:pending@")]);
    let other = rusqlite::Connection::open(program.directory.path().join("turnhook.db")).unwrap();
    other.busy_timeout(DEADLINE).unwrap();
    other.execute_batch("BEGIN IMMEDIATE").unwrap();
    let mut feeder = Feeder::connect(program.source);
    let mut opened = 0;
    eventually("the bound", || {
        let full = program
            .log()
            .iter()
            .any(|line| line.contains("the bound is reached"));
        for _ in 0..if full || opened >= 4_000 { 0 } else { 100 } {
            opened += 1;
            feeder.open(&Allocation::new("cust_42", opened), 600).unwrap();
        }
        full.then_some(())
    });
    assert_eq!(counted(&program, &["turnhook_gaps_total", "store_full"]), 0);
    other.execute_batch("ROLLBACK").unwrap();
    // It ends with the first message that is taken again.
    eventually("the gap on record", || {
        opened += 1;
        feeder.open(&Allocation::new("cust_42", opened), 600).unwrap();
        let gaps = program.objects(&["gaps", "list"]);
        let gaps = gaps.iter().filter(|gap| gap["reason"] == "store_full");
        (gaps.count() == 1).then_some(())
    });
    program.kill();
    program.start();
    let kept = counted(&program, &["turnhook_open_allocations"]);
    assert!((2_000..opened).contains(&kept), "{kept} of {opened}");
    program.stop();
}
