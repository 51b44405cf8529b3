//! coturn asks the gate for keys, by `redis-userdb`.

use super::{Program, coturn, free_port, statsdb, until_up};
use crate::harness::{
    billing::{Billing, QUICK, counted},
    coturn::{AUTH_SECRET, Coturn},
    eventually,
    turn::TurnClient,
};

const PASSWORD: &str = "gate-tests-only";

fn gate(port: u16, more: &str) -> String {
    format!(
        "[[gate]]\nlisten = \"127.0.0.1:{port}\"\nrealm = \"example.org\"\nsource = \"eu-1\"\nsecrets = \"{AUTH_SECRET}\"\n\
         password = \"{PASSWORD}\"\n{more}\n"
    )
}

/// One that has no secret of its own, and asks.
fn asking(program: &Program, cli: u16, gate: u16, password: &str) -> Coturn {
    let userdb = format!("--redis-userdb=ip=127.0.0.1 port={gate} password={password} connect_timeout=2");
    coturn(
        program.directory.path(),
        &statsdb(program, 0),
        cli,
        &["--lt-cred-mech", &userdb],
    )
}

#[track_caller]
fn answers(program: &Program, answer: &str) -> u64 {
    counted(
        program,
        &["turnhook_gate_answers_total", &format!("answer=\"{answer}\"")],
    )
}

#[test]
fn whoever_is_blocked_is_refused_and_nobody_else() {
    let (billing, cli, port) = (Billing::start(), free_port(), free_port());
    let more = format!("{QUICK}{}{}", billing.endpoint(), gate(port, "allow_old = true"));
    let mut program = Program::new(&more);
    program.start();
    let coturn = asking(&program, cli, port, PASSWORD);
    let mut ann = TurnClient::udp(&coturn, "ann").call(&coturn);
    ann.relay(10, 200);
    billing.started("ann");
    assert_eq!(answers(&program, "key"), 1);

    assert_eq!(TurnClient::impostor(&coturn, "ann").allocate(), Err(401));
    let mut over = TurnClient::udp(&coturn, "late");
    over.credential().username = "1000000000:late".to_owned();
    assert_eq!(over.allocate(), Err(401));
    assert_eq!(answers(&program, "expired"), 1);

    program.ask(&["block", "ann"]);
    eventually("the refusal", || {
        (TurnClient::udp(&coturn, "ann").allocate() == Err(401)).then_some(())
    });
    assert!(answers(&program, "blocked") >= 1);
    // There is no [[control]] here: what runs goes on.
    ann.relay(10, 200);
    assert_eq!(ann.refresh(600), 0);
    TurnClient::udp(&coturn, "bob").allocate().unwrap();
    program.ask(&["unblock", "ann"]);
    eventually("the end of the block", || {
        TurnClient::udp(&coturn, "ann").allocate().ok()
    });

    // While it is gone nobody new is let in, and what runs goes on.
    program.stop();
    assert_eq!(TurnClient::udp(&coturn, "bob").allocate(), Err(401));
    ann.relay(10, 200);
    assert_eq!(ann.refresh(600), 0);
    program.start();
    eventually("the gate", || TurnClient::udp(&coturn, "bob").allocate().ok());
    program.stop();
}

#[test]
fn a_coturn_with_a_wrong_password_is_told_nothing() {
    let (billing, cli, port) = (Billing::start(), free_port(), free_port());
    let mut program = Program::new(&format!(
        "{}{}",
        billing.endpoint(),
        gate(port, "coturn = \"4.17\"")
    ));
    program.start();
    let coturn = asking(&program, cli, port, "a-guess");
    assert_eq!(TurnClient::udp(&coturn, "ann").allocate(), Err(401));
    program.line("gave the gate a wrong password");
    assert_eq!(answers(&program, "key"), 0);
    program.stop();
}

/// A banner that says 4.6.1 keeps it shut; one that says 4.13 or newer opens it.
#[test]
fn it_is_open_only_where_coturn_is_known_to_be_new_enough() {
    let (billing, cli, port) = (Billing::start(), free_port(), free_port());
    let more = format!(
        "{QUICK}{}{}{}",
        billing.endpoint(),
        super::control(cli),
        gate(port, "")
    );
    let mut program = Program::new(&more);
    program.start();
    let coturn = asking(&program, cli, port, PASSWORD);
    until_up(&program, 1);
    let allowed = TurnClient::udp(&coturn, "ann").allocate();
    if coturn.version() < vec![4, 13] {
        assert_eq!(allowed, Err(401));
        program.line("the gate is closed");
        assert_eq!((answers(&program, "closed"), answers(&program, "key")), (1, 0));
    } else {
        allowed.unwrap();
    }
    program.stop();
}
