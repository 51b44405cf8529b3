//! `[http] listen`: what it serves, and how.

use crate::harness::{billing::Billing, bridge::Bridge, feeder::Feeder};

#[test]
fn health_metrics_and_status() {
    let billing = Billing::start();
    let mut bridge = Bridge::new(&billing.endpoint());
    bridge.start();
    assert_eq!(bridge.get("/livez"), (200, "ok\n".to_owned()));
    bridge.until("the source", |status| {
        status["sources"]["eu-1"]["state"] == "listening"
    });
    let (code, body) = bridge.get("/readyz");
    assert_eq!(
        (code, serde_json::from_str(&body).unwrap()),
        (
            200,
            serde_json::json!({
                "ready": true,
                "sources": { "eu-1": { "ready": true, "role": "leader", "state": "listening" } },
                "store": { "ready": true },
            })
        )
    );
    let mut feeder = Feeder::connect(bridge.source);
    feeder.call("1795413634:cust_42", 1);
    billing.ended("cust_42", 1);

    let status = bridge.until("the delivery", |status| {
        let endpoint = &status["endpoints"]["billing"];
        endpoint["last_delivered_at"].is_string() && endpoint["pending"] == 0
    });
    assert_eq!(status["version"], env!("CARGO_PKG_VERSION"));
    assert!(status["uptime_seconds"].is_u64());
    assert_eq!(status["sources"]["eu-1"]["open_sessions"], 0);
    assert_eq!(status["store"]["writable"], true);
    let endpoint = &status["endpoints"]["billing"];
    assert_eq!(
        (&endpoint["breaker"], &endpoint["paused"]),
        (&"closed".into(), &false.into())
    );
    assert_eq!(endpoint["dead_letters"], 0);

    let (code, metrics) = bridge.get("/metrics");
    assert_eq!(code, 200);
    for line in [
        "turnhook_events_total{source=\"eu-1\",kind=\"new\"} 1",
        "turnhook_events_total{source=\"eu-1\",kind=\"total_traffic_peer\"} 1",
        "turnhook_sessions_ended_total{source=\"eu-1\",reason=\"closed\",accuracy=\"exact\"} 1",
        "turnhook_deliveries_total{endpoint=\"billing\",outcome=\"delivered\"} 2",
        "turnhook_outbox_pending{endpoint=\"billing\"} 0",
        "turnhook_dead_letters{endpoint=\"billing\"} 0",
    ] {
        assert!(
            metrics.lines().any(|found| found == line),
            "no `{line}` in\n{metrics}"
        );
    }
    assert!(
        !metrics.contains("cust_42") && !metrics.contains("example.org"),
        "a name is a label:\n{metrics}"
    );
    assert_eq!(bridge.get("/nothing").0, 404);
    assert!(bridge.stop().iter().any(|line| line.contains("stopped")));
}

/// Every metric of the contract is there once something happened, and only under its name.
#[test]
fn metrics_of_the_contract() {
    let billing = Billing::start();
    let mut bridge = Bridge::new(&billing.endpoint());
    bridge.start();
    let mut feeder = Feeder::connect(bridge.source);
    feeder.call("1795413634:cust_42", 1);
    billing.ended("cust_42", 1);
    bridge.until("the delivery", |status| {
        status["endpoints"]["billing"]["last_delivered_at"].is_string()
    });
    let (_, metrics) = bridge.get("/metrics");
    for name in [
        "turnhook_events_total",
        "turnhook_open_allocations",
        "turnhook_open_sessions",
        "turnhook_sessions_ended_total",
        "turnhook_deliveries_total",
        "turnhook_delivery_seconds_bucket",
        "turnhook_outbox_pending",
        "turnhook_outbox_oldest_seconds",
        "turnhook_dead_letters",
        "turnhook_commit_seconds_bucket",
    ] {
        assert!(
            metrics.lines().any(|line| line.starts_with(name)),
            "no {name} in\n{metrics}"
        );
    }
}
