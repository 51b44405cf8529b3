//! PostgreSQL goes away and comes back, and connections to it are cut.

use std::time::Duration;

use super::{books::balance, knob, random, traffic::Traffic};
use crate::harness::{
    billing::Billing,
    eventually,
    nodes::{Shared, ready},
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
                assert_eq!(node.bridge.get("/readyz").0, 503);
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
