//! A leader that sleeps past its lease, and wakes up to find that another one leads.

use std::time::Duration;

use super::{books::balance, knob, random, traffic::Traffic};
use crate::harness::{
    billing::{Billing, logged_of, sum},
    eventually,
    nodes::{Shared, leader, ready},
    turn::TurnClient,
};

#[test]
fn stopped_past_its_lease_and_resumed() {
    let stops = knob("CLUSTER_STOPS", 6);
    let mut random = random();
    let billing = Billing::start();
    let shared = Shared::start("2s", billing.endpoint());
    let mut nodes = shared.nodes(2);
    let coturn = shared.coturn();
    let ((), users) = Traffic::during(&coturn, |traffic| {
        for _ in 0..stops {
            traffic.marker(&billing, &coturn);
            std::thread::sleep(Duration::from_millis(random.below(900)));
            let asleep = leader(&nodes);
            nodes[asleep].pause();
            assert_eq!(leader(&nodes), 1 - asleep);
            let epoch = shared.epoch();
            // Sometimes it wakes while the other one has only just begun, sometimes much later.
            std::thread::sleep(Duration::from_millis(random.below(2000)));
            nodes[asleep].resume();
            let node = &nodes[asleep];
            eventually("the one that slept to follow", || {
                (node.is_ready() && node.says("/sources/eu-1/role") == "follower").then_some(())
            });
            traffic.marker(&billing, &coturn);
            assert_eq!(ready(&nodes), 1 - asleep);
            assert_eq!(shared.epoch(), epoch, "the lead was taken from one that was well");
        }
    });
    balance(&shared, &nodes, &billing, &coturn, &users);
}

/// How often Redis was asked whether it is there.
fn pings(shared: &Shared) -> u64 {
    let stats = shared.redis.ask(&["INFO", "commandstats"]);
    let calls = |line: &str| {
        line.strip_prefix("cmdstat_ping:calls=")?
            .split(',')
            .next()?
            .parse()
            .ok()
    };
    stats.lines().find_map(calls).unwrap_or(0)
}

/// One that slept hears what waited for it, and then all that is said: what it hears after that is as good as what it
/// heard before.
#[test]
fn one_that_slept_takes_over_soon_after() {
    let billing = Billing::start();
    let shared = Shared::start("2s", billing.endpoint());
    let mut nodes = shared.nodes(2);
    let coturn = shared.coturn();
    let first = leader(&nodes);
    nodes[first].pause();
    assert_eq!(leader(&nodes), 1 - first);
    nodes[first].resume();
    assert_eq!(ready(&nodes), 1 - first);
    // What is heard after the answer to a PING is later than anything that can have waited: four of each node.
    let pinged = pings(&shared);
    eventually("PINGs", || (pings(&shared) >= pinged + 8).then_some(()));
    let mut client = TurnClient::tcp(&coturn, "caller").call(&coturn);
    client.relay(20, 200);
    billing.started("caller");
    nodes[1 - first].pause();
    drop(client);
    assert_eq!(leader(&nodes), first);
    nodes[1 - first].resume();
    let sessions = billing.ended("caller", 1);
    assert!(sessions[0].is_exact(), "{sessions:#?}");
    assert_eq!(sessions[0].usage(), sum(logged_of(&coturn, "caller")));
}
