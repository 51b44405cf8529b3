//! A restart is no gap where a service manager keeps sockets: real coturns, under load, with a service manager of the
//! suite's own.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{
        Mutex,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::Duration,
};

use crate::harness::{
    billing::{Billing, Session, counted, direct, logged_of, relayed, statsdb, sum},
    coturn::{Coturn, Logged},
    eventually,
    feeder::{Allocation, Feeder},
    manager::Manager,
    program::Program,
    turn::TurnClient,
};

/// `FileDescriptorStoreMax=` of the unit, or as good.
const PLENTY: usize = 1000;

/// Calls, each of a user of its own, until `stop`.
fn calls(coturn: &Coturn, stop: &AtomicBool, next: &AtomicU64, users: &Mutex<Vec<String>>) {
    while !stop.load(Ordering::Relaxed) {
        let number = next.fetch_add(1, Ordering::Relaxed);
        let user = format!("user-{number}");
        users.lock().unwrap().push(user.clone());
        let mut client = TurnClient::tcp(coturn, &user).call(coturn);
        for _ in 0..number % 4 + 1 {
            client.relay(40, 200);
            std::thread::sleep(Duration::from_millis(20));
        }
        assert_eq!(client.refresh(600), 0);
        if number.is_multiple_of(2) {
            assert_eq!(client.refresh(0), 0);
        }
    }
}

/// Waits until all that coturn logged of these users was billed, exactly. There may be thousands of them: sessions and the log
/// are gone through once.
#[track_caller]
fn all_are_exact(billing: &Billing, coturn: &Coturn, users: &[String]) {
    let sessions = eventually("the end of every session", || {
        let sessions = billing.sessions();
        let told: BTreeSet<&str> = sessions.iter().map(Session::user).collect();
        let all = users.iter().all(|user| told.contains(user.as_str()));
        (all && sessions.iter().all(Session::has_ended)).then_some(sessions)
    });
    assert_eq!(sessions.len(), users.len(), "one session for each call");
    let mut logged: BTreeMap<String, Logged> = BTreeMap::new();
    for ((_, username), counters) in coturn.logged() {
        let user = username.split(':').next_back().unwrap_or_default().to_owned();
        let before = logged.get(&user).copied().unwrap_or_default();
        logged.insert(user, sum([before, counters]));
    }
    for session in &sessions {
        assert!(session.is_exact() && !session.continues(), "{session:#?}");
        assert_eq!(session.allocations()[0]["opened_seen"], true, "{session:#?}");
        let logged = logged[session.user()];
        assert_eq!(
            (session.usage(), session.billable()),
            (logged, relayed(&logged)),
            "{session:#?}"
        );
    }
}

fn restarts(count: usize) {
    let billing = Billing::start();
    let mut program = direct(&billing);
    let manager = Manager::start(program.directory.path(), PLENTY);
    program.start_under(&manager);
    let directory = tempfile::tempdir().unwrap();
    let coturn = Coturn::start(directory.path(), &statsdb(&program, 0), &["--relay-threads=3"]);
    let (stop, next, users) = (AtomicBool::new(false), AtomicU64::new(0), Mutex::new(Vec::new()));
    let mut lasting = TurnClient::tcp(&coturn, "lasting").call(&coturn);
    lasting.relay(50, 100);
    billing.started("lasting");
    std::thread::scope(|scope| {
        for _ in 0..3 {
            scope.spawn(|| calls(&coturn, &stop, &next, &users));
        }
        for restart in 0..count {
            // At other moments each time.
            std::thread::sleep(Duration::from_millis(50 + 37 * restart as u64 % 200));
            program.stop();
            assert!(manager.kept() >= 2 + 3, "{:?}", manager.said());
            std::thread::sleep(Duration::from_millis(17 * restart as u64 % 150));
            program.start_under(&manager);
            // From then on they are its own.
            eventually("that what was kept is forgotten", || {
                (manager.kept() == 0).then_some(())
            });
        }
        stop.store(true, Ordering::Relaxed);
    });
    assert_eq!(lasting.refresh(0), 0);
    let mut users = users.into_inner().unwrap();
    users.push("lasting".to_owned());
    all_are_exact(&billing, &coturn, &users);
    println!("{} calls over {count} restarts", users.len());
    // Nothing was missed, and nobody thinks so.
    let gaps = program.objects(&["gaps", "list"]);
    assert!(
        gaps.iter()
            .all(|gap| ["stall", "clock_step"].contains(&gap["reason"].as_str().unwrap())),
        "{gaps:#?}"
    );
    // coturn has the connections that it had.
    let log = program.log();
    assert!(
        log.iter().any(|line| line.contains("as if it had not stopped")),
        "{log:#?}"
    );
}

#[test]
fn restarts_under_load_lose_nothing() {
    restarts(5);
}

/// `tests/long.sh restarts`
#[test]
#[ignore = "takes minutes"]
fn a_hundred_restarts_under_load_lose_nothing() {
    restarts(100);
}

/// Killed after a restart: what had been kept is not gone on with a second time, even by a service manager that keeps
/// handing it out.
#[test]
fn what_was_kept_is_used_once() {
    let billing = Billing::start();
    let mut program = direct(&billing);
    let manager = Manager::start(program.directory.path(), PLENTY);
    program.start_under(&manager);
    let directory = tempfile::tempdir().unwrap();
    let coturn = Coturn::start(directory.path(), &statsdb(&program, 0), &["--relay-threads=1"]);
    let mut client = TurnClient::tcp(&coturn, "ann").call(&coturn);
    client.relay(50, 100);
    billing.started("ann");
    manager.never_forget();
    program.stop();
    program.start_under(&manager);
    assert_eq!(gaps(&program, "restart"), 0);
    let heard = counted(&program, &["turnhook_events_total", "refreshed"]);
    assert_eq!(client.refresh(600), 0);
    eventually("the refresh, over the connection that was kept", || {
        (counted(&program, &["turnhook_events_total", "refreshed"]) > heard).then_some(())
    });
    program.kill();
    assert!(manager.kept() > 0, "it still has them");
    program.start_under(&manager);
    let log = program.log();
    assert!(
        log.iter()
            .any(|line| line.contains("an earlier start has used them")),
        "{log:#?}"
    );
    eventually("the gap", || (gaps(&program, "restart") == 1).then_some(()));
    // What is left with the manager is no connection any more: coturn opens another one once it has something to say.
    eventually("a refresh", || {
        assert_eq!(client.refresh(600), 0);
        (counted(&program, &["turnhook_events_total", "refreshed"]) > 0).then_some(())
    });
    client.relay(50, 100);
    assert_eq!(client.refresh(0), 0);
    let session = &billing.ended("ann", 1)[0];
    let logged = sum(logged_of(&coturn, "ann"));
    assert_eq!((session.usage(), session.billable()), (logged, relayed(&logged)));
}

/// Where a service manager keeps nothing, or not all, that is a gap as it ever was.
#[test]
fn what_was_not_kept_is_a_gap() {
    let billing = Billing::start();
    let mut program = direct(&billing);
    // The state, the listener, and one connection of several.
    let manager = Manager::start(program.directory.path(), 3);
    program.start_under(&manager);
    let directory = tempfile::tempdir().unwrap();
    let coturn = Coturn::start(directory.path(), &statsdb(&program, 0), &["--relay-threads=3"]);
    let mut client = TurnClient::tcp(&coturn, "ann").call(&coturn);
    client.relay(50, 100);
    billing.started("ann");
    program.stop();
    assert_eq!(manager.kept(), 3);
    program.start_under(&manager);
    eventually("the gap of those that were not kept", || {
        (gaps(&program, "reconnect") > 0).then_some(())
    });
    assert_eq!(gaps(&program, "restart"), 0);
    program.stop();
    // A stop, not a restart: the service manager drops them.
    manager.forget_all();
    program.start_under(&manager);
    eventually("the gap of the stop", || {
        (gaps(&program, "restart") == 1).then_some(())
    });
    assert_eq!(client.refresh(0), 0);
}

/// Totals that came in time, while nobody read: they are not late because of that, however long it was.
#[test]
fn what_waits_meanwhile_is_not_late() {
    let billing = Billing::start();
    let mut program = direct(&billing);
    let manager = Manager::start(program.directory.path(), PLENTY);
    program.start_under(&manager);
    let mut feeder = Feeder::connect(program.source);
    let mut call = Allocation::new("ann", 1);
    feeder.open(&call, 600).unwrap();
    feeder.relay(&mut call, 50, 50).unwrap();
    billing.started("ann");
    // What no report has said, its totals do.
    for counters in [&mut call.client, &mut call.peer] {
        counters.iter_mut().for_each(|counter| *counter += 7);
    }
    let counted_before = counted(&program, &["turnhook_events_total", "deleted"]);
    feeder.delete(&call).unwrap();
    eventually("that it is heard", || {
        (counted(&program, &["turnhook_events_total", "deleted"]) > counted_before).then_some(())
    });
    program.stop();
    feeder.totals(&call).unwrap();
    // Past `totals_grace`, after which an end is told without them.
    std::thread::sleep(Duration::from_millis(2_500));
    program.start_under(&manager);
    let session = &billing.ended("ann", 1)[0];
    assert!(session.is_exact(), "{session:#?}");
    let usage = session.usage();
    assert_eq!((usage.client, usage.peer), (call.client, call.peer));
    assert_eq!(gaps(&program, "restart"), 0);
}

/// The unit lets systemd keep as many as a listener has, and the kernel lets turnhook have them; and systemd watches it.
#[test]
fn the_unit_has_room_for_all_connections() {
    let unit = include_str!("../../../../deploy/turnhook.service");
    // Seconds or a number.
    let number = |key: &str| -> usize {
        let line = unit.lines().find_map(|line| line.strip_prefix(key));
        line.and_then(|value| value.strip_prefix('=')?.trim_end_matches('s').parse().ok())
            .unwrap_or_else(|| panic!("{key}"))
    };
    assert!(
        number("WatchdogSec") > 0,
        "one that is frozen is killed and started anew"
    );
    let connections = turnhook_subscriber::direct::DirectLimits::default().connections;
    let kept = number("FileDescriptorStoreMax");
    assert!(kept >= connections + 2, "a listener and its state, too");
    assert!(
        number("LimitNOFILE") > 2 * kept,
        "those that are handed over, and new ones"
    );
}

fn gaps(program: &Program, reason: &str) -> usize {
    let gaps = program.objects(&["gaps", "list"]);
    gaps.iter().filter(|gap| gap["reason"] == reason).count()
}
