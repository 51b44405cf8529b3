//! From a real coturn to a webhook: what is told is what coturn's own log says, to the byte.

use std::collections::BTreeMap;

use crate::harness::{
    billing::{Billing, Session, direct, logged_of, redis, relayed, statsdb, sum},
    coturn::{Coturn, Logged, Transport},
    eventually,
    program::Program,
    redis::Redis,
    turn::TurnClient,
};

/// Each allocation a session of its own, so that nothing is parked and every allocation is told in whole.
fn by_allocation(program: &Program) {
    let file = program.directory.path().join("turnhook.toml");
    let text = std::fs::read_to_string(&file).unwrap();
    std::fs::write(
        &file,
        text.replace("[session]\n", "[session]\ngroup_by = \"allocation\"\n"),
    )
    .unwrap();
}

/// Real clients over UDP, TCP and TLS, and what the UDP ones leave open until it expires.
fn clients(coturn: &Coturn) {
    let mut clients = [
        coturn.client("alice", Transport::Udp, 200, 170),
        coturn.client("bob", Transport::Tcp, 150, 900),
        coturn.client("carol", Transport::Tls, 100, 500),
        // A name with everything in it that a parser could stumble over.
        coturn.client("a/allocation/b:status", Transport::Tcp, 50, 100),
    ];
    for client in &mut clients {
        assert!(client.wait().success(), "{}", client.output());
    }
}

/// Every allocation that coturn logged has a session with exactly its counters, and there are no others.
#[track_caller]
fn compare(billing: &Billing, coturn: &Coturn) {
    let sessions = eventually("all sessions to end", || {
        let sessions = billing.sessions();
        // Two allocations of each of the four clients, and a probe for each.
        let all_ended = sessions.len() >= 8 && sessions.iter().all(Session::has_ended);
        all_ended.then_some(sessions)
    });
    let mut logged: BTreeMap<(String, String), Logged> = coturn.logged();
    // A connection that never allocated: it has no name.
    logged.retain(|(_, username), _| !username.is_empty());
    let mut told = BTreeMap::new();
    for session in &sessions {
        let [allocation] = session.allocations() else {
            panic!("not one allocation: {session:#?}")
        };
        let text = |name: &str| allocation[name].as_str().unwrap_or_default().to_owned();
        assert!(session.is_exact(), "{session:#?}");
        assert_eq!(text("close_reason"), "closed", "{session:#?}");
        assert_eq!(allocation["opened_seen"], true);
        assert_eq!(allocation["totals_seen"], true);
        assert_eq!(session.billable(), relayed(&session.usage()), "{session:#?}");
        let transport = match session.user() {
            "alice" => ("UDP", true),
            "carol" => ("TLS/TCP", false),
            _ => ("TCP", true),
        };
        assert_eq!(
            (text("transport").as_str(), allocation["tls"].is_null()),
            transport,
            "{allocation:#}"
        );
        told.insert((text("id"), text("username")), session.usage());
    }
    assert_eq!(told, logged);
    let users = ["alice", "bob", "carol", "a/allocation/b:status"];
    for user in users {
        // 2 channels; the echo comes back over the same allocation.
        assert!(
            sum(logged_of_name(&logged, user)).peer[2] > 0,
            "{user} relayed nothing: {logged:#?}"
        );
    }
    assert!(
        sessions.iter().all(|session| users.contains(&session.user())),
        "{sessions:#?}"
    );
}

fn logged_of_name(logged: &BTreeMap<(String, String), Logged>, user: &str) -> Vec<Logged> {
    let of = |username: &str| username.split_once(':').is_some_and(|(_, name)| name == user);
    logged
        .iter()
        .filter(|((_, username), _)| of(username))
        .map(|(_, one)| *one)
        .collect()
}

#[test]
fn direct_to_the_byte() {
    let billing = Billing::start();
    let mut program = direct(&billing);
    by_allocation(&program);
    program.start();
    let directory = tempfile::tempdir().unwrap();
    let coturn = Coturn::start(
        directory.path(),
        &statsdb(&program, 3),
        &["--max-allocate-lifetime=15"],
    );
    clients(&coturn);
    compare(&billing, &coturn);
    let webhooks = billing.webhooks();
    let server = &webhooks[0].body["data"]["allocations"][0]["server"];
    assert_eq!(server, "127.0.0.1/-/3", "address, user and dbname");
}

#[test]
fn redis_to_the_byte() {
    let directory = tempfile::tempdir().unwrap();
    let redis_server = Redis::start(directory.path(), &[]);
    let billing = Billing::start();
    let mut program = redis(
        &billing,
        &format!("url = \"redis://127.0.0.1:{}\"", redis_server.port),
    );
    by_allocation(&program);
    program.start();
    program.until("the subscription", |status| {
        status["sources"]["eu-1"]["state"] == "connected"
    });
    let coturn = Coturn::start(
        directory.path(),
        &redis_server.statsdb(),
        &["--max-allocate-lifetime=15"],
    );
    clients(&coturn);
    compare(&billing, &coturn);
    assert!(billing.webhooks()[0].body["data"]["allocations"][0]["server"].is_null());
}

/// By user, as in the defaults: one session for a call, with all that it relayed.
#[test]
fn a_call_is_a_session_with_all_that_it_relayed() {
    let billing = Billing::start();
    let mut program = direct(&billing);
    program.start();
    let directory = tempfile::tempdir().unwrap();
    let coturn = Coturn::start(directory.path(), &statsdb(&program, 0), &[]);
    let mut first = TurnClient::tcp(&coturn, "alice").call(&coturn);
    let mut second = TurnClient::udp(&coturn, "alice").call(&coturn);
    first.relay(400, 300);
    second.relay(300, 200);
    assert_eq!(second.refresh(0), 0);
    drop(first);
    let sessions = billing.ended("alice", 1);
    assert_eq!(sessions.len(), 1, "{sessions:#?}");
    assert!(sessions[0].is_exact(), "{sessions:#?}");
    assert_eq!(sessions[0].usage(), sum(logged_of(&coturn, "alice")));
    assert_eq!(sessions[0].allocations().len(), 2);
}

/// SIGKILL in the middle of a session, and a start: one start and one end, no event twice under two ids, and
/// every byte, since coturn's totals say what was missed.
#[test]
fn killed_in_the_middle_of_a_session() {
    let directory = tempfile::tempdir().unwrap();
    let redis_server = Redis::start(directory.path(), &[]);
    let billing = Billing::start();
    let mut program = redis(
        &billing,
        &format!("url = \"redis://127.0.0.1:{}\"", redis_server.port),
    );
    let hears = |status: &serde_json::Value| status["sources"]["eu-1"]["state"] == "connected";
    program.start();
    program.until("the subscription", hears);
    let coturn = Coturn::start(directory.path(), &redis_server.statsdb(), &[]);
    let mut client = TurnClient::tcp(&coturn, "alice").call(&coturn);
    billing.started("alice");
    for _ in 0..3 {
        client.relay(300, 400);
        program.kill();
        // Nobody hears of this but coturn.
        client.relay(300, 400);
        program.start();
        program.until("the subscription", hears);
    }
    drop(client);
    let sessions = billing.ended("alice", 1);
    assert_eq!(sessions.len(), 1, "{sessions:#?}");
    assert_eq!(
        (sessions[0].end_reason(), sessions[0].is_exact()),
        ("closed", true),
        "{sessions:#?}"
    );
    assert_eq!(sessions[0].usage(), sum(logged_of(&coturn, "alice")));
    // Its stops are on record.
    let shown = &program.objects(&["sessions", "show", &sessions[0].id])[0];
    let gaps = shown["gaps"].as_array().unwrap();
    assert!(
        gaps.iter().filter(|gap| gap["reason"] == "restart").count() >= 3,
        "{shown:#}"
    );
}
