//! Whoever is blocked is cut off: real coturns with their CLI, both types of source.

mod api;
mod failing;
mod gate;
mod killed;
mod nodes;
mod obeyed;
mod quota;
mod quotas;
mod told;

use std::path::Path;

use crate::harness::{
    billing::{Billing, QUICK, Session, counted, logged_of, redis, relayed, statsdb, sum},
    coturn::{Coturn, Transport},
    eventually, free_port,
    program::Program,
    redis::Redis,
    turn::TurnClient,
    turnhook,
};

const PASSWORD: &str = "cli-tests-only";

/// A `[[control]]` of a coturn's CLI.
fn control(port: u16) -> String {
    format!("[[control]]\nsource = \"eu-1\"\naddress = \"127.0.0.1:{port}\"\npassword = \"{PASSWORD}\"\n")
}

/// A coturn whose CLI is on.
#[track_caller]
fn coturn(directory: &Path, statsdb: &str, cli: u16, more: &[&str]) -> Coturn {
    let own = [
        "--cli-ip=127.0.0.1".to_owned(),
        format!("--cli-port={cli}"),
        format!("--cli-password={PASSWORD}"),
    ];
    let all: Vec<&str> = own
        .iter()
        .map(String::as_str)
        .chain(more.iter().copied())
        .collect();
    Coturn::start(directory, statsdb, &all)
}

/// A program that listens for coturn, with a control.
fn direct(billing: &Billing, cli: u16, more: &str) -> Program {
    Program::new(&format!("{QUICK}{}{}{more}", billing.endpoint(), control(cli)))
}

/// How many ends of allocations came to this.
#[track_caller]
fn cancels(program: &Program, result: &str) -> u64 {
    counted(
        program,
        &["turnhook_cancels_total", &format!("result=\"{result}\"")],
    )
}

#[track_caller]
fn until_cancels(program: &Program, result: &str, at_least: u64) {
    eventually(&format!("{at_least} ends that are {result}"), || {
        (cancels(program, result) >= at_least).then_some(())
    });
}

#[track_caller]
fn until_up(program: &Program, up: u64) {
    eventually("the control", || {
        let (_, text) = program.get("/metrics");
        let line = text
            .lines()
            .find(|line| line.starts_with("turnhook_control_up{"))?;
        line.ends_with(&format!(" {up}")).then_some(())
    });
}

/// Cut off, and told to the byte.
#[track_caller]
fn is_cut_off(session: &Session, reason: &str, coturn: &Coturn) {
    assert_eq!(session.end_reason(), "cancelled", "{session:#?}");
    assert!(session.is_exact(), "{session:#?}");
    let end = &session.events.last().unwrap().body["data"];
    assert_eq!(end["block_reason"], reason);
    assert_eq!(end["allocations"][0]["close_reason"], "cancelled");
    let logged = sum(logged_of(coturn, session.user()));
    assert_eq!((session.usage(), session.billable()), (logged, relayed(&logged)));
}

/// Clients over UDP, TCP and TLS; one of them comes back ten times; a bystander is left alone.
#[track_caller]
fn blocked_users_are_cut_off(mut program: Program, billing: &Billing, coturn: &Coturn) {
    program.line("allocations can be ended");
    let mut bystander = TurnClient::udp(coturn, "bystander").call(coturn);
    bystander.relay(10, 200);
    for (user, transport) in [
        ("udp", Transport::Udp),
        ("tcp", Transport::Tcp),
        ("tls", Transport::Tls),
    ] {
        let mut client = TurnClient::over(transport, coturn, user).call(coturn);
        client.relay(50, 300);
        billing.started(user);
        program.ask(&["block", user, "--for", "1h", "--reason", "no balance"]);
        is_cut_off(&billing.ended(user, 1)[0], "no balance", coturn);
    }
    assert_eq!(cancels(&program, "done"), 3);

    // A credential that is valid still makes new allocations: each is ended.
    for back in 1..=10 {
        let mut client = TurnClient::udp(coturn, "udp");
        client.allocate().unwrap();
        until_cancels(&program, "done", 3 + back);
        // As coturn says it to who is gone.
        assert_ne!(client.refresh(600), 0, "it goes on");
    }
    assert_eq!(counted(&program, &["turnhook_blocked_new_total"]), 10);

    let listed = program.ask(&["blocks", "list", "--format", "json"]);
    assert_eq!(listed.lines().count(), 3, "{listed}");
    assert!(listed.contains("\"reason\":\"no balance\""), "{listed}");
    program.ask(&["unblock", "udp"]);
    eventually("the end of the block", || {
        let mut client = TurnClient::udp(coturn, "udp");
        client.allocate().unwrap();
        std::thread::sleep(std::time::Duration::from_millis(100));
        (client.refresh(600) == 0).then_some(())
    });

    // One session, and nothing after it.
    let mut dan = TurnClient::tcp(coturn, "dan").call(coturn);
    dan.relay(20, 200);
    billing.started("dan");
    let id = billing.sessions_of("dan")[0].id.clone();
    program.ask(&["sessions", "end", &id, "--reason", "too loud"]);
    is_cut_off(&billing.ended("dan", 1)[0], "too loud", coturn);
    let mut dan = TurnClient::tcp(coturn, "dan").call(coturn);
    dan.relay(5, 200);
    assert_eq!(dan.refresh(600), 0);

    bystander.relay(10, 200);
    assert_eq!(bystander.refresh(600), 0, "nobody blocked this one");
    assert!(billing.sessions_of("bystander").iter().all(|s| !s.has_ended()));
    let (code, _) = program.get("/readyz");
    assert_eq!(code, 200);
    let (_, status) = program.get("/status");
    let status: serde_json::Value = serde_json::from_str(&status).unwrap();
    let version: Vec<String> = coturn.version().iter().map(u32::to_string).collect();
    assert_eq!(status["controls"][0]["coturn"], version.join("."), "{status:#}");
    assert_eq!(status["controls"][0]["up"], true);
    let said = program.log().iter().any(|line| line.contains("older than 4.13"));
    assert_eq!(said, coturn.version() < vec![4, 13]);
    let output = program.command(&["doctor"]);
    let doctor = turnhook::stdout(&output);
    let level = if said { "warn" } else { "ok  " };
    let line = format!(
        "{level}  control of eu-1: coturn {} answers at",
        version.join(".")
    );
    assert!(doctor.contains(&line), "{doctor}");
    assert_eq!(
        doctor.contains("any stranger can crash this one"),
        said,
        "{doctor}"
    );
    program.stop();
}

#[test]
fn on_a_direct_source() {
    let (billing, cli) = (Billing::start(), free_port());
    let mut program = direct(&billing, cli, "");
    program.start();
    let coturn = coturn(program.directory.path(), &statsdb(&program, 0), cli, &[]);
    blocked_users_are_cut_off(program, &billing, &coturn);
}

#[test]
fn on_a_redis_source() {
    let (billing, cli) = (Billing::start(), free_port());
    let directory = tempfile::tempdir().unwrap();
    let server = Redis::start(directory.path(), &[]);
    let source = format!("url = \"redis://127.0.0.1:{}\"\n{}", server.port, control(cli));
    let mut program = redis(&billing, &source);
    program.start();
    let coturn = coturn(directory.path(), &server.statsdb(), cli, &[]);
    blocked_users_are_cut_off(program, &billing, &coturn);
}
