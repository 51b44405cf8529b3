//! Sums over all users are those of the users' rows, whatever was told, and whatever has been removed.

use std::collections::BTreeMap;

use proptest::{prelude::*, strategy::ValueTree as _, test_runner::TestRunner};
use turnhook_reducer::{event::Accuracy, usage::Usage};
use turnhook_store::{Commit, Mode, QUARTER_MS, Store, SummedBy, Sums, Unit, UsageFilter, UsageQuarter};

use crate::support::{Backend, Fixture, T0, at, event};

crate::support::on_both! {
    sums_over_all_are_those_of_the_users,
    whoever_looks_meanwhile_sees_both_or_neither,
}

const DAY: u64 = 96 * QUARTER_MS;
/// Usage is kept for so many days longer than what it was summed from.
const KEPT: u64 = 400;

/// What one event says.
#[derive(Clone, Debug)]
struct Told {
    /// Milliseconds.
    at: u64,
    other_source: bool,
    realm: usize,
    user: usize,
    /// A start, a usage, an end, an end that is a lower bound.
    kind: u32,
    delta: u64,
}

const REALMS: [&[u8]; 3] = [b"", b"a", b"\xff\x00"];
const USERS: [&str; 6] = ["", "anna", "bert", "c\u{0}\u{ff}", "dora", "emil"];

fn told() -> impl Strategy<Value = Told> {
    let delta = prop_oneof![
        8 => 0..1_000_000u64,
        1 => (i64::MAX as u64 - 1000)..=u64::MAX,
    ];
    (
        0..3 * DAY,
        any::<bool>(),
        0..REALMS.len(),
        0..USERS.len(),
        0..4u32,
        delta,
    )
        .prop_map(|(at, other_source, realm, user, kind, delta)| Told {
            at,
            other_source,
            realm,
            user,
            kind,
            delta,
        })
}

/// Some commits of a few events each.
fn ledger() -> impl Strategy<Value = Vec<Vec<Told>>> {
    prop::collection::vec(prop::collection::vec(told(), 1..12), 1..8)
}

/// What a row can hold.
fn held(sums: Sums) -> Sums {
    let most = |n: u64| n.min(i64::MAX as u64);
    Sums {
        started: most(sums.started),
        ended: most(sums.ended),
        lower_bound: most(sums.lower_bound),
        duration_ms: most(sums.duration_ms),
        usage: Usage::from(<[u64; 9]>::from(sums.usage).map(most)),
    }
}

async fn users(store: &Store) -> Vec<UsageQuarter> {
    let everything = UsageFilter::default();
    store
        .ledger()
        .usage_by_quarter(everything, 0, u64::MAX, None, 100_000)
        .await
        .unwrap()
}

type Key = (u64, String, Vec<u8>);

/// Sums over all users, as they are kept, against the users' rows.
async fn agree(store: &Store) {
    let mut want: BTreeMap<Key, Sums> = BTreeMap::new();
    for row in users(store).await {
        let sum = want.entry((row.quarter, row.source, row.realm)).or_default();
        *sum = held(sum.plus(row.sums));
    }
    let everything = UsageFilter::default();
    let found = store
        .ledger()
        .usage_summed(Unit::Quarter, SummedBy::Time, &everything, (0, u64::MAX))
        .await
        .unwrap();
    let found: BTreeMap<Key, Sums> = found
        .into_iter()
        .map(|row| ((row.at, row.source, row.realm), row.sums))
        .collect();
    assert_eq!(found, want);
}

/// The users with the most in a span of quarters, by the sums of all their rows there.
async fn most_in(store: &Store, (from, to): (u64, u64)) {
    let mut want: BTreeMap<Vec<u8>, Sums> = BTreeMap::new();
    for row in users(store).await {
        if (from..to).contains(&row.quarter) {
            let sum = want.entry(row.user.unwrap_or_default()).or_default();
            *sum = sum.plus(row.sums);
        }
    }
    let everything = UsageFilter::default();
    let found = store
        .ledger()
        .usage_summed(
            Unit::Quarter,
            SummedBy::Users(USERS.len()),
            &everything,
            (from, to),
        )
        .await
        .unwrap();
    assert!(found.is_sorted_by_key(|row| std::cmp::Reverse(row.sums.usage.billable_bytes)));
    let found: BTreeMap<Vec<u8>, Sums> = found
        .into_iter()
        .map(|row| (row.user.unwrap_or_default(), row.sums))
        .collect();
    assert_eq!(found, want, "{from} to {to}");
}

async fn sums_over_all_are_those_of_the_users(on: &Backend) {
    let mut runner = TestRunner::deterministic();
    for _ in 0..6 {
        let commits = ledger().new_tree(&mut runner).unwrap().current();
        let f = Fixture::new(on, &[]).await;
        let sources = [f.source, f.store.state().source("us-1").await.unwrap()];
        let mut all = Sums::default();
        let mut n = 0;
        for (clock, events) in commits.into_iter().enumerate() {
            for (source, id) in sources.iter().enumerate() {
                let of_it = events
                    .iter()
                    .filter(|told| usize::from(told.other_source) == source);
                let mut made = Vec::new();
                for told in of_it {
                    n += 1;
                    let sequence = told.kind.min(1);
                    let mut event = event(
                        n,
                        told.at,
                        sequence,
                        told.at + told.delta % 1000,
                        USERS[told.user],
                        told.kind > 1,
                    );
                    event.realm = REALMS[told.realm].into();
                    event.usage_delta = Usage::from([told.delta, 1, 2, 3, 4, 5, 6, 7, told.delta]);
                    if let Some(end) = event.end.as_mut().filter(|_| told.kind == 3) {
                        end.accuracy = Accuracy::LowerBound;
                    }
                    all.started += u64::from(told.kind == 0);
                    all.ended += u64::from(told.kind > 1);
                    all.lower_bound += u64::from(told.kind == 3);
                    made.push(event);
                }
                let commit = Commit {
                    events: f.events(made),
                    ..Commit::new(*id, at(clock as u64))
                };
                f.store.state().commit(commit).await.unwrap();
            }
            agree(&f.store).await;
        }
        let rows = users(&f.store).await;
        let sum = rows.iter().fold(Sums::default(), |sum, row| sum.plus(row.sums));
        assert_eq!(
            (sum.started, sum.ended, sum.lower_bound),
            (all.started, all.ended, all.lower_bound)
        );
        // Within a day, days and parts of them, whole days, all.
        let first = T0 / QUARTER_MS;
        let day = T0 / DAY * 96;
        for span in [
            (first + 3, first + 9),
            (first + 3, first + 150),
            (first + 90, first + 290),
            (day + 96, day + 192),
            (0, u64::MAX),
            (first, first),
        ] {
            most_in(&f.store, span).await;
        }
        // A day at a time, in steps of a few rows: after each of them, too.
        let mut last = rows.len();
        for days in 1..5 {
            let before = at((KEPT + days) * DAY);
            while f.store.admin().trim(before, 3).await.unwrap().more {
                agree(&f.store).await;
            }
            let left = users(&f.store).await;
            let oldest = (T0 / DAY + days) * 96;
            assert!(left.iter().all(|row| row.quarter >= oldest));
            assert_eq!(
                left.len(),
                rows.iter().filter(|row| row.quarter >= oldest).count()
            );
            assert!(left.len() <= last);
            last = left.len();
            agree(&f.store).await;
        }
        assert_eq!((last, f.count("usage_all"), f.count("usage_day")), (0, 0, 0));
    }
}

/// Many users in one commit: a file brings them into its ledger in many transactions.
async fn whoever_looks_meanwhile_sees_both_or_neither(on: &Backend) {
    let f = Fixture::new(on, &[]).await;
    let made = (0..4000u64).map(|n| event(n, n, 1, n, &format!("user-{n}"), true));
    f.store.state().commit(f.commit(1, made.collect())).await.unwrap();
    let both = "SELECT (SELECT coalesce(sum(billable_bytes), 0) FROM usage_all) || ' ' || \
                (SELECT coalesce(sum(billable_bytes), 0) FROM usage_quarter)";
    let look = || {
        if f.is_sqlite() {
            let db = rusqlite::Connection::open(f.path()).unwrap();
            db.query_row(both, [], |r| r.get::<_, String>(0)).unwrap()
        } else {
            f.server().sql(f.database(), both)
        }
    };
    let others = f.place.open(Mode::Shared).await.unwrap();
    let reading = tokio::spawn(async move { users(&others).await.len() });
    loop {
        let seen = look();
        let (all, users) = seen.trim().split_once(' ').unwrap();
        assert_eq!(all, users);
        if users == "8000000" {
            break;
        }
        tokio::task::yield_now().await;
    }
    assert_eq!(reading.await.unwrap(), 4000);
}
