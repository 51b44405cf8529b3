//! Nodes that come and go as they should. The lease is longer than any test waits: nothing here comes by an expiry.

use super::{books::balance, traffic::Traffic};
use crate::harness::{
    billing::Billing,
    eventually,
    nodes::{Shared, leader, ready},
};

#[test]
fn a_node_that_stops_hands_over_at_once() {
    let billing = Billing::start();
    let shared = Shared::start("5m", billing.endpoint());
    let mut nodes = shared.nodes(2);
    let coturn = shared.coturn();
    let ((), users) = Traffic::during(&coturn, |traffic| {
        for _ in 0..4 {
            traffic.marker(&billing, &coturn);
            let leads = leader(&nodes);
            nodes[leads].stop();
            assert_eq!(leader(&nodes), 1 - leads);
            eventually("all lanes", || (nodes[1 - leads].lanes() == 64).then_some(()));
            traffic.marker(&billing, &coturn);
            nodes[leads].launch();
            assert_eq!(ready(&nodes), 1 - leads);
        }
    });
    balance(&shared, &nodes, &billing, &coturn, &users);
}

#[test]
fn a_third_node_gets_its_share() {
    let billing = Billing::start();
    let shared = Shared::start("5m", billing.endpoint());
    let mut nodes = shared.nodes(2);
    let coturn = shared.coturn();
    let ((), users) = Traffic::during(&coturn, |traffic| {
        traffic.marker(&billing, &coturn);
        let leads = leader(&nodes);
        let mut third = shared.node("node-3");
        third.launch();
        nodes.push(third);
        assert_eq!(ready(&nodes), leads, "the lead stays where it was");
        eventually("deliveries by all", || {
            traffic.marker(&billing, &coturn);
            nodes.iter().all(|node| node.delivered() > 10).then_some(())
        });
        nodes[leads].stop();
        assert_ne!(ready(&nodes), leads);
        traffic.marker(&billing, &coturn);
    });
    balance(&shared, &nodes, &billing, &coturn, &users);
}
