//! An endpoint is tried from the page and by the API: by operators alone, and on record.

use serde_json::Value;

use crate::{
    support::Fixture,
    views::{check_html, encoded},
};

const PAGE: &str = "/endpoints/billing/test";
const API: &str = "/api/v1/endpoints/billing/test";

#[tokio::test]
async fn an_operator_tries_an_endpoint_and_it_is_on_record() {
    let f = Fixture::new().await;
    let view = f.get("/endpoints/billing").await.body;
    assert!(
        view.contains("action=\"/endpoints/billing/test\"") && view.contains("value=\"user.unblocked\""),
        "{view}"
    );
    let seen = f.ask("vera", "GET", "/endpoints/billing", "").await.body;
    assert!(
        !seen.contains("/test\""),
        "a viewer is offered what he may not do"
    );
    for path in [PAGE, API] {
        let refused = f.ask("vera", "POST", path, "type=session.end").await;
        assert_eq!(refused.status, 403, "{path}: {}", refused.body);
    }
    assert!(f.store.ledger().audit(None, 10).await.unwrap().is_empty());

    let well = f
        .ask("otto", "POST", PAGE, "type=endpoint.ping&case=exact&reason=")
        .await;
    assert_eq!(well.status, 200, "{}", well.body);
    check_html(PAGE, &well);
    assert!(
        well.body.contains("billing is well: it took what was sent.")
            && well.body.contains("Nobody is billed")
            && well.body.contains("1,234 ms"),
        "{}",
        well.body
    );
    let form = format!("type=session.end&case=no-user&reason={}", encoded(b"<b>"));
    let bad = f
        .ask("otto", "POST", &format!("{PAGE}?tz=Asia/Kolkata"), &form)
        .await;
    check_html(PAGE, &bad);
    assert!(
        bad.body.contains("billing is not well: ")
            && bad.body.contains("session.end no-user")
            && bad.body.contains("is tried again.")
            && bad.body.contains("What the sample would be sent as")
            && bad.body.contains("/endpoints/billing?tz=Asia%2FKolkata"),
        "{}",
        bad.body
    );
    let answer = f.ask("otto", "POST", API, "type=user.blocked").await;
    let told: Value = serde_json::from_str(&answer.body).unwrap();
    assert_eq!(
        (&told["well"], &told["status"], &told["sent"]),
        (&false.into(), &401.into(), &"user.blocked exact".into()),
        "{told}"
    );
    let told: Value = serde_json::from_str(&f.ask("otto", "POST", API, "").await.body).unwrap();
    assert_eq!(
        (&told["well"], &told["error"]),
        (&true.into(), &Value::Null),
        "{told}"
    );

    let record = f.store.ledger().audit(None, 10).await.unwrap();
    let details: Vec<&str> = record.iter().map(|entry| entry.detail.as_str()).collect();
    assert_eq!(
        details,
        [
            "endpoint.ping",
            "user.blocked",
            "session.end: <b>",
            "endpoint.ping"
        ]
    );
    let as_it_should_be = |entry: &turnhook_store::AuditEntry| {
        entry.who == "otto" && entry.action == "test" && entry.target == "billing"
    };
    assert!(record.iter().all(as_it_should_be), "{record:?}");
    check_html("/audit", &f.get("/audit").await);
}

#[tokio::test]
async fn what_cannot_be_tried_is_said() {
    let f = Fixture::new().await;
    for (path, form, status, words) in [
        (
            API,
            "type=session.other",
            400,
            "`type` is endpoint.ping or one of session.start",
        ),
        (API, "case=odd", 400, "`case` is one of exact"),
        (PAGE, "type=x", 400, "`type` is endpoint.ping"),
        ("/endpoints/%3Cb%3E/test", "", 404, "there is no endpoint"),
        ("/api/v1/endpoints/nobody/test", "", 404, "there is no endpoint"),
    ] {
        let answer = f.ask("otto", "POST", path, form).await;
        assert_eq!(answer.status, status, "{path}: {}", answer.body);
        assert!(answer.body.contains(words), "{path}: {}", answer.body);
    }
    assert!(f.store.ledger().audit(None, 10).await.unwrap().is_empty());
}
