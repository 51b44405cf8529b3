//! The store's files, met by real processes: whose they are, who may read them, and who runs on them.

use std::{
    fs,
    os::unix::{
        fs::{MetadataExt, PermissionsExt, symlink},
        process::CommandExt,
    },
    path::Path,
};

use crate::harness::{
    billing::Billing,
    eventually,
    feeder::Feeder,
    process::Process,
    program::Program,
    turnhook::{command, run, stderr},
};

/// One that has told of a call, and was stopped.
fn stopped() -> (Program, Billing) {
    let billing = Billing::start();
    let mut program = Program::new(&billing.endpoint());
    program.start();
    Feeder::connect(program.source).call("1795413634:alice", 1);
    billing.ended("alice", 1);
    program.stop();
    (program, billing)
}

/// `turnhook run` on a store, which must be refused.
#[track_caller]
fn refused(program: &Program, path: &str, why: &str) {
    let output = command(program.directory.path())
        .env("TURNHOOK_STORE__PATH", path)
        .arg("run")
        .output()
        .unwrap();
    assert!(!output.status.success(), "{}", stderr(&output));
    assert!(stderr(&output).contains(why), "{}", stderr(&output));
}

fn mode(path: &Path) -> u32 {
    fs::metadata(path).unwrap().permissions().mode() & 0o777
}

#[test]
fn a_second_run_is_refused_by_whatever_name() {
    let (mut program, _billing) = stopped();
    let store = program.directory.path().join("turnhook.db");
    let elsewhere = tempfile::tempdir().unwrap();
    let by_link = elsewhere.path().join("link.db");
    symlink(&store, &by_link).unwrap();
    program.start();
    refused(
        &program,
        by_link.to_str().unwrap(),
        "another `turnhook run` uses this store",
    );
    let hard = program.directory.path().join("hard.db");
    fs::hard_link(&store, &hard).unwrap();
    refused(&program, "hard.db", "remove one of the names");
    program.stop();
    refused(&program, "turnhook.db", "remove one of the names");
    fs::remove_file(hard).unwrap();
    // The link alone is no obstacle: it is the same store, with the same lock.
    let name = by_link.to_str().unwrap();
    let mut by_name = Process::start(
        command(program.directory.path())
            .env("TURNHOOK_STORE__PATH", name)
            .arg("run"),
    );
    by_name.line("it to run", |line| line.contains("\"running\"").then_some(()));
    refused(&program, "turnhook.db", "another `turnhook run` uses this store");
    assert_eq!(
        fs::read_dir(elsewhere.path()).unwrap().count(),
        1,
        "nothing stands beside the link"
    );
}

#[test]
fn a_restored_store_is_its_owners_alone_again() {
    let (mut program, _billing) = stopped();
    let store = program.directory.path().join("turnhook.db");
    fs::set_permissions(&store, fs::Permissions::from_mode(0o666)).unwrap();
    program.start();
    assert_eq!(mode(&store), 0o600);
    let wal = program.directory.path().join("turnhook.db-wal");
    assert_eq!(mode(&wal), 0o600);
    let log = program.stop();
    assert!(
        log.iter()
            .any(|line| line.contains("WARN") && line.contains("mode 0666")),
        "{log:#?}"
    );
}

/// A slip in the path must not change what it happens to name, and what was emptied is not begun anew in silence.
#[test]
fn other_files_are_left_alone_and_empty_ones_are_said() {
    let (mut program, _billing) = stopped();
    let other = program.directory.path().join("other.conf");
    fs::write(&other, "of another program\n").unwrap();
    fs::set_permissions(&other, fs::Permissions::from_mode(0o644)).unwrap();
    refused(&program, "other.conf", "not a turnhook store");
    assert_eq!(mode(&other), 0o644);
    assert_eq!(fs::read_to_string(&other).unwrap(), "of another program\n");
    refused(&program, ".", "is a directory; name a file in it");
    for name in ["turnhook.db", "turnhook.db-wal"] {
        let path = program.directory.path().join(name);
        if path.exists() {
            fs::write(path, "").unwrap();
        }
    }
    program.start();
    let log = program.stop();
    assert!(
        log.iter().any(|line| line.contains("WARN")
            && line.contains("the file is empty, and a new store is begun in it")),
        "{log:#?}"
    );
}

#[test]
fn a_lock_that_is_a_link_is_not_followed() {
    let (program, _billing) = stopped();
    let lock = program.directory.path().join("turnhook.db.lock");
    let (target, new) = (
        program.directory.path().join("target"),
        program.directory.path().join("new"),
    );
    fs::write(&target, "something else").unwrap();
    fs::set_permissions(&target, fs::Permissions::from_mode(0o644)).unwrap();
    for to in [&target, &new] {
        fs::remove_file(&lock).unwrap();
        symlink(to, &lock).unwrap();
        refused(&program, "turnhook.db", "turnhook.db.lock: is a symbolic link");
    }
    assert_eq!(
        (mode(&target), fs::read_to_string(&target).unwrap().as_str()),
        (0o644, "something else")
    );
    assert!(!new.exists());
}

#[test]
fn a_log_without_its_store_is_not_begun_anew() {
    let (mut program, _billing) = stopped();
    let here = program.directory.path().to_owned();
    let (store, wal) = (here.join("turnhook.db"), here.join("turnhook.db-wal"));
    program.start();
    Feeder::connect(program.source).call("1795413634:bob", 2);
    program.until("it to be in the log", |_| {
        fs::metadata(&wal).is_ok_and(|found| found.len() > 0)
    });
    program.kill();
    let kept = fs::read(&wal).unwrap();
    fs::rename(&store, here.join("away.db")).unwrap();
    for empty in [false, true] {
        if empty {
            fs::write(&store, b"").unwrap();
        }
        refused(&program, "turnhook.db", "turnhook.db-wal");
        let looked = run(&here, &["sessions", "list"]);
        assert!(
            stderr(&looked).contains("put the store back beside it"),
            "{}",
            stderr(&looked)
        );
        assert_eq!(fs::read(&wal).unwrap(), kept);
        assert_eq!(fs::metadata(&store).map_or(0, |found| found.len()), 0);
    }
    fs::rename(here.join("away.db"), &store).unwrap();
    program.start();
    assert!(program.ask(&["sessions", "list"]).contains("alice"));
}

/// A store that is written for long enough to be killed on the way.
#[test]
fn a_backup_that_is_killed_leaves_nothing_that_looks_like_one() {
    let (program, _billing) = stopped();
    let here = program.directory.path();
    let db = rusqlite::Connection::open(here.join("turnhook.db")).unwrap();
    db.execute_batch(
        "WITH RECURSIVE n (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 20000) \
         INSERT INTO refused (source, at, kind, name, error, data) SELECT 1, i, 'state', 'x', 'x', randomblob(4000) FROM n",
    )
    .unwrap();
    drop(db);
    let whole = here.join("backup.db");
    let partial = || {
        let files = fs::read_dir(here).unwrap().map(|file| file.unwrap().path());
        let mut partial = files.filter(|path| path.to_string_lossy().contains("/.backup.db.partial-"));
        partial.next()
    };
    let mut killed = Process::start(command(here).args(["backup", "backup.db"]));
    eventually("the backup to be written", || {
        assert!(!killed.has_ended(), "{}", killed.output());
        partial().filter(|path| fs::metadata(path).is_ok_and(|found| found.len() > 0))
    });
    killed.signal("KILL");
    killed.wait();
    assert!(!whole.exists(), "what is not whole must not have its name");
    while let Some(left) = partial() {
        fs::remove_file(left).unwrap();
    }

    program.ask(&["backup", "backup.db"]);
    assert_eq!((mode(&whole), fs::metadata(&whole).unwrap().nlink()), (0o600, 1));
    assert_eq!(partial(), None);
    let again = program.command(&["backup", "backup.db"]);
    assert!(stderr(&again).contains("never overwrites"), "{}", stderr(&again));
    assert_eq!(partial(), None);
}

/// Not "unable to open database file", for ever.
#[test]
fn another_users_store_is_named_as_such() {
    let (program, _billing) = stopped();
    // Root may do anything: somebody else asks, where it is root who tests.
    let mut ask = command(Path::new("/"));
    if are_root() {
        ask.uid(65_534).gid(65_534);
    }
    let folder = program.directory.path();
    fs::set_permissions(folder, fs::Permissions::from_mode(0o755)).unwrap();
    let config = folder.join("turnhook.toml");
    let output = ask
        .env("TURNHOOK_STORE__PATH", "/etc/passwd")
        .args(["sessions", "list", "--config", config.to_str().unwrap()])
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(1));
    assert!(
        stderr(&output).contains("belongs to user 0, and this is user"),
        "{}",
        stderr(&output)
    );
}

fn are_root() -> bool {
    fs::metadata("/proc/self").unwrap().uid() == 0
}
