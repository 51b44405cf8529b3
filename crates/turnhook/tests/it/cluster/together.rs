//! Two nodes, all well.

use super::{books::balance, traffic::Traffic};
use crate::harness::{
    billing::Billing,
    eventually,
    nodes::{Shared, leader},
};

#[test]
fn one_leads_the_other_follows_and_both_deliver() {
    let billing = Billing::start();
    let shared = Shared::start("2s", billing.endpoint());
    let nodes = shared.nodes(2);
    let leads = leader(&nodes);
    let (leader, follower) = (&nodes[leads], &nodes[1 - leads]);
    assert_eq!(leader.says("/sources/eu-1/state"), "connected");
    assert_eq!(follower.says("/sources/eu-1/role"), "follower");
    assert_eq!(follower.says("/sources/eu-1/state"), "following");
    assert!(follower.is_ready());
    for node in &nodes {
        let live = node.says("/node/live");
        let mut live: Vec<&str> = live
            .as_array()
            .unwrap()
            .iter()
            .filter_map(|n| n.as_str())
            .collect();
        live.sort_unstable();
        assert_eq!(live, ["node-1", "node-2"]);
    }
    let coturn = shared.coturn();
    let ((), users) = Traffic::during(&coturn, |traffic| {
        eventually("deliveries by both", || {
            traffic.marker(&billing, &coturn);
            nodes.iter().all(|node| node.delivered() > 10).then_some(())
        });
    });
    balance(&shared, &nodes, &billing, &coturn, &users);
    assert!(nodes[leads].leads(), "the lead went away without a reason");
    assert_eq!(shared.epoch(), 1);
}
