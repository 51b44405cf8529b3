//! `turnhook record` on a running bridge, and `turnhook simulate` on what it wrote: the same events, to the byte.

use std::{
    collections::BTreeMap,
    io::{BufRead as _, BufReader, Read as _, Write as _},
    os::unix::{fs::PermissionsExt as _, net::UnixStream},
};

use serde_json::value::RawValue;

use crate::harness::{
    DEADLINE,
    billing::{Billing, counted, direct, redis as bridge_on, statsdb},
    bridge::{Bridge, text},
    coturn::Coturn,
    eventually,
    feeder::{Allocation, Feeder},
    process::Process,
    redis::Redis,
    turn::TurnClient,
    turnhook,
};

/// Records while `meanwhile` runs, and simulates. Gives back the recording.
fn recorded(billing: &Billing, bridge: &Bridge, meanwhile: impl FnOnce()) -> String {
    let file = bridge.directory.path().join("history.jsonl");
    let arguments = ["record", "--source", "eu-1", "--output", text(&file)];
    let mut record = Process::start(turnhook::command(bridge.directory.path()).args(arguments));
    record.line("its beginning", |line| line.contains("recording").then_some(()));
    // The head of the recording is written: what is decided from now on is in it.
    eventually("the rules in the recording", || {
        std::fs::metadata(&file).ok().filter(|m| m.len() > 0)
    });
    let before = billing.webhooks().len();
    meanwhile();
    record.signal("INT");
    assert!(record.wait().success(), "{}", record.output());
    let told: BTreeMap<String, Vec<u8>> = billing
        .webhooks()
        .split_off(before)
        .into_iter()
        .map(|webhook| (webhook.id, webhook.bytes))
        .collect();

    #[derive(serde::Deserialize)]
    struct Line {
        webhook_id: String,
        body: Box<RawValue>,
    }
    let first = bridge.ask(&["simulate", text(&file)]);
    let simulated: BTreeMap<String, Vec<u8>> = first
        .lines()
        .map(|line| {
            let line: Line = serde_json::from_str(line).unwrap();
            (line.webhook_id, line.body.get().as_bytes().to_vec())
        })
        .collect();
    let show = |events: &BTreeMap<String, Vec<u8>>| -> Vec<String> {
        let one = |(id, body): (&String, &Vec<u8>)| format!("{id} {}", String::from_utf8_lossy(body));
        events.iter().map(one).collect()
    };
    // At least a session from its start to its end, and the end of another.
    assert!(told.len() >= 3, "{:#?}", show(&told));
    assert_eq!(show(&simulated), show(&told));
    assert_eq!(simulated, told);
    for _ in 0..3 {
        assert_eq!(bridge.ask(&["simulate", text(&file)]), first);
    }
    std::fs::read_to_string(file).unwrap()
}

#[test]
fn a_listeners_history_simulates_to_the_same_bytes() {
    let billing = Billing::start();
    let mut bridge = direct(&billing);
    bridge.start();
    let directory = tempfile::tempdir().unwrap();
    let coturn = Coturn::start(directory.path(), &statsdb(&bridge, 7), &[]);
    // Open before the recording begins, and told so far.
    let mut before = TurnClient::tcp(&coturn, "before").call(&coturn);
    before.relay(2500, 100);
    billing.told("before", 1);
    let history = recorded(&billing, &bridge, || {
        let mut during = TurnClient::udp(&coturn, "during").call(&coturn);
        during.relay(2500, 100);
        billing.told("during", 1);
        let mut stopped = TurnClient::udp(&coturn, "stopped").call(&coturn);
        stopped.relay(10, 100);
        billing.started("stopped");
        assert_eq!(during.refresh(0), 0);
        drop(before);
        billing.ended("before", 1);
        billing.ended("during", 1);
        coturn.process.signal("KILL");
        assert_eq!(billing.ended("stopped", 1)[0].end_reason(), "server_stopped");
    });
    for input in ["row", "thread_connected", "thread_disconnected", "server_stopped"] {
        assert!(history.contains(&format!("{{\"{input}\"")), "{input}\n{history}");
    }
}

#[test]
fn a_subscriptions_history_simulates_to_the_same_bytes() {
    let billing = Billing::start();
    let directory = tempfile::tempdir().unwrap();
    let mut redis = Redis::start(directory.path(), &[]);
    let mut bridge = bridge_on(&billing, &format!("url = \"redis://127.0.0.1:{}\"", redis.port));
    bridge.start();
    bridge.until("the subscription", |s| {
        s["sources"]["eu-1"]["state"] == "connected"
    });
    let coturn = Coturn::start(directory.path(), &redis.statsdb(), &[]);
    let mut through = TurnClient::udp(&coturn, "through").call(&coturn);
    through.relay(2500, 100);
    billing.told("through", 1);
    let history = recorded(&billing, &bridge, || {
        let mut during = TurnClient::udp(&coturn, "during").call(&coturn);
        during.relay(50, 100);
        assert_eq!(during.refresh(0), 0);
        billing.ended("during", 1);
        redis.process.signal("KILL");
        bridge.until("the loss", |s| s["sources"]["eu-1"]["state"] == "deaf");
        redis.start_again();
        bridge.until("the subscription", |s| {
            s["sources"]["eu-1"]["state"] == "connected"
        });
        let refreshed = || counted(&bridge, &["turnhook_events_total", "refreshed"]);
        let before = refreshed();
        eventually("a refresh", || {
            assert_eq!(through.refresh(600), 0);
            (refreshed() > before).then_some(())
        });
        assert_eq!(through.refresh(0), 0);
        billing.ended("through", 1);
    });
    for input in ["hearing", "deaf", "gap", "snapshot_began", "snapshot_ended"] {
        assert!(history.contains(&format!("{{\"{input}\"")), "{input}\n{history}");
    }
}

/// What was open before goes on in the recording as it does in the bridge: it is known that the source hears, so that
/// it can expire, and which relay threads are connected.
#[test]
fn a_recording_begins_with_what_is_known_of_the_source() {
    let billing = Billing::start();
    let mut bridge = direct(&billing);
    bridge.start();
    let mut feeder = Feeder::connect(bridge.source);
    let mut before = Allocation::new("before", 1);
    feeder.open(&before, 600).unwrap();
    feeder.relay(&mut before, 1000, 1000).unwrap();
    billing.started("before");
    let history = recorded(&billing, &bridge, || {
        for id in 2..4 {
            feeder.call("during", id);
            billing.ended("during", id as usize - 1);
        }
    });
    let file = bridge.directory.path().join("history.jsonl");
    let settled = bridge.ask(&["simulate", "--settle", text(&file)]);
    let expired = settled
        .lines()
        .any(|line| line.contains("session.end") && line.contains("\"before\"") && line.contains("expired"));
    assert!(expired, "{settled}\n{history}");
    assert!(history.contains("{\"thread_connected\""), "{history}");
}

/// Where the bridge is asked.
fn socket(bridge: &Bridge) -> std::path::PathBuf {
    bridge.directory.path().join("turnhook.db.sock")
}

/// Asks by hand; the answer.
fn ask(bridge: &Bridge, source: &str) -> (BufReader<UnixStream>, String) {
    let mut stream = UnixStream::connect(socket(bridge)).unwrap();
    stream.set_read_timeout(Some(DEADLINE)).unwrap();
    writeln!(stream, "{{\"record\":\"{source}\"}}").unwrap();
    let mut reader = BufReader::new(stream);
    let mut answer = String::new();
    reader.read_line(&mut answer).unwrap();
    (reader, answer)
}

#[test]
fn only_the_owner_can_record_and_one_at_a_time() {
    let billing = Billing::start();
    let mut bridge = direct(&billing);
    bridge.start();
    assert_eq!(bridge.get("/record/eu-1").0, 404, "HTTP serves no history");
    let mode = std::fs::metadata(socket(&bridge)).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    assert!(ask(&bridge, "us-1").1.contains("no source named"));
    let (mut first, answer) = ask(&bridge, "eu-1");
    assert!(answer.contains("recording"), "{answer}");
    let file = bridge.directory.path().join("second.jsonl");
    let second = bridge.command(&["record", "--source", "eu-1", "--output", text(&file)]);
    assert_eq!(second.status.code(), Some(1));
    let said = turnhook::stderr(&second);
    assert!(said.contains("another recording is under way"), "{said}");
    // The first one goes on.
    let mut feeder = Feeder::connect(bridge.source);
    feeder.call("cust_42", 1);
    eventually("the call in the first recording", || {
        let mut line = String::new();
        first.read_line(&mut line).unwrap();
        line.contains("total_traffic/peer").then_some(())
    });
    drop(first);
    eventually("another one to be taken", || {
        ask(&bridge, "eu-1").1.contains("recording\"").then_some(())
    });
    // A bridge that stops says so, and takes its socket with it.
    let (mut last, _) = eventually("another one to be taken", || {
        Some(ask(&bridge, "eu-1")).filter(|(_, answer)| answer.contains("recording\""))
    });
    bridge.stop();
    let mut rest = String::new();
    last.read_to_string(&mut rest).unwrap();
    assert!(rest.ends_with("{\"ended\":\"turnhook stops\"}\n"), "{rest}");
    assert!(!socket(&bridge).exists());
}

/// Who does not read costs what is bounded, ends its own recording, and is told why.
#[test]
fn who_reads_too_slowly_is_cut_off() {
    let billing = Billing::start();
    let mut bridge = direct(&billing);
    bridge.start();
    let mut feeder = Feeder::connect(bridge.source);
    let mut allocation = Allocation::new("cust_42", 1);
    feeder.open(&allocation, 3600).unwrap();
    let before = bridge.memory("VmRSS");
    let (mut reader, answer) = ask(&bridge, "eu-1");
    assert!(answer.contains("recording"), "{answer}");
    let ended = |bridge: &Bridge| bridge.log().iter().any(|line| line.contains("read too slowly"));
    let mut told = 0u64;
    while !ended(&bridge) {
        for _ in 0..2_000 {
            feeder.relay(&mut allocation, 3, 2).unwrap();
        }
        told += 4_000;
        assert!(told < 4_000_000, "never cut off");
    }
    let after = bridge.memory("VmRSS");
    assert!(
        after < before + 200 * 1024,
        "{before} KiB before, {after} KiB after"
    );
    // It gets what had been sent to it, and no more; and all messages were heard.
    let mut rest = Vec::new();
    reader.read_to_end(&mut rest).unwrap();
    assert!(rest.starts_with(b"{\"turnhook_history\""));
    assert!(rest.len() < 33 * 1024 * 1024, "{}", rest.len());
    eventually("all of it to be heard", || {
        let heard = counted(&bridge, &["turnhook_events_total", "\"traffic"]);
        (heard == told).then_some(())
    });
    assert_eq!(counted(&bridge, &["turnhook_gaps_total"]), 0);
    // And the next one can begin.
    assert!(ask(&bridge, "eu-1").1.contains("recording\""));
    bridge.stop();
}
