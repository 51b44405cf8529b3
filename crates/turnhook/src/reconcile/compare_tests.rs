#![allow(clippy::unwrap_used)]

use std::sync::Arc;

use turnhook_reducer::event::CloseReason;

use super::*;

const RESIDUE: u64 = 1_000;

fn rule() -> Rule {
    Rule {
        now: Timestamp(1_800_100_000_000),
        retention: std::time::Duration::from_secs(30 * 86_400),
        trust_log: false,
    }
}

fn legs(bytes: u64) -> Legs {
    let counters = Counters {
        received_packets: bytes / 100,
        received_bytes: bytes,
        sent_packets: bytes / 100,
        sent_bytes: bytes,
    };
    Legs {
        client: counters,
        peer: counters,
    }
}

fn log(lives: &[(u64, Option<u64>, u64)]) -> Log {
    let mut text = String::new();
    for (id, since, bytes) in lives {
        let begin = since.map_or("5: : ".to_owned(), |since| format!("{}: ", 1_800_000_000 + since));
        let session = format!("{begin}session {id:018}: ");
        let names = "realm=<r>, username=<ann>";
        let packets = bytes / 100;
        let counted = format!("rp={packets}, rb={bytes}, sp={packets}, sb={bytes}");
        text += &format!("{session}new, {names}, lifetime=600\n{session}usage: {names}, {counted}\n");
        text += &format!("{session}peer usage: {names}, {counted}\n{session}delete: {names}\n");
    }
    let mut log = Log::default();
    log.read(text.as_bytes()).unwrap();
    log.finish();
    log
}

fn billed(id: u64, since: u64, bytes: u64) -> (Key, Billed) {
    let key = Key {
        realm: b"r".to_vec(),
        username: b"ann".to_vec(),
        id: AllocationId(id),
    };
    let billed = Billed {
        opened_at: Timestamp((1_800_000_000 + since) * 1_000 + 400),
        sessions: vec!["ses_1".to_owned()],
        server: Some("one".to_owned()),
        usage: legs(bytes),
        closed: Some((
            Timestamp((1_800_000_000 + since) * 1_000 + 900),
            CloseReason::Closed,
        )),
        ..Billed::default()
    };
    (key, billed)
}

fn ledger(billed: impl IntoIterator<Item = (Key, Billed)>) -> Ledger {
    let mut ledger = Ledger::default();
    for (key, billed) in billed {
        ledger.billed.entry(key).or_default().push(billed);
    }
    ledger
}

fn verdicts(log: Log, ledger: Ledger) -> Vec<Verdict> {
    let compared = compare(log, ledger, RESIDUE, (None, None), &rule());
    compared.findings.iter().map(|finding| finding.verdict).collect()
}

#[test]
fn more_less_and_equal() {
    for (in_log, in_ledger, verdict) in [
        (5_000, 5_000, Verdict::Equal),
        (5_001, 5_000, Verdict::StreamLess),
        (5_000, 5_001, Verdict::LogLess),
    ] {
        let found = verdicts(log(&[(1, Some(0), in_log)]), ledger([billed(1, 0, in_ledger)]));
        assert_eq!(found, [verdict]);
    }
    let (key, mut mixed) = billed(1, 0, 5_000);
    mixed.usage.client.sent_bytes -= 1;
    mixed.usage.peer.sent_bytes += 1;
    assert_eq!(
        verdicts(log(&[(1, Some(0), 5_000)]), ledger([(key, mixed)])),
        [Verdict::Differs]
    );
    // Billed in one session, and the rest on record.
    let (key, mut parts) = billed(1, 0, 4_000);
    parts.unattributed = legs(1_000);
    assert_eq!(
        verdicts(log(&[(1, Some(0), 5_000)]), ledger([(key, parts)])),
        [Verdict::Equal]
    );
    // Without a peer leg there is none to compare.
    let (key, mut one_leg) = billed(1, 0, 5_000);
    (one_leg.usage.peer, one_leg.no_peer_leg) = (Counters::default(), true);
    assert_eq!(
        verdicts(log(&[(1, Some(0), 5_000)]), ledger([(key, one_leg)])),
        [Verdict::Equal]
    );
}

/// What waits to be billed is no fault; what is as much as a session is.
#[test]
fn what_is_billed_later_is_no_finding() {
    let nothing = || ledger([]);
    assert_eq!(
        verdicts(log(&[(1, Some(0), 400)]), nothing()),
        [Verdict::Leftover]
    );
    assert_eq!(
        verdicts(log(&[(1, Some(0), 500)]), nothing()),
        [Verdict::StreamLess]
    );
    let (key, mut parked) = billed(1, 0, 5_000);
    parked.closed = None;
    let parked = |bytes| {
        verdicts(
            log(&[(1, Some(0), bytes)]),
            ledger([(key.clone(), parked.clone())]),
        )
    };
    assert_eq!(parked(5_400), [Verdict::Leftover]);
    assert_eq!(parked(5_500), [Verdict::StreamLess]);
    let (key, mut open) = billed(1, 0, 5_000);
    open.open = true;
    assert_eq!(
        verdicts(log(&[(1, Some(0), 9_000)]), ledger([(key, open)])),
        [Verdict::Open]
    );
}

#[test]
fn lives_of_a_number_are_distinguished_by_their_dates() {
    let lives = [(1, Some(0), 5_000), (1, Some(60), 7_000), (1, Some(120), 9_000)];
    // The second was not heard at all.
    let found = verdicts(log(&lives), ledger([billed(1, 0, 5_000), billed(1, 120, 9_000)]));
    assert_eq!(found, [Verdict::Equal, Verdict::StreamLess, Verdict::Equal]);
    // Without dates in their order, where there are as many; else their sum is compared.
    let undated = lives.map(|(id, _, bytes)| (id, None, bytes));
    let all = [billed(1, 0, 5_000), billed(1, 60, 7_000), billed(1, 120, 9_000)];
    assert_eq!(verdicts(log(&undated), ledger(all)), [Verdict::Equal; 3]);
    let compared = compare(
        log(&undated),
        ledger([billed(1, 0, 5_000)]),
        RESIDUE,
        (None, None),
        &rule(),
    );
    assert_eq!(compared.findings[0].verdict, Verdict::StreamLess);
    assert_eq!(compared.findings[0].lives, 3);
    assert_eq!((compared.log, compared.billed), (legs(21_000), legs(5_000)));
}

#[test]
fn what_the_log_lacks() {
    let lives = [(1, Some(0), 5_000), (3, Some(100), 5_000)];
    let mut all = vec![billed(1, 0, 5_000), billed(2, 50, 5_000), billed(3, 100, 5_000)];
    assert_eq!(
        verdicts(log(&lives), ledger(all.clone())),
        [Verdict::Equal, Verdict::Equal, Verdict::LogLess]
    );
    // Of another coturn of the source, and after the log's end.
    all[1].1.server = Some("another".to_owned());
    all.push(billed(4, 500, 5_000));
    let compared = compare(log(&lives), ledger(all), RESIDUE, (None, None), &rule());
    assert_eq!(compared.count(Verdict::Equal), 2);
    assert_eq!((compared.findings.len(), compared.of_other_servers), (2, 1));
}

#[test]
fn a_window() {
    let lives = [(1, Some(0), 5_000), (2, Some(50), 5_000), (3, Some(100), 5_000)];
    let at = |since: u64| Some(Timestamp((1_800_000_000 + since) * 1_000));
    let compared = compare(log(&lives), ledger([]), RESIDUE, (at(50), at(100)), &rule());
    let ids: Vec<u64> = compared.findings.iter().map(|finding| finding.id.0).collect();
    assert_eq!(ids, [2]);
}

#[test]
fn the_log_began_in_its_midst() {
    let mut half = log(&[(1, Some(0), 5_000)]);
    half.lives[0].begun = false;
    assert_eq!(verdicts(half, ledger([billed(1, 0, 9_000)])), [Verdict::Cut]);
    let life = &log(&[(1, Some(0), 5_000)]).lives[0];
    assert_eq!(life.username, Arc::from(&b"ann"[..]));
}

/// Billed, and not listed any more: that is no finding.
#[test]
fn what_a_session_may_have_counted() {
    let partial = |from: u64, to: u64| {
        let at = |since: u64| Timestamp((1_800_000_000 + since) * 1_000);
        let mut ledger = ledger([]);
        let of = (b"r".to_vec(), b"ann".to_vec());
        ledger.partial.insert(of, vec![(at(from), at(to))]);
        ledger
    };
    let one = || log(&[(1, Some(100), 5_000)]);
    assert_eq!(verdicts(one(), partial(50, 150)), [Verdict::Unlisted]);
    assert_eq!(verdicts(one(), partial(0, 50)), [Verdict::StreamLess]);
    assert_eq!(
        verdicts(log(&[(1, None, 5_000)]), partial(0, 50)),
        [Verdict::Unlisted]
    );
}
