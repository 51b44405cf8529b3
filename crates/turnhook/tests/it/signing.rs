//! Signatures, as receivers verify them.

use crate::harness::{
    eventually,
    feeder::Feeder,
    program::{Program, SECRET, endpoint},
    receiver::{Receiver, Reply},
};

/// While a secret is changed for another both sign, so that a receiver with either verifies.
#[tokio::test(flavor = "multi_thread")]
async fn all_secrets_sign() {
    const NEXT: &str = "whsec_C2FVsBQIhrscChlQIMV+b5sSYspob7oD";
    let receiver = Receiver::start(|_| Reply::Status(200)).await;
    let mut program = Program::new(&endpoint(
        "billing",
        &receiver.url(),
        &format!("secrets = [\"{NEXT}\", \"{SECRET}\"]\n"),
    ));
    program.start();
    Feeder::connect(program.source).call("alice", 1);
    let verified = |secret: &str| {
        let verifier = standardwebhooks::Webhook::new(secret).unwrap();
        let received = receiver.received();
        let mut all = received.iter();
        all.all(|request| {
            let mut headers = http::HeaderMap::new();
            for name in ["webhook-id", "webhook-timestamp", "webhook-signature"] {
                headers.insert(name, request.header(name).parse().unwrap());
            }
            verifier.verify(&request.body, &headers).is_ok()
        })
    };
    eventually("two webhooks", || (receiver.received().len() == 2).then_some(()));
    assert!(verified(SECRET) && verified(NEXT));
    assert!(!verified("whsec_AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA"));
    assert_eq!(
        receiver.received()[0]
            .header("webhook-signature")
            .split(' ')
            .count(),
        2
    );

    let tested = program.ask(&["endpoints", "test", "billing"]);
    assert!(tested.starts_with("200 OK in "), "{tested}");
    {
        let received = receiver.received();
        let ping = received.last().unwrap();
        assert!(ping.id().starts_with("evt_test_"), "{}", ping.id());
        let ping: serde_json::Value = serde_json::from_slice(&ping.body).unwrap();
        assert_eq!(
            (&ping["type"], &ping["test"]),
            (&"endpoint.ping".into(), &true.into())
        );
    }
    assert!(verified(SECRET) && verified(NEXT));
}
