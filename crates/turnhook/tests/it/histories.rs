//! Histories as they were heard (`tests/histories/`), told to `turnhook simulate`: what must come out of them, and by
//! which rule (RELAYED.md, RULES.md and STATES.md of the reducer).

use std::{collections::BTreeMap, path::Path};

use serde_json::Value;

use crate::harness::turnhook;

/// What is told of a history, by default or with this configuration.
fn told(name: &str, config: Option<&str>) -> Vec<Value> {
    let directory = tempfile::tempdir().unwrap();
    let file = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("tests/histories")
        .join(name);
    let mut arguments = vec!["simulate", "--settle"];
    if let Some(config) = config {
        std::fs::write(directory.path().join("turnhook.toml"), config).unwrap();
        arguments.extend(["--config", "turnhook.toml"]);
    }
    arguments.push(file.to_str().unwrap());
    let output = turnhook::run(directory.path(), &arguments);
    assert!(output.status.success(), "{}", turnhook::stderr(&output));
    let line = |line: &str| -> Value { serde_json::from_str(line).unwrap() };
    let mut events: Vec<Value> = turnhook::stdout(&output).lines().map(line).collect();
    events.iter_mut().map(|event| event["body"].take()).collect()
}

fn ends(events: &[Value]) -> Vec<&Value> {
    let ends = events.iter().filter(|event| event["type"] == "session.end");
    ends.map(|event| &event["data"]).collect()
}

fn billed(events: &[Value]) -> u64 {
    let bytes = |end: &&Value| end["usage"]["billable_bytes"].as_u64().unwrap();
    ends(events).iter().map(bytes).sum()
}

/// Client received and sent, peer received and sent, in bytes, of each allocation in all sessions together.
fn bytes_by_allocation(events: &[Value]) -> BTreeMap<String, [u64; 4]> {
    let mut sums: BTreeMap<String, [u64; 4]> = BTreeMap::new();
    for end in ends(events) {
        for allocation in end["allocations"].as_array().unwrap() {
            let leg = |leg: &str, key: &str| allocation["usage"][leg][key].as_u64().unwrap();
            let sum = sums
                .entry(allocation["id"].as_str().unwrap().to_owned())
                .or_default();
            sum[0] += leg("client", "received_bytes");
            sum[1] += leg("client", "sent_bytes");
            sum[2] += leg("peer", "received_bytes");
            sum[3] += leg("peer", "sent_bytes");
        }
    }
    sums
}

/// Redis told everything twice. Nothing was told before the totals came, so these are the truth.
#[test]
fn every_message_twice_is_billed_once() {
    let events = told("every-message-twice.jsonl", None);
    assert_eq!(ends(&events).len(), 1, "{events:#?}");
    assert_eq!(billed(&events), 200_000);
    let bytes = bytes_by_allocation(&events);
    assert_eq!(bytes["000000000000000001"], [101_000, 101_000, 100_000, 100_000]);
}

/// With mobility coturn keeps an allocation for a minute after its client has let it go.
#[test]
fn a_mobile_clients_session_ends_when_it_let_go() {
    for name in ["mobile-deleted-58s-after.jsonl", "mobile-never-deleted.jsonl"] {
        let events = told(name, None);
        let all = ends(&events);
        assert_eq!(all.len(), 1, "{events:#?}");
        assert_eq!(billed(&events), 200_000, "{name}");
        assert_eq!(all[0]["end_reason"], "closed", "{name}");
        for event in &events {
            let Some(duration) = event["data"]["duration_ms"].as_u64() else {
                continue;
            };
            assert!(
                duration <= 12_000,
                "{name}: nothing is told to have lasted longer: {event:#?}"
            );
        }
        let duration = all[0]["duration_ms"].as_u64().unwrap();
        assert!(duration >= 10_000, "{name}: {duration}");
    }
}

/// coturn before 4.5.2 says nothing of its peers: that is found out, and the client's leg is billed.
#[test]
fn an_old_coturn_is_billed_by_its_client_leg() {
    let events = told("old-coturn.jsonl", None);
    assert_eq!(billed(&events), 5_862_284 + 114_451);
    let call = ends(&events)
        .into_iter()
        .max_by_key(|end| end["usage"]["billable_bytes"].as_u64());
    // Its client let it go after 82 s, and it was deleted a second later.
    assert_eq!(call.unwrap()["duration_ms"], 82_000);
}

/// The client's half of a report was heard, the peer's was lost; both totals came in the end.
#[test]
fn a_parked_allocation_is_told_with_both_legs() {
    let events = told("parked-and-half-a-report.jsonl", None);
    let bytes = bytes_by_allocation(&events);
    assert_eq!(
        bytes["000000000000000001"],
        [3_529_644, 2_889_822, 2_815_326, 3_439_488]
    );
}

/// What coturn adds to a packet for its client at most, in bytes.
const FRAMING: u64 = 128;

/// The first life of a number was flooded by a stranger; the `new` of the second was lost.
#[test]
fn a_second_life_is_not_billed_for_the_flood_of_the_first() {
    // Peer sent, and what the client was sent or the peers sent, whichever is less: of each life.
    let first = 900_000 + 1_000_300;
    let second = 1_900_000 + 2_000_000;
    for name in ["second-life-after-expiry.jsonl", "second-life-as-mobility.jsonl"] {
        let events = told(name, None);
        let billed = billed(&events);
        assert!(billed <= first + second, "{name}: {billed}");
        assert!(billed >= first - FRAMING * 1003 - 500 * 4, "{name}: {billed}");
        // What was told as exact is not told on.
        for end in ends(&events) {
            let continued = &end["continues"];
            let before = ends(&events).into_iter().find(|e| e["session_id"] == *continued);
            assert!(
                before.is_none_or(|before| before["accuracy"] == "lower_bound"),
                "{name}: {events:#?}"
            );
        }
    }
    let events = told("two-lives-traffic-then-refreshed.jsonl", None);
    let billed = billed(&events);
    let most = 692_736 + 2_717_750;
    assert!(
        (most - FRAMING * 1958 - 500 * 4..=most).contains(&billed),
        "{billed}"
    );
}

/// A coturn's connections come back from another address, as behind a pair of balancers.
#[test]
fn a_coturn_that_comes_from_another_address_is_told_once() {
    let config = "[[source]]\nname = \"eu-1\"\ntype = \"direct\"\nlisten = \"127.0.0.1:0\"\n";
    let events = told("source-address-changes.jsonl", Some(config));
    assert_eq!(billed(&events), 8_000_000, "{events:#?}");
}

/// Two coturns have the same client under the same number. The first one's relay thread is still connected, so what the
/// second one says is of a life of its own.
#[test]
fn what_a_connected_thread_has_is_not_taken_for_anothers() {
    let config = "[[source]]\nname = \"eu-1\"\ntype = \"direct\"\nlisten = \"127.0.0.1:0\"\n";
    let events = told("two-coturns-with-one-number.jsonl", Some(config));
    let allocations = ends(&events)
        .into_iter()
        .flat_map(|end| end["allocations"].as_array().unwrap());
    let bytes: BTreeMap<&str, u64> = allocations
        .map(|a| {
            (
                a["server"].as_str().unwrap(),
                a["usage"]["peer"]["sent_bytes"].as_u64().unwrap(),
            )
        })
        .collect();
    let expected = BTreeMap::from([("10.0.0.2/-/0", 3_000_000), ("10.0.0.3/-/0", 1_000_000)]);
    assert_eq!(bytes, expected, "{events:#?}");
}
