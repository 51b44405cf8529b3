//! `redis` sources on a real coturn and a real Redis: servers that vanish, servers that share a key, and a Redis that
//! goes away or throws the subscription out. What is told is compared with coturn's own log.

use std::{
    io::{Read, Write},
    net::TcpStream,
};

use serde_json::Value;

use crate::harness::{
    billing::{
        Billing, Session, counted, logged_of, redis as program_on, relay_until_reported, relayed, sum,
    },
    coturn::{Coturn, Logged},
    eventually,
    program::Program,
    redis::Redis,
    turn::TurnClient,
};

fn url(redis: &Redis) -> String {
    format!("url = \"redis://127.0.0.1:{}\"", redis.port)
}

/// Waits until the program has subscribed.
fn connected(program: &Program) {
    program.until("the subscription", |s| {
        s["sources"]["eu-1"]["state"] == "connected"
    });
}

/// Nobody says so when a coturn is killed: what was open expires, with what was heard of it. And when it is started
/// again, the same user under the same id is another allocation.
#[test]
fn a_killed_server_is_known_by_expiry_and_by_its_next_life() {
    let billing = Billing::start();
    let directory = tempfile::tempdir().unwrap();
    let redis = Redis::start(directory.path(), &[]);
    let mut program = program_on(&billing, &url(&redis));
    program.start();
    connected(&program);
    // An alert goes by it: 0 is never.
    let last = || {
        counted(
            &program,
            &["turnhook_source_last_message_timestamp_seconds{source=\"eu-1\"}"],
        )
    };
    assert_eq!(last(), 0);
    let more = ["--relay-threads=1", "--max-allocate-lifetime=12"];
    let mut coturn = Coturn::start(directory.path(), &redis.statsdb(), &more);
    // The first id is the one that comes back.
    let mut again = TurnClient::udp(&coturn, "again").call(&coturn);
    let mut gone = TurnClient::udp(&coturn, "gone").call(&coturn);
    relay_until_reported(&mut again, &coturn, "again");
    relay_until_reported(&mut gone, &coturn, "gone");
    let before = sum(logged_of(&coturn, "again"));
    for user in ["again", "gone"] {
        billing.told(user, relayed(&sum(logged_of(&coturn, user))));
    }
    assert!(last() > 0);
    coturn.process.signal("KILL");
    coturn.start_again();
    let mut again = TurnClient::udp(&coturn, "again").call(&coturn);
    again.relay(50, 100);
    assert_eq!(again.refresh(0), 0);

    let gone = billing.ended("gone", 1);
    assert_eq!((gone[0].end_reason(), gone[0].is_exact()), ("expired", false));
    assert_eq!(gone[0].usage(), sum(logged_of(&coturn, "gone")));
    let allocations = eventually("both lives", || {
        let sessions = billing.sessions_of("again");
        let all: Vec<Value> = sessions.iter().flat_map(Session::allocations).cloned().collect();
        (sessions.iter().all(Session::has_ended) && all.len() >= 2).then_some(all)
    });
    let of = |name: &str| -> Vec<&Value> { allocations.iter().map(|a| &a[name]).collect() };
    assert_eq!(of("id")[0], of("id")[1]);
    assert_eq!(of("close_reason"), ["server_restarted", "closed"]);
    assert_eq!(of("totals_seen"), [false, true]);
    let told = sum(billing.sessions_of("again").iter().map(Session::usage));
    let lives = logged_of(&coturn, "again");
    assert_eq!((lives.len(), lives[0]), (2, before));
    assert_eq!(told, sum(lives));
}

/// TRAPS.md, traps 7 and 8: two coturns of one realm on one Redis use the same keys, whatever their `dbname`. It is
/// noticed, and nobody is billed above the truth. With a realm of its own, a third is not in their way.
#[test]
fn two_servers_on_one_redis() {
    let billing = Billing::start();
    let directory = tempfile::tempdir().unwrap();
    let redis = Redis::start(directory.path(), &[]);
    let mut program = program_on(&billing, &url(&redis));
    program.start();
    connected(&program);
    let start = |dbname: u32, realm: &str| {
        let statsdb = format!(
            "ip=127.0.0.1 port={} dbname={dbname} connect_timeout=5",
            redis.port
        );
        let realm = format!("--realm={realm}");
        Coturn::start(
            directory.path(),
            &statsdb,
            &["--relay-threads=1", "--max-allocate-lifetime=12", &realm],
        )
    };
    let coturns = [
        start(0, "example.org"),
        start(1, "example.org"),
        start(2, "example.net"),
    ];
    let mut clients: Vec<TurnClient> = coturns
        .iter()
        .map(|coturn| {
            let mut client = TurnClient::udp(coturn, "ann").call(coturn);
            client.relay(100, 300);
            client
        })
        .collect();
    program.line("two servers share an allocation's key");
    for client in &mut clients {
        assert_eq!(client.refresh(0), 0);
    }
    // Sessions of both realms, all ended; the shared one waits until its key has been silent.
    let realm = |s: &Session| s.events[0].body["data"]["realm"].as_str().unwrap().to_owned();
    let sessions = eventually("all sessions' ends", || {
        let sessions = billing.sessions_of("ann");
        let ended = |name: &str| {
            let mut of = sessions.iter().filter(|s| realm(s) == name).peekable();
            of.peek().is_some() && of.all(Session::has_ended)
        };
        let none_open = program.status()["sources"]["eu-1"]["open_allocations"] == 0;
        (none_open && ended("example.org") && ended("example.net")).then_some(sessions)
    });
    let [one, other, apart] = coturns.each_ref().map(|coturn| sum(logged_of(coturn, "ann")));
    let (shared, own): (Vec<_>, Vec<_>) = sessions.iter().partition(|s| realm(s) == "example.org");
    assert_eq!(own.len(), 1);
    assert!(own[0].is_exact(), "{own:#?}");
    assert_eq!(own[0].usage(), apart);
    let billed: u64 = shared.iter().map(|s| s.billable()).sum();
    assert!(
        billed > 0 && billed <= relayed(&one) + relayed(&other),
        "{shared:#?} {one:?} {other:?}"
    );
    assert!(shared.iter().all(|s| !s.is_exact()), "{shared:#?}");
}

/// Redis is killed while calls are under way, and started again, empty.
#[test]
fn redis_killed_and_restarted_under_traffic() {
    let billing = Billing::start();
    let directory = tempfile::tempdir().unwrap();
    let mut redis = Redis::start(directory.path(), &[]);
    let mut program = program_on(&billing, &format!("{}\n[log]\nlevel = \"debug\"", url(&redis)));
    program.start();
    connected(&program);
    let coturn = Coturn::start(
        directory.path(),
        &redis.statsdb(),
        &["--max-allocate-lifetime=12"],
    );
    let call = |user: &str| TurnClient::udp(&coturn, user).call(&coturn);
    let (mut through, mut closed_meanwhile) = (call("through"), call("closed-meanwhile"));
    relay_until_reported(&mut through, &coturn, "through");
    relay_until_reported(&mut closed_meanwhile, &coturn, "closed-meanwhile");
    for user in ["through", "closed-meanwhile"] {
        billing.told(user, 1);
    }
    redis.process.signal("KILL");
    program.until("the loss", |s| s["sources"]["eu-1"]["state"] == "deaf");
    // One opens, one goes on, one closes while nobody hears.
    let mut opened_meanwhile = call("opened-meanwhile");
    opened_meanwhile.relay(100, 100);
    through.relay(1000, 100);
    closed_meanwhile.relay(1000, 100);
    assert_eq!(closed_meanwhile.refresh(0), 0);
    eventually("coturn's log of the close", || {
        let logged = sum(logged_of(&coturn, "closed-meanwhile"));
        (logged.peer[3] >= closed_meanwhile.sent).then_some(())
    });
    redis.start_again();
    connected(&program);
    assert!(counted(&program, &["turnhook_gaps_total", "reconnect"]) >= 1);
    program.line("snapshot of the status keys ended");
    // Refreshed until it is heard again: coturn loses what it says while it connects.
    for (client, user) in [
        (&mut through, "through"),
        (&mut opened_meanwhile, "opened-meanwhile"),
    ] {
        let heard = || counted(&program, &["turnhook_events_total", "refreshed"]);
        let before = heard();
        eventually(&format!("a refresh of {user}"), || {
            assert_eq!(client.refresh(600), 0);
            (heard() > before).then_some(())
        });
        client.relay(100, 100);
        assert_eq!(client.refresh(0), 0);
    }
    for user in ["through", "opened-meanwhile"] {
        let session = &billing.ended(user, 1)[0];
        assert_eq!(
            (session.end_reason(), session.is_exact()),
            ("closed", true),
            "{user}"
        );
        assert_eq!(session.usage(), sum(logged_of(&coturn, user)), "{user}");
    }
    assert_eq!(
        billing.sessions_of("opened-meanwhile")[0].allocations()[0]["opened_seen"],
        false
    );
    let lost = &billing.ended("closed-meanwhile", 1)[0];
    let logged = sum(logged_of(&coturn, "closed-meanwhile"));
    assert_eq!((lost.end_reason(), lost.is_exact()), ("expired", false));
    assert_below(lost, &logged);
}

/// Told less than the truth, and something.
fn assert_below(session: &Session, logged: &Logged) {
    assert!(
        session.billable() > 0 && session.billable() < relayed(logged),
        "{session:#?} {logged:?}"
    );
}

/// TRAPS.md, trap 16: turnhook stands still, and Redis closes the subscription for its full output buffer.
#[test]
fn thrown_out_by_its_output_buffer() {
    let billing = Billing::start();
    let directory = tempfile::tempdir().unwrap();
    let redis = Redis::start(
        directory.path(),
        &["--client-output-buffer-limit", "pubsub", "1mb", "1mb", "1"],
    );
    let mut program = program_on(&billing, &url(&redis));
    program.start();
    connected(&program);
    let coturn = Coturn::start(
        directory.path(),
        &redis.statsdb(),
        &["--max-allocate-lifetime=12"],
    );
    let call = |user: &str| TurnClient::udp(&coturn, user).call(&coturn);
    let (mut through, mut closed_meanwhile) = (call("through"), call("closed-meanwhile"));
    relay_until_reported(&mut through, &coturn, "through");
    relay_until_reported(&mut closed_meanwhile, &coturn, "closed-meanwhile");
    for user in ["through", "closed-meanwhile"] {
        billing.told(user, 1);
    }
    program.process().signal("STOP");
    flood(&redis);
    closed_meanwhile.relay(1000, 100);
    assert_eq!(closed_meanwhile.refresh(0), 0);
    eventually("coturn's log of the close", || {
        let logged = sum(logged_of(&coturn, "closed-meanwhile"));
        (logged.peer[3] >= closed_meanwhile.sent).then_some(())
    });
    through.relay(1000, 100);
    program.process().signal("CONT");
    // Whether it can be told why the connection was closed depends on what the kernel still hands out of it.
    eventually("the gap", || {
        let gaps =
            ["thrown_out", "reconnect"].map(|reason| counted(&program, &["turnhook_gaps_total", reason]));
        (gaps.iter().sum::<u64>() >= 1).then_some(())
    });
    connected(&program);
    assert_eq!(through.refresh(0), 0);
    let session = &billing.ended("through", 1)[0];
    assert_eq!((session.end_reason(), session.is_exact()), ("closed", true));
    assert_eq!(session.usage(), sum(logged_of(&coturn, "through")));
    let lost = &billing.ended("closed-meanwhile", 1)[0];
    assert_eq!((lost.end_reason(), lost.is_exact()), ("expired", false));
    assert_below(lost, &sum(logged_of(&coturn, "closed-meanwhile")));
}

/// Publishes what the subscription does not read, until Redis has closed it.
fn flood(redis: &Redis) {
    let mut stream = TcpStream::connect(("127.0.0.1", redis.port)).unwrap();
    let mut replies = stream.try_clone().unwrap();
    std::thread::spawn(move || {
        let mut buffer = [0; 4096];
        while matches!(replies.read(&mut buffer), Ok(n) if n > 0) {}
    });
    let (channel, payload) = ("turn/realm/elsewhere/noise", "x".repeat(16_000));
    let command = format!(
        "*3\r\n$7\r\nPUBLISH\r\n${}\r\n{channel}\r\n${}\r\n{payload}\r\n",
        channel.len(),
        payload.len()
    );
    eventually("Redis to close the subscription", || {
        for _ in 0..200 {
            stream.write_all(command.as_bytes()).unwrap();
        }
        redis
            .ask(&["client", "list", "type", "pubsub"])
            .is_empty()
            .then_some(())
    });
}
