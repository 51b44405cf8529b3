//! Two nodes that bill one customer at a product which takes one call at a time for each customer.

use std::fs;

use serde_json::json;

use crate::harness::{eventually, fakes::Fakes, feeder::Feeder, nodes::Shared};

/// Each node keeps to one call at a time for a customer. Where two nodes meet, the product refuses one of them, which
/// counts nothing: it comes again, and nobody is billed twice or not at all.
#[test]
fn p9_a_call_that_meets_another_nodes_is_refused_and_comes_again() {
    let fakes = Fakes::start(&["stripe"]);
    // Long enough for two calls to meet.
    fakes.switch("stripe", &json!({"chaos": {"delay:0.03": 1.0}}));
    let folder = tempfile::tempdir().unwrap();
    let map = folder.path().join("customers.csv");
    let users: Vec<String> = (0..16).map(|n| format!("user{n}")).collect();
    let lines: String = users.iter().map(|user| format!("{user},cus_1\n")).collect();
    fs::write(&map, format!("user,customer\n{lines}")).unwrap();
    let endpoint = format!(
        "[[endpoint]]\nname = \"stripe\"\ntype = \"stripe\"\nurl = \"{}\"\nbearer = \"sk_test_1\"\n\
         meters = [{{ event = \"bytes\", value = \"billable_bytes\" }}]\ncustomers_file = \"{}\"\n\
         retry = {{ initial = \"50ms\", max = \"200ms\" }}\n",
        fakes.url("stripe"),
        map.display()
    );
    let shared = Shared::start("2s", endpoint);
    let nodes = shared.nodes(2);
    let mut feeder = Feeder::connect(shared.redis.port);
    let (mut calls, mut bytes) = (0, 0);
    eventually("a call that met another's", || {
        for user in &users {
            calls += 1;
            let allocation = feeder.call(user, calls);
            bytes += allocation.peer[1] + allocation.peer[3];
        }
        let errors = fakes.state("stripe")["errors"].to_string();
        (errors.contains("concurrent") && nodes.iter().all(|node| node.accepted() > 0)).then_some(())
    });
    eventually("everything to be counted", || {
        let sums = fakes.sums("stripe");
        let sum = sums.get(&("cus_1".into(), "bytes".into(), "value".into()));
        (sum == Some(&bytes)).then_some(())
    });
    eventually("nothing to be left", || {
        let program = &nodes[0].program;
        program.deliveries("pending").is_empty().then_some(())
    });
    assert_eq!(fakes.sums("stripe").values().sum::<u64>(), bytes);
    assert_eq!(fakes.state("stripe")["counted_twice"], json!([]));
    assert_eq!(
        nodes[0].program.deliveries("dead"),
        Vec::<serde_json::Value>::new()
    );
    // Neither node took it for a failure of the endpoint.
    for node in &nodes {
        assert_eq!(node.says("/endpoints/stripe/breaker"), "closed", "{}", node.name);
    }
}
