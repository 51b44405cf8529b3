//! Endpoints that speak to a billing product, in the whole program: killed, refused, held, tried out.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    sync::{
        Arc, Mutex,
        atomic::{AtomicU16, Ordering},
    },
};

use serde_json::Value;
use turnhook_dispatcher::signature::{Secret, verify};

use crate::harness::{
    eventually,
    feeder::Feeder,
    page::Page,
    program::{Program, SECRET, endpoint},
    receiver::{Received, Receiver, Reply},
};

/// An OpenMeter: it counts each id once.
#[derive(Default)]
struct Counted {
    /// As it came first: its bytes, and what it says.
    events: BTreeMap<String, (String, u64)>,
    requests: usize,
    other_bytes: Vec<String>,
    largest: usize,
}

impl Counted {
    fn take(&mut self, request: &Received) {
        self.requests += 1;
        let body: Value = serde_json::from_slice(&request.body).unwrap();
        let list = match body {
            Value::Array(list) => list,
            one => vec![one],
        };
        self.largest = self.largest.max(list.len());
        for event in list {
            let id = event["id"].as_str().unwrap().to_owned();
            let bytes = event["data"]["billable_bytes"].as_u64().unwrap();
            let text = event.to_string();
            let (before, _) = self.events.entry(id.clone()).or_insert((text.clone(), bytes));
            if *before != text {
                self.other_bytes.push(id);
            }
        }
    }

    fn sum(&self) -> u64 {
        self.events.values().map(|(_, bytes)| bytes).sum()
    }
}

/// One that answers with `status`, and loses some of its answers when it says 204.
async fn openmeter(status: &Arc<AtomicU16>, loses: bool) -> (Arc<Mutex<Counted>>, Receiver) {
    let counted = Arc::new(Mutex::new(Counted::default()));
    let (kept, now) = (Arc::clone(&counted), Arc::clone(status));
    let receiver = Receiver::start(move |request| {
        let status = now.load(Ordering::SeqCst);
        if status != 204 || request.line.starts_with("GET") {
            return Reply::Status(status);
        }
        let mut kept = kept.lock().unwrap();
        kept.take(request);
        match kept.requests % 4 {
            1 if loses => Reply::Reset,
            2 if loses => Reply::Status(500),
            _ => Reply::Status(204),
        }
    })
    .await;
    (counted, receiver)
}

fn product(receiver: &Receiver, more: &str) -> String {
    let more = format!(
        "type = \"openmeter\"\nmeters = [{{ event = \"relayed\", value = \"billable_bytes\" }}]\n\
         batch = {{ wait = \"50ms\" }}\n{more}"
    );
    let text = endpoint("openmeter", &receiver.url(), &more);
    let signed = format!("secrets = [\"{SECRET}\"]\n");
    text.replace(&signed, "")
}

/// What the ledger has of all sessions.
fn ledger(program: &Program) -> u64 {
    let sessions = program.objects(&["sessions", "list", "--limit", "100000"]);
    let bytes = |session: &Value| session["usage"]["billable_bytes"].as_u64().unwrap();
    sessions.iter().map(bytes).sum()
}

#[tokio::test(flavor = "multi_thread")]
async fn killed_while_answers_are_lost_it_counts_what_the_ledger_has() {
    let status = Arc::new(AtomicU16::new(204));
    let (counted, receiver) = openmeter(&status, true).await;
    let mut program = Program::new(&product(&receiver, ""));
    for life in 0..3u64 {
        let before = counted.lock().unwrap().requests;
        program.start();
        let mut feeder = Feeder::connect(program.source);
        for n in 0..40 {
            feeder.call(&format!("user{}", n % 7), life * 1000 + n + 1);
        }
        eventually("requests", || {
            (counted.lock().unwrap().requests > before).then_some(())
        });
        program.kill();
    }
    program.start();
    let mut feeder = Feeder::connect(program.source);
    feeder.call("last", 9_999);
    program.until("the last session", |_| {
        let sessions = program.objects(&["sessions", "list", "--user", "last"]);
        sessions.iter().any(|session| !session["ended_at"].is_null())
    });
    program.nothing_pending();
    assert_eq!(program.deliveries("dead"), Vec::<Value>::new());
    let counted = counted.lock().unwrap();
    assert_eq!(counted.sum(), ledger(&program));
    assert_eq!(
        counted.other_bytes,
        Vec::<String>::new(),
        "a repeat has the same bytes"
    );
    assert!(counted.sum() > 0 && counted.largest > 1, "{}", counted.largest);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_wrong_key_and_an_unknown_customer_wait_and_nothing_dies() {
    let status = Arc::new(AtomicU16::new(401));
    let (counted, receiver) = openmeter(&status, false).await;
    let more = "customers_file = \"customers.csv\"\nunknown = \"hold\"\n";
    let mut program = Program::new(&product(&receiver, more));
    let map = program.directory.path().join("customers.csv");
    fs::write(&map, "user,customer\nalice,cus_1\n").unwrap();
    program.start();
    let mut feeder = Feeder::connect(program.source);
    feeder.call("alice", 1);
    feeder.call("bob", 2);
    program.until("the endpoint to be held", |status| {
        status["endpoints"]["openmeter"]["state"] == "held"
    });
    program.line("endpoint stands still: something has to be put right first");
    let listed = program.ask(&["endpoints", "list"]);
    assert!(
        listed.contains("held") && listed.contains("credentials"),
        "{listed}"
    );
    // It finds out by itself that the key is good now.
    status.store(204, Ordering::SeqCst);
    program.until("bob alone to wait", |status| {
        status["endpoints"]["openmeter"]["waiting_for_customers"] == 1
            && status["endpoints"]["openmeter"]["pending"] == 1
    });
    let listed = program.ask(&["endpoints", "list"]);
    assert!(listed.contains("customers_file"), "{listed}");
    assert_eq!(counted.lock().unwrap().events.len(), 1);
    fs::write(&map, "user,customer\nalice,cus_1\nbob,cus_2\n").unwrap();
    program.nothing_pending();
    let counted = counted.lock().unwrap();
    assert_eq!((counted.events.len(), counted.sum()), (2, ledger(&program)));
    let customers: BTreeSet<bool> = counted
        .events
        .values()
        .map(|(text, _)| text.contains("cus_1"))
        .collect();
    assert_eq!(customers.len(), 2);
    assert_eq!(program.deliveries("dead"), Vec::<Value>::new());
    // What was sent can be seen to the byte.
    let (id, (text, _)) = counted.events.first_key_value().unwrap();
    let rendered = program.ask(&["endpoints", "render", "openmeter", id]);
    let body: Value = serde_json::from_str(rendered.split_once("\n\n").unwrap().1).unwrap();
    assert_eq!(body.to_string(), *text);
}

#[tokio::test(flavor = "multi_thread")]
async fn trying_a_product_out_bills_nobody() {
    let status = Arc::new(AtomicU16::new(204));
    let (counted, receiver) = openmeter(&status, false).await;
    let endpoint = product(&receiver, "bearer = \"hunter2\"\n");
    let mut program = Program::new(&endpoint);
    let (page, table) = Page::new(&program);
    program.configure(&(table + &endpoint));
    program.start();
    let shown = program.ask(&["endpoints", "test", "openmeter"]);
    assert!(
        shown.contains("\"subject\":\"cust_42\"") && shown.contains("evt_test_"),
        "{shown}"
    );
    assert!(!shown.contains("hunter2"), "{shown}");
    let nothing = program.ask(&["endpoints", "test", "openmeter", "--type", "session.start"]);
    assert!(nothing.contains("comes to nothing"), "{nothing}");
    status.store(401, Ordering::SeqCst);
    let output = program.command(&["endpoints", "test", "openmeter"]);
    assert_eq!(output.status.code(), Some(1));
    // From the page it is the same.
    let told = page.post("/api/v1/endpoints/openmeter/test", "").json();
    assert_eq!(
        (&told["well"], &told["status"]),
        (&false.into(), &401.into()),
        "{told}"
    );
    status.store(204, Ordering::SeqCst);
    let told = page
        .post("/api/v1/endpoints/openmeter/test", "type=session.end")
        .json();
    assert_eq!(told["well"], true, "{told}");
    assert!(told["sent"].as_str().unwrap().starts_with("GET "), "{told}");
    let request = told["requests"].to_string();
    assert!(
        request.contains("cust_42") || request.contains("comes to nothing"),
        "{told}"
    );
    assert!(!told.to_string().contains("hunter2"), "{told}");
    assert_eq!(counted.lock().unwrap().requests, 0);
    for request in receiver.received().iter() {
        assert!(request.line.starts_with("GET "), "{}", request.line);
        assert_eq!(request.header("authorization"), "Bearer hunter2");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn samples_of_every_kind_for_a_webhook() {
    let receiver = Receiver::start(|_| Reply::Status(200)).await;
    let program = Program::new(&endpoint("billing", &receiver.url(), ""));
    for case in ["exact", "lower-bound", "continues", "no-user", "many"] {
        program.ask(&[
            "endpoints",
            "test",
            "billing",
            "--type",
            "session.end",
            "--case",
            case,
        ]);
    }
    let received = receiver.received();
    assert_eq!(received.len(), 5);
    let secrets = [Secret::parse(SECRET).unwrap()];
    let bodies: Vec<Value> = received
        .iter()
        .map(|request| {
            assert!(request.id().starts_with("evt_test_"), "{}", request.id());
            let (at, signature) = (
                request.header("webhook-timestamp"),
                request.header("webhook-signature"),
            );
            let now = at.parse().unwrap();
            verify(&secrets, request.id(), at, signature, &request.body, now).unwrap();
            assert!(request.body.len() <= 20_000, "{}", request.body.len());
            serde_json::from_slice(&request.body).unwrap()
        })
        .collect();
    for body in &bodies {
        assert_eq!(
            (&body["test"], &body["type"]),
            (&true.into(), &"session.end".into())
        );
    }
    assert_eq!(bodies[1]["data"]["accuracy"], "lower_bound");
    assert!(bodies[2]["data"]["continues"].is_string());
    assert!(bodies[3]["data"]["user"].is_null());
    assert_eq!(bodies[4]["data"]["allocations"].as_array().unwrap().len(), 25);
    assert_eq!(bodies[4]["data"]["usernames_omitted"], 40);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_tenants_endpoint_hears_of_that_tenant_alone() {
    let (ours, theirs) = (
        Receiver::start(|_| Reply::Status(200)).await,
        Receiver::start(|_| Reply::Status(200)).await,
    );
    let session = "[session]\ngroup_by = \"allocation\"\nlinger = \"0s\"\n\
         user_pattern = '^(?P<tenant>[a-z]+)-(?P<user>.*)$'\n";
    let mut program = Program::new(&format!(
        "{session}{}{}",
        endpoint(
            "ours",
            &ours.url(),
            "labels = { tenant = \"acme\" }\ninclude = { addresses = false }\n"
        ),
        endpoint("all", &theirs.url(), "sources = [\"eu-*\"]\n"),
    ));
    program.start();
    let mut feeder = Feeder::connect(program.source);
    feeder.call("acme-anna", 1);
    feeder.call("other-ben", 2);
    eventually("theirs", || (theirs.received().len() >= 4).then_some(()));
    program.nothing_pending();
    let users: BTreeSet<String> = ours
        .received()
        .iter()
        .map(|request| {
            let body: Value = serde_json::from_slice(&request.body).unwrap();
            assert_eq!(body["data"]["allocations"][0]["client_address"], Value::Null);
            assert_eq!(crate::harness::schema::faults(&body), Vec::<String>::new());
            body["data"]["user"].as_str().unwrap().to_owned()
        })
        .collect();
    assert_eq!(users, BTreeSet::from(["anna".to_owned()]));
    // The same events under the same ids, with the addresses.
    let ids = |receiver: &Receiver| -> BTreeSet<String> {
        receiver.received().iter().map(|r| r.id().to_owned()).collect()
    };
    assert!(ids(&ours).is_subset(&ids(&theirs)) && ids(&ours) != ids(&theirs));
    let told = String::from_utf8_lossy(&theirs.received()[0].body).into_owned();
    assert!(told.contains("192.0.2.7"), "{told}");
}
