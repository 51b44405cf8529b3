//! The page of each node: the same answers, and what is done at one holds for all.

use std::{fs::OpenOptions, io::Write as _};

use crate::harness::{
    billing::Billing,
    eventually,
    nodes::{Shared, ready},
    page::Page,
    turn::TurnClient,
};

#[test]
fn either_page_answers_and_acts_for_both() {
    let billing = Billing::start();
    let shared = Shared::start("2s", billing.endpoint());
    let mut nodes = [shared.node("node-1"), shared.node("node-2")];
    let pages = nodes.each_mut().map(|node| {
        let (page, table) = Page::new(&node.program);
        let config = node.program.directory.path().join("turnhook.toml");
        let mut config = OpenOptions::new().append(true).open(config).unwrap();
        config.write_all(table.as_bytes()).unwrap();
        node.launch();
        page
    });
    ready(&nodes);
    let coturn = shared.coturn();
    let mut call = TurnClient::udp(&coturn, "ann").call(&coturn);
    call.relay(50, 100);
    assert_eq!(call.refresh(0), 0);
    let billed = billing.ended("ann", 1)[0].billable();

    let shown = pages.each_ref().map(|page| {
        let ended = |usage: &serde_json::Value| usage["by_ends"]["sessions_ended"] == 1;
        let usage = eventually("the usage of ann", || {
            let usage = page.get("/api/v1/users/ann/usage").json();
            ended(&usage).then_some(usage)
        });
        assert_eq!(usage["by_ends"]["usage"]["billable_bytes"], billed, "{usage}");
        assert_eq!(usage["by_deltas"]["usage"]["billable_bytes"], billed, "{usage}");
        let nodes = page.get("/nodes").body;
        assert!(
            nodes.contains("node-1") && nodes.contains("node-2") && nodes.contains("eu-1"),
            "{nodes}"
        );
        let nodes = page.get("/api/v1/nodes").json();
        let leads = nodes["items"].as_array().unwrap().iter();
        let leads: Vec<_> = leads
            .filter(|node| node["leads"] == serde_json::json!(["eu-1"]))
            .collect();
        assert_eq!(leads.len(), 1, "{nodes}");
        let csv = page.get("/api/v1/nodes?format=csv").body;
        assert!(csv.lines().count() == 3 && csv.contains("node-2"), "{csv}");
        assert!(
            !page.get("/").body.contains("different versions"),
            "they are of one version"
        );
        (page.get("/users/ann").body, page.get("/sessions?user=ann").body)
    });
    assert_eq!(shown[0], shown[1], "both say the same of a user");

    // What is done at one page is seen at the other, and done by the other's node.
    assert_eq!(
        pages[0].post("/users/bob/block", "for=1h&reason=balance").status,
        303
    );
    assert!(
        pages[1]
            .get("/users/bob")
            .body
            .contains("Blocked in every realm until")
    );
    assert_eq!(
        pages[1].post("/endpoints/billing/pause", "reason=move").status,
        303
    );
    for node in &nodes {
        eventually("the pause at each node", || {
            (node.says("/endpoints/billing/state") == "paused").then_some(())
        });
    }
    assert_eq!(pages[0].post("/endpoints/billing/resume", "").status, 303);
    assert_eq!(pages[1].post("/users/bob/unblock", "").status, 303);
    for page in &pages {
        let audit = page.get("/api/v1/audit").json();
        let did: Vec<&str> = audit["items"]
            .as_array()
            .unwrap()
            .iter()
            .filter_map(|entry| entry["action"].as_str())
            .collect();
        assert_eq!(did, ["unblock", "resume", "pause", "block"], "{audit}");
        assert!(page.get("/blocks").body.contains("Nobody is."));
    }
}
