//! Threads, servers that are heard again, addresses that change, and who was turned away before.

use super::*;
use crate::signal::TurnAwayReason;

#[test]
fn threads_are_connected_while_a_connection_carries_them() {
    let mut w = World::new();
    let ids = w.start("a", 3);
    w.carry(ids[0], 0);
    w.carry(ids[1], 1);
    w.carry(ids[1], 1);
    let at = w.now;
    assert_eq!(w.emitted(), [format!("+0 a {at}"), format!("+1 a {at}")]);
    // A second connection for a thread, as when the first is half open.
    let again = w.open("a");
    w.carry(again, 1);
    w.close(ids[1], ClosedBy::Network);
    assert!(w.emitted().is_empty());
    w.close(again, ClosedBy::Server);
    assert_eq!(w.emitted(), [format!("-1 a {at}")]);
    // By us, too: it is not there any more.
    w.close(ids[0], ClosedBy::Us);
    assert_eq!(w.emitted(), [format!("-0 a {at}")]);
    assert!(w.tracker.servers[&name("a")].threads.is_empty());
}

/// A balancer restarts: nine seconds in which nobody can come back, and then the same coturn does.
#[test]
fn a_server_that_is_heard_again_had_not_stopped() {
    for publishes in [true, false] {
        let mut w = World::new();
        let ids = w.start("a", 3);
        w.carry(ids[0], 0);
        w.pass(60_000);
        w.emitted();
        w.close_all(&ids, ClosedBy::Server);
        let stopped = w.now;
        w.pass(9_000);
        assert_eq!(
            w.emitted(),
            [format!("-0 a {stopped}"), format!("stopped a {stopped}")]
        );
        let id = w.open("a");
        let back = w.now;
        let had_not = [
            format!("returned a {back} {stopped}"),
            format!("gap a {stopped}-{back}"),
        ];
        if publishes {
            w.pass(10);
            w.carry(id, 0);
            assert_eq!(
                w.emitted(),
                [&had_not[..], &[format!("+0 a {}", back + 10)]].concat()
            );
        }
        w.pass(60_000);
        assert_eq!(w.emitted(), if publishes { vec![] } else { had_not.to_vec() });
    }
    // One that was started anew had.
    let mut w = World::new();
    let ids = w.start("a", 3);
    w.close_all(&ids, ClosedBy::Server);
    w.pass(9_000);
    w.emitted();
    let ids = w.start("a", 3);
    w.carry(ids[0], 0);
    w.pass(60_000);
    assert_eq!(w.emitted().len(), 1);
}

fn at_address(n: u8) -> String {
    format!("10.0.0.{n}/-/0")
}

/// Two balancers: what closes at one is opened at the other at once.
#[test]
fn a_server_whose_connections_come_back_from_another_address_has_not_stopped() {
    let mut w = World::new();
    let ids = w.start(&at_address(1), 3);
    w.pass(60_000);
    w.close_all(&ids, ClosedBy::Server);
    let lost = w.now;
    w.pass(200);
    let again: Vec<u64> = (0..3).map(|_| w.open(&at_address(2))).collect();
    let back = w.now;
    w.pass(60_000);
    let mut emitted = w.emitted();
    emitted.sort();
    assert_eq!(
        emitted,
        [1, 2].map(|n| format!("gap {} {lost}-{back}", at_address(n)))
    );
    // Nor does the way back prove anything: these are re-opened ones.
    w.close_all(&again, ClosedBy::Server);
    w.pass(60_000);
    assert_eq!(w.emitted(), [] as [String; 0]);
}

/// Two coturns that differ in nothing but their address: one is there, or starts, while the other dies.
#[test]
fn another_server_of_kin_does_not_keep_a_death_from_being_noticed() {
    // It starts.
    let mut w = World::new();
    let ids = w.start(&at_address(1), 3);
    w.pass(60_000);
    w.close_all(&ids, ClosedBy::Server);
    let at = w.now;
    w.pass(200);
    w.start(&at_address(2), 3);
    w.pass(60_000);
    assert_eq!(w.emitted(), [format!("stopped {} {at}", at_address(1))]);

    // It loses a connection of its own, and re-opens it.
    let mut w = World::new();
    let ids = w.start(&at_address(1), 3);
    let others = w.start(&at_address(2), 3);
    w.pass(60_000);
    w.close(others[0], ClosedBy::Server);
    w.close_all(&ids, ClosedBy::Server);
    let at = w.now;
    w.pass(100);
    w.open(&at_address(2));
    w.pass(60_000);
    assert_eq!(
        w.emitted(),
        [
            format!("gap {} {at}-{}", at_address(2), at + 100),
            format!("stopped {} {at}", at_address(1))
        ]
    );

    // Of another database: it is nobody's kin.
    let mut w = World::new();
    let ids = w.start(&at_address(1), 3);
    w.pass(60_000);
    w.close_all(&ids, ClosedBy::Server);
    w.pass(100);
    w.open("10.0.0.2/-/1");
    w.pass(60_000);
    assert_eq!(
        w.emitted(),
        [format!("stopped {} {}", at_address(1), w.now - 60_100)]
    );
}

#[test]
fn who_was_turned_away_and_is_let_in_missed_what_lies_between() {
    let mut w = World::new();
    let from = w.now;
    w.tracker.turned_away(TurnAwayReason::WrongPassword, ip(), w.at());
    w.pass(30_000);
    w.tracker.turned_away(TurnAwayReason::WrongPassword, ip(), w.at());
    w.pass(30_000);
    w.emitted();
    let ids = w.start("a", 3);
    w.publish(ids[0]);
    let mut emitted = w.emitted();
    emitted.retain(|t| !t.starts_with("turned away"));
    assert_eq!(emitted, [format!("unheard a {from}-{}", from + 60_000)]);
    // Strangers elsewhere are none of its affair, and without a coturn that comes nothing is on record.
    for i in 0..100_000u32 {
        let peer = IpAddr::V4(Ipv4Addr::from(i));
        w.tracker.turned_away(TurnAwayReason::WrongPassword, peer, w.at());
    }
    w.pass(600_000);
    assert!(w.emitted().iter().all(|t| t.starts_with("turned away")));
    assert!(w.tracker.refused.len() <= REMEMBERED);
    w.start("a", 1);
    assert_eq!(w.emitted(), [] as [String; 0]);
}

/// It has the password: what it had to say is missed for certain.
#[test]
fn who_logged_in_and_found_no_place_missed_it_and_one_gap_covers_all() {
    let mut w = World::new();
    w.start("a", 3);
    let from = w.now;
    for _ in 0..500 {
        w.tracker.no_place(&name("a"), ip(), w.at());
        w.drain();
        w.pass(100);
    }
    let to = w.now - 100;
    w.pass(600_000);
    let mut emitted = w.emitted();
    emitted.retain(|t| t.starts_with("unheard a"));
    assert_eq!(emitted, [format!("unheard a {from}-{to}")]);
}
