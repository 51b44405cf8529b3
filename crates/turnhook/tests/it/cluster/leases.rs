//! Leases and the database: a beat waits for nothing but its own answer, and whoever acts on a lease stops when it ends.

use crate::{
    harness::{
        billing::{Billing, counted},
        eventually,
        nodes::{Shared, leader, ready},
        postgres::Postgres,
        program::WHILE,
        turn::TurnClient,
    },
    stopping::{hears, on_postgres},
};

/// The first node is to give half of its lanes to the second, and each release hangs. It keeps all the rest and leads on,
/// and what it gives back goes over when it expires.
#[test]
fn releases_that_hang_cost_no_lease() {
    let billing = Billing::start();
    // Long enough for a beat to come in time on a busy machine; each release hangs for half of it.
    let shared = Shared::start("5s", billing.endpoint());
    let mut nodes = shared.nodes(1);
    shared.sql(
        "CREATE FUNCTION hang() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN \
         IF NEW.holder IS NULL AND OLD.holder IS NOT NULL THEN PERFORM pg_sleep(600); END IF; RETURN NEW; END $$; \
         CREATE TRIGGER hang BEFORE UPDATE ON lease FOR EACH ROW EXECUTE FUNCTION hang()",
    );
    let mut second = shared.node("node-2");
    second.launch();
    nodes.push(second);
    let hanging = || {
        let sql = "SELECT count(*) FROM pg_stat_activity WHERE query LIKE '%SET holder = NULL%' AND wait_event = 'PgSleep'";
        shared.sql(sql) != "0"
    };
    eventually("a release that hangs", || hanging().then_some(()));
    let coturn = shared.coturn();
    // A lease's time and more: each call is told, while releases hang. (When all have expired there is none any more.)
    for round in 0..3 {
        let user = format!("caller-{round}");
        let mut call = TurnClient::tcp(&coturn, &user).call(&coturn);
        call.relay(10, 100);
        drop(call);
        billing.ended(&user, 1);
    }
    assert_eq!(leader(&nodes), 0);
    assert_eq!(shared.epoch(), 1, "the lead was lost, and taken again");
    let log = nodes[0].program.log();
    assert!(!log.iter().any(|line| line.contains("have run out")), "{log:#?}");
    shared.sql("DROP TRIGGER hang ON lease");
    ready(&nodes);
}

/// The database stands still: when the leases have run out nobody leads or listens, and no request is begun, although there
/// are deliveries in memory.
#[test]
fn lanes_end_with_the_leases() {
    no_request_without_a_lease(true);
}

/// The same where nobody has come to take the lanes away yet, as in a program that was stopped and goes on: whatever begins
/// a request asks whether the leases hold.
#[test]
fn requests_end_with_the_leases_before_the_lanes_do() {
    no_request_without_a_lease(false);
}

fn no_request_without_a_lease(keeps_lanes: bool) {
    let billing = Billing::start();
    let postgres = Postgres::start();
    let endpoint = billing.endpoint().replace("\"unlimited\"", "\"5/s\"");
    let mut program = on_postgres(&postgres, &endpoint);
    let fault = program.directory.path().join("fault");
    let asked = format!("stop:lane keeper@{}", fault.display());
    program.start_with(&[("FAULT_INJECTION", &asked)]);
    let mut feeder = hears(&program, 1);
    for id in 2..60 {
        feeder.call("cust_42", id);
    }
    eventually("deliveries that wait for their turn", || {
        let sent = billing.webhooks().len();
        (sent > 5 && counted(&program, &["turnhook_open_sessions"]) == 1).then_some(())
    });
    if !keeps_lanes {
        std::fs::write(&fault, "").unwrap();
    }
    let frozen = postgres.freeze();
    eventually("the leases to run out", || {
        (counted(&program, &["turnhook_source_leads{"]) == 0).then_some(())
    });
    let sent = billing.webhooks().len();
    assert!(sent < 100, "nothing waits any more: {sent}");
    // Some seven would be due.
    std::thread::sleep(WHILE);
    let more = billing.webhooks().len() - sent;
    assert!(more <= 1, "{more} requests were begun without a lease");
    drop(frozen);
    eventually("the rest", || (billing.webhooks().len() > sent + 5).then_some(()));
    if keeps_lanes {
        program.stop();
    } else {
        // What does nothing more does not stop either.
        program.kill();
    }
}
