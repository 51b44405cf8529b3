//! Sums by quarters of an hour, a user's ends, the chain of sessions, and what people did.

use turnhook_reducer::{time::Timestamp, usage::Usage};
use turnhook_store::{AuditEntry, Mode, QUARTER_MS, Store, SummedBy, Sums, Unit, UsageFilter};

use crate::support::{Backend, Fixture, T0, at, event, session};

crate::support::on_both! {
    quarters_sum_to_days_and_are_found_by_user_and_time,
    the_database_sums_as_we_do,
    ends_are_summed_and_chains_are_found_forward,
    what_people_did_is_on_record,
}

/// Forty sessions of three users over six hours, in every way of asking and in pages of an odd size.
async fn quarters_sum_to_days_and_are_found_by_user_and_time(on: &Backend) {
    let f = Fixture::new(on, &["billing"]).await;
    let mut told = Vec::new();
    for n in 0..40u64 {
        let time = n * 9 * 60_000;
        let user = ["anna", "bert", "c\u{0}\u{ff}"][n as usize % 3];
        let mut end = event(n, time, 0, time, user, true);
        end.usage_delta = Usage::from([n, 1, 2, 3, 4, 5, 6, 7, 1000 + n]);
        told.push((user, (T0 + time) / QUARTER_MS, end.usage_delta));
        f.store.state().commit(f.commit(n + 1, vec![end])).await.unwrap();
    }
    let sum = |of: &dyn Fn(&(&str, u64, Usage)) -> bool| {
        let found = told.iter().filter(|row| of(row));
        found.fold((0, Usage::default()), |(n, sum), row| (n + 1, sum.plus(row.2)))
    };
    let first = T0 / QUARTER_MS;
    for (from, to) in [(0, u64::MAX), (first + 3, first + 9), (first + 4, first + 4)] {
        for user in [None, Some("anna"), Some("c\u{0}\u{ff}"), Some("nobody")] {
            let filter = UsageFilter {
                user: user.map(|user| user.as_bytes().to_vec()),
                source: Some("eu-1".to_owned()),
                ..UsageFilter::default()
            };
            let mut rows = Vec::new();
            loop {
                let after = rows.last().cloned();
                let page = f
                    .store
                    .ledger()
                    .usage_by_quarter(filter.clone(), from, to, after, 7)
                    .await
                    .unwrap();
                rows.extend(page.iter().cloned());
                if page.len() < 7 {
                    break;
                }
            }
            let want = sum(&|row| (from..to).contains(&row.1) && user.is_none_or(|user| user == row.0));
            let total = rows.iter().fold(Sums::default(), |sum, row| sum.plus(row.sums));
            assert_eq!((total.ended, total.usage), want, "{user:?} {from} {to}");
            assert_eq!(
                f.store.ledger().usage_total(filter, from, to).await.unwrap(),
                total
            );
            assert!(rows.is_sorted_by_key(|row| (row.quarter, row.user.clone())));
            assert!(rows.iter().all(|row| !row.whole_day));
        }
    }
    let days = f
        .store
        .ledger()
        .usage_by_day(0, u32::MAX, None, 100)
        .await
        .unwrap();
    let days = days.iter().fold(Usage::default(), |sum, day| sum.plus(day.usage));
    assert_eq!(days, sum(&|_| true).1);
    let elsewhere = UsageFilter {
        source: Some("nowhere".to_owned()),
        ..UsageFilter::default()
    };
    let none = f
        .store
        .ledger()
        .usage_total(elsewhere, 0, u64::MAX)
        .await
        .unwrap();
    assert_eq!(none, Sums::default());
}

/// By time and by user, of sources and realms; sums that no row could hold are exact.
async fn the_database_sums_as_we_do(on: &Backend) {
    let f = Fixture::new(on, &["billing"]).await;
    let most = i64::MAX as u64 - 100_000;
    let mut told = Vec::new();
    for n in 0..30u64 {
        let time = n * 70 * 60_000;
        let user = format!("user-{}", n % 7);
        let mut end = event(n, time, 0, time, &user, true);
        end.realm = [b"a".as_slice(), b"\xff"][n as usize % 2].into();
        // Two users have nearly as much as one row can hold.
        let billable = if (3..5).contains(&n) { most } else { 1000 + n };
        end.usage_delta = Usage::from([n, 1, 2, 3, 4, 5, 6, 7, billable]);
        told.push((user, end.realm.to_vec(), T0 + time, billable));
        f.store.state().commit(f.commit(n + 1, vec![end])).await.unwrap();
    }
    let ask = async |unit, by, realm: Option<&[u8]>, span| {
        let filter = UsageFilter {
            user: None,
            source: Some("eu-1".to_owned()),
            realm: realm.map(<[u8]>::to_vec),
        };
        f.store
            .ledger()
            .usage_summed(unit, by, &filter, span)
            .await
            .unwrap()
    };
    for (unit, length) in [(Unit::Day, 96 * QUARTER_MS), (Unit::Quarter, QUARTER_MS)] {
        let (first, last) = (T0 / length, (T0 + 29 * 70 * 60_000) / length);
        for realm in [None, Some(b"\xff".as_slice())] {
            for span in [(first, last + 1), (first, last), (first, first)] {
                let of = |row: &&(String, Vec<u8>, u64, u64)| {
                    (span.0..span.1).contains(&(row.2 / length)) && realm.is_none_or(|realm| realm == row.1)
                };
                let want: u128 = told.iter().filter(of).map(|row| u128::from(row.3)).sum();
                let rows = ask(unit, SummedBy::Time, realm, span).await;
                let sum: u128 = rows
                    .iter()
                    .map(|row| u128::from(row.sums.usage.billable_bytes))
                    .sum();
                assert_eq!(sum, want, "{unit:?} {realm:?} {span:?}");
                let ended: u64 = rows.iter().map(|row| row.sums.ended).sum();
                assert_eq!(ended, told.iter().filter(of).count() as u64);
                assert!(rows.is_sorted_by_key(|row| (row.at, row.realm.clone())));
                assert!(rows.iter().all(|row| row.source == "eu-1" && row.user.is_none()));
            }
        }
        let top = ask(unit, SummedBy::Users(3), None, (first, last + 1)).await;
        let named: Vec<_> = top
            .iter()
            .map(|row| (row.user.as_deref().unwrap(), row.sums.ended))
            .collect();
        for row in &top {
            let name = row.user.as_deref().unwrap();
            let of = told.iter().filter(|told| told.0.as_bytes() == name);
            let want: u64 = of.map(|told| told.3).sum();
            assert_eq!(row.sums.usage.billable_bytes, want, "{unit:?}");
        }
        assert_eq!(named.len(), 3);
        assert!(
            named[..2]
                .iter()
                .all(|(user, _)| matches!(*user, b"user-3" | b"user-4")),
            "{named:?}"
        );
    }
    let nowhere = UsageFilter {
        source: Some("nowhere".to_owned()),
        ..UsageFilter::default()
    };
    for by in [SummedBy::Time, SummedBy::Users(5)] {
        let none = f
            .store
            .ledger()
            .usage_summed(Unit::Day, by, &nowhere, (0, u64::MAX))
            .await;
        assert_eq!(none.unwrap(), []);
    }
}

async fn ends_are_summed_and_chains_are_found_forward(on: &Backend) {
    let f = Fixture::new(on, &["billing"]).await;
    for n in 1..=6u64 {
        let mut end = event(n, n * 1000, 0, n * 1000 + 500, "anna", true);
        end.usage = Usage::from([0, 0, 0, 0, 0, 0, 0, 0, 10u64.pow(n as u32)]);
        if n == 4 || n == 5 {
            end.continues = Some(session(2, 2000));
        }
        let open = event(n + 100, n * 1000, 0, n * 1000, "anna", false);
        f.store
            .state()
            .commit(f.commit(n, vec![end, open]))
            .await
            .unwrap();
    }
    let ended = f
        .store
        .ledger()
        .usage_ended(b"anna".to_vec(), at(2500), at(5500))
        .await
        .unwrap();
    assert_eq!(
        (ended.ended, ended.usage.billable_bytes, ended.duration_ms),
        (3, 11_100, 1500)
    );
    let nobody = f
        .store
        .ledger()
        .usage_ended(b"bert".to_vec(), at(0), Timestamp::MAX)
        .await
        .unwrap();
    assert_eq!(nobody, Sums::default());
    let next = f.store.ledger().continued_by(session(2, 2000)).await.unwrap();
    assert_eq!(next, [session(4, 4000), session(5, 5000)]);
    assert!(
        f.store
            .ledger()
            .continued_by(session(1, 1000))
            .await
            .unwrap()
            .is_empty()
    );
}

async fn what_people_did_is_on_record(on: &Backend) {
    let f = Fixture::new(on, &["billing"]).await;
    for n in 0..5 {
        let entry = AuditEntry {
            at: at(n),
            who: "otto".to_owned(),
            action: "pause".to_owned(),
            target: "billing\0".to_owned(),
            detail: "x".repeat(2000),
            count: n,
            ..AuditEntry::default()
        };
        f.store.admin().note(entry).await.unwrap();
    }
    let newest = f.store.ledger().audit(None, 3).await.unwrap();
    assert_eq!(newest.iter().map(|e| e.count).collect::<Vec<_>>(), [4, 3, 2]);
    assert_eq!(
        (newest[0].target.as_str(), newest[0].detail.len()),
        ("billing\u{fffd}", 1000)
    );
    let rest = f
        .store
        .ledger()
        .audit(newest.last().map(|e| e.id), 10)
        .await
        .unwrap();
    assert_eq!(rest.iter().map(|e| e.count).collect::<Vec<_>>(), [1, 0]);
}

/// The file of an earlier version: its days are there as they were, each in the middle of itself.
#[tokio::test]
async fn days_of_before_are_put_down_at_their_noon() {
    let f = Fixture::new(&Backend::Sqlite, &["billing"]).await;
    let mut end = event(1, 0, 0, 1, "anna", true);
    end.usage_delta = Usage::from([1; 9]);
    f.store.state().commit(f.commit(1, vec![end])).await.unwrap();
    f.store.ledger().usage_by_day(0, u32::MAX, None, 1).await.unwrap();
    f.store.close().await;
    let db = rusqlite::Connection::open(f.path()).unwrap();
    let migrations = [
        include_str!("../../src/sqlite/migrations/0003.sql"),
        include_str!("../../src/sqlite/migrations/0006.sql"),
    ];
    db.execute_batch(
        "DROP TABLE usage_quarter; DROP TABLE usage_all; DROP TABLE audit; DROP INDEX session_of_user_ended; DROP INDEX session_continues;",
    )
    .unwrap();
    db.execute_batch(&migrations.concat()).unwrap();
    drop(db);
    let store = Store::open(f.path(), Mode::Run).await.unwrap();
    let mut end = event(2, 0, 0, 2, "anna", true);
    end.usage_delta = Usage::from([2; 9]);
    store.state().commit(f.commit(2, vec![end])).await.unwrap();
    let rows = store
        .ledger()
        .usage_by_quarter(UsageFilter::default(), 0, u64::MAX, None, 10)
        .await
        .unwrap();
    let noon = T0 / 86_400_000 * 96 + 48;
    let old = rows.iter().find(|row| row.whole_day).unwrap();
    assert_eq!((old.quarter, old.sums.usage), (noon, Usage::from([1; 9])));
    let total = rows.iter().fold(Sums::default(), |sum, row| sum.plus(row.sums));
    assert_eq!((total.ended, total.usage), (2, Usage::from([3; 9])));
    let all = store
        .ledger()
        .usage_summed(
            Unit::Quarter,
            SummedBy::Time,
            &UsageFilter::default(),
            (0, u64::MAX),
        )
        .await
        .unwrap();
    assert_eq!(all.iter().filter(|row| row.whole_day).count(), 1);
    let total = all.iter().fold(Sums::default(), |sum, row| sum.plus(row.sums));
    assert_eq!((total.ended, total.usage), (2, Usage::from([3; 9])));
}
