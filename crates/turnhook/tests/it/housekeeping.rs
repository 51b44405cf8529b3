//! What is done now and then keeps nobody waiting.

use std::time::{Duration, Instant};

use crate::{
    harness::{
        DEADLINE, eventually, free_port,
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
