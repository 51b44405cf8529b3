//! The plain course of things.

use std::collections::HashMap;

use http::HeaderMap;
use turnhook_reducer::outbox::Next;

use crate::{
    harness::{Harness, SECRET, config, deliveries, delivery},
    receiver::{Received, Receiver, Reply, wait_for},
};

/// As an independent receiver checks it.
pub(crate) fn verifies(secret: &str, request: &Received) -> bool {
    let mut headers = HeaderMap::new();
    for name in ["webhook-id", "webhook-timestamp", "webhook-signature"] {
        headers.insert(name, request.header(name).parse().unwrap());
    }
    standardwebhooks::Webhook::new(secret)
        .unwrap()
        .verify(&request.body, &headers)
        .is_ok()
}

/// For each session the sequence numbers in the order in which they arrived, repeats left out.
pub(crate) fn sequences(received: &[Received]) -> HashMap<u64, Vec<u64>> {
    let mut by_session: HashMap<u64, Vec<u64>> = HashMap::new();
    for request in received {
        let body: serde_json::Value = serde_json::from_slice(&request.body).unwrap();
        let seen = by_session.entry(body["session"].as_u64().unwrap()).or_default();
        let sequence = body["sequence"].as_u64().unwrap();
        if !seen.contains(&sequence) {
            seen.push(sequence);
        }
    }
    by_session
}

#[tokio::test(flavor = "multi_thread")]
async fn signed_posts_in_order_over_kept_connections() {
    let receiver = Receiver::start(|_| Reply::Status(204)).await;
    let mut config = config("billing", &receiver.url());
    config
        .headers
        .push(("authorization".into(), "Bearer s3cr3t-token".into()));
    let harness = Harness::start(vec![config]);
    harness.commit("billing", deliveries(20, 10));
    harness.drained("billing").await;

    let received = receiver.received().clone();
    assert_eq!(received.len(), 200);
    for request in &received {
        assert_eq!(request.line, "POST /turn HTTP/1.1");
        assert_eq!(request.header("content-type"), "application/json");
        assert_eq!(request.header("authorization"), "Bearer s3cr3t-token");
        assert!(request.header("user-agent").starts_with("turnhook/"));
        assert!(verifies(SECRET, request));
    }
    for (session, sequence) in sequences(&received) {
        assert_eq!(sequence, (0..10).collect::<Vec<_>>(), "session {session}");
    }
    // The pool opens one more now and then while another falls idle.
    assert!(
        receiver.connections() <= 100,
        "{} connections",
        receiver.connections()
    );
    let outcomes = harness.outcomes();
    assert_eq!(outcomes.len(), 200);
    assert!(
        outcomes
            .iter()
            .all(|o| o.next == Next::Done && o.attempt == 1 && o.status == Some(204))
    );
    assert!(outcomes.iter().all(|o| o.error.is_none()));
    let status = harness.status("billing");
    assert_eq!((status.in_memory, status.in_flight, status.behind), (0, 0, false));
    assert!(status.last_success_at.is_some() && status.last_error.is_none());
}

#[tokio::test(flavor = "multi_thread")]
async fn every_secret_signs() {
    let other = "whsec_AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=";
    let receiver = Receiver::start(|_| Reply::Status(200)).await;
    let mut config = config("billing", &receiver.url());
    config
        .secrets
        .insert(0, turnhook_dispatcher::signature::Secret::parse(other).unwrap());
    let harness = Harness::start(vec![config]);
    harness.commit("billing", vec![delivery(1, 1, 0)]);
    harness.drained("billing").await;
    let request = receiver.received()[0].clone();
    assert!(verifies(SECRET, &request) && verifies(other, &request));
    assert!(!verifies(
        "whsec_BAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=",
        &request
    ));
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_pending_at_start_is_read_and_delivered() {
    let receiver = Receiver::start(|_| Reply::Status(200)).await;
    // More than memory holds, committed while the receiver is away.
    receiver.go_down();
    let harness = Harness::start(vec![config("billing", &receiver.url())]);
    for part in deliveries(250, 24).chunks(1000) {
        harness.commit("billing", part.to_vec());
    }
    assert!(wait_for(|| harness.status("billing").behind.then_some(true)).await);
    receiver.come_back().await;
    harness.drained("billing").await;
    let received = receiver.received().clone();
    for (session, sequence) in sequences(&received) {
        assert_eq!(sequence, (0..24).collect::<Vec<_>>(), "session {session}");
    }
    wait_for(|| (!harness.status("billing").behind).then_some(())).await;
}
