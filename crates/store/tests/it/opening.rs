//! Who may open a store, and what is refused with which words.
//!
//! On SQLite only: all of it is about files and who holds them.

use std::{fs, os::unix::fs::PermissionsExt};

use turnhook_store::{Error, Mode, Store};

use crate::support::{Backend, Fixture, event};

#[tokio::test]
async fn one_run_at_a_time_and_any_number_look_in() {
    let f = Fixture::new(&Backend::Sqlite, &["billing"]).await;
    let error = Store::open(f.path(), Mode::Run).await.unwrap_err();
    assert_eq!(error, Error::InUse { path: f.path() });
    assert!(
        error.to_string().contains("turnhook.db: another `turnhook run`"),
        "{error}"
    );
    let (one, two) = (f.shared().await, f.shared().await);
    assert_eq!(one.store_id(), f.store.store_id());
    assert_eq!(two.outbox().endpoints().await.unwrap()[0].name, "billing");
    f.store.close().await;
    let again = Store::open(f.path(), Mode::Run).await.unwrap();
    assert_eq!(again.store_id(), one.store_id());
    assert_ne!(
        again.store_id(),
        Fixture::new(&Backend::Sqlite, &[]).await.store.store_id()
    );
}

#[tokio::test]
async fn files_are_their_owners_alone() {
    let f = Fixture::new(&Backend::Sqlite, &["billing"]).await;
    f.store
        .state()
        .commit(f.commit(1, vec![event(1, 0, 0, 0, "a", false)]))
        .await
        .unwrap();
    let mut seen = 0;
    for file in fs::read_dir(f.dir()).unwrap().map(Result::unwrap) {
        assert_eq!(
            file.metadata().unwrap().permissions().mode() & 0o777,
            0o600,
            "{:?}",
            file.file_name()
        );
        seen += 1;
    }
    assert!(seen >= 3, "the file, its WAL and its lock");
}

#[tokio::test]
async fn what_is_not_there_is_not_made_by_looking() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("turnhook.db");
    assert_eq!(
        Store::open(&path, Mode::Shared).await.unwrap_err(),
        Error::NotFound { path: path.clone() }
    );
    assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 0);
    let nowhere = dir.path().join("no/such/folder.db");
    assert!(matches!(
        Store::open(&nowhere, Mode::Run).await.unwrap_err(),
        Error::Io { .. }
    ));
}

#[tokio::test]
async fn another_programs_file_is_left_alone() {
    let dir = tempfile::tempdir().unwrap();
    let text = dir.path().join("notes.txt");
    fs::write(
        &text,
        "shopping: milk, bread, and so on, for longer than a header\n".repeat(100),
    )
    .unwrap();
    let before = fs::read(&text).unwrap();
    assert_eq!(
        Store::open(&text, Mode::Run).await.unwrap_err(),
        Error::NotAStore { path: text.clone() }
    );
    assert_eq!(fs::read(&text).unwrap(), before);

    let other = dir.path().join("other.db");
    rusqlite::Connection::open(&other)
        .unwrap()
        .execute_batch("CREATE TABLE theirs (x)")
        .unwrap();
    assert_eq!(
        Store::open(&other, Mode::Run).await.unwrap_err(),
        Error::NotAStore { path: other }
    );
}

#[tokio::test]
async fn a_newer_schema_is_refused() {
    let f = Fixture::new(&Backend::Sqlite, &["billing"]).await;
    f.store.close().await;
    let newer = Store::SCHEMA + 1;
    rusqlite::Connection::open(f.path())
        .unwrap()
        .execute("INSERT INTO schema_version VALUES (?1, 0)", [newer])
        .unwrap();
    for mode in [Mode::Run, Mode::Shared] {
        let error = Store::open(f.path(), mode).await.unwrap_err();
        assert_eq!(
            error,
            Error::Newer {
                path: f.path(),
                found: newer,
                known: Store::SCHEMA
            }
        );
        assert!(error.to_string().contains("newer turnhook"), "{error}");
    }
}

/// An empty file is the oldest version there is: every migration runs on it.
#[tokio::test]
async fn an_older_schema_is_migrated_unless_somebody_runs_on_it() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("turnhook.db");
    fs::write(&path, b"").unwrap();
    let mut lock = path.clone().into_os_string();
    lock.push(".lock");
    let held = fs::File::create(&lock).unwrap();
    held.try_lock().unwrap();
    let error = Store::open(&path, Mode::Shared).await.unwrap_err();
    assert_eq!(
        error,
        Error::Older {
            path: path.clone(),
            found: 0,
            known: Store::SCHEMA
        }
    );
    drop(held);
    let store = Store::open(&path, Mode::Shared).await.unwrap();
    assert_eq!(store.outbox().endpoints().await.unwrap(), []);
}
