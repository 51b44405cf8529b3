//! Blocks whose time is over: put on record once, whichever process comes to it, and no news where that was so before.

use turnhook_reducer::time::Timestamp;
use turnhook_store::{BlockChange, Mode, Store};

use crate::{
    support::{Backend, Fixture, on_both},
    user_events::{block, unblock},
};

on_both!(a_block_that_is_over_is_put_on_record_once);

async fn a_block_that_is_over_is_put_on_record_once(on: &Backend) {
    let f = Fixture::new(on, &["billing"]).await;
    let other = f.shared().await;
    // A time that is over by any clock.
    let long_ago = Timestamp;
    let made = |user: &[u8], until| {
        let change = block(Some(b"r"), user, Some(long_ago(until)));
        let store = f.store.clone();
        async move {
            store
                .admin()
                .change_block(long_ago(100), change, "", "ops")
                .await
                .unwrap()
        }
    };
    for (user, until) in [(b"ann", 500), (b"bob", 900), (b"eve", 500)] {
        made(user, until).await;
    }
    f.store
        .admin()
        .change_block(long_ago(200), unblock(Some(b"r"), b"eve"), "", "ops")
        .await
        .unwrap();
    let whom = |user: &[u8]| (Some(Box::from(*b"r")), Box::from(user));
    let all = || {
        vec![
            whom(b"ann"),
            whom(b"bob"),
            whom(b"eve"),
            whom(b"nobody"),
            (None, Box::from(*b"ann")),
        ]
    };
    assert_eq!(
        f.store.admin().expire_blocks(all(), long_ago(499)).await.unwrap(),
        0
    );
    let second = if f.is_sqlite() { &f.store } else { &other };
    let (one, two) = tokio::join!(
        f.store.admin().expire_blocks(all(), long_ago(600)),
        second.admin().expire_blocks(all(), long_ago(600))
    );
    assert_eq!(one.unwrap() + two.unwrap(), 1);
    let rows = f.store.admin().block_changes(0, 100).await.unwrap();
    let last = rows.last().unwrap();
    assert_eq!(
        last.change,
        BlockChange::Expired {
            realm: Some((*b"r").into()),
            user: (*b"ann").into()
        }
    );
    assert_eq!(last.at, long_ago(600));
    // Nobody was there to say so before somebody blocked him again.
    f.store
        .admin()
        .change_block(long_ago(1000), block(Some(b"r"), b"bob", None), "", "ops")
        .await
        .unwrap();
    let rows = f.store.admin().block_changes(last.id, 100).await.unwrap();
    assert!(matches!(
        rows.iter().map(|row| &row.change).collect::<Vec<_>>()[..],
        [BlockChange::Expired { .. }, BlockChange::Block { .. }]
    ));
    assert!(rows[0].at < rows[1].at);
    assert_eq!(f.store.admin().blocks(long_ago(2000)).await.unwrap(), rows[1..]);

    // A node whose clock is ahead ends nobody's block, where another clock can be asked.
    if !f.is_sqlite() {
        let far = Timestamp(u64::from(u32::MAX) * 2000);
        made(b"zoe", far.0 - 1).await;
        assert_eq!(
            f.store
                .admin()
                .expire_blocks(vec![whom(b"zoe")], far)
                .await
                .unwrap(),
            0
        );
    }
}

/// The file of an earlier version, in which nobody said that a block is over.
#[tokio::test]
async fn what_was_over_before_an_upgrade_is_no_news() {
    let f = Fixture::new(&Backend::Sqlite, &["billing"]).await;
    let holds = Timestamp(u64::from(u32::MAX) * 2000);
    for (user, until) in [
        (b"ann", Some(Timestamp(500))),
        (b"bob", Some(holds)),
        (b"eve", None),
    ] {
        let change = block(Some(b"r"), user, until);
        f.store
            .admin()
            .change_block(Timestamp(100), change, "", "ops")
            .await
            .unwrap();
    }
    f.store.close().await;
    let db = rusqlite::Connection::open(f.path()).unwrap();
    db.execute_batch(
        "DELETE FROM schema_version WHERE version > 6; DROP TABLE heal; DROP TABLE user_event; DROP INDEX block_of_session; \
         ALTER TABLE block_change DROP COLUMN quota; ALTER TABLE block_change DROP COLUMN told; \
         ALTER TABLE store DROP COLUMN told_change",
    )
    .unwrap();
    drop(db);
    let store = Store::open(f.path(), Mode::Run).await.unwrap();
    assert!(
        store
            .outbox()
            .pending_changes(10)
            .await
            .unwrap()
            .changes
            .is_empty()
    );
    let rows = store.admin().block_changes(3, 10).await.unwrap();
    assert!(matches!(&rows[..], [row] if row.change.whom() == Some((Some(b"r"), b"ann"))));
    // What holds is told once it is over.
    let whom = vec![(Some(Box::from(*b"r")), Box::from(*b"bob"))];
    assert_eq!(store.admin().expire_blocks(whom, holds).await.unwrap(), 1);
    let untold = store.outbox().pending_changes(10).await.unwrap().changes;
    assert_eq!(untold.len(), 1);
    assert_eq!(
        untold[0].before.as_ref().and_then(|before| before.until),
        Some(holds)
    );
}
