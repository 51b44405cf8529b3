//! Accounts of coturn's own (`lt-cred-mech`), whose names anybody may have chosen.

use md5::{Digest as _, Md5};

use crate::harness::{
    billing::{Billing, Session, direct, logged_of, statsdb, sum},
    coturn::{Coturn, Transport},
    eventually,
    redis::Redis,
    stun::Credential,
    turn::TurnClient,
};

/// A name that looks as if it had an expiry of the TURN REST API in front is not the name behind it.
#[test]
fn a_number_before_a_name_is_no_expiry() {
    const PASSWORD: &str = "a-password";
    let billing = Billing::start();
    let mut program = direct(&billing);
    program.start();
    let directory = tempfile::tempdir().unwrap();
    let redis = Redis::start(directory.path(), &[]);
    for user in ["victim", "1:victim"] {
        let mut md5 = Md5::new();
        md5.update(format!("{user}:example.org:{PASSWORD}"));
        let key: String = md5.finalize().iter().map(|byte| format!("{byte:02x}")).collect();
        let name = format!("turn/realm/example.org/user/{user}/key");
        assert_eq!(redis.ask(&["SET", &name, &key]), "OK");
    }
    let database = format!("--redis-userdb={}", redis.statsdb());
    let coturn = Coturn::start(
        directory.path(),
        &statsdb(&program, 0),
        &["--lt-cred-mech", &database],
    );
    let call = |user: &str, packets| {
        let credential = Credential::new(user, PASSWORD);
        let mut client = TurnClient::with(Transport::Tcp, &coturn, credential).call(&coturn);
        client.relay(packets, 500);
        client
    };
    let mut clients = [call("victim", 10), call("1:victim", 100)];
    for client in &mut clients {
        assert_eq!(client.refresh(0), 0);
    }
    let of = |username: &str| {
        let sessions = billing.sessions();
        let mut sessions = sessions.into_iter().filter(|s: &Session| {
            s.allocations()
                .iter()
                .any(|allocation| allocation["username"] == username)
        });
        sessions.next().filter(Session::has_ended)
    };
    let [victim, other] =
        ["victim", "1:victim"].map(|username| eventually("the end of their sessions", || of(username)));
    assert_ne!(other.user(), "victim");
    assert_ne!(other.id, victim.id);
    assert_eq!(victim.user(), "victim");
    // Of coturn's log each has what is its own.
    let all = sum(logged_of(&coturn, "victim"));
    assert_eq!(sum([victim.usage(), other.usage()]), all);
    assert_eq!((victim.usage().peer[2], other.usage().peer[2]), (10, 100));
}
