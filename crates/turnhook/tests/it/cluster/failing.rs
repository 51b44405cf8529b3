//! Receivers that fail in every way, while the nodes that deliver to them are killed.

use std::{
    collections::{BTreeSet, HashMap},
    sync::{
        Arc, Mutex,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use super::{books::balance, knob, random, traffic::Traffic};
use crate::{
    chaos::{Books, Random, fault},
    harness::{
        billing::Billing,
        eventually,
        nodes::{Shared, leader, ready},
        program::endpoint,
        receiver::Receiver,
    },
};

#[test]
fn each_event_is_taken_in_order_by_receivers_that_fail() {
    let kills = knob("CLUSTER_KILLS", 10) / 2;
    let mut random = random();
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(1)
        .enable_all()
        .build()
        .unwrap();
    let rate = Arc::new(AtomicU64::new(300));
    let books = Books::default();
    let receiver = {
        let (books, rate) = (books.clone(), Arc::clone(&rate));
        let faults = Mutex::new(Random(random.below(u64::MAX)));
        runtime.block_on(Receiver::start(move |request| {
            let reply = fault(&mut faults.lock().unwrap(), rate.load(Ordering::Relaxed));
            books.enter(request, &reply);
            reply
        }))
    };
    let policy = "timeout = \"400ms\"\n\
                  retry = { initial = \"30ms\", max = \"300ms\", retry_after_max = \"1s\", give_up_after = \"10h\" }\n";
    let billing = Billing::start();
    let endpoints = format!(
        "{}{}",
        billing.endpoint(),
        endpoint("failing", &receiver.url(), policy)
    );
    let shared = Shared::start("2s", endpoints);
    let mut nodes = shared.nodes(2);
    let coturn = shared.coturn();
    let ((), users) = Traffic::during(&coturn, |traffic| {
        for _ in 0..kills {
            traffic.marker(&billing, &coturn);
            std::thread::sleep(Duration::from_millis(random.below(900)));
            let victim = if random.below(2) == 0 { 0 } else { 1 };
            let down = random.below(2) == 0;
            if down {
                receiver.go_down();
            }
            nodes[victim].kill();
            assert_eq!(leader(&nodes), 1 - victim);
            std::thread::sleep(Duration::from_millis(random.below(300)));
            if down {
                runtime.block_on(receiver.come_back());
            }
            nodes[victim].launch();
            ready(&nodes);
        }
    });
    rate.store(100, Ordering::Relaxed);
    let leads = leader(&nodes);
    eventually("all deliveries", || {
        nodes[leads]
            .program
            .deliveries("pending")
            .is_empty()
            .then_some(())
    });
    balance(&shared, &nodes, &billing, &coturn, &users);

    // Each event once in effect, always the same bytes, and those are what others got.
    let taken = books.events();
    let billed = billing.webhooks();
    assert_eq!(taken.len(), billed.len());
    let mut sequences: HashMap<String, BTreeSet<u64>> = HashMap::new();
    for webhook in &billed {
        let (bytes, success) = taken.get(&webhook.id).expect("an event that never came");
        assert!(success, "{} was never taken", webhook.id);
        assert!(*bytes == webhook.bytes, "{} is other bytes", webhook.id);
        let data = &webhook.body["data"];
        let sequences = sequences
            .entry(data["session_id"].as_str().unwrap().to_owned())
            .or_default();
        sequences.insert(data["sequence"].as_u64().unwrap());
    }
    books.assert_order("failing", &sequences);
}
