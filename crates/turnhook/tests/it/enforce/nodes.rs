//! Two nodes on one PostgreSQL: the leader acts, whoever was told; a takeover in the midst of it changes nothing.

use super::{cancels, control, coturn, until_cancels};
use crate::harness::{
    billing::Billing,
    eventually, free_port,
    nodes::{Shared, leader, ready},
    turn::TurnClient,
};

#[test]
fn the_leader_ends_what_any_node_was_told_to_block() {
    let (billing, cli) = (Billing::start(), free_port());
    let shared = Shared::start("2s", format!("{}{}", billing.endpoint(), control(cli)));
    let mut nodes = shared.nodes(2);
    let coturn = coturn(shared.directory.path(), &shared.redis.statsdb(), cli, &[]);
    let leads = leader(&nodes);
    let mut bystander = TurnClient::tcp(&coturn, "bystander").call(&coturn);
    let mut ann = TurnClient::tcp(&coturn, "ann").call(&coturn);
    ann.relay(20, 200);
    billing.started("ann");
    nodes[1 - leads]
        .program
        .ask(&["block", "ann", "--reason", "balance"]);
    let end = &billing.ended("ann", 1)[0];
    assert_eq!(end.end_reason(), "cancelled");
    assert_eq!(cancels(&nodes[leads].program, "done"), 1);
    assert_eq!(cancels(&nodes[1 - leads].program, "done"), 0);

    // Whoever leads is killed as the block is made: the other one takes over, and does it.
    let mut bob = TurnClient::udp(&coturn, "bob").call(&coturn);
    bob.relay(20, 200);
    billing.started("bob");
    nodes[leads].kill();
    nodes[1 - leads].program.ask(&["block", "bob"]);
    assert_eq!(leader(&nodes), 1 - leads);
    eventually("the cut", || (bob.refresh(600) != 0).then_some(()));
    assert_eq!(billing.ended("bob", 1).len(), 1);
    nodes[leads].launch();
    ready(&nodes);

    // Killed once it has cut somebody off, who is unblocked before his session is told: told once, and why.
    let leads = leader(&nodes);
    let before = cancels(&nodes[leads].program, "done");
    let mut eve = TurnClient::tcp(&coturn, "eve").call(&coturn);
    eve.relay(20, 200);
    billing.started("eve");
    let says = &nodes[1 - leads].program;
    says.ask(&["block", "eve", "--reason", "too loud"]);
    until_cancels(&nodes[leads].program, "done", before + 1);
    nodes[leads].kill();
    nodes[1 - leads].program.ask(&["unblock", "eve"]);
    let ended = billing.ended("eve", 1);
    assert_eq!(ended.len(), 1);
    let end = &ended[0].events.last().unwrap().body["data"];
    assert_eq!(
        (&end["end_reason"], &end["block_reason"]),
        (&"cancelled".into(), &"too loud".into()),
        "{end:#}"
    );
    nodes[leads].launch();
    ready(&nodes);
    bystander.relay(5, 200);
    assert_eq!(bystander.refresh(600), 0);
    for node in &mut nodes {
        node.stop();
    }
}
