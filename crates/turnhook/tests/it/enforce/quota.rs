//! Whoever has used up a quota is cut off by what is on record: over kills and takeovers, and by nobody else's doing.

use std::net::UdpSocket;

use super::{control, coturn};
use crate::harness::{
    billing::{Billing, QUICK, Session, counted, statsdb},
    coturn::Coturn,
    eventually, free_port,
    nodes::{Shared, leader},
    program::Program,
    turn::TurnClient,
};

const MONTH: &str = "[[quota]]\nper = \"month\"\nbytes = \"700KB\"\n";

/// A session of 400 KB, which ends by itself.
#[track_caller]
fn call(billing: &Billing, coturn: &Coturn, user: &str, sessions: usize) {
    let mut client = TurnClient::tcp(coturn, user).call(coturn);
    client.relay(1000, 200);
    drop(client);
    let all = billing.ended(user, sessions);
    assert_eq!(all.len(), sessions);
    assert!(
        all.iter().all(|session| session.end_reason() == "closed"),
        "{all:#?}"
    );
}

/// It goes on until it is cut off. The reason that billing was given.
#[track_caller]
fn is_cut_off(billing: &Billing, coturn: &Coturn, user: &str, sessions: usize) -> String {
    let mut client = TurnClient::udp(coturn, user).call(coturn);
    // coturn may miss the moment for a report, and has another one 1,024 packets later.
    eventually("the cut", || {
        client.relay(16, 200);
        (client.refresh(600) != 0).then_some(())
    });
    let last = billing.ended(user, sessions).pop().unwrap();
    assert_eq!(last.end_reason(), "cancelled", "{last:#?}");
    let reason = &last.events.last().unwrap().body["data"]["block_reason"];
    reason.as_str().unwrap().to_owned()
}

#[test]
fn what_was_relayed_counts_once_and_what_strangers_send_does_not() {
    let (billing, cli) = (Billing::start(), free_port());
    // The rule that bills strangers' packets.
    let elsewhere = Billing::start();
    let mut program = Program::new(&format!(
        "{QUICK}billable = \"ingress\"\n{}{}{}{MONTH}",
        billing.endpoint_of_all("billing", "sources = [\"eu-*\"]\nrealms = [\"*.org\"]\n"),
        elsewhere.endpoint_of_all("elsewhere", "sources = [\"us-*\"]\n"),
        control(cli)
    ));
    program.start();
    let coturn = coturn(program.directory.path(), &statsdb(&program, 0), cli, &[]);

    // Somebody at an address that has no permission, and somebody who does not know the password.
    let mut victim = TurnClient::tcp(&coturn, "victim").call(&coturn);
    victim.relay(10, 200);
    let stranger = UdpSocket::bind("127.0.0.3:0").unwrap();
    for _ in 0..400 {
        for _ in 0..2 {
            stranger.send_to(&[7; 1400], victim.relay_address()).unwrap();
        }
        // Not faster than coturn reads: it drops what comes in bursts.
        victim.relay(1, 200);
    }
    assert_eq!(TurnClient::impostor(&coturn, "victim").allocate(), Err(401));
    victim.relay(10, 200);
    assert_eq!(victim.refresh(600), 0);
    drop(victim);
    let told = billing.ended("victim", 1)[0].billable();
    assert!(told > 700_000, "the flood was to be billed by this rule: {told}");

    call(&billing, &coturn, "ann", 1);
    program.kill();
    program.start();
    program.line("allocations can be ended");
    let mut ann = TurnClient::tcp(&coturn, "ann").call(&coturn);
    ann.relay(10, 200);
    drop(ann);
    billing.ended("ann", 2);
    assert_eq!(program.ask(&["blocks", "list", "--format", "json"]), "");
    let reason = is_cut_off(&billing, &coturn, "ann", 3);
    assert_eq!(reason, "quota: 700000B a month");
    let blocks = program.objects(&["blocks", "list"]);
    assert_eq!(blocks.len(), 1, "{blocks:?}");
    let block = &blocks[0];
    assert_eq!(
        (block["user"].as_str(), block["by"].as_str()),
        (Some("ann"), Some("quota"))
    );
    let until = block["until"].as_str().unwrap();
    assert!(until.ends_with("-01T00:00:00.000Z"), "{until}");
    let reached = |program: &Program| counted(program, &["turnhook_quotas_reached_total", "month"]);
    assert_eq!(reached(&program), 1);

    let blocked = "user.blocked: quota: 700000B a month";
    let reached_once = "quota.reached: quota: 700000B a month";
    assert_eq!(billing.told_of("ann", 2), [reached_once, blocked]);
    for webhook in billing.of_user("ann") {
        let (data, quota) = (webhook.data(), &webhook.data()["quota"]);
        assert_eq!(
            (&data["realm"], &data["until"]),
            (&block["realm"], &block["until"])
        );
        assert_eq!(
            (&data["by"], &quota["name"]),
            (&"quota".into(), &"700000B a month".into())
        );
        assert_eq!(
            (&quota["unit"], &quota["limit"]),
            (&"bytes".into(), &700_000.into())
        );
        assert!(quota["used"].as_u64().unwrap() >= 700_000, "{quota}");
        assert_eq!(
            (&quota["period"], &quota["period_end"]),
            (&"month".into(), &block["until"])
        );
    }

    // An operator may let her go on, and is not overruled.
    program.ask(&["unblock", "ann", "--realm", block["realm"].as_str().unwrap()]);
    assert_eq!(program.ask(&["blocks", "list", "--format", "json"]), "");
    // Changes are followed in their order: once the next one is, this one was. Over UDP, where an allocation that was ended
    // is answered for.
    let mut zoe = TurnClient::udp(&coturn, "zoe");
    zoe.allocate().unwrap();
    program.ask(&["block", "zoe"]);
    eventually("the next change to be followed", || {
        (zoe.refresh(600) != 0).then_some(())
    });
    let mut ann = TurnClient::tcp(&coturn, "ann").call(&coturn);
    let used = || -> u64 { billing.sessions_of("ann").iter().map(Session::billable).sum() };
    let before = used();
    eventually("what she goes on with", || {
        ann.relay(512, 200);
        (used() > before).then_some(())
    });
    assert_eq!(ann.refresh(600), 0);
    assert_eq!(reached(&program), 1);
    assert_eq!(
        billing.told_of("ann", 3),
        [reached_once, blocked, "user.unblocked: unblocked"]
    );
    assert!(elsewhere.webhooks().is_empty(), "she was never there");
    program.stop();
}

#[test]
fn a_session_that_is_too_large_is_ended_and_its_user_may_return() {
    let (billing, cli) = (Billing::start(), free_port());
    let quota = "[[quota]]\nper = \"session\"\nbytes = \"300KB\"\n";
    let endpoint = billing.endpoint_of_all("billing", "");
    let mut program = Program::new(&format!("{QUICK}{endpoint}{}{quota}", control(cli)));
    program.start();
    let coturn = coturn(program.directory.path(), &statsdb(&program, 0), cli, &[]);
    program.line("allocations can be ended");
    let reason = is_cut_off(&billing, &coturn, "bob", 1);
    assert_eq!(reason, "quota: 300000B a session");
    assert!(program.objects(&["blocks", "list"]).is_empty());
    let told = "quota.reached: quota: 300000B a session";
    assert_eq!(billing.told_of("bob", 1), [told]);
    let reached = billing.of_user("bob").remove(0);
    let session = &billing.sessions_of("bob")[0].id;
    assert_eq!(reached.data()["quota"]["session_id"], session.as_str());
    assert_eq!(reached.data()["until"], serde_json::Value::Null);
    let mut bob = TurnClient::tcp(&coturn, "bob").call(&coturn);
    bob.relay(20, 200);
    assert_eq!(bob.refresh(600), 0);
    drop(bob);
    assert_eq!(billing.ended("bob", 2)[1].end_reason(), "closed");
    assert_eq!(billing.told_of("bob", 1), [told]);
    program.stop();
}

#[test]
fn a_node_that_takes_over_goes_on_with_what_is_on_record() {
    let (billing, cli) = (Billing::start(), free_port());
    let endpoint = billing.endpoint_of_all("billing", "");
    let shared = Shared::start("2s", format!("{endpoint}{}{MONTH}", control(cli)));
    let mut nodes = shared.nodes(2);
    let coturn = coturn(shared.directory.path(), &shared.redis.statsdb(), cli, &[]);
    let leads = leader(&nodes);
    call(&billing, &coturn, "ann", 1);
    nodes[leads].kill();
    assert_eq!(leader(&nodes), 1 - leads);
    is_cut_off(&billing, &coturn, "ann", 2);
    let made = "SELECT count(*) FROM block_change WHERE who = 'quota'";
    assert_eq!(shared.sql(made).trim(), "1");
    let reason = "quota: 700000B a month";
    let told = [
        format!("quota.reached: {reason}"),
        format!("user.blocked: {reason}"),
    ];
    assert_eq!(billing.told_of("ann", 2), told);
    nodes[1 - leads].stop();
}
