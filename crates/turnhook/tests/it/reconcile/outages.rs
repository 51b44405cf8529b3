//! What outages of the stream and odd logs look like to `reconcile`.

use serde_json::Value;

use super::{coturn, reconcile, verdicts, wait_for};
use crate::harness::{
    billing::{Billing, QUICK, redis, statsdb},
    eventually,
    feeder::{Allocation, Feeder},
    postgres::Postgres,
    program::Program,
    redis::Redis,
    turn::TurnClient,
};

/// Of one allocation: what the log says that its client leg received.
fn logged(findings: &[Value], user: &str) -> u64 {
    let of = |f: &&Value| f["username"].as_str().unwrap().ends_with(&format!(":{user}"));
    let found = findings.iter().find(of).unwrap();
    found["log"]["client"]["received_bytes"].as_u64().unwrap()
}

/// Redis stands still: coturn's log goes on, and has what nobody was told.
#[test]
fn a_redis_that_stands_still() {
    let billing = Billing::start();
    let directory = tempfile::tempdir().unwrap();
    let server = Redis::start(directory.path(), &[]);
    let source = format!("url = \"redis://127.0.0.1:{}\"\n", server.port);
    let mut program = redis(&billing, &source);
    program.start();
    let log = directory.path().join("turn.log");
    let coturn = coturn(directory.path(), &server.statsdb(), &log);
    let mut heard = TurnClient::tcp(&coturn, "heard").call(&coturn);
    heard.relay(500, 200);
    drop(heard);
    billing.ended("heard", 1);
    let mut client = TurnClient::tcp(&coturn, "missed").call(&coturn);
    billing.started("missed");
    server.process.signal("STOP");
    client.relay(500, 200);
    drop(client);
    wait_for(&log, ":missed>, rp=5");
    let (findings, summary, code) = reconcile(&program, &[&log], &[]);
    assert_eq!(verdicts(&findings, "heard"), ["equal"], "{findings:#?}");
    assert_eq!(verdicts(&findings, "missed"), ["open"], "{findings:#?}");
    assert!(logged(&findings, "missed") >= 500 * 200, "{findings:#?}");
    assert_eq!(code, Some(0), "{summary:#}");
    // It goes on: coturn's messages had waited in its socket, and nothing was missed.
    server.process.signal("CONT");
    billing.ended("missed", 1);
    let (findings, ..) = reconcile(&program, &[&log], &[]);
    assert_eq!(verdicts(&findings, "missed"), ["equal"], "{findings:#?}");
    program.stop();
}

/// The file is copied and emptied while coturn goes on writing into it; and the ledger is in PostgreSQL.
#[test]
fn a_log_that_is_copied_and_truncated_and_a_ledger_in_postgres() {
    let server = Postgres::start();
    let url = server.url(&server.database());
    let billing = Billing::start();
    let mut program = Program::new(&format!(
        "{QUICK}[store]\nurl = \"{url}\"\n{}",
        billing.endpoint()
    ));
    program.start();
    let directory = program.directory.path().to_owned();
    let log = directory.join("turn.log");
    let coturn = coturn(&directory, &statsdb(&program, 0), &log);
    let mut ann = TurnClient::tcp(&coturn, "ann").call(&coturn);
    // Enough for a report before the end.
    ann.relay(1500, 300);
    wait_for(&log, ":ann>, rp=");
    let copy = directory.join("turn.log.1");
    std::fs::copy(&log, &copy).unwrap();
    std::fs::File::create(&log).unwrap();
    ann.relay(50, 300);
    drop(ann);
    wait_for(&log, ": delete: ");
    assert!(billing.ended("ann", 1)[0].is_exact());
    let (findings, summary, code) = reconcile(&program, &[&copy, &log], &[]);
    assert_eq!(verdicts(&findings, "ann"), ["equal"], "{findings:#?}");
    assert_eq!(
        (code, &summary["read"]["overlapping_files"]),
        (Some(0), &0.into())
    );
    // The copy named twice is said, and counted twice.
    let (_, summary, _) = reconcile(&program, &[&copy, &log, &copy], &[]);
    assert_ne!(summary["read"]["overlapping_files"], 0, "{summary:#}");
    program.stop();
}

/// coturn's totals wrap at 4 GiB, and the sum of a log's reports does not.
#[test]
fn a_leg_above_four_gibibytes() {
    let mut program = Program::new("");
    program.start();
    let mut feeder = Feeder::connect(program.source);
    let mut call = Allocation::new("1795413634:large", 7);
    feeder.open(&call, 600).unwrap();
    // 5 GB each way, in reports as large as they come.
    let (reports, packets) = (25_000u64, 2_048u64);
    for _ in 0..reports {
        feeder.relay(&mut call, packets, packets).unwrap();
    }
    for leg in [&mut call.client, &mut call.peer] {
        leg.iter_mut().for_each(|counter| *counter &= 0xffff_ffff);
    }
    feeder.close(&call).unwrap();
    let session = eventually("its end", || {
        let ended = program.objects(&["sessions", "list", "--ended"]);
        Some(ended.first()?["session_id"].as_str()?.to_owned())
    });
    let told = program.objects(&["sessions", "show", &session]).remove(0);
    let opened_at = told["allocations"][0]["opened_at"].as_str().unwrap();
    let begin = format!(
        "{}+0000 INFO session {:018}: ",
        opened_at.trim_end_matches('Z'),
        7
    );
    let names = "realm=<example.org>, username=<1795413634:large>";
    let (client, peer) = (packets * 104, packets * 100);
    let report = format!(
        "{begin}usage: {names}, rp={packets}, rb={client}, sp={packets}, sb={client}\n\
         {begin}peer usage: {names}, rp={packets}, rb={peer}, sp={packets}, sb={peer}\n"
    );
    let text = format!(
        "{begin}new, {names}, lifetime=600\n{}{begin}delete: {names}\n",
        report.repeat(reports as usize)
    );
    let log = program.directory.path().join("large.log");
    std::fs::write(&log, &text).unwrap();
    let (findings, summary, code) = reconcile(&program, &[&log], &[]);
    assert_eq!(verdicts(&findings, "large"), ["equal"], "{findings:#?}");
    assert_eq!(code, Some(0), "{summary:#}");
    assert_eq!(logged(&findings, "large"), reports * client);
    assert!(reports * peer > 1 << 32);
    // A whole 4 GiB less, as a total that is believed to be no wrap would have it.
    let fewer = format!(
        "{begin}new, {names}, lifetime=600\n{}{begin}delete: {names}\n",
        report.repeat(reports as usize - 20_972)
    );
    std::fs::write(&log, fewer).unwrap();
    let (findings, _, code) = reconcile(&program, &[&log], &[]);
    assert_eq!(verdicts(&findings, "large"), ["log_less"], "{findings:#?}");
    assert_eq!(code, Some(1));
    program.stop();
}
