//! `direct` sources on a real coturn: what ends when a server does, and what does not when it does not. What is
//! told is compared with coturn's own log.

use std::{
    io,
    net::{Shutdown, TcpListener, TcpStream},
    sync::{Arc, Mutex},
    time::{Duration, Instant},
};

use crate::{
    harness::{
        billing::{
            Billing, Session, counted, direct, logged_of, relay_until_reported, relayed, statsdb, sum,
        },
        coturn::Coturn,
        eventually,
        turn::TurnClient,
    },
    reconcile::reconcile,
};

/// SIGTERM for one, SIGKILL for the other, of two on one listener with the same ids; a third goes on.
#[test]
fn terminated_or_killed_with_allocations_open() {
    let billing = Billing::start();
    let mut program = direct(&billing);
    program.start();
    let directory = tempfile::tempdir().unwrap();
    let start = |dbname| {
        Coturn::start(
            directory.path(),
            &statsdb(&program, dbname),
            &["--relay-threads=1"],
        )
    };
    let coturns = [start(1), start(2), start(3)];
    // One user at all three, so that nothing but the server tells the allocations apart.
    let users = ["terminated", "killed", "goes-on"];
    let mut clients = Vec::new();
    for (coturn, user) in coturns.iter().zip(users) {
        let mut client = TurnClient::udp(coturn, user).call(coturn);
        relay_until_reported(&mut client, coturn, user);
        client.relay(10, 100);
        billing.started(user);
        clients.push(client);
    }
    coturns[0].process.signal("TERM");
    coturns[1].process.signal("KILL");
    let mut ids = Vec::new();
    for (place, user) in users.iter().enumerate().take(2) {
        let session = &billing.ended(user, 1)[0];
        let logged = sum(logged_of(&coturns[place], user));
        assert_eq!(session.end_reason(), "server_stopped");
        assert!(!session.is_exact(), "its totals were never heard");
        assert_eq!(session.usage(), logged);
        assert_eq!(session.billable(), relayed(&logged));
        let headers = logged.peer[2] * coturns[place].channel_header();
        assert!(session.billable() > 0 && session.billable() <= 2 * clients[place].sent + headers);
        ids.push(session.allocations()[0]["id"].clone());
        assert_eq!(
            session.allocations()[0]["server"],
            format!("127.0.0.1/-/{}", place + 1)
        );
    }
    assert_eq!(ids[0], ids[1], "two servers use the same ids");
    // The third was not touched by any of it.
    assert_eq!(clients[2].refresh(0), 0);
    let session = &billing.ended("goes-on", 1)[0];
    assert_eq!(session.allocations()[0]["id"], ids[0]);
    assert_eq!((session.end_reason(), session.is_exact()), ("closed", true));
    assert_eq!(session.usage(), sum(logged_of(&coturns[2], "goes-on")));
}

/// Killed and started again at once: the same user comes back, under the same id.
#[test]
fn restarted_with_the_same_users_and_ids() {
    let billing = Billing::start();
    let mut program = direct(&billing);
    program.start();
    let directory = tempfile::tempdir().unwrap();
    let mut coturn = Coturn::start(directory.path(), &statsdb(&program, 0), &["--relay-threads=1"]);
    let mut client = TurnClient::udp(&coturn, "ann").call(&coturn);
    relay_until_reported(&mut client, &coturn, "ann");
    let before = sum(logged_of(&coturn, "ann"));
    billing.told("ann", relayed(&before));
    coturn.process.signal("KILL");
    coturn.start_again();
    let mut client = TurnClient::udp(&coturn, "ann").call(&coturn);
    client.relay(100, 300);
    assert_eq!(client.refresh(0), 0);
    let lives = logged_after_close(&coturn, "ann", 2);
    // They are one session if the second came within `linger` of the first's end, else two.
    let allocations = eventually("both allocations' ends", || {
        let sessions = billing.sessions_of("ann");
        let all: Vec<_> = sessions.iter().flat_map(Session::allocations).cloned().collect();
        (sessions.iter().all(Session::has_ended) && all.len() >= 2).then_some(all)
    });
    assert_eq!(allocations.len(), 2, "{allocations:#?}");
    assert_eq!(allocations[0]["id"], allocations[1]["id"]);
    let reason = allocations[0]["close_reason"].as_str().unwrap();
    assert!(
        ["server_restarted", "server_stopped"].contains(&reason),
        "{reason}"
    );
    assert_eq!(allocations[0]["totals_seen"], false);
    assert_eq!(
        (&allocations[1]["close_reason"], &allocations[1]["totals_seen"]),
        (&"closed".into(), &true.into())
    );
    let sessions = billing.sessions_of("ann");
    assert_eq!(
        sum(sessions.iter().map(Session::usage)),
        sum(lives.iter().copied())
    );
    assert_eq!(
        sessions.iter().map(Session::billable).sum::<u64>(),
        lives.iter().map(relayed).sum::<u64>()
    );
    assert!(!sessions[0].is_exact());
}

/// What coturn logged of a user's allocations once the last of them has closed.
fn logged_after_close(coturn: &Coturn, user: &str, count: usize) -> Vec<crate::harness::coturn::Logged> {
    eventually("coturn's log of the close", || {
        let closed = coturn
            .process
            .stdout()
            .iter()
            .any(|line| line.contains("closed") && line.contains(&format!(":{user}>")));
        let logged = logged_of(coturn, user);
        (closed && logged.len() >= count).then_some(logged)
    })
}

/// A way between coturn and the listener that can be cut.
struct Way {
    port: u16,
    streams: Arc<Mutex<Vec<TcpStream>>>,
}

impl Way {
    fn to(port: u16) -> Way {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let here = listener.local_addr().unwrap().port();
        let streams = Arc::new(Mutex::new(Vec::new()));
        let kept = Arc::clone(&streams);
        // Ends with the test's process.
        std::thread::spawn(move || {
            for near in listener.incoming().map_while(Result::ok) {
                let Ok(far) = TcpStream::connect(("127.0.0.1", port)) else {
                    continue;
                };
                for (from, to) in [(&near, &far), (&far, &near)] {
                    let (mut from, mut to) = (from.try_clone().unwrap(), to.try_clone().unwrap());
                    std::thread::spawn(move || {
                        let _ = io::copy(&mut from, &mut to);
                        let _ = to.shutdown(Shutdown::Both);
                    });
                }
                kept.lock().unwrap().extend([near, far]);
            }
        });
        Way { port: here, streams }
    }

    fn cut(&self) {
        for stream in self.streams.lock().unwrap().drain(..) {
            let _ = stream.shutdown(Shutdown::Both);
        }
    }
}

/// Longer than a server may be without any connection before it counts as stopped, twice over.
const LONGER_THAN_A_STOP: Duration = Duration::from_secs(11);

/// All connections of a live coturn are cut, twice: it has not stopped, and what it says afterwards counts.
#[test]
fn all_connections_of_a_live_server_cut_twice() {
    let billing = Billing::start();
    let mut program = direct(&billing);
    program.start();
    let way = Way::to(program.source);
    let directory = tempfile::tempdir().unwrap();
    let statsdb = format!("ip=127.0.0.1 port={} dbname=0 connect_timeout=5", way.port);
    let coturn = Coturn::start(directory.path(), &statsdb, &["--relay-threads=2"]);
    let mut client = TurnClient::udp(&coturn, "ann").call(&coturn);
    relay_until_reported(&mut client, &coturn, "ann");
    billing.told("ann", 1);
    for cut in 1..=2 {
        way.cut();
        // Refreshed until it is heard, as a client would be over the hours: an idle thread comes back only when
        // it has something to say.
        let heard = counted(&program, &["turnhook_events_total", "refreshed"]);
        eventually("a refresh after the cut", || {
            assert_eq!(client.refresh(600), 0);
            (counted(&program, &["turnhook_events_total", "refreshed"]) > heard).then_some(())
        });
        eventually("the gap", || {
            (counted(&program, &["turnhook_gaps_total", "reconnect"]) >= cut).then_some(())
        });
    }
    let until = Instant::now() + LONGER_THAN_A_STOP;
    while Instant::now() < until {
        client.relay(10, 100);
        let sessions = billing.sessions_of("ann");
        assert!(sessions.iter().all(|s| !s.has_ended()), "{sessions:#?}");
        std::thread::sleep(Duration::from_millis(100));
    }
    assert_eq!(client.refresh(0), 0);
    let sessions = billing.ended("ann", 1);
    assert_eq!(sessions.len(), 1);
    assert_eq!(
        (sessions[0].end_reason(), sessions[0].is_exact()),
        ("closed", true)
    );
    let logged = sum(logged_of(&coturn, "ann"));
    assert_eq!(sessions[0].usage(), logged);
    assert_eq!(sessions[0].billable(), relayed(&logged));
    assert!(
        program.status()["sources"]["eu-1"]["recent_gaps"]
            .as_array()
            .unwrap()
            .len()
            >= 2
    );
    assert_eq!(
        counted(&program, &["turnhook_sessions_ended_total", "server_stopped"]),
        0
    );
}

/// TRAPS.md, trap 3: coturn gives the peer leg's totals modulo 2^32. Here a real allocation relays more than that each
/// way, and the truth is what coturn logged of it on the way.
#[test]
#[ignore = "relays more than 8 GiB: tests/more-than-4-gib.sh runs it"]
fn more_than_4_gib_in_one_direction() {
    const LENGTH: usize = 16_000;
    const WRAP: u64 = 1 << 32;
    let billing = Billing::start();
    let mut program = direct(&billing);
    program.start();
    let directory = tempfile::tempdir().unwrap();
    let coturn = Coturn::start(directory.path(), &statsdb(&program, 0), &[]);
    let mut client = TurnClient::udp(&coturn, "ann").call(&coturn);
    let start = Instant::now();
    while client.sent < WRAP + WRAP / 10 {
        client.relay(1000, LENGTH);
        assert!(client.received > 0, "packets of {LENGTH} bytes do not come back");
        assert_eq!(client.refresh(600), 0);
    }
    assert_eq!(client.refresh(0), 0);
    let session = &billing.ended("ann", 1)[0];
    let logged = sum(logged_of(&coturn, "ann"));
    assert!(
        logged.peer[3] >= client.sent && logged.peer[3] > WRAP,
        "{logged:?}"
    );
    assert_eq!((session.end_reason(), session.is_exact()), ("closed", true));
    assert_eq!(session.usage(), logged);
    assert_eq!(session.billable(), relayed(&logged));

    // And by the command that says so to people.
    let log = directory.path().join("turn.log");
    std::fs::write(&log, coturn.process.stdout().join("\n") + "\n").unwrap();
    let (findings, summary, code) = reconcile(&program, &[&log], &[]);
    assert_eq!(
        (&findings[0]["verdict"], code),
        (&"equal".into(), Some(0)),
        "{summary:#}"
    );
    assert_eq!((findings.len(), &summary["log"]), (1, &summary["told"]));
    assert_eq!(summary["log"]["peer"]["sent_bytes"], logged.peer[3]);
    println!(
        "{} bytes sent to the peer and {} received from it in {:.0?}: told to the byte; coturn's totals said {} and {}",
        logged.peer[3],
        logged.peer[1],
        start.elapsed(),
        logged.peer[3] % WRAP,
        logged.peer[1] % WRAP
    );
}
