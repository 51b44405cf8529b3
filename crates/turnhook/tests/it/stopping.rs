//! A stop has one deadline, whatever stands in its way.

use std::{fs, io::Read, net::TcpListener};

use crate::harness::{
    billing::counted,
    eventually,
    feeder::{Allocation, Feeder},
    nodes::{Shared, ready},
    postgres::Postgres,
    program::{Program, endpoint},
};

/// A program with a `direct` source on a PostgreSQL of its own.
pub(crate) fn on_postgres(postgres: &Postgres, more: &str) -> Program {
    let database = postgres.database();
    Program::new(&format!(
        "[store]\nurl = \"{}\"\nlease = \"2s\"\n{more}",
        postgres.url(&database)
    ))
}

/// It hears an allocation, and has committed it.
#[track_caller]
pub(crate) fn hears(program: &Program, id: u64) -> Feeder {
    let mut feeder = Feeder::connect(program.source);
    feeder.open(&Allocation::new("cust_42", id), 600).unwrap();
    eventually("the allocation, and its commit", || {
        let committed = counted(program, &["turnhook_commit_seconds_count"]) > 0;
        (committed && counted(program, &["turnhook_open_allocations"]) > 0).then_some(())
    });
    feeder
}

/// The database stands still, with a commit under way.
#[test]
fn with_a_postgres_that_stands_still() {
    let postgres = Postgres::start();
    let mut program = on_postgres(&postgres, "");
    program.start();
    let mut feeder = hears(&program, 1);
    let frozen = postgres.freeze();
    feeder.open(&Allocation::new("cust_43", 2), 600).unwrap();
    eventually("what cannot be committed", || {
        (counted(&program, &["turnhook_open_allocations"]) == 2).then_some(())
    });
    program.process().signal("TERM");
    let (status, log) = program.ended();
    assert_eq!(status, Some(1), "{log:#?}");
    assert!(
        log.iter()
            .any(|line| line.contains("stopped before the last commit")),
        "{log:#?}"
    );
    drop(frozen);
}

/// The same, before anything is heard, and with a follower.
#[test]
fn nodes_with_a_postgres_that_stands_still() {
    let shared = Shared::start("2s", String::new());
    let mut nodes = shared.nodes(2);
    let frozen = shared.postgres.freeze();
    for node in &mut nodes {
        node.program.process().signal("TERM");
    }
    for node in &mut nodes {
        let (status, log) = node.program.ended();
        assert!(status.is_some(), "ended by a signal: {log:#?}");
    }
    drop(frozen);
}

/// What a leader gives back takes its time, and meanwhile what it may do changes with every beat.
#[test]
fn with_releases_that_take_their_time() {
    // More than it needs: how busy the machine is nobody knows, and this is not about the deadline.
    let shared = Shared::start("2s", String::new()).with_grace("30s");
    let mut nodes = shared.nodes(2);
    let leads = ready(&nodes);
    shared.sql(
        "CREATE FUNCTION slow() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN \
         IF NEW.holder IS NULL THEN PERFORM pg_sleep(1.5); END IF; RETURN NEW; END $$; \
         CREATE TRIGGER slow BEFORE UPDATE ON lease FOR EACH ROW WHEN (NEW.name LIKE 'source/%') EXECUTE FUNCTION slow()",
    );
    nodes[leads].program.process().signal("TERM");
    nodes[1 - leads].kill();
    let (status, log) = nodes[leads].program.ended();
    assert_eq!(status, Some(0), "{log:#?}\n{}", shared.postgres.log());
}

/// Each commit takes longer than the clock needs to move on: a leader's last one is the last all the same.
#[test]
fn with_commits_that_take_their_time() {
    let postgres = Postgres::start();
    let database = postgres.database();
    let mut program = Program::new(&format!("[store]\nurl = \"{}\"\n", postgres.url(&database)));
    program.start();
    let _feeder = hears(&program, 1);
    postgres.sql(
        &database,
        "CREATE FUNCTION slow() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN PERFORM pg_sleep(0.05); RETURN NEW; END $$; \
         CREATE TRIGGER slow BEFORE UPDATE ON source FOR EACH ROW EXECUTE FUNCTION slow()",
    );
    program.stop();
}

/// A receiver that never answers does not keep what came of other requests from being written down.
#[test]
fn with_a_request_that_is_never_answered() {
    let silent = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}/", silent.local_addr().unwrap());
    let (asked, asks) = std::sync::mpsc::channel();
    std::thread::spawn(move || {
        for mut connection in silent.incoming().flatten() {
            let _ = connection.read(&mut [0; 4096]);
            let _ = asked.send(connection);
        }
    });
    let mut program = Program::new(&endpoint("silent", &url, "timeout = \"300s\"\n"));
    program.start();
    let _feeder = hears(&program, 1);
    let _connection = asks.recv_timeout(crate::harness::DEADLINE).unwrap();
    program.stop();
    assert_eq!(program.deliveries("pending").len(), 1);
}

/// Whatever stands still, be it all threads that there are for the parts: a thread of its own ends the process.
#[test]
fn with_threads_that_stand_still() {
    let mut program = Program::new("");
    let file = program.directory.path().join("held");
    let fault = format!("hold:housekeeper@{}", file.display());
    program.start_with(&[("FAULT_INJECTION", &fault), ("TOKIO_WORKER_THREADS", "1")]);
    let _feeder = hears(&program, 1);
    // It ends as it is told to, and its thread does not come back.
    fs::write(&file, "").unwrap();
    program.process().signal("TERM");
    let (status, log) = program.ended();
    assert_eq!(status, Some(1), "{log:#?}");
    assert_eq!(fs::read_to_string(&file).unwrap(), "held");
    assert!(
        log.iter()
            .any(|line| line.contains("the stop is past its deadline")),
        "{log:#?}"
    );
    fs::remove_file(&file).unwrap();
    program.start();
    program.line("\"source\":\"eu-1\",\"allocations\":1");
    program.stop();
}

/// What kills from outside waits for the deadline, and for the second after which the process ends itself.
#[test]
fn the_units_kill_after_the_deadline() {
    let root = concat!(env!("CARGO_MANIFEST_DIR"), "/../..");
    let read = |path: &str| fs::read_to_string(format!("{root}/{path}")).unwrap();
    let seconds = |text: &str, key: &str| -> Vec<u64> {
        let values = text.lines().filter_map(|line| line.trim().strip_prefix(key));
        let digits = values.map(|value| value.chars().filter(char::is_ascii_digit).collect::<String>());
        digits.map(|digits| digits.parse().unwrap()).collect()
    };
    let grace = seconds(
        &read("crates/turnhook/src/config/default.toml"),
        "shutdown_grace = ",
    )[0];
    let units = [
        ("deploy/turnhook.service", "TimeoutStopSec="),
        ("deploy/kubernetes.yaml", "terminationGracePeriodSeconds: "),
        ("deploy/compose.yaml", "stop_grace_period: "),
        ("deploy/compose.redis.yaml", "stop_grace_period: "),
        ("deploy/compose.cluster.yaml", "stop_grace_period: "),
    ];
    for (file, key) in units {
        let text = read(file);
        // None of them changes the grace; one that does must change its kill time too.
        assert!(!text.to_lowercase().contains("shutdown_grace ="), "{file}");
        let kills = seconds(&text, key);
        assert!(!kills.is_empty(), "{file} says nothing of {key}");
        for kill in kills {
            assert_eq!(kill, grace + 10, "{file}: {key}");
        }
    }
}
