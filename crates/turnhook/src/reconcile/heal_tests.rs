#![allow(clippy::unwrap_used)]

use turnhook_reducer::{event::CloseReason, usage::Counters};

use super::{
    super::{
        compare::{Finding, Verdict, compare},
        ledger::{Counting, Ledger},
        log::Log,
    },
    *,
};

const DAY: u64 = 86_400_000;
/// 2026-11-26T15:57:50.587Z
const OPENED: u64 = 1_795_708_670_587;
const CLOSED: u64 = OPENED + 60_000;

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

/// A life in a log of 4.17, which is not its first line.
fn life(bytes: u64) -> String {
    let line = |second: u32, text: &str| {
        format!(
            "2026-11-26T15:{}:{:02}.587+0000 INFO session 000000000000000007: {text}\n",
            57 + second / 60,
            second % 60
        )
    };
    let names = "realm=<r>, username=<ann>";
    let counted = format!("rp={0}, rb={bytes}, sp={0}, sb={bytes}", bytes / 100);
    line(50, &format!("new, {names}, lifetime=600"))
        + &line(110, &format!("usage: {names}, {counted}"))
        + &line(110, &format!("peer usage: {names}, {counted}"))
        + &line(
            110,
            "closed (2nd stage), user <ann> realm <r> origin <>, local 10.0.0.1:3478, remote 10.0.0.9:4000, reason: x",
        )
        + &line(110, &format!("delete: {names}"))
}

fn session(n: u8) -> Counting {
    Counting {
        session: SessionId([n; 16]),
        continues: None,
        started_at: Timestamp(OPENED),
        ended_at: Some(Timestamp(CLOSED + 600_000)),
    }
}

fn billed(bytes: u64) -> Billed {
    Billed {
        opened_at: Timestamp(OPENED + 2),
        sessions: vec!["ses_1".to_owned()],
        usage: legs(bytes),
        closed: Some((Timestamp(CLOSED + 600_000), CloseReason::Expired)),
        lower_bound: true,
        counted: vec![session(1)],
        opened_seen: true,
        client_address: Some("10.0.0.9:4000".to_owned()),
        ..Billed::default()
    }
}

fn rule() -> Rule {
    Rule {
        now: Timestamp(CLOSED + 2 * DAY),
        retention: Duration::from_secs(30 * 86_400),
        trust_log: false,
    }
}

/// What is found of the allocation.
fn find(files: &[&str], billed: Vec<Billed>, rule: &Rule) -> Vec<Finding> {
    let mut log = Log::default();
    for file in files {
        log.read(file.as_bytes()).unwrap();
    }
    log.finish();
    let mut ledger = Ledger::default();
    if !billed.is_empty() {
        let key = Key {
            realm: b"r".to_vec(),
            username: b"ann".to_vec(),
            id: AllocationId(7),
        };
        ledger.billed.insert(key, billed);
    }
    compare(log, ledger, 1_000, (None, None), rule).findings
}

#[track_caller]
fn healed(files: &[&str], billed: Vec<Billed>, rule: &Rule) -> Result<Box<Heal>, Not> {
    let mut found = find(files, billed, rule);
    assert_eq!(found.len(), 1, "{found:?}");
    assert_eq!(found[0].verdict, Verdict::StreamLess);
    found.remove(0).heal.unwrap()
}

/// The log's sum, and never more.
#[test]
fn what_was_missed_is_billed_in_a_session_that_continues() {
    let heal = healed(&[&life(500_000)], vec![billed(200_000)], &rule()).unwrap();
    assert_eq!(heal.missed, legs(300_000));
    assert_eq!(heal.continues, SessionId([1; 16]));
    assert_eq!(heal.closed, (Timestamp(CLOSED + 600_000), CloseReason::Expired));
    // What is on record as billed in no session is not billed either.
    let mut with_records = billed(200_000);
    with_records.unattributed = legs(100_000);
    let heal = healed(&[&life(500_000)], vec![with_records], &rule()).unwrap();
    assert_eq!(heal.missed, legs(200_000));
    // Once it is billed, there is nothing left to bill.
    let mut both = billed(500_000);
    both.counted.push(Counting {
        continues: Some(SessionId([1; 16])),
        ..session(2)
    });
    let found = find(&[&life(500_000)], vec![both.clone()], &rule());
    assert_eq!((found[0].verdict, &found[0].heal), (Verdict::Equal, &None));
    // A log that has still more continues the last.
    both.counted[1].ended_at = Some(Timestamp(CLOSED + 700_000));
    let heal = healed(&[&life(600_000)], vec![both], &rule()).unwrap();
    assert_eq!((heal.continues, heal.missed), (SessionId([2; 16]), legs(100_000)));
}

#[test]
fn each_condition_of_the_rule() {
    let log = life(500_000);
    let with = |change: fn(&mut Billed)| {
        let mut billed = billed(200_000);
        change(&mut billed);
        healed(&[&log], vec![billed], &rule()).map(|heal| heal.missed)
    };
    assert_eq!(with(|_| {}), Ok(legs(300_000)));
    assert_eq!(with(|t| t.lower_bound = false), Err(Not::BilledExact));
    assert_eq!(with(|t| t.opened_seen = false), Err(Not::Doubtful));
    assert_eq!(with(|t| t.opened_at.0 += TOLERANCE), Err(Not::Doubtful));
    let elsewhere = |t: &mut Billed| t.client_address = Some("10.0.0.9:4001".to_owned());
    assert_eq!(with(elsewhere), Err(Not::Doubtful));
    assert_eq!(with(|t| t.no_peer_leg = true), Err(Not::NoPeerLeg));
    // Parked when its session ended: it may have left something over, or be billed in another one.
    assert_eq!(with(|t| t.closed = None), Err(Not::Early));
    let not_known = |t: &mut Billed| t.counted[0].continues = Some(SessionId([9; 16]));
    assert_eq!(with(not_known), Err(Not::Unlisted));
    let not_the_first = |t: &mut Billed| t.counted[0].started_at = Timestamp(OPENED + 30_000);
    assert_eq!(with(not_the_first), Err(Not::Unlisted));
    // On record in no session, or nowhere.
    assert_eq!(with(|t| t.counted.clear()), Err(Not::Unheard));
    assert_eq!(healed(&[&log], Vec::new(), &rule()), Err(Not::Unheard));

    let at = |now: u64, days: u64| Rule {
        now: Timestamp(now),
        retention: Duration::from_secs(days * 86_400),
        ..rule()
    };
    let ended = CLOSED + 600_000;
    let by = |rule| healed(&[&log], vec![billed(200_000)], &rule).map(|heal| heal.missed);
    assert_eq!(by(at(ended + WAITS - 1, 30)), Err(Not::Early));
    assert_eq!(by(at(ended + WAITS, 30)), Ok(legs(300_000)));
    assert_eq!(by(at(OPENED + 30 * DAY, 30)), Ok(legs(300_000)));
    assert_eq!(by(at(OPENED + 2 + 30 * DAY, 30)), Err(Not::Unlisted));

    // Without its beginning, or its end.
    let (new, rest) = log.split_once('\n').unwrap();
    let refreshed = log.replacen(": new, ", ": refreshed, ", 1);
    assert_eq!(
        healed(&[&refreshed], vec![billed(200_000)], &rule()),
        Err(Not::Partial)
    );
    let open = &log[..log.rfind("2026-").unwrap()];
    let found = find(&[open], vec![billed(200_000)], &rule());
    assert_eq!((found[0].verdict, &found[0].heal), (Verdict::Open, &None));
    // In two files, each once; and in two of which the second begins before the first one's end.
    let two = [&format!("{new}\n")[..], rest];
    assert!(healed(&two, vec![billed(200_000)], &rule()).is_ok());
    let lines: Vec<&str> = log.split_inclusive('\n').collect();
    for (first, second) in [(0..3, 1..5), (0..3, 2..5)] {
        let (first, second) = (lines[first].concat(), lines[second].concat());
        assert_eq!(
            healed(&[&first, &second], vec![billed(200_000)], &rule()),
            Err(Not::Overlapping)
        );
    }
}

/// A line that somebody may have written bills nobody.
#[test]
fn a_log_that_a_client_can_have_written_is_not_believed() {
    let new = life(500_000);
    let old = new.replace(".587+0000 INFO ", "+0000: ");
    let trusting = Rule {
        trust_log: true,
        ..rule()
    };
    let missed = |log: &str, rule: &Rule| healed(&[log], vec![billed(200_000)], rule).map(|heal| heal.missed);
    assert_eq!(missed(&old, &rule()), Err(Not::Untrusted));
    assert_eq!(missed(&old, &trusting), Ok(legs(300_000)));
    // By a username that was refused.
    let forged = "realm=<r>, username=<ann>, rp=9, rb=999999999, sp=9, sb=9";
    let attack = format!(
        "2026-11-26T15:58:00+0000: session 000000000000000008: wrong username: x\n\
         2026-11-26T15:58:00+0000: session 000000000000000007: usage: {forged}\n\
         y: incoming packet message processed, error 400: Bad Request\n"
    );
    let mut attacked = old.clone();
    attacked.insert_str(old.find('\n').unwrap() + 1, &attack);
    assert_eq!(missed(&attacked, &trusting), Err(Not::Forged));
    // In an old coturn's log, in the words of a new one: the file is the old one's, by its first line or by its banner.
    let as_new = format!("2026-11-26T15:58:00.000+0000 INFO session 000000000000000007: usage: {forged}\n");
    let mut attacked = old.clone();
    attacked.insert_str(old.find('\n').unwrap() + 1, &as_new);
    assert_eq!(missed(&attacked, &rule()), Err(Not::Untrusted));
    // Even where the old one's own lines cannot be read, since its dates are of a format of its own.
    let unreadable = "26.11.2026 session 000000000000000009: new, realm=<r>, username=<eve>, lifetime=600\n";
    assert_eq!(
        missed(&format!("{unreadable}{new}"), &rule()),
        Err(Not::Untrusted)
    );
    let banner = "2026-11-26T15:57:40.000+0000 INFO Coturn Version Coturn-4.6.1 'Gorst'\n";
    assert_eq!(missed(&format!("{banner}{new}"), &rule()), Err(Not::Untrusted));
    let banner = banner.replace("4.6.1", "4.17.1");
    assert_eq!(missed(&format!("{banner}{new}"), &rule()), Ok(legs(300_000)));
    // From 4.17 on, a record in a name is a name, and hides nobody's lines.
    let name = format!(
        "2026-11-26T15:58:00.000+0000 INFO session 000000000000000008: user <x 7: session 000000000000000007: usage: {forged}\n"
    );
    let mut named = new.clone();
    named.insert_str(new.find('\n').unwrap() + 1, &name);
    assert_eq!(missed(&named, &rule()), Ok(legs(300_000)));
}
