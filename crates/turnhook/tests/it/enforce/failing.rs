//! What goes wrong: whoever was not blocked is left alone, and metering is none the worse.

use std::time::Duration;

use super::{PASSWORD, cancels, control, coturn, direct, is_cut_off, until_cancels, until_up};
use crate::harness::{
    billing::{Billing, QUICK, redis, statsdb},
    eventually, free_port,
    program::Program,
    redis::Redis,
    stun,
    turn::TurnClient,
    turnhook,
};

/// A coturn that was killed says nothing, and its numbers come back: on Redis nobody knows, and the number of a blocked
/// user is somebody else's.
#[test]
fn after_a_restart_the_number_is_another_users() {
    let (billing, cli) = (Billing::start(), free_port());
    let directory = tempfile::tempdir().unwrap();
    let server = Redis::start(directory.path(), &[]);
    let source = format!("url = \"redis://127.0.0.1:{}\"\n{}", server.port, control(cli));
    let mut program = redis(&billing, &source);
    program.start();
    // A number begins with that of its relay thread.
    let mut coturn = coturn(directory.path(), &server.statsdb(), cli, &["--relay-threads=1"]);
    let mut ann = TurnClient::udp(&coturn, "ann").call(&coturn);
    ann.relay(10, 200);
    billing.started("ann");
    coturn.process.signal("KILL");
    coturn.start_again();
    let mut bob = TurnClient::udp(&coturn, "bob").call(&coturn);
    bob.relay(10, 200);
    billing.started("bob");
    let id = |user: &str| billing.sessions_of(user)[0].allocations()[0]["id"].clone();
    assert_eq!(id("ann"), id("bob"), "the numbers begin anew");

    program.ask(&["block", "ann"]);
    until_cancels(&program, "gone", 1);
    assert_eq!(cancels(&program, "done"), 0);
    bob.relay(10, 200);
    assert_eq!(bob.refresh(600), 0);
    program.stop();
}

/// As where two coturns of a machine have one `cli-port`.
#[test]
fn the_cli_of_another_server_is_told_nothing() {
    let (billing, cli) = (Billing::start(), free_port());
    let mut program = direct(&billing, cli, "");
    program.start();
    let directory = program.directory.path().to_owned();
    let right = coturn(&directory, &statsdb(&program, 0), free_port(), &[]);
    let other = coturn(&directory, &statsdb(&program, 1), cli, &[]);
    let mut ann = TurnClient::udp(&right, "ann").call(&right);
    ann.relay(10, 200);
    billing.started("ann");
    // The same user, and the same number, there.
    let mut there = TurnClient::udp(&other, "ann-too").call(&other);
    there.relay(10, 200);
    program.ask(&["block", "ann"]);
    until_cancels(&program, "wrong_server", 1);
    program.line("is not the server that has it");
    for client in [&mut ann, &mut there] {
        client.relay(10, 200);
        assert_eq!(client.refresh(600), 0);
    }
    assert_eq!(cancels(&program, "done"), 0);
    program.stop();
}

/// coturn would close its socket, and it would go on with its ticket, out of sight.
#[test]
fn a_client_that_can_move_is_reported_once() {
    let (billing, cli) = (Billing::start(), free_port());
    let mut program = direct(&billing, cli, "");
    program.start();
    let coturn = coturn(
        program.directory.path(),
        &statsdb(&program, 0),
        cli,
        &["--mobility"],
    );
    let mut mob = TurnClient::udp(&coturn, "mob");
    let wishes = [
        (stun::REQUESTED_TRANSPORT, vec![17, 0, 0, 0]),
        (stun::LIFETIME, 600u32.to_be_bytes().to_vec()),
        (0x8030, Vec::new()), // MOBILITY-TICKET
    ];
    assert_eq!(mob.request(stun::ALLOCATE, &wishes).code, 401);
    assert_eq!(mob.request(stun::ALLOCATE, &wishes).code, 0);
    billing.started("mob");
    program.ask(&["block", "mob"]);
    until_cancels(&program, "mobile", 1);
    for _ in 0..3 {
        assert_eq!(mob.refresh(600), 0);
    }
    // Whoever comes after it has had his turn, and so would it have had.
    let mut ann = TurnClient::tcp(&coturn, "ann").call(&coturn);
    ann.relay(10, 200);
    billing.started("ann");
    program.ask(&["block", "ann", "--reason", "x"]);
    is_cut_off(&billing.ended("ann", 1)[0], "x", &coturn);
    assert_eq!(cancels(&program, "mobile"), 1);
    program.stop();
}

/// Without a way to coturn nobody is cut off, and everything else is as ever. Once there is one, the block holds.
#[test]
fn a_wrong_password_is_said_and_metering_goes_on() {
    let (billing, cli) = (Billing::start(), free_port());
    let wrong = control(cli).replace(PASSWORD, "a guess");
    let mut program = Program::new(&format!("{QUICK}{}{wrong}", billing.endpoint()));
    program.start();
    let coturn = coturn(program.directory.path(), &statsdb(&program, 0), cli, &[]);
    program.line("refuses the password");
    let mut ann = TurnClient::tcp(&coturn, "ann").call(&coturn);
    ann.relay(10, 200);
    billing.started("ann");
    program.ask(&["block", "ann", "--reason", "balance"]);
    until_cancels(&program, "unreachable", 1);
    until_up(&program, 0);
    assert_eq!(program.get("/readyz").0, 200);
    let (_, status) = program.get("/status");
    assert!(
        status.contains("refuses the password") && !status.contains("a guess"),
        "{status}"
    );
    let mut bob = TurnClient::tcp(&coturn, "bob").call(&coturn);
    bob.relay(10, 200);
    drop(bob);
    assert_eq!(billing.ended("bob", 1)[0].end_reason(), "closed");
    assert!(!program.log().join("\n").contains("a guess"));
    let doctor = program.command(&["doctor"]);
    let doctor = turnhook::stdout(&doctor);
    assert!(
        doctor.contains("fail  control of eu-1: coturn's CLI at"),
        "{doctor}"
    );
    assert!(
        doctor.contains("refuses the password") && !doctor.contains("a guess"),
        "{doctor}"
    );

    program.stop();
    program.configure(&format!("{QUICK}{}{}", billing.endpoint(), control(cli)));
    program.start();
    // coturn comes back to the listener when it next has something to say.
    eventually("the end", || {
        let mut ann = TurnClient::udp(&coturn, "ann");
        ann.allocate().unwrap();
        (cancels(&program, "done") >= 1).then_some(())
    });
    program.stop();
}

/// Killed between the command and the commit: the user is cut off all the same, and nothing is told twice.
#[test]
fn killed_in_the_midst_of_it() {
    let (billing, cli) = (Billing::start(), free_port());
    let mut program = direct(&billing, cli, "");
    program.start();
    let coturn = coturn(
        program.directory.path(),
        &statsdb(&program, 0),
        cli,
        &["--relay-threads=1", "--max-allocate-lifetime=30"],
    );
    let mut bystander = TurnClient::tcp(&coturn, "bystander").call(&coturn);
    for round in 0..5u64 {
        let user = format!("ann-{round}");
        let mut ann = TurnClient::udp(&coturn, &user).call(&coturn);
        ann.relay(20, 200);
        // After a kill a relay thread connects anew when it has something to say, and that may be lost.
        eventually(&format!("a session of {user}"), || {
            assert_eq!(ann.refresh(600), 0);
            (!billing.sessions_of(&user).is_empty()).then_some(())
        });
        program.ask(&["block", &user]);
        std::thread::sleep(Duration::from_millis(60 * round));
        program.kill();
        program.start();
        // And it is told once: the shape of each session is looked at.
        eventually("the cut", || (ann.refresh(600) != 0).then_some(()));
        bystander.relay(5, 200);
        assert_eq!(bystander.refresh(600), 0);
    }
    // Those whose end nobody heard are over when their lifetimes are: after our own restart no stop of coturn's would be
    // known for one.
    for round in 0..5 {
        let ended = billing.ended(&format!("ann-{round}"), 1).remove(0);
        assert_eq!(ended.end_reason(), "cancelled", "{ended:#?}");
    }
    program.stop();
}

/// Killed before the session of whoever was cut off is told, and its user unblocked meanwhile: why is told all the same.
#[test]
fn why_somebody_was_cut_off_outlives_a_kill() {
    let (billing, cli) = (Billing::start(), free_port());
    let session = QUICK.replace("linger = \"1s\"", "linger = \"6s\"");
    let mut program = Program::new(&format!("{session}{}{}", billing.endpoint(), control(cli)));
    program.start();
    let coturn = coturn(program.directory.path(), &statsdb(&program, 0), cli, &[]);
    let mut ann = TurnClient::udp(&coturn, "ann").call(&coturn);
    ann.relay(20, 200);
    billing.started("ann");
    program.ask(&["block", "ann", "--reason", "no balance"]);
    until_cancels(&program, "done", 1);
    program.ask(&["unblock", "ann"]);
    program.kill();
    program.start();
    is_cut_off(&billing.ended("ann", 1)[0], "no balance", &coturn);
    program.stop();
}
