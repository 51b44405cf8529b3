//! Messages of real servers, captured: each allocation that closed is told with exactly the counters that
//! coturn's totals say.

use std::{collections::BTreeMap, path::Path};

use serde_json::Value;

use crate::harness::turnhook;

/// The four counters of a leg, as coturn writes them and as we tell them.
type Leg = [u64; 4];

/// What each allocation's totals say: client and peer leg, by username and number. Read without turnhook's decoder.
fn totals(capture: &str) -> BTreeMap<(String, String), [Option<Leg>; 2]> {
    let mut totals: BTreeMap<_, [Option<Leg>; 2]> = BTreeMap::new();
    for line in capture.lines() {
        let (_, channel, payload): (f64, String, String) = serde_json::from_str(line).unwrap();
        let (names, rest) = channel.rsplit_once("/allocation/").unwrap();
        let (id, kind) = rest.split_once('/').unwrap();
        let (_, username) = names.split_once("/user/").unwrap();
        let leg = match kind {
            "total_traffic" => 0,
            "total_traffic/peer" => 1,
            _ => continue,
        };
        let counters: Vec<u64> = payload
            .split(", ")
            .map(|pair| pair.split_once('=').unwrap().1.parse().unwrap())
            .collect();
        totals.entry((username.to_owned(), id.to_owned())).or_default()[leg] =
            Some(counters.try_into().unwrap());
    }
    totals
}

fn leg(value: &Value) -> Leg {
    ["received_packets", "received_bytes", "sent_packets", "sent_bytes"]
        .map(|key| value[key].as_u64().unwrap())
}

/// What is told of each allocation that has closed, in all sessions together.
fn told(directory: &Path, capture: &Path) -> BTreeMap<(String, String), [Option<Leg>; 2]> {
    let output = turnhook::run(
        directory,
        &[
            "simulate",
            "--settle",
            "--config",
            "turnhook.toml",
            capture.to_str().unwrap(),
        ],
    );
    assert!(output.status.success(), "{}", turnhook::stderr(&output));
    let mut told = BTreeMap::new();
    for line in turnhook::stdout(&output).lines() {
        let event: Value = serde_json::from_str(line).unwrap();
        let body = &event["body"];
        if body["type"] != "session.end" {
            continue;
        }
        let mut sum = [[0; 4]; 2];
        for allocation in body["data"]["allocations"].as_array().unwrap() {
            let usage = [
                leg(&allocation["usage"]["client"]),
                leg(&allocation["usage"]["peer"]),
            ];
            for (all, one) in sum.iter_mut().flatten().zip(usage.iter().flatten()) {
                *all += one;
            }
            if allocation["totals_seen"] == true {
                let text = |key: &str| allocation[key].as_str().unwrap().to_owned();
                told.insert((text("username"), text("id")), usage.map(Some));
            }
        }
        let usage = &body["data"]["usage"];
        assert_eq!(
            sum,
            [leg(&usage["client"]), leg(&usage["peer"])],
            "the parts make the whole"
        );
    }
    told
}

fn to_the_byte(version: &str) {
    let capture = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join(format!("../subscriber/tests/captures/coturn-{version}.jsonl"));
    let expected = totals(&std::fs::read_to_string(&capture).unwrap());
    assert!(
        expected.len() >= 6,
        "{version}: {} allocations closed",
        expected.len()
    );
    let directory = tempfile::tempdir().unwrap();
    // Each allocation by itself: by user, idle ones that close after the call are on record and not told.
    let config = "[[source]]\nname = \"capture\"\ntype = \"redis\"\nurl = \"redis://127.0.0.1\"\n\
                  [session]\ngroup_by = \"allocation\"\n";
    std::fs::write(directory.path().join("turnhook.toml"), config).unwrap();
    assert_eq!(told(directory.path(), &capture), expected, "{version}");
}

#[test]
fn coturn_4_6_1_to_the_byte() {
    to_the_byte("4.6.1");
}

#[test]
fn coturn_4_17_1_to_the_byte() {
    to_the_byte("4.17.1");
}
