//! Nodes that are killed in the midst of calls, again and again, while another one is always up.

use std::time::Duration;

use super::{books::balance, knob, random, traffic::Traffic};
use crate::harness::{
    billing::Billing,
    nodes::{Shared, leader, ready},
};

#[test]
fn killed_at_random_instants() {
    let kills = knob("CLUSTER_KILLS", 10);
    let mut random = random();
    let billing = Billing::start();
    let shared = Shared::start("2s", billing.endpoint());
    let mut nodes = shared.nodes(2);
    let coturn = shared.coturn();
    let ((), users) = Traffic::during(&coturn, |traffic| {
        for _ in 0..kills {
            // All that was heard before both listened is committed.
            traffic.marker(&billing, &coturn);
            std::thread::sleep(Duration::from_millis(random.below(900)));
            let leads = leader(&nodes);
            // Most kills hit the leader.
            let victim = if random.below(5) == 0 { 1 - leads } else { leads };
            let epoch = shared.epoch();
            nodes[victim].kill();
            assert_eq!(leader(&nodes), 1 - victim);
            assert_eq!(shared.epoch(), epoch + u64::from(victim == leads));
            std::thread::sleep(Duration::from_millis(random.below(300)));
            nodes[victim].launch();
            ready(&nodes);
        }
    });
    balance(&shared, &nodes, &billing, &coturn, &users);
}

#[test]
fn two_of_three_killed_at_random_instants() {
    let kills = knob("CLUSTER_KILLS", 10) / 2;
    let mut random = random();
    let billing = Billing::start();
    let shared = Shared::start("2s", billing.endpoint());
    let mut nodes = shared.nodes(3);
    let coturn = shared.coturn();
    let ((), users) = Traffic::during(&coturn, |traffic| {
        for _ in 0..kills {
            traffic.marker(&billing, &coturn);
            std::thread::sleep(Duration::from_millis(random.below(900)));
            // The leader, and another one before, while or after the third takes its place.
            let leads = leader(&nodes);
            let other = (leads + 1 + random.below(2) as usize) % 3;
            nodes[leads].kill();
            std::thread::sleep(Duration::from_millis(random.below(3000)));
            nodes[other].kill();
            assert_eq!(leader(&nodes), 3 - leads - other);
            for victim in [leads, other] {
                std::thread::sleep(Duration::from_millis(random.below(300)));
                nodes[victim].launch();
            }
            ready(&nodes);
        }
    });
    balance(&shared, &nodes, &billing, &coturn, &users);
}
