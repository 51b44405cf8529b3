//! Traffic that nobody is to be billed for, and allocations that nobody uses: on a real coturn.

use std::net::UdpSocket;

use crate::harness::{
    billing::{Billing, Session, direct, logged_of, relayed, statsdb, sum},
    coturn::Coturn,
    eventually,
    turn::TurnClient,
};

/// COTURN.md, trap 6: a client with a wrong password causes traffic under the name that it claims.
#[test]
fn a_wrong_password_bills_nobody() {
    let billing = Billing::start();
    let mut bridge = direct(&billing);
    bridge.start();
    let directory = tempfile::tempdir().unwrap();
    let coturn = Coturn::start(directory.path(), &statsdb(&bridge, 0), &[]);
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
        let (_, metrics) = bridge.get("/metrics");
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

/// COTURN.md, trap 20: coturn counts what strangers send to a relay port before it throws it away.
#[test]
fn a_strangers_datagrams_are_not_billable() {
    const DATAGRAMS: u64 = 300;
    const LENGTH: usize = 1000;
    let billing = Billing::start();
    let mut bridge = direct(&billing);
    bridge.start();
    let directory = tempfile::tempdir().unwrap();
    let coturn = Coturn::start(directory.path(), &statsdb(&bridge, 0), &[]);
    let stranger = UdpSocket::bind("127.0.0.3:0").unwrap();
    // A few at a time, so that no buffer is full: an answer means that what came before was read.
    let flood = |client: &mut TurnClient| {
        for _ in 0..DATAGRAMS / 20 {
            for _ in 0..20 {
                stranger.send_to(&[0x66; LENGTH], client.relay_address()).unwrap();
            }
            assert_eq!(client.refresh(600), 0);
        }
    };
    // One that relays, and one that never does but allows somebody to send to it.
    let mut busy = TurnClient::tcp(&coturn, "busy").call(&coturn);
    let mut idle = TurnClient::tcp(&coturn, "idle");
    idle.allocate().unwrap();
    idle.permit(coturn.peer_address());
    flood(&mut idle);
    busy.relay(20, 500);
    flood(&mut busy);
    busy.relay(20, 500);
    drop(busy);
    drop(idle);
    for user in ["busy", "idle"] {
        let session = &billing.ended(user, 1)[0];
        let logged = sum(logged_of(&coturn, user));
        assert!(session.is_exact());
        assert_eq!(session.usage(), logged);
        assert!(
            logged.peer[1] > DATAGRAMS / 2 * LENGTH as u64,
            "coturn counts them: {logged:?}"
        );
        assert_eq!(session.billable(), relayed(&logged));
        // Upwards to the byte; downwards at most what coturn sent the client.
        let up = if user == "busy" { 40 * 500 } else { 0 };
        assert_eq!(logged.peer[3], up);
        let most = if user == "busy" { up + logged.client[3] } else { 0 };
        assert!(session.billable() <= most && most < DATAGRAMS * LENGTH as u64 / 2);
    }
}

/// COTURN.md, trap 13, and METERING.md's first history: of three allocations of a call one relays, one is closed
/// unused, and one dangles. The call ends with the one that relayed.
#[test]
fn what_dangles_does_not_keep_a_session_open() {
    let billing = Billing::start();
    let mut bridge = direct(&billing);
    bridge.start();
    let directory = tempfile::tempdir().unwrap();
    let coturn = Coturn::start(
        directory.path(),
        &statsdb(&bridge, 0),
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
    assert_eq!(bridge.status()["sources"]["eu-1"]["open_allocations"], 1);
    assert_eq!((first.end_reason(), first.is_exact()), ("closed", true));
    // The next call of the same user is a session of its own.
    let mut next = TurnClient::udp(&coturn, "ann").call(&coturn);
    next.relay(100, 300);
    assert_eq!(next.refresh(0), 0);
    let sessions = billing.ended("ann", 2);
    // Then the dangling one runs out: too little for anybody to be told, but on record to the byte.
    eventually("the dangling one's end", || {
        (bridge.status()["sources"]["eu-1"]["open_allocations"] == 0).then_some(())
    });
    let unattributed = || {
        let (_, metrics) = bridge.get("/metrics");
        let line = metrics
            .lines()
            .find(|l| l.starts_with("turnhook_unattributed_bytes_total"));
        line.and_then(|l| l.rsplit(' ').next()?.parse::<u64>().ok())
            .unwrap_or_default()
    };
    let logged = eventually("coturn's log of all four", || {
        let logged = logged_of(&coturn, "ann");
        (logged.len() == 4).then_some(logged)
    });
    let truth: u64 = logged.iter().map(relayed).sum();
    eventually("all of it told or on record", || {
        let told: u64 = billing.sessions_of("ann").iter().map(Session::billable).sum();
        let all = told + unattributed();
        assert!(
            all <= truth,
            "{told} told, {} recorded, {truth} relayed",
            unattributed()
        );
        (all == truth).then_some(())
    });
    assert_eq!(billing.sessions_of("ann").len(), 2);
    let last = &sessions[1];
    assert_eq!(
        (last.is_exact(), last.continues(), last.allocations().len()),
        (true, false, 1)
    );
}
