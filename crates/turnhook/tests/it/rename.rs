//! A source that gets another name while calls go on: they are told once, in the sessions that they have.

use std::fs;

use crate::harness::{
    billing::Billing,
    eventually,
    feeder::{Allocation, Feeder},
    postgres::Postgres,
    program::Program,
    turnhook::{stderr, stdout},
};

/// In the file, as a person does it.
fn name_it(program: &Program, from: &str, to: &str) {
    let path = program.directory.path().join("turnhook.toml");
    let text = fs::read_to_string(&path).unwrap();
    let renamed = text.replace(&format!("name = \"{from}\""), &format!("name = \"{to}\""));
    assert_ne!(text, renamed);
    fs::write(path, renamed).unwrap();
}

fn refused(program: &Program, old: &str, new: &str, why: &str) {
    let output = program.command(&["sources", "rename", old, new]);
    assert_eq!(output.status.code(), Some(1), "{}", stdout(&output));
    assert!(stderr(&output).contains(why), "{}", stderr(&output));
}

/// 8,000,000 bytes over one call, of which 6,000,000 were told before it was renamed.
fn renamed_with_a_live_call(store: &str) {
    let billing = Billing::start();
    let rules = "[session]\ngroup_by = \"allocation\"\nlinger = \"0s\"\nusage_interval = \"1s\"\n";
    let mut program = Program::new(&format!("{rules}{}{store}", billing.endpoint()));
    program.start();
    let mut feeder = Feeder::connect(program.source);
    let mut call = Allocation::new("cust_42", 7);
    feeder.open(&call, 600).unwrap();
    feeder.relay(&mut call, 30_000, 30_000).unwrap();
    eventually("usage to be told", || {
        let told = billing.sessions_of("cust_42");
        told.first().is_some_and(|s| s.billable() > 0).then_some(())
    });
    name_it(&program, "eu-1", "eu-west");
    refused(&program, "eu-1", "eu-west", "stop it first");
    program.stop();
    drop(feeder);
    let open = billing.sessions_of("cust_42").remove(0);
    assert_eq!(open.billable(), 6_000_000);

    refused(
        &program,
        "eu-1",
        "eu-2",
        "eu-2: no source of this name is configured",
    );
    refused(&program, "us-1", "eu-west", "known: eu-1");
    name_it(&program, "eu-west", "eu-1");
    refused(&program, "eu-2", "eu-1", "known: eu-1");
    refused(&program, "eu-1", "eu-1", "still configured");
    name_it(&program, "eu-1", "eu-west");
    let said = program.ask(&["sources", "rename", "eu-1", "eu-west"]);
    assert!(said.contains("1 open sessions with 1 allocations"), "{said}");
    refused(&program, "eu-1", "eu-west", "known: eu-west");

    program.start();
    let mut feeder = Feeder::connect(program.source);
    feeder.refresh(&call, 600).unwrap();
    feeder.relay(&mut call, 10_000, 10_000).unwrap();
    feeder.close(&call).unwrap();
    let ended = billing.ended("cust_42", 1);
    assert_eq!(ended.len(), 1, "{ended:#?}");
    assert_eq!(ended[0].id, open.id, "it is the session that it was");
    assert_eq!(ended[0].billable(), 8_000_000, "once, and all of it");
    let body = &ended[0].events.last().unwrap().body;
    assert_eq!(body["data"]["source"], "eu-west");
    let log = program.stop();
    assert!(
        !log.iter().any(|line| line.contains("not configured")),
        "{log:#?}"
    );
}

#[test]
fn a_live_call_goes_on_under_the_new_name() {
    renamed_with_a_live_call("");
}

#[test]
fn a_live_call_goes_on_under_the_new_name_on_postgres() {
    let server = Postgres::start();
    let url = server.url(&server.database());
    renamed_with_a_live_call(&format!("[store]\nurl = \"{url}\"\n"));
}

/// Whoever does not know the command is told of it, at every start.
#[test]
fn a_source_that_is_not_configured_any_more_is_named_at_every_start() {
    let billing = Billing::start();
    let mut program = Program::new(&billing.endpoint());
    program.start();
    let mut feeder = Feeder::connect(program.source);
    feeder.open(&Allocation::new("cust_42", 7), 600).unwrap();
    billing.started("cust_42");
    program.stop();
    name_it(&program, "eu-1", "eu-west");
    for _ in 0..2 {
        program.start();
        let log = program.stop();
        let line = log.iter().find(|line| line.contains("not configured"));
        let line = line.unwrap_or_else(|| panic!("{log:#?}"));
        assert!(
            line.contains("WARN") && line.contains("turnhook sources rename eu-1 NEW"),
            "{line}"
        );
    }
    // The new name has a state of its own now: to make one of two is not possible.
    refused(&program, "eu-1", "eu-west", "already");
}
