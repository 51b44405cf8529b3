//! A store with sessions of hostile names, and requests to the router without a socket.

use std::{sync::Arc, time::Duration};

use axum::{Router, body::Body, http::Request};
use base64::{Engine as _, engine::general_purpose::STANDARD};
use http_body_util::BodyExt as _;
use tower::ServiceExt as _;
use turnhook_admin::{
    Access, Admin, EndpointNow, Engine, History, Role, Routes, Sample, ServerNow, SourceNow, StatusNow,
    StoreNow, Trial, Trying, make_user,
};
use turnhook_reducer::{
    event::{
        Accuracy, CloseReason, EventId, EventType, SessionEnd, SessionEvent, SessionId, Unattributed,
        UnattributedReason,
    },
    message::AllocationId,
    source::{Gap, GapReason},
    time::Timestamp,
    usage::Usage,
};
use turnhook_store::{Commit, Mode, NewEvent, Next, Outcome, Store};

pub(crate) const T0: u64 = 1_795_413_657_000;
const PASSWORD: &str = "correct horse";

/// Markup, control characters, right to left, not UTF-8, and as long as they come.
pub(crate) fn hostile() -> Vec<Vec<u8>> {
    vec![
        b"<script>alert(1)</script>".to_vec(),
        b"\"'><img src=x onerror=alert(1)>&amp;/..%2f?a=b#c".to_vec(),
        b"a\x1b[2J\x00\r\n\x7fb".to_vec(),
        "\u{202e}gpj.exe\u{2066}\u{200b}".as_bytes().to_vec(),
        b"\xff\xfe\xc0".to_vec(),
        b"x".repeat(512),
    ]
}

pub(crate) struct Fixture {
    pub(crate) store: Store,
    router: Router,
    _folder: tempfile::TempDir,
}

pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) location: String,
    pub(crate) body: String,
}

struct Fake;

impl Engine for Fake {
    fn status(&self) -> StatusNow {
        let evil = String::from_utf8_lossy(&hostile()[0]).into_owned();
        StatusNow {
            version: "0.0.0".to_owned(),
            uptime_seconds: 5,
            store: StoreNow {
                writable: true,
                reachable: true,
                ..StoreNow::default()
            },
            sources: vec![SourceNow {
                name: "eu-1".to_owned(),
                r#type: "direct".to_owned(),
                state: "listening".to_owned(),
                role: "leader".to_owned(),
                ready: true,
                last_error: Some(evil.clone()),
                silent_threads: vec![3],
                ignored: vec![("bad_key".to_owned(), 2)],
                ended: vec![("closed".to_owned(), "exact".to_owned(), 6)],
                controlled: true,
                servers: vec![ServerNow {
                    server: evil.clone(),
                    state: "connected".to_owned(),
                    since: Timestamp(T0),
                }],
                ..SourceNow::default()
            }],
            endpoints: vec![EndpointNow {
                name: "billing".to_owned(),
                state: "failing".to_owned(),
                reason: Some(evil.clone()),
                dead_letters: 3,
                outcomes: vec![("delivered".to_owned(), 7)],
                settings: serde_json::json!({ "url": "https://billing.example.com/turn", "x": evil }),
                ..EndpointNow::default()
            }],
            node: None,
        }
    }

    fn try_endpoint<'a>(&'a self, name: &'a str, sample: Sample) -> Trying<'a> {
        let evil = String::from_utf8_lossy(&hostile()[1]).into_owned();
        let trial = match (name, sample.event_type) {
            ("billing", None) => Some(Trial {
                sent: "evt_test_1".to_owned(),
                status: Some(204),
                latency_ms: 1234,
                ..Trial::default()
            }),
            ("billing", Some(event_type)) => Some(Trial {
                sent: format!("{} {}", event_type.as_str(), sample.case),
                status: Some(401),
                answer: hostile()[2].clone(),
                error: Some(evil.clone()),
                means: "An event to which this happens is tried again.".to_owned(),
                requests: vec![evil],
                ..Trial::default()
            }),
            _ => None,
        };
        Box::pin(async { trial })
    }

    fn user_of(&self, username: &[u8]) -> Option<Vec<u8>> {
        username.splitn(2, |b| *b == b':').nth(1).map(<[u8]>::to_vec)
    }
}

pub(crate) fn session(n: u64) -> SessionId {
    SessionId(id(n, 0))
}

fn id(n: u64, sequence: u8) -> [u8; 16] {
    let mut id = [0; 16];
    id[..6].copy_from_slice(&(T0 + n * 1000).to_be_bytes()[2..]);
    id[8..15].copy_from_slice(&n.to_be_bytes()[1..]);
    id[15] = sequence;
    id
}

pub(crate) fn event(n: u64, user: &[u8], end: bool) -> SessionEvent {
    SessionEvent {
        id: EventId(id(n, 1 + u8::from(end))),
        event_type: if end { EventType::End } else { EventType::Start },
        timestamp: Timestamp(T0 + n * 1000 + u64::from(end) * 500),
        session_id: session(n),
        sequence: u32::from(end),
        continues: (n == 3).then(|| session(2)),
        source: "eu-1".into(),
        realm: user.into(),
        user: Some(user.into()),
        usernames: vec![user.into()],
        labels: vec![("tenant".into(), user.into())],
        started_at: Timestamp(T0 + n * 1000),
        end: end.then_some(SessionEnd {
            ended_at: Timestamp(T0 + n * 1000 + 500),
            reason: CloseReason::Closed,
            accuracy: if n == 2 {
                Accuracy::LowerBound
            } else {
                Accuracy::Exact
            },
        }),
        usage: Usage::from([1, 2, 3, 4, 5, 6, 7, 8, 9000 + n]),
        usage_delta: if end {
            Usage::from([1, 2, 3, 4, 5, 6, 7, 8, 9000 + n])
        } else {
            Usage::default()
        },
        duration_ms: None,
        peer_leg: true,
        billable: turnhook_reducer::usage::Billable::Relayed,
        allocations: Vec::new(),
        allocations_omitted: 0,
        block_reason: None,
    }
}

fn at(n: u64, ms: u64) -> String {
    let at = jiff::Timestamp::from_millisecond(i64::try_from(T0 + n * 1000 + ms).unwrap()).unwrap();
    format!("{at:.3}")
}

impl Fixture {
    /// Six sessions that ended, of hostile users; all of their events are dead letters.
    pub(crate) async fn new() -> Fixture {
        let folder = tempfile::tempdir().unwrap();
        let store = Store::open(folder.path().join("turnhook.db"), Mode::Run)
            .await
            .unwrap();
        let ids = store
            .outbox()
            .set_endpoints(&["billing"], Timestamp(T0))
            .await
            .unwrap();
        let source = store.state().source("eu-1").await.unwrap();
        for (n, user) in (1..).zip(hostile()) {
            let mut commit = Commit::new(source, Timestamp(T0 + n * 1000));
            for end in [false, true] {
                let event = event(n, &user, end);
                let body = serde_json::json!({ "data": { "billable": "relayed", "allocations": [{
                    "id": "000000000000000001", "client_address": "203.0.113.7:4000", "transport": String::from_utf8_lossy(&user),
                    "opened_at": at(n, 100), "closed_at": end.then(|| at(n, 400)),
                    "usage": { "client": { "received_bytes": 1234, "sent_bytes": 5678 }, "peer": null },
                }] } });
                commit.events.push(NewEvent {
                    event,
                    body: body.to_string().into_bytes().into(),
                    endpoints: ids.clone().into(),
                });
            }
            if n == 2 {
                commit.gaps.push(Gap {
                    from: Timestamp(T0 + n * 1000 + 200),
                    to: Timestamp(T0 + n * 1000 + 300),
                    reason: GapReason::Reconnect,
                    server: Some(user.as_slice().into()),
                });
            }
            commit.unattributed.push(Unattributed {
                at: Timestamp(T0 + n * 1000),
                server: Some(user.as_slice().into()),
                allocation: AllocationId(n),
                realm: user.as_slice().into(),
                username: user.as_slice().into(),
                opened_at: Timestamp(T0),
                usage: Usage::default(),
                reason: UnattributedReason::Residue,
            });
            let committed = store.state().commit(commit).await.unwrap();
            let outcomes = committed.deliveries.iter().map(|delivery| Outcome {
                endpoint: "billing".into(),
                delivery: delivery.id,
                event_id: delivery.event_id,
                session: delivery.session_id,
                event_type: delivery.event_type,
                decided_at: delivery.timestamp,
                at: Timestamp(T0 + n * 1000),
                attempt: 1,
                tried_for: Duration::ZERO,
                status: Some(500),
                latency: Duration::from_millis(12),
                error: Some("it said 500".to_owned()),
                answer: user.clone().into(),
                next: Next::Dead(String::from_utf8_lossy(&user).replace('\0', "").leak()),
                label: "rejected",
                sent: turnhook_store::Sent::default(),
            });
            store.outbox().record(outcomes.collect()).await.unwrap();
        }
        Fixture::of(store, folder)
    }

    /// Over a store that is there.
    pub(crate) fn over(store: Store) -> Fixture {
        Fixture::of(store, tempfile::tempdir().unwrap())
    }

    fn of(store: Store, folder: tempfile::TempDir) -> Fixture {
        let users = folder.path().join("users");
        let lines = [("vera", Role::Viewer), ("otto", Role::Operator)]
            .map(|(name, role)| make_user(name, role, &PASSWORD.to_owned().into()).unwrap() + "\n");
        std::fs::write(&users, lines.concat()).unwrap();
        let access = Access::new(Some(users), None, false).unwrap();
        let admin = Admin {
            ledger: store.ledger().clone(),
            changes: store.admin().clone(),
            engine: Arc::new(Fake),
            history: Arc::new(History::default()),
        };
        Fixture {
            store,
            router: turnhook_admin::router(admin, access, Routes::default()),
            _folder: folder,
        }
    }

    pub(crate) async fn ask(&self, who: &str, method: &str, path: &str, form: &str) -> Answer {
        let basic = STANDARD.encode(format!("{who}:{PASSWORD}"));
        let request = Request::builder()
            .method(method)
            .uri(path)
            .header("host", "localhost")
            .header("authorization", format!("Basic {basic}"))
            .header("content-type", "application/x-www-form-urlencoded")
            .body(Body::from(form.to_owned()))
            .unwrap();
        let response = self.router.clone().oneshot(request).await.unwrap();
        let status = response.status().as_u16();
        let location = response
            .headers()
            .get("location")
            .map(|value| value.to_str().unwrap().to_owned());
        let body = response.into_body().collect().await.unwrap().to_bytes();
        Answer {
            status,
            location: location.unwrap_or_default(),
            body: String::from_utf8(body.to_vec()).unwrap(),
        }
    }

    pub(crate) async fn get(&self, path: &str) -> Answer {
        self.ask("otto", "GET", path, "").await
    }
}
