//! What a database will not take: it is left out and put on record, and nobody waits.
//!
//! What stands for it is a rule that the tests add to the database, past the store.

use turnhook_reducer::{
    event::{Unattributed, UnattributedReason},
    message::AllocationId,
    source::{Gap, GapReason},
    state::Table,
};
use turnhook_store::{Commit, DeliveryFilter, Error, SessionFilter};

use crate::support::{Backend, Fixture, at, event, put, session, usage};

crate::support::on_both! {
    what_is_not_taken_is_on_record_and_all_else_is_committed,
    a_commit_that_is_refused_for_its_time_alone_is_left_as_it_is,
}

/// Refuses such rows from now on; `@` stands before a column.
fn refuse(f: &Fixture, table: &str, condition: &str) {
    if f.is_sqlite() {
        let of_row = condition.replace('@', "NEW.");
        let db = rusqlite::Connection::open(f.path()).unwrap();
        db.execute_batch(&format!(
            "CREATE TRIGGER no_{table} BEFORE INSERT ON {table} WHEN {of_row} BEGIN SELECT RAISE(ABORT, 'not this one'); END"
        ))
        .unwrap();
    } else {
        let of_row = condition.replace('@', "");
        let sql = format!("ALTER TABLE {table} ADD CONSTRAINT not_this_one CHECK (NOT ({of_row}))");
        f.server().sql(f.database(), &sql);
    }
}

/// Columns of all that is on record, past the store.
fn on_record(f: &Fixture) -> Vec<String> {
    let sql =
        "SELECT kind || ' ' || name || ': ' || error || ' ' || (data IS NOT NULL) FROM refused ORDER BY id";
    if f.is_sqlite() {
        let db = rusqlite::Connection::open(f.path()).unwrap();
        let mut stmt = db.prepare(sql).unwrap();
        let rows = stmt.query_map([], |r| r.get(0)).unwrap();
        rows.map(Result::unwrap).collect()
    } else {
        f.server()
            .sql(f.database(), sql)
            .lines()
            .map(str::to_owned)
            .collect()
    }
}

async fn what_is_not_taken_is_on_record_and_all_else_is_committed(on: &Backend) {
    let f = Fixture::new(on, &["billing", "audit"]).await;
    refuse(&f, "event", "@sequence IN (3, 17)");
    refuse(&f, "gap", "@to_at = 7");
    refuse(&f, "unattributed", "@allocation = 66");
    let events = (0..20)
        .map(|s| event(1, 0, s, u64::from(s), "anna", s == 19))
        .collect();
    let gap = |to: u64| Gap {
        from: turnhook_reducer::time::Timestamp(1),
        to: turnhook_reducer::time::Timestamp(to),
        reason: GapReason::Reconnect,
        server: None,
    };
    let bytes = |id: u64| Unattributed {
        at: at(1),
        server: None,
        realm: b"example.org".to_vec().into(),
        username: b"anna".to_vec().into(),
        allocation: AllocationId(id),
        opened_at: at(0),
        reason: UnattributedReason::Residue,
        usage: usage(1),
    };
    let commit = Commit {
        changes: vec![
            put(Table::Session, 1, b"a session"),
            put(Table::Source, 0, b"the source"),
        ],
        gaps: vec![gap(6), gap(7), gap(8)],
        unattributed: vec![bytes(65), bytes(66)],
        ..f.commit(30, events)
    };
    // Others are at work, and find nothing of it in their way.
    let other = f.store.state().source("us-1").await.unwrap();
    let others = tokio::spawn({
        let store = f.store.clone();
        let commits: Vec<_> = (0..30u64)
            .map(|n| Commit {
                source: other,
                ..f.commit(n, vec![event(100 + n, n, 0, n, "bert", false)])
            })
            .collect();
        async move {
            for commit in commits {
                store.state().commit(commit).await.unwrap();
            }
        }
    });
    let made = f.store.state().commit(commit.clone()).await.unwrap();
    others.await.unwrap();
    assert_eq!(made.deliveries.len(), 18 * 2);
    assert_eq!(f.store.state().refused(), 4);
    let sequences: Vec<u32> = made.deliveries.iter().step_by(2).map(|d| d.sequence).collect();
    assert_eq!(
        sequences,
        (0..20).filter(|s| ![3, 17].contains(s)).collect::<Vec<_>>()
    );

    let record = on_record(&f);
    assert_eq!(record.len(), 4, "{record:#?}");
    for (line, start) in record.iter().zip([
        "event evt_",
        "event evt_",
        "unattributed allocation ",
        "gap reconnect from 1 to 7",
    ]) {
        assert!(line.starts_with(start), "{record:#?}");
        assert!(
            line.contains("not this one") || line.contains("not_this_one"),
            "{record:#?}"
        );
    }
    assert!(
        record[0].ends_with("true") || record[0].ends_with('1'),
        "with all that it was: {}",
        record[0]
    );

    // It is one commit as ever: its state is there, and so is all that follows from its events.
    let f = f.reopen().await;
    let (rows, clock) = f
        .store
        .state()
        .load(f.source, Vec::new(), |rows, table, key, value| {
            rows.push((table, key, value.to_vec()))
        })
        .await
        .unwrap();
    assert_eq!((rows.len(), clock), (2, Some(at(30))));
    let told = f.store.ledger().session(session(1, 0)).await.unwrap().unwrap();
    assert_eq!((told.row.sequence, told.events.len()), (19, 18));
    assert_eq!(f.store.ledger().gaps(None, 10).await.unwrap().len(), 2);
    assert_eq!(f.count("unattributed"), 1);
    let anna = SessionFilter {
        user: Some(b"anna".to_vec()),
        ..SessionFilter::default()
    };
    assert_eq!(f.store.ledger().sessions(anna, None, 10).await.unwrap().len(), 1);

    // Repeated, as after an answer that was lost: nothing is written twice.
    let again = f.store.state().commit(commit).await.unwrap();
    assert_eq!((again.repeated, again.deliveries.len()), (18, 36));
    assert_eq!(on_record(&f), record);
    let all = f
        .store
        .ledger()
        .deliveries(DeliveryFilter::default(), None, 1000)
        .await
        .unwrap();
    assert_eq!(all.len(), (18 + 30) * 2);
}

/// Not even an empty commit can be made: that is nothing that its parts could be blamed for.
async fn a_commit_that_is_refused_for_its_time_alone_is_left_as_it_is(on: &Backend) {
    let f = Fixture::new(on, &["billing"]).await;
    if f.is_sqlite() {
        refuse(&f, "state_log", "@seq > 0");
    } else {
        refuse(&f, "source", "@clock IS NOT NULL");
    }
    let commit = f.commit(1, vec![event(1, 0, 0, 0, "anna", false)]);
    let error = f.store.state().commit(commit).await.unwrap_err();
    assert!(matches!(error, Error::Unstorable { .. }), "{error:?}");
    assert!(!error.is_transient());
    assert_eq!(
        (f.count("event"), f.count("refused"), f.store.state().refused()),
        (0, 0, 0)
    );
}
