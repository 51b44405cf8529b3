//! Many allocations that each carry too little to be told alone: together they are told.

use crate::harness::{
    billing::{Billing, QUICK, Session, logged_of, relayed, statsdb},
    coturn::Coturn,
    eventually,
    program::Program,
    turn::TurnClient,
};

/// Below the default `residue` of 64 KiB, both ways together.
const PACKETS: u32 = 30;
const LENGTH: usize = 1000;

/// How many are parked at a time.
const PARKED: usize = 40;

/// Eighty idle allocations outlive the calls of their user; each then carries less than `residue`, and closes.
#[test]
fn many_small_parts_of_one_user() {
    let billing = Billing::start();
    let mut program = Program::new(&format!("{QUICK}{}", billing.endpoint()));
    program.start();
    let directory = tempfile::tempdir().unwrap();
    let coturn = Coturn::start(directory.path(), &statsdb(&program, 0), &[]);
    let open = |count: usize| {
        program.until("so many open allocations", |status| {
            status["sources"]["eu-1"]["open_allocations"] == count
        });
    };
    let told = || -> u64 { billing.sessions_of("ann").iter().map(Session::billable).sum() };
    let call = || {
        let mut client = TurnClient::udp(&coturn, "ann").call(&coturn);
        client.relay(100, LENGTH);
        assert_eq!(client.refresh(0), 0);
        client
    };
    let mut relayed_by_all = 0;
    for _ in 0..2 {
        let mut parked: Vec<TurnClient> = (0..PARKED)
            .map(|_| TurnClient::tcp(&coturn, "ann").call(&coturn))
            .collect();
        let ended = || {
            let sessions = billing.sessions_of("ann");
            sessions.iter().filter(|s| s.has_ended()).count()
        };
        let before = ended();
        let over = call();
        relayed_by_all += over.sent + over.received;
        eventually("the call's end", || (ended() > before).then_some(()));
        open(PARKED);
        for client in &mut parked {
            client.relay(PACKETS, LENGTH);
            relayed_by_all += client.sent + client.received;
            assert!(client.sent + client.received < 64 * 1024);
            assert_eq!(client.refresh(0), 0);
        }
        open(0);
    }
    // What is left of them comes with the next call.
    let over = call();
    relayed_by_all += over.sent + over.received;
    open(0);
    billing.told("ann", relayed_by_all);
    let logged = logged_of(&coturn, "ann");
    assert_eq!(logged.len(), 2 * PARKED + 3);
    let truth: u64 = logged.iter().map(relayed).sum();
    assert!(
        truth >= relayed_by_all && told() == truth,
        "{} told, {truth} relayed",
        told()
    );
    // Each part is told after the call that it outlived, as what continues it.
    let sessions = billing.sessions_of("ann");
    assert!(sessions.iter().any(Session::continues), "{sessions:#?}");
}
