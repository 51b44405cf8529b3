//! Who is blocked: the same on both databases, and known to every process.

use turnhook_reducer::event::SessionId;
use turnhook_store::{BlockChange, Error, Store};

use crate::{
    support::{Backend, Fixture, at, on_both},
    user_events::{quota_of, tell_nobody},
};

on_both!(
    the_last_change_holds,
    others_learn_of_changes_in_order,
    nobody_cannot_be_blocked,
    a_rule_blocks_once_whoever_comes_to_it,
    what_no_longer_holds_is_trimmed
);

fn block(realm: Option<&[u8]>, user: &[u8], until: Option<u64>) -> BlockChange {
    BlockChange::Block {
        realm: realm.map(Into::into),
        user: user.into(),
        until: until.map(at),
    }
}

async fn the_last_change_holds(on: &Backend) {
    let f = Fixture::new(on, &["billing"]).await;
    let change = async |ms, change| {
        f.store
            .admin()
            .change_block(at(ms), change, "balance", "ops")
            .await
            .unwrap()
    };
    change(10, block(None, b"ann", None)).await;
    change(20, block(Some(b"example.org"), b"ann", Some(500))).await;
    change(30, block(None, b"\xff bob", Some(100))).await;
    change(40, block(None, b"eve", None)).await;
    let eve = BlockChange::Unblock {
        realm: None,
        user: (*b"eve").into(),
    };
    change(50, eve).await;

    let held = async |ms| {
        let rows = f.store.admin().blocks(at(ms)).await.unwrap();
        rows.into_iter().map(|row| row.change).collect::<Vec<_>>()
    };
    let ann = block(None, b"ann", None);
    let ann_there = block(Some(b"example.org"), b"ann", Some(500));
    assert_eq!(
        held(99).await,
        [
            ann.clone(),
            ann_there.clone(),
            block(None, b"\xff bob", Some(100))
        ]
    );
    assert_eq!(held(100).await, [ann.clone(), ann_there]);
    assert_eq!(held(500).await, std::slice::from_ref(&ann));
    let of = async |user: &[u8]| {
        let rows = f.store.admin().blocks_of(user, at(100)).await.unwrap();
        rows.into_iter().map(|row| row.change).collect::<Vec<_>>()
    };
    assert_eq!(
        of(b"ann").await,
        [ann, block(Some(b"example.org"), b"ann", Some(500))]
    );
    assert_eq!((of(b"eve").await, of(b"\xff bob").await), (vec![], vec![]));

    // A later block takes the place of an earlier one, shorter or not.
    change(60, block(None, b"ann", Some(70))).await;
    assert_eq!(held(150).await, [block(Some(b"example.org"), b"ann", Some(500))]);
    let f = f.reopen().await;
    let row = &f.store.admin().blocks(at(150)).await.unwrap()[0];
    assert_eq!(
        (row.at, row.reason.as_str(), row.who.as_str()),
        (at(20), "balance", "ops")
    );
}

async fn others_learn_of_changes_in_order(on: &Backend) {
    let f = Fixture::new(on, &["billing"]).await;
    let other = f.shared().await;
    let session = SessionId([7; 16]);
    let long = "x\n".repeat(1000);
    let first = other
        .admin()
        .change_block(at(10), block(None, b"ann", None), &long, "cli")
        .await
        .unwrap();
    let second = f
        .store
        .admin()
        .change_block(at(20), BlockChange::EndSession(session), "", "api")
        .await
        .unwrap();
    assert!(first < second);
    let seen = f.store.admin().block_changes(0, 100).await.unwrap();
    assert_eq!(seen.iter().map(|row| row.id).collect::<Vec<_>>(), [first, second]);
    assert_eq!(seen[0].reason, "x".repeat(256));
    assert_eq!(seen[1].change, BlockChange::EndSession(session));
    let after = other.admin().block_changes(first, 100).await.unwrap();
    assert_eq!(after, seen[1..]);
    assert!(other.admin().block_changes(second, 100).await.unwrap().is_empty());
    assert_eq!(f.store.admin().block_changes(0, 1).await.unwrap().len(), 1);
    // The end of a session blocks nobody.
    assert_eq!(f.store.admin().blocks(at(30)).await.unwrap().len(), 1);
}

async fn nobody_cannot_be_blocked(on: &Backend) {
    let f = Fixture::new(on, &["billing"]).await;
    for change in [
        block(None, b"", None),
        BlockChange::Unblock {
            realm: None,
            user: (*b"").into(),
        },
    ] {
        let refused = f.store.admin().change_block(at(10), change, "", "").await;
        assert_eq!(refused.unwrap_err(), Error::NoUser);
    }
    assert!(f.store.admin().block_changes(0, 100).await.unwrap().is_empty());
}

async fn a_rule_blocks_once_whoever_comes_to_it(on: &Backend) {
    let f = Fixture::new(on, &["billing"]).await;
    let other = f.shared().await;
    let quota = async |store: &Store, ms, user: &[u8], until| {
        let quota = quota_of(b"r", user);
        let made = store
            .admin()
            .block_once(at(ms), at(until), &quota, "50GiB a day", "quota");
        made.await.unwrap()
    };
    let ops = async |ms, change| {
        f.store
            .admin()
            .change_block(at(ms), change, "", "ops")
            .await
            .unwrap()
    };
    // Two nodes at once.
    let (one, two) = tokio::join!(quota(&f.store, 10, b"ann", 500), quota(&other, 10, b"ann", 500));
    assert!(one ^ two);
    // Somebody unblocked her, and meant it; the next period is another one.
    ops(20, unblock(b"ann")).await;
    assert!(!quota(&f.store, 30, b"ann", 500).await);
    assert!(quota(&f.store, 510, b"ann", 1000).await);
    // Of a day and a month the longer one holds, in any order.
    assert!(!quota(&f.store, 520, b"ann", 900).await);
    assert!(quota(&f.store, 520, b"ann", 2000).await);
    // A block by hand that lasts as long stays as it is, in that realm; one that is over is none.
    ops(530, block(Some(b"r"), b"bob", None)).await;
    assert!(!quota(&f.store, 540, b"bob", 1000).await);
    ops(550, unblock(b"bob")).await;
    assert!(
        quota(&f.store, 560, b"bob", 1000).await,
        "that was no answer to a quota"
    );
    assert!(quota(&f.store, 570, b"\xff eve", 1000).await);
    ops(580, block(Some(b"other"), b"dan", None)).await;
    assert!(quota(&f.store, 590, b"dan", 1000).await);
    assert_eq!(
        f.store
            .admin()
            .block_once(at(1), at(2), &quota_of(b"r", b""), "", "quota")
            .await
            .unwrap_err(),
        Error::NoUser
    );
}

fn unblock(user: &[u8]) -> BlockChange {
    BlockChange::Unblock {
        realm: Some((*b"r").into()),
        user: user.into(),
    }
}

async fn what_no_longer_holds_is_trimmed(on: &Backend) {
    let f = Fixture::new(on, &["billing"]).await;
    let change = async |ms, change| {
        f.store
            .admin()
            .change_block(at(ms), change, "", "ops")
            .await
            .unwrap()
    };
    change(10, block(None, b"ann", None)).await;
    change(20, block(Some(b"r"), b"ann", Some(30))).await;
    change(30, BlockChange::EndSession(SessionId([7; 16]))).await;
    change(40, block(None, b"ann", Some(50))).await;
    // Until later, and so it stays, though it was undone.
    change(50, block(Some(b"r"), b"eve", Some(5000))).await;
    change(60, unblock(b"eve")).await;
    let bob = change(70, block(None, b"bob", None)).await;
    for n in 0..20 {
        change(80 + n, block(None, b"dan", None)).await;
    }
    let young = change(300, block(None, b"ann", None)).await;
    let last = change(310, BlockChange::EndSession(SessionId([8; 16]))).await;
    let held = f.store.admin().blocks(at(400)).await.unwrap();

    let trim = async |before| {
        for _ in 0..100 {
            if !f.store.admin().trim(at(before), 3).await.unwrap().more {
                return f.store.admin().block_changes(0, 100).await.unwrap();
            }
        }
        panic!("it never ends");
    };
    let all = f.store.admin().block_changes(0, 100).await.unwrap();
    assert_eq!(trim(200).await, all, "nobody has been told of them yet");
    tell_nobody(&f.store).await;
    let left = trim(200).await;
    let ids: Vec<u64> = left.iter().map(|row| row.id).collect();
    assert_eq!(ids.len(), 8, "{left:?}");
    // What is younger than that is no reason to keep what it took the place of.
    assert!([bob, young, last].iter().all(|id| ids.contains(id)));
    assert!(
        !left.iter().any(|row| row.at == at(10) || row.at == at(40)),
        "{left:?}"
    );
    assert_eq!(f.store.admin().blocks(at(400)).await.unwrap(), held);
    // Whatever its age, the last one stays: its number is given to no other.
    let left = trim(100_000).await;
    assert_eq!(left.last().map(|row| row.id), Some(last));
    assert_eq!(left.len(), 6, "{left:?}");
    let f = f.reopen().await;
    assert_eq!(f.store.admin().blocks(at(400)).await.unwrap(), held);
    let next = f
        .store
        .admin()
        .change_block(at(400), block(None, b"zoe", None), "", "")
        .await;
    assert!(next.unwrap() > last);
}
