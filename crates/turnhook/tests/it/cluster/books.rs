//! What must hold in the end.

use std::{
    collections::BTreeMap,
    time::{Duration, Instant},
};

use crate::harness::{
    DEADLINE,
    billing::{Billing, Session, relayed, sum},
    coturn::{Coturn, Logged},
    eventually,
    nodes::{Node, Shared},
};

/// Every user has one session, it has ended and is exact, it says what coturn logged, and its events came in order; the
/// store has the events that came, and no others.
#[track_caller]
pub(super) fn balance(shared: &Shared, nodes: &[Node], billing: &Billing, coturn: &Coturn, users: &[String]) {
    let sessions = all_ended(billing, users);
    let mut logged: BTreeMap<String, Vec<Logged>> = BTreeMap::new();
    for ((_, username), one) in coturn.logged() {
        let user = username.split(':').next_back().unwrap().to_owned();
        logged.entry(user).or_default().push(one);
    }
    let mut wrong = Vec::new();
    for user in users {
        let of_user: Vec<&Session> = sessions.iter().filter(|s| s.user() == user).collect();
        let [logged] = logged.get(user).map(Vec::as_slice).unwrap_or_default() else {
            panic!("coturn logged of {user}: {:?}", logged.get(user));
        };
        let exact = of_user.len() == 1
            && of_user[0].is_exact()
            && of_user[0].usage() == *logged
            && of_user[0].billable() == relayed(logged);
        if !exact {
            let told: Vec<_> = of_user
                .iter()
                .flat_map(|s| &s.events)
                .map(|e| e.body.to_string())
                .collect();
            wrong.push(format!(
                "{user}: coturn logged {logged:?}, told was\n{}",
                told.join("\n")
            ));
        }
    }
    let leader = nodes.iter().find(|node| node.leads()).expect("a leader");
    assert!(
        wrong.is_empty(),
        "{} of {} users:\n{}\ngaps:\n{}\nopen at the leader: {} {}",
        wrong.len(),
        users.len(),
        wrong.iter().take(5).cloned().collect::<Vec<_>>().join("\n"),
        shared.sql("SELECT * FROM gap"),
        leader.says("/sources/eu-1/open_allocations"),
        leader.says("/sources/eu-1/open_sessions"),
    );
    assert_eq!(
        sum(sessions.iter().map(Session::usage)),
        sum(logged.values().flatten().copied()),
        "the sum of all"
    );
    in_order(billing);
    // The outbox is empty, and what is in the store is what came.
    eventually("all deliveries", || {
        leader.program.deliveries("pending").is_empty().then_some(())
    });
    let stored = leader.program.objects(&[
        "deliveries",
        "list",
        "--limit",
        "1000000",
        "--endpoint",
        "billing",
    ]);
    let mut stored: Vec<&str> = stored
        .iter()
        .map(|row| row["webhook_id"].as_str().unwrap())
        .collect();
    let came = billing.webhooks();
    let mut came: Vec<&str> = came.iter().map(|webhook| webhook.id.as_str()).collect();
    stored.sort_unstable();
    came.sort_unstable();
    assert!(
        stored == came,
        "{} events stored, {} came",
        stored.len(),
        came.len()
    );
    println!("{} calls, {} events", users.len(), came.len());
}

/// All sessions, once as many have ended as there are users; those that there are if that takes too long: who is missing
/// says more than that somebody is.
#[track_caller]
fn all_ended(billing: &Billing, users: &[String]) -> Vec<Session> {
    let until = Instant::now() + DEADLINE;
    loop {
        let sessions = billing.sessions();
        let ended = sessions.iter().filter(|s| s.has_ended()).count();
        if (ended >= users.len() && ended == sessions.len()) || Instant::now() > until {
            return sessions;
        }
        std::thread::sleep(Duration::from_millis(200));
    }
}

/// What came first of each event came in sequence.
#[track_caller]
fn in_order(billing: &Billing) {
    let mut next: BTreeMap<String, u64> = BTreeMap::new();
    for webhook in billing.webhooks() {
        let data = &webhook.body["data"];
        let next = next
            .entry(data["session_id"].as_str().unwrap().to_owned())
            .or_default();
        assert_eq!(data["sequence"], *next, "out of order: {}", webhook.body);
        *next += 1;
    }
}
