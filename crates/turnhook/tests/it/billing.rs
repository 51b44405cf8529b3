//! Billing products, as far as their fakes are like them: whatever goes wrong on the way, their sums are the ledger's,
//! or what they lack is listed.

use std::{collections::BTreeMap, fs};

use serde_json::{Value, json};

use crate::harness::{eventually, fakes::Fakes, feeder::Feeder, program::Program, turnhook};

/// An endpoint of a product that is tried again quickly.
fn product(fakes: &Fakes, name: &str, kind: &str, more: &str) -> String {
    let url = fakes.url(name);
    format!(
        "[[endpoint]]\nname = \"{name}\"\ntype = \"{kind}\"\nurl = \"{url}\"\nbearer = \"sk_test_1\"\n\
         retry = {{ initial = \"50ms\", max = \"200ms\" }}\n{more}\n"
    )
}

/// Bytes and sessions under one name.
const METERS: &str = "meters = [{ event = \"relay\", value = \"billable_bytes\", property = \"bytes\" }, \
                      { event = \"relay\", value = \"sessions\" }]";
/// What takes one value for each name.
const SINGLE: &str = "meters = [{ event = \"bytes\", value = \"billable_bytes\" }, { event = \"sessions\", value = \"sessions\" }]";
const BATCH: &str = "batch = { max = 20, wait = \"50ms\" }";

/// Sessions that are over, each of one allocation, by so many users.
struct Traffic {
    calls: u64,
    /// Bytes and sessions by user.
    ledger: BTreeMap<String, (u64, u64)>,
}

impl Traffic {
    fn new() -> Traffic {
        Traffic {
            calls: 0,
            ledger: BTreeMap::new(),
        }
    }

    /// So many calls, all of which are in the ledger afterwards.
    #[track_caller]
    fn calls(&mut self, program: &Program, users: &[&str], count: u64) {
        let mut feeder = Feeder::connect(program.source);
        for _ in 0..count {
            self.calls += 1;
            let user = users[usize::try_from(self.calls).unwrap() % users.len()];
            let allocation = feeder.call(user, self.calls);
            let (bytes, sessions) = self.ledger.entry(user.to_owned()).or_default();
            *bytes += allocation.peer[1] + allocation.peer[3];
            *sessions += 1;
        }
        eventually("the sessions to be over", || {
            let over = program.objects(&["sessions", "list", "--limit", "1000000"]);
            let over = over.iter().filter(|session| !session["ended_at"].is_null());
            (u64::try_from(over.count()).unwrap() == self.calls).then_some(())
        });
    }

    fn bytes(&self) -> BTreeMap<String, u64> {
        let of = self.ledger.iter();
        of.map(|(user, (bytes, _))| (user.clone(), *bytes)).collect()
    }

    fn sessions(&self) -> BTreeMap<String, u64> {
        let of = self.ledger.iter();
        of.map(|(user, (_, sessions))| (user.clone(), *sessions))
            .collect()
    }
}

/// Lost answers, resets, 5xx before and after the fact, and turnhook killed with all of it under way.
#[test]
fn every_products_sum_is_the_ledgers_whatever_goes_wrong() {
    let grouped = ["lago", "orb", "metronome", "polar", "openmeter"];
    let fakes = Fakes::start(&[
        "stripe",
        "stream=stripe",
        "lago",
        "orb",
        "metronome",
        "polar",
        "openmeter",
        "cloudevents",
        "meteroid",
        "autumn",
    ]);
    let mut more = String::new();
    for name in grouped {
        more += &product(&fakes, name, name, &format!("{METERS}\n{BATCH}"));
    }
    more += &product(&fakes, "stripe", "stripe", SINGLE);
    let stream = format!(
        "{SINGLE}\n{BATCH}\noptions = {{ api = \"stream\", stream_url = \"{}\" }}",
        fakes.url("stream")
    );
    more += &product(&fakes, "stream", "stripe", &stream);
    more += &product(&fakes, "cloudevents", "cloudevents", "");
    let preset = |name: &str| format!("[endpoint.options]\npreset = \"{name}\"\n");
    let meteroid = format!("{METERS}\n{BATCH}\n{}", preset("meteroid"));
    more += &product(&fakes, "meteroid", "template", &meteroid);
    let autumn = format!("{SINGLE}\n{}", preset("autumn"));
    more += &product(&fakes, "autumn", "template", &autumn);
    let all = [
        &grouped[..],
        &["stripe", "stream", "cloudevents", "meteroid", "autumn"],
    ]
    .concat();
    for (seed, name) in all.iter().enumerate() {
        let chaos = json!({"seed": seed, "lose": 0.1, "drop": 0.05, "503": 0.05, "503-after": 0.05, "delay:0.02": 0.1});
        fakes.switch(name, &json!({ "chaos": chaos }));
    }

    let mut program = Program::new(&more);
    let mut traffic = Traffic::new();
    let users = ["alice", "bob", "carol", "J\u{fc}rgen \"x\" %&="];
    for _ in 0..3 {
        program.start();
        traffic.calls(&program, &users, 40);
        program.kill();
    }
    program.start();
    program.nothing_pending();
    assert_eq!(program.deliveries("dead"), Vec::<Value>::new());
    for name in all {
        let bytes = match name {
            "stripe" | "stream" | "autumn" => "value",
            "cloudevents" => "billable_bytes",
            _ => "bytes",
        };
        let state = fakes.state(name);
        assert_eq!(state["counted_twice"], json!([]), "{name}");
        let mut sums = fakes.sums(name);
        if bytes == "value" {
            let of = |meter: &str| -> BTreeMap<String, u64> {
                let of = sums.iter().filter(|((_, of, _), _)| of == meter);
                of.map(|((customer, ..), sum)| (customer.clone(), *sum)).collect()
            };
            assert_eq!(of("bytes"), traffic.bytes(), "{name}: {state}");
            assert_eq!(of("sessions"), traffic.sessions(), "{name}: {state}");
            continue;
        }
        assert_eq!(fakes.by_customer(name, bytes), traffic.bytes(), "{name}: {state}");
        sums.retain(|(.., value), _| value == "sessions");
        if name != "cloudevents" {
            assert_eq!(
                fakes.by_customer(name, "sessions"),
                traffic.sessions(),
                "{name}: {state}"
            );
        }
    }
    // One at a time for each customer and meter, or it would have been refused.
    assert_eq!(fakes.state("stripe")["errors"], json!([]));
    // Something did go wrong.
    let repeated = all_duplicates(&fakes, &grouped);
    assert!(repeated > 0, "no answer was lost: the test shows nothing");
    program.stop();
}

fn all_duplicates(fakes: &Fakes, names: &[&str]) -> u64 {
    let of = |name: &&str| fakes.state(name)["duplicates"].as_u64().unwrap();
    names.iter().map(of).sum()
}

#[test]
fn p5_one_poisoned_customer_takes_no_neighbour_along() {
    let names = ["lago", "orb", "metronome", "polar"];
    let fakes = Fakes::start(&names);
    let mut more = String::new();
    for name in names {
        more += &product(
            &fakes,
            name,
            name,
            &format!("{METERS}\nbatch = {{ max = 50, wait = \"300ms\" }}"),
        );
        fakes.switch(name, &json!({"poison": ["mallory"]}));
    }
    let mut program = Program::new(&more);
    program.start();
    let mut traffic = Traffic::new();
    traffic.calls(&program, &["alice", "bob", "mallory", "carol"], 40);
    program.nothing_pending();
    traffic.ledger.remove("mallory");
    for name in names {
        assert_eq!(fakes.by_customer(name, "bytes"), traffic.bytes(), "{name}");
        assert_eq!(fakes.by_customer(name, "sessions"), traffic.sessions(), "{name}");
    }
    // What is lacking is listed: ten starts and ten ends of each product.
    let dead = program.deliveries("dead");
    for name in names {
        let of = dead.iter().filter(|delivery| delivery["endpoint"] == name);
        assert_eq!(of.count(), 20, "{name}: {dead:#?}");
    }
    program.stop();
}

/// An OpenMeter that forgets is never sent anything twice; one whose sink deduplicates is, and counts it once.
#[test]
fn p3_a_product_that_knows_no_id_again_is_not_sent_it_again() {
    let fakes = Fakes::start(&["sink=openmeter", r#"off=openmeter:{"dedupe":"off"}"#]);
    let more = format!("{METERS}\n{BATCH}");
    let sink = product(&fakes, "sink", "openmeter", &more);
    let off = product(&fakes, "off", "openmeter", &format!("{more}\nwindow = \"0s\""));
    let mut program = Program::new(&format!("{sink}{off}"));
    for name in ["sink", "off"] {
        // Counted, and the answer is lost; then counted as far as its third event.
        fakes.switch(name, &json!({"script": ["lose"], "fail_at": 2}));
    }
    program.start();
    let mut traffic = Traffic::new();
    traffic.calls(&program, &["alice", "bob"], 20);
    program.nothing_pending();
    assert_eq!(fakes.by_customer("sink", "bytes"), traffic.bytes());
    assert!(fakes.state("sink")["duplicates"].as_u64().unwrap() > 0);
    for name in ["sink", "off"] {
        assert_eq!(fakes.state(name)["counted_twice"], json!([]), "{name}");
    }
    // What may have been counted is listed, and only that.
    let dead = program.deliveries("dead");
    assert!(!dead.is_empty());
    for delivery in &dead {
        assert_eq!(
            (&delivery["endpoint"], &delivery["reason"]),
            (&json!("off"), &json!("uncertain")),
            "{delivery}"
        );
    }
    let counted = fakes.state("off")["counted"].as_u64().unwrap();
    let all = fakes.state("sink")["counted"].as_u64().unwrap();
    let dead = u64::try_from(dead.len()).unwrap();
    assert!(
        counted <= all && counted + dead >= all,
        "{counted} of {all}, {dead} listed"
    );
    program.stop();
}

#[test]
fn p7_a_wrong_key_kills_nothing_and_unknown_customers_wait() {
    let fakes = Fakes::start(&["stripe", "orb"]);
    let map = "customers_file = \"customers.csv\"\nunknown = \"hold\"";
    let stripe = product(&fakes, "stripe", "stripe", &format!("{SINGLE}\n{map}"));
    let orb = product(&fakes, "orb", "orb", &format!("{METERS}\n{BATCH}"));
    let mut program = Program::new(&format!("{stripe}{orb}"));
    let customers = program.directory.path().join("customers.csv");
    fs::write(&customers, "user,customer\nalice,cus_alice\n").unwrap();
    fakes.switch("orb", &json!({"refuse": 401}));
    program.start();
    let mut traffic = Traffic::new();
    traffic.calls(&program, &["alice", "bob"], 10);
    // Orb refuses the key: it waits, and says why.
    program.until("orb to be held", |status| {
        status["endpoints"]
            .to_string()
            .contains("it refused the credentials")
    });
    eventually("alice to be billed at Stripe", || {
        let billed = fakes.sums("stripe");
        let sum = billed.get(&("cus_alice".into(), "bytes".into(), "value".into()));
        (sum == Some(&traffic.bytes()["alice"])).then_some(())
    });
    assert_eq!(fakes.sums("orb").len(), 0);
    assert_eq!(program.deliveries("dead"), Vec::<Value>::new());
    // The key is put right, and the map completed.
    fakes.switch("orb", &json!({"refuse": null}));
    program.ask(&["endpoints", "resume", "orb"]);
    fs::write(&customers, "user,customer\nalice,cus_alice\nbob,cus_bob\n").unwrap();
    program.nothing_pending();
    assert_eq!(fakes.by_customer("orb", "bytes"), traffic.bytes());
    let stripe = fakes.sums("stripe");
    for user in ["alice", "bob"] {
        let of = |meter: &str| stripe[&(format!("cus_{user}"), meter.to_owned(), "value".to_owned())];
        assert_eq!((of("bytes"), of("sessions")), traffic.ledger[user]);
    }
    assert_eq!(program.deliveries("dead"), Vec::<Value>::new());
    program.stop();
}

/// A command that only looks reads no secrets: what stands in their place must not make a right configuration wrong.
#[test]
fn commands_that_look_take_accounts_apart_whose_keys_they_do_not_read() {
    let directory = tempfile::tempdir().unwrap();
    let endpoint = |name: &str| {
        format!(
            "[[endpoint]]\nname = \"{name}\"\ntype = \"orb\"\nbearer_file = \"{name}.key\"\n{METERS}\n\
             customers_file = \"{name}.csv\"\nunknown = \"hold\"\n"
        )
    };
    let text = format!(
        "[[source]]\nname = \"eu-1\"\ntype = \"direct\"\nlisten = \"127.0.0.1:6380\"\n{}{}",
        endpoint("acme"),
        endpoint("other")
    );
    fs::write(directory.path().join("turnhook.toml"), text).unwrap();
    // There is no store yet: that is what it has to say, and nothing of the configuration.
    let output = turnhook::run(directory.path(), &["sessions", "list"]);
    let said = turnhook::stderr(&output);
    assert!(!said.contains("turnhook.toml"), "{said}");
    assert_ne!(output.status.code(), Some(78), "{said}");
}
