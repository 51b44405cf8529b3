//! Correct, wrong and repeated requests.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::time::{SystemTime, UNIX_EPOCH};

use axum::{
    Router,
    body::Body,
    http::{Request, StatusCode},
};
use http_body_util::BodyExt;
use serde_json::{Value, json};
use standardwebhooks::Webhook;
use tower::ServiceExt;
use turnhook_receiver_example::{Books, router};

const SECRET: &str = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw";
const OLD: &str = "whsec_AAECAwQFBgcICQoLDA0ODxAREhMUFRYX";
const STRANGER: &str = "whsec_Ly4vLi8uLy4vLi8uLy4vLi8uLy4vLi8u";

fn receiver() -> Router {
    let secrets = [SECRET, OLD].map(|secret| Webhook::new(secret).unwrap()).into();
    router(secrets, Books::open(":memory:").unwrap())
}

fn now() -> i64 {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap()
        .as_secs()
        .try_into()
        .unwrap()
}

struct Sent<'a> {
    id: &'a str,
    body: String,
    secret: &'a str,
    timestamp: i64,
}

fn sent(id: &str, body: String) -> Sent<'_> {
    Sent {
        id,
        body,
        secret: SECRET,
        timestamp: now(),
    }
}

fn end(billable_bytes: u64, more: &Value) -> String {
    let mut data = json!({ "realm": "example.org", "user": "cust_42", "continues": null, "accuracy": "exact", "unknown": [1],
                           "usage": { "billable_bytes": billable_bytes } });
    data.as_object_mut()
        .unwrap()
        .extend(more.as_object().unwrap().clone());
    json!({ "type": "session.end", "data": data }).to_string()
}

async fn post(receiver: &Router, sent: Sent<'_>) -> (StatusCode, Value) {
    let signature = Webhook::new(sent.secret)
        .unwrap()
        .sign(sent.id, sent.timestamp, sent.body.as_bytes())
        .unwrap();
    let request = Request::post("/turn")
        .header("webhook-id", sent.id)
        .header("webhook-timestamp", sent.timestamp)
        .header("webhook-signature", signature)
        .body(Body::from(sent.body));
    answer(receiver, request.unwrap()).await
}

async fn answer(receiver: &Router, request: Request<Body>) -> (StatusCode, Value) {
    let response = receiver.clone().oneshot(request).await.unwrap();
    let status = response.status();
    let body = response.into_body().collect().await.unwrap().to_bytes();
    (status, serde_json::from_slice(&body).unwrap_or_default())
}

async fn usage(receiver: &Router) -> Value {
    answer(receiver, Request::get("/usage").body(Body::empty()).unwrap())
        .await
        .1
}

#[tokio::test]
async fn an_event_counts_once_however_often_it_comes() {
    let receiver = receiver();
    for new in [true, false, false] {
        let (status, body) = post(&receiver, sent("evt_1", end(540_000, &json!({})))).await;
        assert_eq!((status, body), (StatusCode::OK, json!({ "new": new })));
    }
    post(
        &receiver,
        sent(
            "evt_2",
            end(400, &json!({ "continues": "ses_1", "accuracy": "lower_bound" })),
        ),
    )
    .await;
    post(&receiver, sent("evt_3", end(1, &json!({ "user": null })))).await;
    assert_eq!(
        usage(&receiver).await,
        json!([
            { "realm": "example.org", "realm_base64": null, "user": "cust_42", "user_base64": null,
              "sessions": 1, "billable_bytes": 540_400, "lower_bound_sessions": 1 },
            { "realm": "example.org", "realm_base64": null, "user": null, "user_base64": null,
              "sessions": 1, "billable_bytes": 1, "lower_bound_sessions": 0 },
        ])
    );
}

#[tokio::test]
async fn who_looks_alike_is_not_the_same() {
    let receiver = receiver();
    let people = [
        json!({ "user": "alice" }),
        json!({ "user": "alice", "realm": "other.example" }),
        json!({ "user": "alice", "realm": null }),
        json!({ "user": null }),
        json!({ "user": "(unknown)" }),
        json!({ "user": "null" }),
        json!({ "user": "M\u{fffd}ller", "user_base64": "TfxsbGVy" }),
        json!({ "user": "M\u{fffd}ller", "user_base64": "TfZsbGVy" }),
        json!({ "user": "M\u{fffd}ller" }),
    ];
    for (billable, one) in (0u64..).zip(&people) {
        let id = format!("evt_{billable}");
        assert_eq!(
            post(&receiver, sent(&id, end(billable, one))).await.0,
            StatusCode::OK
        );
    }
    let accounts = usage(&receiver).await;
    let mut sums: Vec<u64> = accounts
        .as_array()
        .unwrap()
        .iter()
        .map(|account| account["billable_bytes"].as_u64().unwrap())
        .collect();
    sums.sort_unstable();
    assert_eq!(sums, (0..9).collect::<Vec<u64>>());
}

#[tokio::test]
async fn wrong_requests_are_refused_and_count_nothing() {
    let receiver = receiver();
    let body = || end(1, &json!({}));
    for wrong in [
        Sent {
            secret: STRANGER,
            ..sent("evt_1", body())
        },
        Sent {
            timestamp: now() - 310,
            ..sent("evt_1", body())
        },
        Sent {
            timestamp: now() + 310,
            ..sent("evt_1", body())
        },
    ] {
        assert_eq!(post(&receiver, wrong).await.0, StatusCode::UNAUTHORIZED);
    }
    let signature = Webhook::new(SECRET)
        .unwrap()
        .sign("evt_1", now(), body().as_bytes())
        .unwrap();
    for (id, sent) in [("evt_2", body()), ("evt_1", end(2, &json!({})))] {
        let request = Request::post("/turn")
            .header("webhook-id", id)
            .header("webhook-timestamp", now())
            .header("webhook-signature", &signature)
            .body(Body::from(sent));
        assert_eq!(
            answer(&receiver, request.unwrap()).await.0,
            StatusCode::UNAUTHORIZED
        );
    }
    let bare = Request::post("/turn").body(Body::from(body())).unwrap();
    assert_eq!(answer(&receiver, bare).await.0, StatusCode::UNAUTHORIZED);
    assert_eq!(usage(&receiver).await, json!([]));
}

#[tokio::test]
async fn both_secrets_of_a_rotation_will_do() {
    let receiver = receiver();
    let old = Sent {
        secret: OLD,
        ..sent("evt_1", end(1, &json!({})))
    };
    assert_eq!(post(&receiver, old).await.0, StatusCode::OK);
}

#[tokio::test]
async fn trials_are_accepted_and_bill_nobody() {
    let receiver = receiver();
    let trial = sent("evt_test_1", end(540_000, &json!({})));
    assert_eq!(post(&receiver, trial).await.0, StatusCode::OK);
    let mut marked: Value = serde_json::from_str(&end(540_000, &json!({}))).unwrap();
    marked["test"] = json!(true);
    let trial = sent("evt_1", marked.to_string());
    assert_eq!(post(&receiver, trial).await.0, StatusCode::OK);
    assert_eq!(usage(&receiver).await, json!([]));
}

#[tokio::test]
async fn what_it_does_not_know_is_accepted_and_what_makes_no_sense_is_for_a_person() {
    let receiver = receiver();
    for body in [
        r#"{"type":"endpoint.ping","data":{}}"#,
        r#"{"type":"session.start","data":{"user":null}}"#,
    ] {
        assert_eq!(
            post(&receiver, sent(body, body.to_owned())).await.0,
            StatusCode::OK,
            "{body}"
        );
    }
    for body in ["not json", r#"{"type":"session.end","data":{}}"#] {
        let (status, _) = post(&receiver, sent("evt_1", body.to_owned())).await;
        assert_eq!(status, StatusCode::UNPROCESSABLE_ENTITY, "{body}");
    }
    assert_eq!(
        post(&receiver, sent("evt_1", end(1, &json!({})))).await.1,
        json!({ "new": true })
    );
}
