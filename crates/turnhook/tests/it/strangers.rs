//! Traffic that nobody is to be billed for, and allocations that nobody uses: on a real coturn.

use crate::harness::{
    billing::{Billing, Session, direct, logged_of, relayed, statsdb},
    coturn::Coturn,
    eventually,
    turn::TurnClient,
};

/// TRAPS.md, trap 6: a client with a wrong password causes traffic under the name that it claims.
#[test]
fn a_wrong_password_bills_nobody() {
    let billing = Billing::start();
    let mut program = direct(&billing);
    program.start();
    let directory = tempfile::tempdir().unwrap();
    let coturn = Coturn::start(directory.path(), &statsdb(&program, 0), &[]);
    let mut victim = TurnClient::tcp(&coturn, "victim").call(&coturn);
    billing.started("victim");
    for claimed in ["victim", "absent"] {
        let mut impostor = TurnClient::impostor(&coturn, claimed);
        for _ in 0..10 {
            assert_eq!(impostor.allocate(), Err(401));
        }
    }
    // Its traffic is there, under their names, and heard.
    for claimed in ["victim", "absent"] {
        eventually("the impostor's traffic in coturn's log", || {
            logged_of(&coturn, claimed)
                .iter()
                .find(|l| l.client[1] > 0)
                .copied()
        });
    }
    eventually("the impostor's traffic", || {
        let (_, metrics) = program.get("/metrics");
        let mut traffic = metrics
            .lines()
            .filter(|l| l.starts_with("turnhook_events_total") && l.contains("\"traffic\""));
        traffic
            .any(|l| !l.ends_with(" 0") && !l.ends_with(" 1"))
            .then_some(())
    });
    victim.relay(100, 100);
    drop(victim);
    let session = &billing.ended("victim", 1)[0];
    assert_eq!((session.end_reason(), session.is_exact()), ("closed", true));
    // Of coturn's log it is the allocation that relayed, and nothing else.
    let logged = logged_of(&coturn, "victim");
    assert_eq!(logged.len(), 2, "its own and the impostor's: {logged:?}");
    let own: Vec<_> = logged.into_iter().filter(|l| l.peer[2] > 0).collect();
    assert_eq!(own.len(), 1);
    assert_eq!(session.usage(), own[0]);
    assert_eq!(session.billable(), relayed(&own[0]));
    assert_eq!(session.allocations().len(), 1);
    assert_eq!(billing.sessions().len(), 1, "the absent one has none");
}

/// TRAPS.md, trap 13,: of three allocations of a call one relays, one is closed
/// unused, and one dangles. The call ends with the one that relayed.
#[test]
fn what_dangles_does_not_keep_a_session_open() {
    let billing = Billing::start();
    let mut program = direct(&billing);
    program.start();
    let directory = tempfile::tempdir().unwrap();
    let coturn = Coturn::start(
        directory.path(),
        &statsdb(&program, 0),
        &["--max-allocate-lifetime=25"],
    );
    let mut call = TurnClient::udp(&coturn, "ann").call(&coturn);
    let mut dangling = TurnClient::udp(&coturn, "ann").call(&coturn);
    let mut unused = TurnClient::udp(&coturn, "ann").call(&coturn);
    dangling.relay(3, 60);
    assert_eq!(unused.refresh(0), 0);
    call.relay(2000, 300);
    assert_eq!(call.refresh(0), 0);
    let first = billing.ended("ann", 1).remove(0);
    // It ended while the dangling one was still open, and waited for nothing of it.
    let open: Vec<_> = first
        .allocations()
        .iter()
        .filter(|a| a["closed_at"].is_null())
        .collect();
    assert_eq!((first.allocations().len(), open.len()), (3, 1), "{first:#?}");
    assert_eq!(program.status()["sources"]["eu-1"]["open_allocations"], 1);
    assert_eq!((first.end_reason(), first.is_exact()), ("closed", true));
    // The next call of the same user is a session of its own.
    let mut next = TurnClient::udp(&coturn, "ann").call(&coturn);
    next.relay(100, 300);
    assert_eq!(next.refresh(0), 0);
    let second = billing.ended("ann", 2).remove(1);
    assert_eq!(
        (second.is_exact(), second.continues(), second.allocations().len()),
        (true, false, 1)
    );
    // Then the dangling one runs out: too little to be told alone, it waits for the user's next call.
    program.until("the dangling one's end", |status| {
        status["sources"]["eu-1"]["open_allocations"] == 0
    });
    assert_eq!(billing.sessions_of("ann").len(), 2);
    let mut third = TurnClient::udp(&coturn, "ann").call(&coturn);
    third.relay(100, 300);
    assert_eq!(third.refresh(0), 0);
    billing.ended("ann", 3);
    let logged = eventually("coturn's log of all five", || {
        let logged = logged_of(&coturn, "ann");
        (logged.len() == 5).then_some(logged)
    });
    let truth: u64 = logged.iter().map(relayed).sum();
    let told: u64 = billing.sessions_of("ann").iter().map(Session::billable).sum();
    assert_eq!(told, truth, "{logged:#?}");
}
