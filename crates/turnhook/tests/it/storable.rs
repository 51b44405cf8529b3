//! Whatever can be decoded can be committed, to both stores, and both add it up to the same.

use std::{cell::Cell, sync::Arc};

use axum::body::Bytes;
use proptest::{
    collection::vec,
    prelude::*,
    test_runner::{Config, TestRunner},
};
use turnhook_reducer::{Identity, Reducer, rules::Rules, time::Timestamp};
use turnhook_store::{
    Commit, EndpointId, Mode, NewEvent, PostgresOptions, SessionFilter, SessionRow, SourceId, Store, UsageDay,
};
use turnhook_subscriber::decode::{COUNTER_MAX, REALM_MAX, USERNAME_MAX, VALUE_MAX, decode};

use crate::harness::postgres::Postgres;

const START: u64 = 1_800_000_000_000;
const DAY: u64 = 86_400_000;

/// A message as its channel and payload, and the server that it comes from.
type Said = (Vec<u8>, Vec<u8>, Vec<u8>);

/// Of a length at the bounds, on either side, or an ordinary one; of bytes that texts and patterns do not like.
fn name(max: usize) -> impl Strategy<Value = Vec<u8>> {
    let byte = prop_oneof![Just(b'x'), Just(0), Just(0xff), Just(b'\''), Just(b':')];
    let length = prop_oneof![
        Just(0),
        Just(1),
        Just(max / 2),
        Just(max),
        Just(max + 1),
        0..20usize
    ];
    // One byte repeated packs well; different ones do not, and an index must hold these as well.
    (byte, length, any::<u64>(), any::<bool>()).prop_map(|(byte, length, seed, mixed)| {
        let mut n = seed | 1;
        let mut next = || {
            n ^= n << 13;
            n ^= n >> 7;
            n ^= n << 17;
            (n >> 32) as u8
        };
        let bytes = (0..length).map(|_| if mixed { next() } else { byte });
        bytes.map(|b| if b == b'/' { b'.' } else { b }).collect()
    })
}

fn counter() -> impl Strategy<Value = u64> {
    prop_oneof![
        Just(0),
        Just(1),
        Just(COUNTER_MAX - 1),
        Just(COUNTER_MAX),
        Just(COUNTER_MAX + 1),
        Just(u64::MAX),
        any::<u32>().prop_map(u64::from)
    ]
}

fn payload() -> impl Strategy<Value = (&'static str, Vec<u8>)> {
    let counters = [counter(), counter(), counter(), counter()]
        .prop_map(|[a, b, c, d]| format!("rcvp={a}, rcvb={b}, sentp={c}, sentb={d}").into_bytes());
    let kind = prop_oneof![
        Just("traffic"),
        Just("traffic/peer"),
        Just("total_traffic"),
        Just("total_traffic/peer")
    ];
    let status = (any::<bool>(), 0..4000u32, name(VALUE_MAX), name(VALUE_MAX)).prop_map(
        |(new, lifetime, local, remote)| {
            let word = if new { "new" } else { "refreshed" };
            let mut payload = format!("{word} lifetime={lifetime}, type=UDP, local=").into_bytes();
            payload.extend(local);
            payload.extend(b", remote=");
            payload.extend(remote);
            ("status", payload)
        },
    );
    prop_oneof![
        2 => status,
        1 => Just(("status", b"deleted".to_vec())),
        5 => (kind, counters),
    ]
}

/// A few allocations of a few users, of which much is said.
fn history() -> impl Strategy<Value = Vec<Said>> {
    let people = vec((name(REALM_MAX), name(USERNAME_MAX), name(1500)), 1..4);
    let said = vec((any::<prop::sample::Index>(), 1..4u64, payload()), 1..60);
    (people, said).prop_map(|(people, said)| {
        let message = |(who, id, (kind, payload)): (prop::sample::Index, u64, _)| {
            let (realm, username, server) = who.get(&people);
            (channel(realm, username, id, kind), payload, server.clone())
        };
        said.into_iter().map(message).collect()
    })
}

fn channel(realm: &[u8], username: &[u8], id: u64, kind: &str) -> Vec<u8> {
    let mut channel = b"turn/".to_vec();
    if !realm.is_empty() {
        channel.extend([b"realm/", realm, b"/"].concat());
    }
    channel.extend(
        [
            b"user/",
            username,
            format!("/allocation/{id:018}/{kind}").as_bytes(),
        ]
        .concat(),
    );
    channel
}

struct Both {
    stores: [(Store, SourceId, Arc<[EndpointId]>); 2],
    at: Cell<u64>,
}

impl Both {
    /// Hears it, lets all of it end, and commits it.
    async fn hear(&self, history: &[Said]) {
        let identity = Identity {
            store: [7; 16],
            source: "eu-1".into(),
        };
        let rules = Rules {
            direct: true,
            ..Rules::default()
        };
        let mut reducer = Reducer::new(identity, rules);
        let mut at = self.at.get();
        reducer.hearing(Timestamp(at));
        for (channel, payload, server) in history {
            at += 100;
            if let Ok(message) = decode(channel, payload) {
                let server = reducer.server(server);
                reducer.message(Timestamp(at), server, &message);
            }
        }
        // Past all lifetimes and all that is waited for.
        at += 3 * DAY;
        reducer.advance(Timestamp(at));
        let output = reducer.drain(true);
        for (store, source, endpoints) in &self.stores {
            let mut commit = Commit::new(*source, Timestamp(at));
            commit.changes.clone_from(&output.changes);
            commit.unattributed.clone_from(&output.unattributed);
            let events = output.events.iter().cloned().map(|event| NewEvent {
                event,
                body: Bytes::from_static(b"{}"),
                endpoints: Arc::clone(endpoints),
            });
            commit.events = events.collect();
            store.state().commit(commit).await.unwrap();
            assert_eq!(store.state().refused(), 0, "on {}", store.describe());
        }
        self.at.set(at + DAY);
    }

    async fn compare(&self) -> Vec<UsageDay> {
        let mut found: Vec<(Vec<SessionRow>, Vec<UsageDay>)> = Vec::new();
        for (store, ..) in &self.stores {
            let sessions = store
                .ledger()
                .sessions(SessionFilter::default(), None, 1 << 20)
                .await
                .unwrap();
            found.push((
                sessions,
                store
                    .ledger()
                    .usage_by_day(0, u32::MAX, None, 1 << 20)
                    .await
                    .unwrap(),
            ));
        }
        let (postgres, sqlite) = (found.pop().unwrap(), found.pop().unwrap());
        assert_eq!(sqlite.0, postgres.0);
        assert_eq!(sqlite.1, postgres.1);
        sqlite.1
    }
}

#[test]
fn what_decodes_can_be_committed_to_both_stores() {
    let server = Postgres::start();
    let url = server.url(&server.database());
    let dir = tempfile::tempdir().unwrap();
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let both = runtime.block_on(async {
        let mut options = PostgresOptions::new(url.as_str());
        options.lease = std::time::Duration::from_secs(300);
        let stores = [
            Store::open(dir.path().join("turnhook.db"), Mode::Run)
                .await
                .unwrap(),
            Store::connect(options, Mode::Run).await.unwrap(),
        ];
        let mut opened = Vec::new();
        for store in stores {
            let source = store.state().source("eu-1").await.unwrap();
            let endpoints = store
                .outbox()
                .set_endpoints(&["billing"], Timestamp(START))
                .await
                .unwrap();
            opened.push((store, source, endpoints.into()));
        }
        Both {
            stores: opened
                .try_into()
                .unwrap_or_else(|_| unreachable!("there are two")),
            at: Cell::new(START),
        }
    });
    let mut runner = TestRunner::new(Config {
        cases: 48,
        failure_persistence: None,
        ..Config::default()
    });
    let found = runner.run(&history(), |history| {
        runtime.block_on(async {
            both.hear(&history).await;
            both.compare().await;
        });
        Ok(())
    });
    if let Err(error) = found {
        panic!("{error}");
    }

    // One user's day, beyond all that a database can count.
    let most = format!("rcvp={COUNTER_MAX}, rcvb={COUNTER_MAX}, sentp={COUNTER_MAX}, sentb={COUNTER_MAX}");
    let mut calls: Vec<Said> = Vec::new();
    for id in 1..=600 {
        for (kind, payload) in [
            ("status", "new lifetime=600"),
            ("status", "deleted"),
            ("total_traffic", &most),
            ("total_traffic/peer", &most),
        ] {
            calls.push((
                channel(b"example.org", b"cust_42", id, kind),
                payload.into(),
                b"10.0.0.7/-/0".to_vec(),
            ));
        }
    }
    runtime.block_on(async {
        let mut days = Vec::new();
        for _ in 0..2 {
            // The same day for both, so that the sums of two commits meet.
            let at = both.at.get();
            both.hear(&calls).await;
            both.at.set(at + 1000);
            days = both.compare().await;
        }
        let largest = days.iter().map(|day| day.usage.billable_bytes).max();
        assert_eq!(largest, Some(i64::MAX as u64));
    });
}
