//! A client of a TCP relay can make coturn say another realm of its allocation, in the middle of its life (TRAPS.md,
//! trap 30): it is billed to whom it was made for, and nobody else is.

use crate::harness::{
    billing::{Billing, Session, counted, direct, logged_of, redis, statsdb, sum},
    coturn::{Coturn, Transport},
    line::{LENGTH, Line, TcpLine, UdpLine, Way},
    peer::TcpPeer,
    program::Program,
    redis::Redis,
};

const PACKETS: u64 = 208;
const BYTES: u64 = PACKETS * LENGTH as u64;

/// A realm of another tenant's, and one that reads as if it held another user.
const CLAIMED: [&str; 2] = ["tenant-b.example", "example.org/user/victim"];

/// A call by TCP relay whose client switches the realm while it relays.
fn call(coturn: &Coturn, transport: Transport, user: &str, realm: &str) -> TcpLine {
    let mut line = TcpLine::new(coturn, transport, user);
    line.down(PACKETS);
    line.up(PACKETS);
    let listener = TcpPeer::new();
    let connection = line.client.connect(listener.address());
    let _waiting = listener.accept();
    line.client.switch_realm(coturn, connection, realm);
    line.down(PACKETS);
    line.up(PACKETS);
    assert_eq!(line.client.refresh(600), 0, "it is in that realm");
    line
}

fn realm(session: &Session) -> &str {
    session.events[0].body["data"]["realm"].as_str().unwrap()
}

/// The one session of a user who hung up after such a call.
#[track_caller]
fn check(billing: &Billing, coturn: &Coturn, user: &str) {
    let sessions = billing.ended(user, 1);
    assert_eq!(sessions.len(), 1, "{sessions:#?}");
    let session = &sessions[0];
    assert_eq!(realm(session), "example.org");
    assert_eq!(session.usage(), sum(logged_of(coturn, user)));
    assert_eq!(session.billable(), 4 * BYTES);
    assert_eq!((session.is_exact(), session.end_reason()), (true, "closed"));
    assert_eq!(session.allocations().len(), 1);
}

/// Nothing is open any more, so that all that will be told of anybody has been; and the operator knows of it.
#[track_caller]
fn nothing_open(program: &mut Program) {
    program.line("a client has coturn name another realm");
    program.until("the end of all allocations", |status| {
        status["sources"]["eu-1"]["open_allocations"] == 0
    });
    assert!(counted(program, &["turnhook_switched_realms_total{source=\"eu-1\"}"]) > 0);
}

/// On a `direct` source, while the other tenant's coturn has an allocation of the same number and user open.
#[test]
fn another_tenants_realm_on_a_direct_source() {
    let billing = Billing::start();
    let mut program = direct(&billing);
    program.start();
    let directory = tempfile::tempdir().unwrap();
    let start = |dbname, realm| {
        Coturn::start(
            directory.path(),
            &statsdb(&program, dbname),
            &["--relay-threads=1", realm],
        )
    };
    let own = start(1, "--realm=example.org");
    let others = start(2, "--realm=tenant-b.example");
    for transport in [Transport::Tcp, Transport::Tls] {
        // Both have the first numbers of their servers.
        let user = format!("ann-{transport:?}");
        let mut other = UdpLine::new(&others, Transport::Tcp, &user, Way::Permission);
        let mut line = call(&own, transport, &user, CLAIMED[0]);
        other.up(PACKETS);
        assert_eq!(line.client().refresh(0), 0);
        assert_eq!(other.client().refresh(0), 0);
        nothing_open(&mut program);
        let sessions = billing.ended(&user, 2);
        assert_eq!(sessions.len(), 2, "{sessions:#?}");
        let of = |name| sessions.iter().find(|s| realm(s) == name).unwrap();
        let (ours, theirs) = (of("example.org"), of("tenant-b.example"));
        assert_eq!(ours.usage(), sum(logged_of(&own, &user)));
        assert_eq!(theirs.usage(), sum(logged_of(&others, &user)));
        assert_eq!((ours.billable(), theirs.billable()), (4 * BYTES, BYTES));
        assert_eq!((ours.is_exact(), theirs.is_exact()), (true, true));
    }
}

/// On a `direct` source, in the name of a user who does not exist.
#[test]
fn another_users_name_on_a_direct_source() {
    let billing = Billing::start();
    let mut program = direct(&billing);
    program.start();
    let directory = tempfile::tempdir().unwrap();
    let coturn = Coturn::start(directory.path(), &statsdb(&program, 0), &[]);
    for (user, transport) in [("ann", Transport::Tcp), ("bob", Transport::Tls)] {
        let mut line = call(&coturn, transport, user, CLAIMED[1]);
        assert_eq!(line.client().refresh(0), 0);
    }
    nothing_open(&mut program);
    check(&billing, &coturn, "ann");
    check(&billing, &coturn, "bob");
    assert_eq!(billing.sessions().len(), 2, "nobody else has any");
}

/// On a `redis` source, where nothing names the server, whichever realms it hears.
#[test]
fn another_realm_on_a_redis_source() {
    for realms in ["*", "example.org"] {
        let billing = Billing::start();
        let directory = tempfile::tempdir().unwrap();
        let redis_server = Redis::start(directory.path(), &[]);
        let source = format!(
            "url = \"redis://127.0.0.1:{}\"\nrealms = [\"{realms}\"]",
            redis_server.port
        );
        let mut program = redis(&billing, &source);
        program.start();
        program.until("the subscription", |status| {
            status["sources"]["eu-1"]["state"] == "connected"
        });
        let coturn = Coturn::start(directory.path(), &redis_server.statsdb(), &[]);
        for (user, claimed) in [("ann", CLAIMED[0]), ("bob", CLAIMED[1])] {
            let mut line = call(&coturn, Transport::Tcp, user, claimed);
            assert_eq!(line.client().refresh(0), 0);
        }
        nothing_open(&mut program);
        check(&billing, &coturn, "ann");
        check(&billing, &coturn, "bob");
        assert_eq!(billing.sessions().len(), 2, "nobody else has any");
    }
}

/// What is heard of a realm that a source does not serve is told of nobody.
#[test]
fn a_realm_that_a_source_does_not_serve() {
    let billing = Billing::start();
    let directory = tempfile::tempdir().unwrap();
    let redis_server = Redis::start(directory.path(), &[]);
    let source = format!(
        "url = \"redis://127.0.0.1:{}\"\nrealms = [\"example.org\"]",
        redis_server.port
    );
    let mut program = redis(&billing, &source);
    program.start();
    program.until("the subscription", |status| {
        status["sources"]["eu-1"]["state"] == "connected"
    });
    let start = |realm| Coturn::start(directory.path(), &redis_server.statsdb(), &[realm]);
    let (own, others) = (start("--realm=example.org"), start("--realm=tenant-b.example"));
    for (coturn, user) in [(&others, "bob"), (&own, "ann")] {
        let mut line = TcpLine::new(coturn, Transport::Tcp, user);
        line.up(PACKETS);
        assert_eq!(line.client().refresh(0), 0);
    }
    assert_eq!(billing.ended("ann", 1)[0].billable(), BYTES);
    assert_eq!(billing.sessions().len(), 1);
    let passed_over = &["turnhook_events_ignored_total{source=\"eu-1\",reason=\"realm\"}"];
    assert!(counted(&program, passed_over) > 0, "and the operator can see it");
}
