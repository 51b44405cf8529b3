//! `turnhook record` on a running bridge, and `turnhook simulate` on what it wrote: the same events, to the byte.

use std::collections::BTreeMap;

use serde_json::value::RawValue;

use crate::harness::{
    billing::{Billing, counted, direct, redis as bridge_on, statsdb},
    bridge::{Bridge, text},
    coturn::Coturn,
    eventually,
    process::Process,
    redis::Redis,
    turn::TurnClient,
    turnhook,
};

/// Records while `meanwhile` runs, and simulates. Gives back the recording.
fn recorded(billing: &Billing, bridge: &Bridge, meanwhile: impl FnOnce()) -> String {
    let file = bridge.directory.path().join("history.jsonl");
    let arguments = ["record", "--source", "eu-1", "--output", text(&file)];
    let mut record = Process::start(turnhook::command(bridge.directory.path()).args(arguments));
    record.line("its beginning", |line| line.contains("recording").then_some(()));
    // The head of the recording is written: what is decided from now on is in it.
    eventually("the rules in the recording", || {
        std::fs::metadata(&file).ok().filter(|m| m.len() > 0)
    });
    let before = billing.webhooks().len();
    meanwhile();
    record.signal("INT");
    assert!(record.wait().success(), "{}", record.output());
    let told: BTreeMap<String, Vec<u8>> = billing
        .webhooks()
        .split_off(before)
        .into_iter()
        .map(|webhook| (webhook.id, webhook.bytes))
        .collect();

    #[derive(serde::Deserialize)]
    struct Line {
        webhook_id: String,
        body: Box<RawValue>,
    }
    let first = bridge.ask(&["simulate", text(&file)]);
    let simulated: BTreeMap<String, Vec<u8>> = first
        .lines()
        .map(|line| {
            let line: Line = serde_json::from_str(line).unwrap();
            (line.webhook_id, line.body.get().as_bytes().to_vec())
        })
        .collect();
    let show = |events: &BTreeMap<String, Vec<u8>>| -> Vec<String> {
        let one = |(id, body): (&String, &Vec<u8>)| format!("{id} {}", String::from_utf8_lossy(body));
        events.iter().map(one).collect()
    };
    assert!(told.len() >= 4, "{told:?}");
    assert_eq!(show(&simulated), show(&told));
    assert_eq!(simulated, told);
    for _ in 0..3 {
        assert_eq!(bridge.ask(&["simulate", text(&file)]), first);
    }
    std::fs::read_to_string(file).unwrap()
}

#[test]
fn a_listeners_history_simulates_to_the_same_bytes() {
    let billing = Billing::start();
    let mut bridge = direct(&billing);
    bridge.start();
    let directory = tempfile::tempdir().unwrap();
    let coturn = Coturn::start(directory.path(), &statsdb(&bridge, 7), &[]);
    // Open before the recording begins, and told so far.
    let mut before = TurnClient::tcp(&coturn, "before").call(&coturn);
    before.relay(2500, 100);
    billing.told("before", 1);
    let history = recorded(&billing, &bridge, || {
        let mut during = TurnClient::udp(&coturn, "during").call(&coturn);
        during.relay(2500, 100);
        billing.told("during", 1);
        let mut stopped = TurnClient::udp(&coturn, "stopped").call(&coturn);
        stopped.relay(10, 100);
        billing.started("stopped");
        assert_eq!(during.refresh(0), 0);
        drop(before);
        billing.ended("before", 1);
        billing.ended("during", 1);
        coturn.process.signal("KILL");
        assert_eq!(billing.ended("stopped", 1)[0].end_reason(), "server_stopped");
    });
    assert!(
        history.contains("server_stopped") && history.contains("\"row\""),
        "{history}"
    );
}

#[test]
fn a_subscriptions_history_simulates_to_the_same_bytes() {
    let billing = Billing::start();
    let directory = tempfile::tempdir().unwrap();
    let mut redis = Redis::start(directory.path(), &[]);
    let mut bridge = bridge_on(&billing, &format!("url = \"redis://127.0.0.1:{}\"", redis.port));
    bridge.start();
    bridge.until("the subscription", |s| {
        s["sources"]["eu-1"]["state"] == "connected"
    });
    let coturn = Coturn::start(directory.path(), &redis.statsdb(), &[]);
    let mut through = TurnClient::udp(&coturn, "through").call(&coturn);
    through.relay(2500, 100);
    billing.told("through", 1);
    let history = recorded(&billing, &bridge, || {
        let mut during = TurnClient::udp(&coturn, "during").call(&coturn);
        during.relay(50, 100);
        assert_eq!(during.refresh(0), 0);
        billing.ended("during", 1);
        redis.process.signal("KILL");
        bridge.until("the loss", |s| s["sources"]["eu-1"]["state"] == "deaf");
        redis.start_again();
        bridge.until("the subscription", |s| {
            s["sources"]["eu-1"]["state"] == "connected"
        });
        let refreshed = || counted(&bridge, &["turnhook_events_total", "refreshed"]);
        let before = refreshed();
        eventually("a refresh", || {
            assert_eq!(through.refresh(600), 0);
            (refreshed() > before).then_some(())
        });
        assert_eq!(through.refresh(0), 0);
        billing.ended("through", 1);
    });
    for input in ["hearing", "deaf", "gap", "snapshot_began", "snapshot_ended"] {
        assert!(history.contains(&format!("{{\"{input}\"")), "{input}\n{history}");
    }
}
