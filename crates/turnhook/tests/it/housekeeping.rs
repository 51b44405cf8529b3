//! What takes long, or is done now and then, keeps nobody waiting.

use std::{
    fs,
    path::PathBuf,
    time::{Duration, Instant},
};

use crate::{
    harness::{
        DEADLINE,
        billing::{Billing, counted},
        eventually,
        feeder::{Allocation, Feeder},
        free_port,
        nodes::{Shared, ready},
        postgres::Postgres,
        program::{Program, endpoint},
    },
    stopping::hears,
};

/// What is old is being removed, and the database does not come to an end with it: a command of another process is followed
/// meanwhile.
#[test]
fn others_are_followed_while_what_is_old_is_removed() {
    let postgres = Postgres::start();
    let database = postgres.database();
    let nobody = endpoint("billing", &format!("http://127.0.0.1:{}/", free_port()), "");
    let mut program = Program::new(&format!(
        "[store]\nurl = \"{}\"\n{nobody}",
        postgres.url(&database)
    ));
    program.start();
    let _feeder = hears(&program, 1);
    postgres.sql(
        &database,
        "CREATE FUNCTION hang() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN PERFORM pg_sleep(600); RETURN NULL; END $$; \
         CREATE TRIGGER hang BEFORE DELETE ON session FOR EACH STATEMENT EXECUTE FUNCTION hang()",
    );
    // Which removal it is: the database ends one that takes too long, and another follows.
    let hanging = || {
        let sql = "SELECT pid || ' ' || query_start FROM pg_stat_activity \
                   WHERE query LIKE 'DELETE FROM session%' AND wait_event = 'PgSleep'";
        Some(postgres.sql(&database, sql)).filter(|which| !which.is_empty())
    };
    let deadline = Instant::now() + 2 * DEADLINE;
    loop {
        assert!(
            Instant::now() < deadline,
            "no command was followed while a removal hung"
        );
        let removal = eventually("a removal that hangs", hanging);
        program.ask(&["endpoints", "pause", "billing"]);
        let is_paused = || program.status()["endpoints"]["billing"]["state"] == "paused";
        while !is_paused() && hanging().as_ref() == Some(&removal) {
            std::thread::sleep(Duration::from_millis(50));
        }
        if is_paused() && hanging().as_ref() == Some(&removal) {
            return;
        }
        program.ask(&["endpoints", "resume", "billing"]);
        program.until("the resumed endpoint", |status| {
            status["endpoints"]["billing"]["state"] != "paused"
        });
    }
}

/// So many openings that most of them, or the first of them, are a large commit.
pub(crate) const MANY: u64 = 1_100;

/// Has a store in a file wait until so much was heard that a large commit comes, unless the program ends with one before.
#[track_caller]
pub(crate) fn a_large_commit(program: &mut Program, many: u64) -> Feeder {
    let other = rusqlite::Connection::open(program.directory.path().join("turnhook.db")).unwrap();
    other.busy_timeout(DEADLINE).unwrap();
    other.execute_batch("BEGIN IMMEDIATE").unwrap();
    let mut feeder = Feeder::connect(program.source);
    for id in 1..=many {
        let _ = feeder.open(&Allocation::new("cust_42", id), 600);
    }
    eventually("all allocations", || {
        let (_, metrics) = program.try_get("/metrics").unwrap_or_default();
        let all = format!("turnhook_open_allocations{{source=\"eu-1\"}} {many}");
        let ended = program.process().has_ended();
        (ended || metrics.lines().any(|line| line == all)).then_some(())
    });
    other.execute_batch("ROLLBACK").unwrap();
    feeder
}

/// A step that stands still for as long as there is this file.
pub(crate) struct Held(PathBuf);

impl Held {
    /// Of the program that is started with these variables: on one thread, so that whatever stands in its way is seen.
    pub(crate) fn of(program: &Program, step: &str) -> (Held, [(&'static str, String); 2]) {
        let file = program.directory.path().join("held");
        let fault = format!("hold:{step}@{}", file.display());
        (
            Held(file),
            [
                ("FAULT_INJECTION", fault),
                ("TOKIO_WORKER_THREADS", "1".to_owned()),
            ],
        )
    }

    pub(crate) fn begin(&self) {
        fs::write(&self.0, "").unwrap();
    }

    #[track_caller]
    pub(crate) fn has_come(&self, what: &str) {
        eventually(what, || {
            (fs::read_to_string(&self.0).ok()? == "held").then_some(())
        });
    }

    pub(crate) fn end(&self) {
        fs::remove_file(&self.0).unwrap();
    }
}

/// While a large commit is packed, handed to the store, or handed on, the source's task and all others go on, though there is
/// one thread for them.
fn a_large_commit_keeps_nobody_waiting(step: &str) {
    let billing = Billing::start();
    let mut program = Program::new(&billing.endpoint());
    let (held, environment) = Held::of(&program, step);
    program.start_with(&environment.each_ref().map(|(name, value)| (*name, &**value)));
    held.begin();
    let mut feeder = a_large_commit(&mut program, MANY);
    held.has_come(step);
    feeder.open(&Allocation::new("cust_42", MANY + 1), 600).unwrap();
    eventually("the source's task to go on", || {
        (counted(&program, &["turnhook_open_allocations"]) == MANY + 1).then_some(())
    });
    held.end();
    eventually("all deliveries", || {
        let made = counted(&program, &["turnhook_deliveries_total", "outcome=\"delivered\""]);
        (made == MANY + 1).then_some(())
    });
    program.stop();
}

#[test]
fn while_a_large_commit_is_packed_all_goes_on() {
    a_large_commit_keeps_nobody_waiting("packing");
}

#[test]
fn while_a_large_commit_is_handed_to_the_store_all_goes_on() {
    a_large_commit_keeps_nobody_waiting("committing");
}

#[test]
fn while_many_deliveries_are_handed_on_all_goes_on() {
    a_large_commit_keeps_nobody_waiting("handing on");
}

/// While a source is taken over the node keeps its leases and answers, though there is one thread for all of it.
fn a_takeover_keeps_nobody_waiting(step: &str) {
    let shared = Shared::start("2s", String::new());
    let mut first = shared.node("node-1");
    first.launch();
    let mut nodes = vec![first, shared.node("node-2")];
    ready(&nodes[..1]);
    let (held, environment) = Held::of(&nodes[1].program, step);
    nodes[1].launch_with(&environment.each_ref().map(|(name, value)| (*name, &**value)));
    assert_eq!(ready(&nodes), 0);
    held.begin();
    nodes[0].kill();
    held.has_come(step);
    let epoch = shared.epoch();
    eventually("all lanes", || (nodes[1].lanes() == 64).then_some(()));
    assert!(!nodes[1].leads());
    held.end();
    eventually("the new leader", || nodes[1].leads().then_some(()));
    assert_eq!(shared.epoch(), epoch, "the lease was kept");
    nodes[1].stop();
}

#[test]
fn while_what_is_taken_over_is_read_all_goes_on() {
    a_takeover_keeps_nobody_waiting("loading");
}

#[test]
fn while_what_is_taken_over_is_put_together_all_goes_on() {
    a_takeover_keeps_nobody_waiting("joining");
}
