//! A backup is the store at one moment, made while it is in use.
//!
//! On SQLite only: PostgreSQL is backed up with its own tools, and the store refuses.

use std::os::unix::fs::PermissionsExt;

use turnhook_store::{DeliveryFilter, Error, Mode, Store};

use crate::support::{Backend, Fixture, at, event, put};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_backup_is_whole_while_others_write() {
    let f = Fixture::new(&Backend::Sqlite, &["billing"]).await;
    let writing = tokio::spawn({
        let store = f.store.clone();
        let commits: Vec<_> = (0..200u64)
            .map(|n| turnhook_store::Commit {
                changes: vec![put(turnhook_reducer::state::Table::Source, 0, &n.to_be_bytes())],
                ..f.commit(n, vec![event(1, 0, u32::try_from(n).unwrap(), n, "a", false)])
            })
            .collect();
        async move {
            for commit in commits {
                store.state().commit(commit).await.unwrap();
            }
        }
    });
    let mut before = 0;
    for n in 0..5 {
        let to = f.dir().join(format!("backup-{n}.db"));
        f.shared().await.admin().backup(&to).await.unwrap();
        assert_eq!(
            std::fs::metadata(&to).unwrap().permissions().mode() & 0o777,
            0o600
        );
        assert_eq!(
            f.store.admin().backup(&to).await.unwrap_err(),
            Error::Exists { path: to.clone() }
        );
        let copy = Store::open(&to, Mode::Run).await.unwrap();
        assert_eq!(copy.store_id(), f.store.store_id());
        let source = copy.state().source("eu-1").await.unwrap();
        let (last, clock) = copy
            .state()
            .load(source, None, |last, _, _, v| {
                *last = Some(u64::from_be_bytes(v.try_into().unwrap()))
            })
            .await
            .unwrap();
        let events = copy
            .ledger()
            .deliveries(DeliveryFilter::default(), None, 1000)
            .await
            .unwrap();
        assert_eq!(clock, last.map(at), "state and clock are of one moment");
        assert_eq!(
            events.len() as u64,
            last.map_or(0, |n| n + 1),
            "and so are the events"
        );
        assert!(events.len() >= before);
        before = events.len();
    }
    writing.await.unwrap();
    let nowhere = f.dir().join("no/such/folder.db");
    assert!(matches!(
        f.store.admin().backup(&nowhere).await.unwrap_err(),
        Error::Io { .. }
    ));
}
