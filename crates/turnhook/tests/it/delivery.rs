//! What becomes of webhooks that an endpoint does not take, and of endpoints that come and go.

use std::{
    collections::BTreeMap,
    sync::{
        Arc,
        atomic::{AtomicU16, Ordering},
    },
    time::Duration,
};

use serde_json::Value;

use crate::harness::{
    eventually,
    feeder::Feeder,
    program::{Program, WHILE, endpoint},
    receiver::{Received, Receiver, Reply},
    turnhook::{stderr, stdout},
};

/// A receiver that answers with whatever status is set.
async fn answering(status: u16) -> (Arc<AtomicU16>, Receiver) {
    let answer = Arc::new(AtomicU16::new(status));
    let now = Arc::clone(&answer);
    let receiver = Receiver::start(move |_| Reply::Status(now.load(Ordering::SeqCst))).await;
    (answer, receiver)
}

fn event(request: &Received) -> Value {
    serde_json::from_slice(&request.body).unwrap()
}

/// The types that a receiver got, in order, for a user.
fn types(receiver: &Receiver, user: &str) -> Vec<String> {
    let received = receiver.received();
    let events = received.iter().map(event);
    let of_user = events.filter(|event| event["data"]["user"] == user);
    of_user
        .map(|event| event["type"].as_str().unwrap().to_owned())
        .collect()
}

/// How often each event came, once its bytes were seen to be the same each time.
fn times(receiver: &Receiver) -> BTreeMap<String, usize> {
    let mut bodies: BTreeMap<String, Vec<u8>> = BTreeMap::new();
    let mut times: BTreeMap<String, usize> = BTreeMap::new();
    for request in receiver.received().iter() {
        let body = bodies
            .entry(request.id().to_owned())
            .or_insert_with(|| request.body.clone());
        assert!(*body == request.body, "{} came with other bytes", request.id());
        *times.entry(request.id().to_owned()).or_default() += 1;
    }
    times
}

fn pending(status: &Value, endpoint: &str) -> u64 {
    status["endpoints"][endpoint]["pending"].as_u64().unwrap()
}

fn dead(status: &Value, endpoint: &str) -> u64 {
    status["endpoints"][endpoint]["dead_letters"].as_u64().unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn gone_pauses_until_somebody_resumes_it() {
    let (answer, receiver) = answering(410).await;
    let mut program = Program::new(&endpoint("billing", &receiver.url(), "concurrency = 1\n"));
    program.start();
    let mut feeder = Feeder::connect(program.source);
    feeder.call("alice", 1);
    program.until("the pause", |status| {
        status["endpoints"]["billing"]["paused"] == true
    });
    let asked = receiver.received().len();
    assert_eq!(asked, 1, "nothing is sent to an endpoint that is gone");

    // What comes meanwhile is kept, over a crash too.
    answer.store(200, Ordering::SeqCst);
    feeder.call("bob", 2);
    program.until("four deliveries", |status| pending(status, "billing") == 4);
    eventually("the pause to be on record", || {
        let listed = program.objects(&["endpoints", "list"]);
        (listed[0]["state"] == "paused").then_some(())
    });
    program.kill();
    program.start();
    let status = program.until("the backlog", |status| pending(status, "billing") == 4);
    assert_eq!(status["endpoints"]["billing"]["paused"], true, "{status}");
    tokio::time::sleep(WHILE).await;
    assert_eq!(
        receiver.received().len(),
        asked,
        "a restart is no reason to ask again"
    );
    let listed = program.ask(&["endpoints", "list"]);
    assert!(listed.contains("410"), "{listed}");

    assert!(
        program
            .ask(&["endpoints", "resume", "billing"])
            .contains("is resumed")
    );
    program.until("all of it", |status| pending(status, "billing") == 0);
    for user in ["alice", "bob"] {
        let types = types(&receiver, user);
        assert_eq!(
            types[types.len() - 2..],
            ["session.start", "session.end"],
            "{user}"
        );
    }
    assert_eq!(program.deliveries("delivered").len(), 4);
    assert!(
        program
            .ask(&["endpoints", "resume", "billing"])
            .contains("was not paused")
    );

    // By command, with nothing running: the next run knows.
    program.stop();
    program.ask(&["endpoints", "pause", "billing", "--reason", "new disks"]);
    program.start();
    Feeder::connect(program.source).call("carol", 3);
    let status = program.until("two deliveries", |status| pending(status, "billing") == 2);
    assert_eq!(status["endpoints"]["billing"]["paused"], true);
    assert!(program.ask(&["endpoints", "list"]).contains("new disks"));
    program.ask(&["endpoints", "resume", "billing"]);
    program.until("all of it", |status| pending(status, "billing") == 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_never_taken_is_a_dead_letter_and_blocks_nobody() {
    let receiver = Receiver::start(|request| {
        let event = event(request);
        match (event["type"].as_str(), event["data"]["user"].as_str()) {
            (Some("session.start"), Some(user)) => Reply::Status(user.parse().unwrap()),
            _ => Reply::Status(200),
        }
    })
    .await;
    let mut program = Program::new(&endpoint("billing", &receiver.url(), ""));
    program.start();
    let mut feeder = Feeder::connect(program.source);
    for (id, user) in ["413", "422"].into_iter().enumerate() {
        feeder.call(user, id as u64 + 1);
    }
    let status = program.until("two dead letters and no backlog", |status| {
        dead(status, "billing") == 2 && pending(status, "billing") == 0
    });
    assert_eq!(status["endpoints"]["billing"]["breaker"], "closed");
    for user in ["413", "422"] {
        assert_eq!(
            types(&receiver, user),
            ["session.start", "session.end"],
            "asked once, and went on"
        );
    }
    let letters = program.deliveries("dead");
    assert_eq!(letters.len(), 2);
    for letter in &letters {
        assert_eq!(
            (&letter["type"], &letter["attempts"]),
            (&"session.start".into(), &1.into())
        );
        let shown = program.ask(&["deliveries", "show", letter["webhook_id"].as_str().unwrap()]);
        assert!(
            shown.contains("rejected") && shown.contains("answered 4"),
            "{shown}"
        );
    }
    let metrics = program.get("/metrics").1;
    assert!(
        metrics.contains("turnhook_dead_letters{endpoint=\"billing\"} 2"),
        "{metrics}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn it_is_given_up_in_the_end_into_the_dead_letters() {
    let (answer, receiver) = answering(500).await;
    let mut program = Program::new(&endpoint(
        "billing",
        &receiver.url(),
        "retry = { initial = \"50ms\", max = \"100ms\", give_up_after = \"600ms\" }\n",
    ));
    program.start();
    let mut feeder = Feeder::connect(program.source);
    feeder.call("alice", 1);
    program.until("two dead letters", |status| dead(status, "billing") == 2);
    let letters = program.deliveries("dead");
    assert!(
        letters
            .iter()
            .all(|letter| letter["attempts"].as_u64().unwrap() >= 2),
        "{letters:?}"
    );
    assert!(types(&receiver, "alice").iter().any(|one| one == "session.end"));

    // They wait for a person; what comes later does not wait for them.
    answer.store(200, Ordering::SeqCst);
    feeder.call("bob", 2);
    eventually("the next", || {
        (types(&receiver, "bob") == ["session.start", "session.end"]).then_some(())
    });
    let dry = program.ask(&["replay", "--endpoint", "billing", "--dry-run"]);
    assert_eq!(dry, "2 deliveries would be sent again\n");
    let done = program.ask(&["replay", "--endpoint", "billing", "--wait"]);
    assert!(done.ends_with("2 deliveries done\n"), "{done}");
    assert_eq!(program.deliveries("delivered").len(), 4);
    assert!(program.deliveries("dead").is_empty());
    times(&receiver);
}

/// Every way to say what to replay, each against what the receiver then gets.
#[tokio::test(flavor = "multi_thread")]
async fn replay_sends_what_it_is_asked_for_with_its_first_id_and_bytes() {
    let (_, all) = answering(200).await;
    let (_, ends) = answering(200).await;
    let mut program = Program::new(&format!(
        "{}{}",
        endpoint("billing", &all.url(), ""),
        endpoint("support", &ends.url(), "events = [\"session.end\"]\n"),
    ));
    program.start();
    let mut feeder = Feeder::connect(program.source);
    for (id, user) in ["alice", "bob", "carol"].into_iter().enumerate() {
        feeder.call(user, id as u64 + 1);
    }
    eventually("all of it", || {
        (program.deliveries("delivered").len() == 9).then_some(())
    });
    let rows = program.deliveries("delivered");
    let of = |row: &Value, name: &str| row[name].as_str().unwrap().to_owned();
    let start = rows.iter().find(|row| row["type"] == "session.start").unwrap();
    let (id, session) = (of(start, "webhook_id"), of(start, "session_id"));
    let mut moments: Vec<String> = rows.iter().map(|row| of(row, "timestamp")).collect();
    moments.sort();
    let later = moments.iter().filter(|at| **at >= moments[4]).count();

    // What is asked for, and how many deliveries that is.
    let cases: [(&[&str], usize); 9] = [
        (&["--id", &id], 1),
        (&["--session", &session], 3),
        (&["--user", "bob"], 3),
        (&["--user", "nobody"], 0),
        (&["--endpoint", "support"], 3),
        (&["--type", "session.end", "--endpoint", "billing"], 3),
        (&["--since", &moments[4]], later),
        (&["--until", &moments[4]], 9 - later),
        (
            &[
                "--session",
                &session,
                "--type",
                "session.start",
                "--type",
                "session.end",
            ],
            3,
        ),
    ];
    let counted = |receivers: [&Receiver; 2]| receivers.iter().map(|one| one.received().len()).sum::<usize>();
    for (selector, expected) in &cases {
        let before = counted([&all, &ends]);
        let asked = [&["replay", "--state", "delivered"], *selector].concat();
        let dry = program.ask(&[&asked[..], &["--dry-run"]].concat());
        assert_eq!(
            dry,
            format!("{expected} deliveries would be sent again\n"),
            "{selector:?}"
        );
        assert_eq!(counted([&all, &ends]), before, "a dry run sends nothing");
        let said = program.ask(&[&asked[..], &["--wait"]].concat());
        assert!(
            said.contains(&format!("{expected} deliveries queued")),
            "{selector:?}: {said}"
        );
        assert_eq!(counted([&all, &ends]) - before, *expected, "{selector:?}");
        // Nothing is dead, so nothing is replayed unless it is asked for.
        let dead = program.ask(&[&["replay"], *selector].concat());
        assert!(dead.contains(" 0 deliveries queued"), "{dead}");
    }
    // Each came with its first id and bytes, and order holds among those of a session.
    assert_eq!(times(&all).len(), 6);
    assert_eq!(times(&ends).len(), 3);

    let everything = program.command(&["replay", "--state", "all"]);
    assert_eq!(everything.status.code(), Some(1), "everything is never meant");

    // On record: who, when, what.
    let history = program.objects(&["replay", "--history"]);
    let of_user = history
        .iter()
        .find(|one| one["what"] == "--state delivered --user bob")
        .unwrap();
    assert_eq!(
        (of_user["total"].as_u64(), of_user["pending"].as_u64()),
        (Some(3), Some(0))
    );
    assert!(!of_user["who"].as_str().unwrap().is_empty() && of_user["at"].as_str().unwrap().ends_with('Z'));

    // A rate spreads them.
    let before = std::time::Instant::now();
    program.ask(&[
        "replay",
        "--state",
        "delivered",
        "--endpoint",
        "billing",
        "--rate",
        "4",
        "--wait",
    ]);
    assert!(
        before.elapsed() >= Duration::from_millis(1200),
        "6 at 4 a second: {:?}",
        before.elapsed()
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_replay_while_nothing_runs_is_queued_for_the_next_one() {
    let (answer, receiver) = answering(422).await;
    let mut program = Program::new(&endpoint("billing", &receiver.url(), ""));
    program.start();
    Feeder::connect(program.source).call("alice", 1);
    program.until("two dead letters", |status| dead(status, "billing") == 2);
    program.stop();

    answer.store(200, Ordering::SeqCst);
    let said = program.ask(&["replay"]);
    assert!(
        said.contains("2 deliveries queued") && said.contains("no turnhook is running"),
        "{said}"
    );
    assert_eq!(program.objects(&["replay", "--history"])[0]["pending"], 2);
    assert_eq!(receiver.received().len(), 2);
    program.start();
    eventually("both", || {
        (program.deliveries("delivered").len() == 2).then_some(())
    });
    assert_eq!(times(&receiver).into_values().collect::<Vec<_>>(), [2, 2]);
    assert_eq!(types(&receiver, "alice")[2..], ["session.start", "session.end"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_discarded_is_not_sent() {
    let (answer, receiver) = answering(422).await;
    let mut program = Program::new(&endpoint("billing", &receiver.url(), ""));
    program.start();
    let mut feeder = Feeder::connect(program.source);
    feeder.call("alice", 1);
    program.until("two dead letters", |status| dead(status, "billing") == 2);
    let refused = program.command(&["deliveries", "discard"]);
    assert_eq!(refused.status.code(), Some(1), "{}", stdout(&refused));
    let dry = program.ask(&["deliveries", "discard", "--user", "alice", "--dry-run"]);
    assert_eq!(dry, "2 deliveries would be discarded\n");
    assert_eq!(
        program.ask(&["deliveries", "discard", "--user", "alice"]),
        "2 deliveries discarded\n"
    );
    program.until("no dead letter", |status| dead(status, "billing") == 0);
    assert_eq!(program.deliveries("discarded").len(), 2);
    assert!(program.ask(&["replay"]).contains(" 0 deliveries queued"));

    // Pending ones, under a running program that holds them in memory.
    answer.store(503, Ordering::SeqCst);
    feeder.call("bob", 2);
    program.until("two that wait", |status| pending(status, "billing") == 2);
    let said = program.ask(&[
        "deliveries",
        "discard",
        "--state",
        "pending",
        "--type",
        "session.start",
    ]);
    assert_eq!(said, "1 deliveries discarded\n");
    answer.store(200, Ordering::SeqCst);
    program.until("the other", |status| pending(status, "billing") == 0);
    let delivered = program.deliveries("delivered");
    assert_eq!(delivered.len(), 1, "{delivered:?}");
    assert_eq!(
        delivered[0]["type"], "session.end",
        "what was discarded holds nothing up"
    );

    // A change of mind: it is there until retention takes it.
    program.ask(&["replay", "--state", "all", "--user", "alice", "--wait"]);
    assert_eq!(program.deliveries("delivered").len(), 3);
}

#[tokio::test(flavor = "multi_thread")]
async fn endpoints_that_are_removed_renamed_and_added() {
    let (old_answer, old) = answering(503).await;
    let (_, new) = answering(200).await;
    let mut program = Program::new(&endpoint("old", &old.url(), ""));
    program.start();
    Feeder::connect(program.source).call("alice", 1);
    program.until("two that wait", |status| pending(status, "old") == 2);
    program.stop();

    // Removed, another added (or renamed, which is the same): what was for the old one stays with it, in
    // sight; the new one gets what happens from now on.
    program.configure(&endpoint("new", &new.url(), ""));
    program.start();
    let asked = old.received().len();
    Feeder::connect(program.source).call("bob", 2);
    eventually("what is new", || (new.received().len() == 2).then_some(()));
    assert_eq!(
        types(&new, "alice"),
        [""; 0],
        "not what happened before it was configured"
    );
    let status = program.until("the removed one's backlog", |status| {
        status["endpoints"]["old"].is_object()
    });
    assert_eq!(pending(&status, "old"), 2, "{status}");
    assert!(
        program
            .get("/metrics")
            .1
            .contains("turnhook_outbox_pending{endpoint=\"old\"} 2")
    );
    let listed = program.objects(&["endpoints", "list"]);
    let removed = listed.iter().find(|one| one["endpoint"] == "old").unwrap();
    assert_eq!(
        (&removed["state"], &removed["pending"]),
        (&"removed".into(), &2.into())
    );
    assert_eq!(
        program
            .objects(&["deliveries", "list", "--endpoint", "old", "--state", "pending"])
            .len(),
        2
    );
    tokio::time::sleep(WHILE).await;
    assert_eq!(
        old.received().len(),
        asked,
        "nothing is sent to what is not configured"
    );
    program.stop();

    // Back, at another address: it goes on where it was.
    old_answer.store(200, Ordering::SeqCst);
    program.configure(&format!(
        "{}{}",
        endpoint("new", &new.url(), ""),
        endpoint("old", &old.url(), "")
    ));
    program.start();
    eventually("what it had missed", || {
        (pending(&program.status(), "old") == 0).then_some(())
    });
    assert_eq!(types(&old, "alice")[asked..], ["session.start", "session.end"]);
    assert_eq!(types(&old, "bob"), [""; 0], "it was not configured then");

    let unknown = program.command(&["deliveries", "list", "--endpoint", "odl"]);
    assert_eq!(unknown.status.code(), Some(1));
    assert!(
        stderr(&unknown).contains("known: new, old"),
        "{}",
        stderr(&unknown)
    );
}
