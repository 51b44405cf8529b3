//! What people ask of the ledger: filtered, in order, page by page, the same on both databases.

use turnhook_reducer::{
    event::{SessionId, Unattributed, UnattributedReason},
    message::AllocationId,
    source::{Gap, GapReason},
    time::Timestamp,
};
use turnhook_store::{Commit, RecordFilter, SessionFilter};

use crate::support::{Backend, Fixture, at, event, usage};

crate::support::on_both! {
    events_are_read_as_they_were_committed,
    sessions_are_found_by_their_end,
    what_is_on_record_is_listed_newest_first,
}

async fn events_are_read_as_they_were_committed(on: &Backend) {
    let f = Fixture::new(on, &["billing"]).await;
    assert_eq!(f.store.ledger().newest_event().await.unwrap(), 0);
    let mut told = Vec::new();
    for n in 1..=3 {
        let events = vec![
            event(n, 0, 0, n, "cust_42", false),
            event(n, 0, 1, 1_000 + n, "cust_42", true),
        ];
        f.store.state().commit(f.commit(n, events.clone())).await.unwrap();
        told.extend(events);
    }
    let all = f
        .store
        .ledger()
        .emitted_events(&RecordFilter::default(), 0, 100)
        .await
        .unwrap();
    assert_eq!(all.len(), 6);
    for (found, told) in all.iter().zip(&told) {
        assert_eq!(
            (found.id, found.session, found.sequence),
            (told.id, told.session_id, told.sequence)
        );
        assert_eq!(
            (found.event_type, found.timestamp),
            (told.event_type, told.timestamp)
        );
        assert_eq!(
            (found.usage, found.usage_delta, found.end),
            (told.usage, told.usage_delta, told.end)
        );
        assert_eq!(
            (found.source.as_str(), found.user.as_deref()),
            ("eu-1", Some(&b"cust_42"[..]))
        );
    }
    assert_eq!(f.store.ledger().newest_event().await.unwrap(), all[5].number);
    // Page by page, from wherever one was.
    let page = f
        .store
        .ledger()
        .emitted_events(&RecordFilter::default(), all[1].number, 2)
        .await
        .unwrap();
    assert_eq!(page, all[2..4]);
    let filter = RecordFilter {
        since: Some(at(1_000)),
        until: Some(at(1_003)),
        source: Some("eu-1".to_owned()),
    };
    let ends = f.store.ledger().emitted_events(&filter, 0, 100).await.unwrap();
    assert_eq!(
        ends.iter().map(|one| one.timestamp).collect::<Vec<_>>(),
        [at(1_001), at(1_002)]
    );
    let other = RecordFilter {
        source: Some("us-1".to_owned()),
        ..RecordFilter::default()
    };
    assert_eq!(f.store.ledger().emitted_events(&other, 0, 100).await.unwrap(), []);
}

async fn sessions_are_found_by_their_end(on: &Backend) {
    let f = Fixture::new(on, &["billing"]).await;
    // Started in one order, ended in another; some at one instant, one open.
    let ends = [(1, 500), (2, 100), (3, 300), (4, 300), (5, 300), (6, 900)];
    for (n, end) in ends {
        let user = if n == 4 { "other" } else { "cust_42" };
        let events = vec![event(n, n, 0, n, user, false), event(n, n, 1, end, user, true)];
        f.store.state().commit(f.commit(n, events)).await.unwrap();
    }
    f.store
        .state()
        .commit(f.commit(7, vec![event(7, 7, 0, 7, "cust_42", false)]))
        .await
        .unwrap();
    let walk = async |filter: SessionFilter, from: u64, to: u64| {
        let (mut found, mut after): (Vec<(Timestamp, SessionId)>, _) = (Vec::new(), None);
        loop {
            let page = f
                .store
                .ledger()
                .sessions_ended(&filter, at(from), at(to), after, 2)
                .await
                .unwrap();
            let keys = page.iter().map(|one| (one.end.unwrap().0, one.id));
            found.extend(keys);
            if page.len() < 2 {
                return found;
            }
            after = found.last().copied();
        }
    };
    let all = walk(SessionFilter::default(), 0, 10_000).await;
    assert!(all.is_sorted() && all.len() == 6, "{all:?}");
    let day: Vec<Timestamp> = walk(SessionFilter::default(), 300, 900)
        .await
        .into_iter()
        .map(|(at, _)| at)
        .collect();
    assert_eq!(
        day,
        [at(300), at(300), at(300), at(500)],
        "from the first instant on, before the last"
    );
    let of = |user: &[u8]| SessionFilter {
        user: Some(user.to_vec()),
        source: Some("eu-1".to_owned()),
        realm: Some(b"example.org".to_vec()),
        ..SessionFilter::default()
    };
    assert_eq!(walk(of(b"other"), 0, 10_000).await.len(), 1);
    assert_eq!(walk(of(b"nobody"), 0, 10_000).await, []);
}

async fn what_is_on_record_is_listed_newest_first(on: &Backend) {
    let f = Fixture::new(on, &["billing"]).await;
    let unattributed = |n: u64| Unattributed {
        at: at(n),
        server: None,
        realm: b"example.org".to_vec().into(),
        username: b"\xffalice".to_vec().into(),
        allocation: AllocationId(n),
        opened_at: at(0),
        reason: UnattributedReason::Residue,
        usage: usage(n),
    };
    let gap = |from: u64, to: u64| Gap {
        from: at(from),
        to: at(to),
        reason: GapReason::Restart,
        server: (from == 2).then(|| b"10.0.0.7/-/0".to_vec().into()),
    };
    for n in 1..=5 {
        let commit = Commit {
            unattributed: vec![unattributed(n)],
            gaps: vec![gap(n, 10 * n)],
            ..f.commit(n, Vec::new())
        };
        f.store.state().commit(commit).await.unwrap();
    }
    let all = RecordFilter::default();
    let rows = f.store.ledger().unattributed(&all, None, 3).await.unwrap();
    assert_eq!(
        rows.iter().map(|row| row.allocation.0).collect::<Vec<_>>(),
        [5, 4, 3]
    );
    assert_eq!(
        (&*rows[0].username, &*rows[0].reason, rows[0].usage),
        (&b"\xffalice"[..], "residue", usage(5))
    );
    let rest = f
        .store
        .ledger()
        .unattributed(&all, Some(rows[2].number), 100)
        .await
        .unwrap();
    assert_eq!(
        rest.iter().map(|row| row.allocation.0).collect::<Vec<_>>(),
        [2, 1]
    );
    let gaps = f.store.ledger().gaps_on_record(&all, None, 2).await.unwrap();
    assert_eq!(
        gaps.iter().map(|(_, row)| row.gap.from).collect::<Vec<_>>(),
        [at(5), at(4)]
    );
    // Those that were not over before, and had begun.
    let between = RecordFilter {
        since: Some(at(20)),
        until: Some(at(4)),
        source: Some("eu-1".to_owned()),
    };
    let found = f
        .store
        .ledger()
        .gaps_on_record(&between, None, 100)
        .await
        .unwrap();
    assert_eq!(
        found.iter().map(|(_, row)| row.gap.clone()).collect::<Vec<_>>(),
        [gap(3, 30), gap(2, 20)]
    );
    assert_eq!(f.store.ledger().refused_rows(&all, None, 10).await.unwrap(), []);
    let clock = f.store.server().await.unwrap();
    assert_eq!(clock.is_none(), f.is_sqlite());
}
