//! Quotas of seconds, quotas for some users alone, and one user's use of several sources, counted on several nodes.

use std::time::Duration;

use super::{control, coturn};
use crate::harness::{
    billing::{Billing, QUICK, relay_until_reported, statsdb},
    eventually, free_port,
    nodes::{Node, Shared},
    program::Program,
    redis::Redis,
    turn::TurnClient,
};

/// Labels from names: `free-bob` is a user, and on the plan `free`.
const PLANS: &str = "user_pattern = '^(?:\\d{9,}:)?(?P<user>(?P<plan>[a-z]+)-.*)$'\n";

#[test]
fn whoever_runs_out_of_seconds_is_cut_off_and_who_has_another_plan_is_not() {
    let (billing, cli) = (Billing::start(), free_port());
    let quota = "[[quota]]\nper = \"day\"\nseconds = 3\nlabels = { plan = \"free\" }\n";
    let mut program = Program::new(&format!(
        "{QUICK}{PLANS}{}{}{quota}",
        billing.endpoint_of_all("billing", ""),
        control(cli)
    ));
    program.start();
    let coturn = coturn(program.directory.path(), &statsdb(&program, 0), cli, &[]);
    program.line("allocations can be ended");
    let mut paid = TurnClient::udp(&coturn, "paid-eve").call(&coturn);
    let mut free = TurnClient::udp(&coturn, "free-bob").call(&coturn);
    eventually("the cut", || {
        paid.relay(64, 200);
        free.relay(64, 200);
        (free.refresh(600) != 0).then_some(())
    });
    let ended = billing.ended("free-bob", 1).remove(0);
    let end = ended.events.last().unwrap().data();
    assert_eq!(
        (&end["end_reason"], &end["block_reason"]),
        (&"cancelled".into(), &"quota: 3 seconds a day".into())
    );
    assert!(ended.is_exact(), "{ended:#?}");
    assert!(end["duration_ms"].as_u64().unwrap() >= 3000, "{end:#}");
    let told = [
        "quota.reached: quota: 3 seconds a day",
        "user.blocked: quota: 3 seconds a day",
    ];
    assert_eq!(billing.told_of("free-bob", 2), told);
    let reached = billing.of_user("free-bob").remove(0);
    let quota = &reached.data()["quota"];
    assert_eq!(
        (&quota["unit"], &quota["limit"], &quota["period"]),
        (&"seconds".into(), &3.into(), &"day".into())
    );
    assert!(quota["used"].as_u64().unwrap() >= 3, "{quota}");

    // The other one has been there for longer, and relayed as much.
    assert_eq!(paid.refresh(600), 0);
    assert!(billing.of_user("paid-eve").is_empty());
    let blocks = program.objects(&["blocks", "list"]);
    assert_eq!(blocks.len(), 1, "{blocks:?}");
    // He comes back, and is cut off for the rest of the day.
    let mut again = TurnClient::udp(&coturn, "free-bob");
    again.allocate().unwrap();
    eventually("the cut", || (again.refresh(600) != 0).then_some(()));
    program.stop();
}

/// Of two sources each node leads one: neither sees more than half of what the user has there, and both of his calls end.
#[test]
fn what_a_user_has_on_two_coturns_and_two_nodes_is_one_sum() {
    let (billing, clis) = (Billing::start(), [free_port(), free_port()]);
    let other = tempfile::tempdir().unwrap();
    let redis = Redis::start(other.path(), &[]);
    let second = format!(
        "[[source]]\nname = \"eu-2\"\ntype = \"redis\"\nurl = \"redis://127.0.0.1:{}\"\n{}",
        redis.port,
        control(clis[1]).replace("eu-1", "eu-2"),
    );
    let quota = "[[quota]]\nper = \"month\"\nbytes = \"1100KB\"\n";
    let shared = Shared::start(
        "2s",
        format!(
            "{}{}{second}{quota}",
            billing.endpoint_of_all("billing", ""),
            control(clis[0])
        ),
    );
    let mut nodes = shared.nodes(2);
    eventually("a source each", || {
        let leads = |node: &Node, source: &str| node.says(&format!("/sources/{source}/role")) == "leader";
        let apart = |a: usize, b: usize| leads(&nodes[a], "eu-1") && leads(&nodes[b], "eu-2");
        (apart(0, 1) || apart(1, 0)).then_some(())
    });
    let first = coturn(shared.directory.path(), &shared.redis.statsdb(), clis[0], &[]);
    let second = coturn(other.path(), &redis.statsdb(), clis[1], &[]);
    let mut here = TurnClient::udp(&first, "ann").call(&first);
    relay_until_reported(&mut here, &first, "ann");
    billing.told("ann", 400_000);
    assert!(billing.of_user("ann").is_empty());
    let mut there = TurnClient::udp(&second, "ann").call(&second);
    eventually("the cut of the second call", || {
        // Not so fast that it passes the quota alone before anybody is told of it.
        there.relay(64, 200);
        std::thread::sleep(Duration::from_millis(150));
        (there.refresh(600) != 0).then_some(())
    });
    eventually("the cut of the first call", || {
        (here.refresh(600) != 0).then_some(())
    });
    let ended = billing.ended("ann", 2);
    assert_eq!(ended.len(), 2, "{ended:#?}");
    for session in &ended {
        assert_eq!(session.end_reason(), "cancelled", "{session:#?}");
        assert!(session.billable() < 1_100_000, "{session:#?}");
    }
    let source = |n: usize| ended[n].events[0].data()["source"].clone();
    assert_ne!(source(0), source(1));
    let told = [
        "quota.reached: quota: 1100000B a month",
        "user.blocked: quota: 1100000B a month",
    ];
    assert_eq!(billing.told_of("ann", 2), told);
    assert_eq!(
        shared
            .sql("SELECT count(*) FROM block_change WHERE who = 'quota'")
            .trim(),
        "1"
    );
    for node in &mut nodes {
        node.stop();
    }
}
