//! PostgreSQL goes away and comes back, and connections to it are cut.

use std::{
    io::Read,
    net::TcpListener,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use super::{books::balance, knob, random, traffic::Traffic};
use crate::{
    harness::{
        billing::{Billing, counted},
        eventually,
        nodes::{Shared, leader, ready},
        postgres::Postgres,
        program::endpoint,
        turn::TurnClient,
    },
    stopping::{hears, on_postgres},
};

#[test]
fn postgres_restarted_and_connections_cut() {
    let outages = knob("CLUSTER_OUTAGES", 4);
    let mut random = random();
    let billing = Billing::start();
    let shared = Shared::start("2s", billing.endpoint());
    let nodes = shared.nodes(2);
    let coturn = shared.coturn();
    let ((), users) = Traffic::during(&coturn, |traffic| {
        for outage in 0..outages {
            for _ in 0..3 {
                std::thread::sleep(Duration::from_millis(random.below(500)));
                shared.postgres.cut(&shared.database);
            }
            traffic.marker(&billing, &coturn);
            std::thread::sleep(Duration::from_millis(random.below(900)));
            if outage % 2 == 0 {
                shared.postgres.crash();
            } else {
                shared.postgres.stop();
            }
            for node in &nodes {
                eventually("the outage to be noticed", || (!node.is_ready()).then_some(()));
                assert_eq!(node.program.get("/readyz").0, 503);
            }
            // Shorter than a lease, and longer.
            std::thread::sleep(Duration::from_millis(random.below(4000)));
            shared.postgres.go();
            ready(&nodes);
            traffic.marker(&billing, &coturn);
        }
    });
    balance(&shared, &nodes, &billing, &coturn, &users);
}

/// A node that takes all lanes while the other is away, and is asked for half of them while it still waits for requests
/// that it began before it lost them, gives them back all the same.
#[test]
fn lanes_are_shared_again_while_requests_hang() {
    let silent = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}/", silent.local_addr().unwrap());
    let asked = Arc::new(AtomicUsize::new(0));
    let asking = Arc::clone(&asked);
    // Ends with the process: each of its connections is read to its end, and none is answered.
    std::thread::spawn(move || {
        for mut connection in silent.incoming().flatten() {
            asking.fetch_add(1, Ordering::SeqCst);
            std::thread::spawn(move || while connection.read(&mut [0; 4096]).is_ok_and(|n| n > 0) {});
        }
    });
    let shared = Shared::start(
        "2s",
        endpoint("silent", &url, "timeout = \"300s\"\nconcurrency = 64\n"),
    );
    let mut nodes = shared.nodes(2);
    let coturn = shared.coturn();
    let mut calls = Vec::new();
    for caller in 0..12 {
        let mut call = TurnClient::tcp(&coturn, &format!("caller-{caller}")).call(&coturn);
        call.relay(10, 100);
        calls.push(call);
    }
    eventually("requests that nobody answers", || {
        (asked.load(Ordering::SeqCst) >= calls.len()).then_some(())
    });
    shared.postgres.stop();
    for node in &nodes {
        eventually("its leases to run out", || {
            (counted(&node.program, &["turnhook_source_leads{"]) == 0).then_some(())
        });
    }
    // The first to come back finds itself alone.
    nodes[1].pause();
    shared.postgres.go();
    eventually("one node to take all lanes", || {
        (nodes[0].lanes() == 64).then_some(())
    });
    nodes[1].resume();
    ready(&nodes);
    assert!(nodes[leader(&nodes)].leads());
}

/// A lease that the database calls a node's and the node does not know, as after a release whose query was lost: beats
/// renew it, so nobody else could ever take it.
#[test]
fn what_a_node_does_not_know_to_hold_it_releases() {
    let shared = Shared::start("2s", String::new());
    let nodes = shared.nodes(2);
    // The highest lanes are those that are moved back: they must be among what is taken away.
    let second = shared.sql("SELECT holder FROM lease WHERE name = 'lane/63'");
    let first = shared.sql(&format!("SELECT id FROM node WHERE id <> {second}"));
    let lanes_of = |node: &str| -> u64 {
        let count = format!("SELECT count(*) FROM lease WHERE name LIKE 'lane/%' AND holder = {node}");
        shared.sql(&count).parse().unwrap()
    };
    assert_eq!((lanes_of(&first), lanes_of(&second)), (32, 32));
    shared.sql(&format!(
        "UPDATE lease SET holder = {first}, epoch = epoch + 1 WHERE name IN (SELECT name FROM lease \
         WHERE name LIKE 'lane/%' AND holder = {second} ORDER BY split_part(name, '/', 2)::int DESC LIMIT 10)"
    ));
    eventually("each to have its share again", || {
        (lanes_of(&first) == 32 && lanes_of(&second) == 32).then_some(())
    });
    ready(&nodes);
}

/// A PostgreSQL that is away: nobody listens, and that is what is said, everywhere; once it is back, so is all the rest,
/// and the gap says that it was the store.
#[test]
fn an_outage_is_told_as_what_it_is() {
    let postgres = Postgres::start();
    let mut program = on_postgres(&postgres, "");
    program.start();
    let _feeder = hears(&program, 1);
    assert_eq!(counted(&program, &["turnhook_store_up 1"]), 1);
    postgres.stop();
    let status = program.until("the source to be deaf", |status| {
        status["sources"]["eu-1"]["state"] == "deaf"
    });
    let source = &status["sources"]["eu-1"];
    assert_eq!(
        source["detail"],
        serde_json::Value::Null,
        "nobody listens: {status:#}"
    );
    assert!(
        source["last_error"]
            .as_str()
            .unwrap()
            .contains("the store cannot be reached"),
        "{status:#}"
    );
    assert_eq!(status["store"]["reachable"], false);
    let (_, metrics) = program.get("/metrics");
    for line in ["turnhook_source_up{source=\"eu-1\"} 0", "turnhook_store_up 0"] {
        assert!(
            metrics.lines().any(|found| found == line),
            "no `{line}` in\n{metrics}"
        );
    }
    // Some seconds of it, and of tries.
    std::thread::sleep(Duration::from_secs(4));
    postgres.go();
    program.until("the source to be listened to", |status| {
        status["sources"]["eu-1"]["state"] == "listening"
    });
    eventually("the store to be told as up", || {
        (counted(&program, &["turnhook_store_up 1"]) == 1).then_some(())
    });
    let status = program.until("the gap", |status| {
        let gaps = status["sources"]["eu-1"]["recent_gaps"].as_array();
        gaps.is_some_and(|gaps| gaps.iter().any(|gap| gap["reason"] == "store_unavailable"))
    });
    assert!(!status.to_string().contains("\"restart\""), "{status:#}");
    assert_eq!(
        counted(&program, &["turnhook_gaps_total", "store_unavailable"]),
        1
    );
    let log = program.stop();
    let lines = |text: &str| log.iter().filter(|line| line.contains(text)).count();
    assert_eq!(lines("the store cannot be reached: this node"), 1, "{log:#?}");
    assert_eq!(lines("the store is back"), 1, "{log:#?}");
    // That, and that the leases have run out and the source is deaf.
    let warnings = log
        .iter()
        .filter(|line| line.contains("\"WARN\"") || line.contains("\"ERROR\""));
    assert!(warnings.count() <= 3, "{log:#?}");
}

/// Redis and PostgreSQL are away at once (one machine, one switch), PostgreSQL for longer than a lease: the gap that could
/// not be written down is on record once the node leads again.
#[test]
fn a_gap_that_could_not_be_committed_is_on_record_later() {
    let billing = Billing::start();
    let mut shared = Shared::start("8s", billing.endpoint());
    let nodes = shared.nodes(1);
    shared.postgres.stop();
    let before = jiff::Timestamp::now().as_millisecond();
    shared.redis.process.signal("KILL");
    let node = &nodes[0].program;
    node.until("deafness", |status| status["sources"]["eu-1"]["state"] == "deaf");
    shared.redis.start_again();
    eventually("the gap to be known", || {
        (counted(node, &["turnhook_gaps_total", "reconnect"]) > 0).then_some(())
    });
    let after = jiff::Timestamp::now().as_millisecond();
    eventually("the lease to run out", || {
        let log = node.log();
        let follows = log.iter().any(|line| line.contains("follows the source"));
        follows.then_some(())
    });
    shared.postgres.go();
    ready(&nodes);
    let gaps = eventually("the gap", || {
        let gaps = node.objects(&["gaps", "list"]);
        let of_redis: Vec<_> = gaps
            .into_iter()
            .filter(|gap| gap["reason"] == "reconnect")
            .collect();
        Some(of_redis).filter(|gaps| !gaps.is_empty())
    });
    let at = |key: &str| {
        let text = gaps[0][key].as_str().unwrap();
        text.parse::<jiff::Timestamp>().unwrap().as_millisecond()
    };
    assert!(gaps.len() == 1 && at("from") <= at("to"), "{gaps:?}");
    assert!(at("to") >= before && at("to") <= after, "{gaps:?}");
}
