#![allow(clippy::unwrap_used)]

use turnhook_dispatcher::{
    filter::{Filter, Pattern},
    samples::{self, Case},
};
use turnhook_reducer::usage::{Counters, Legs};

use super::*;

/// 2026-02-28, 23:00 UTC.
const FEBRUARY: u64 = 1_772_319_600_000;
const HOUR: u64 = 3_600_000;
const DAY: u64 = 24 * HOUR;

fn quota(per: Per, most: Most) -> Quota {
    Quota {
        per,
        most,
        filter: Filter::default(),
        across_realms: false,
    }
}

fn tallies(quotas: &[Quota], shared: bool) -> Tallies {
    Tallies::new(quotas.to_vec().into(), true, shared)
}

fn event(kind: EventType, user: &[u8], at: u64, bytes: u64) -> SessionEvent {
    let mut event = samples::event(kind, Case::Exact, Timestamp(at));
    event.timestamp = Timestamp(at);
    event.user = Some(user.into());
    event.realm = (*b"r").into();
    event.usage_delta = usage(bytes);
    event
}

fn usage(bytes: u64) -> Usage {
    Usage {
        legs: Legs {
            client: Counters {
                received_bytes: bytes,
                ..Counters::default()
            },
            peer: Counters {
                sent_bytes: bytes,
                ..Counters::default()
            },
        },
        billable_bytes: bytes,
    }
}

/// Whom the ledger is asked about, answered with what it says of everybody.
fn ask(tallies: &mut Tallies, sum: u64) -> (usize, Vec<Act>) {
    let (mut asked, mut acts) = (0, Vec::new());
    while let Some(question) = tallies.next_question() {
        asked += 1;
        acts.extend(tallies.answered(&question, Used { sum, open: 1 }));
    }
    (asked, acts)
}

#[test]
fn days_and_months_end_by_the_calendar() {
    let day = Period::of(Per::Day, Timestamp(FEBRUARY)).unwrap();
    assert_eq!((day.start, day.end), (FEBRUARY - 23 * HOUR, FEBRUARY + HOUR));
    let month = Period::of(Per::Month, Timestamp(FEBRUARY)).unwrap();
    assert_eq!((month.end - month.start, month.end), (28 * DAY, day.end));
    assert_eq!(Period::of(Per::Month, Timestamp(day.end)).unwrap().start, day.end);
    assert_eq!(Period::of(Per::Session, Timestamp(FEBRUARY)), None);
    assert_eq!(Period::of(Per::Day, Timestamp(u64::MAX)), None);

    assert_eq!(day.until(Timestamp(FEBRUARY)), Some(Timestamp(day.end)));
    assert_eq!(day.until(Timestamp(day.end)), None, "it is over");
    // Sessions that were dated by a clock a year ahead block for a day, and not for a year.
    let now = FEBRUARY - 365 * DAY;
    assert_eq!(day.until(Timestamp(now)), Some(Timestamp(now + DAY)));
}

#[test]
fn what_strangers_send_is_nobodys() {
    let flood = |client_sent, billable_bytes| Usage {
        legs: Legs {
            client: Counters {
                received_bytes: 70,
                sent_bytes: client_sent,
                ..Counters::default()
            },
            peer: Counters {
                received_bytes: 1 << 40,
                sent_bytes: 50,
                ..Counters::default()
            },
        },
        billable_bytes,
    };
    assert_eq!(relayed_bytes(&flood(20, 60), true), 60);
    // Sums that were made while another rule billed.
    assert_eq!(relayed_bytes(&flood(20, 1 << 40), true), 70);
    assert_eq!(relayed_bytes(&flood(20, 1 << 40), false), 70);
    let mut no_peers = flood(20, 80);
    no_peers.legs.peer = Counters::default();
    assert_eq!(relayed_bytes(&no_peers, true), 80);
    assert_eq!(relayed_bytes(&no_peers, false), 90);
}

#[test]
fn the_ledger_is_asked_when_it_matters_and_decides() {
    let mut tallies = tallies(&[quota(Per::Day, Most::Bytes(1000))], false);
    let usage = |user: &[u8], at, bytes| event(EventType::Usage, user, at, bytes);
    assert!(tallies.take(&usage(b"ann", FEBRUARY, 10)).is_empty());
    assert_eq!(ask(&mut tallies, 500), (1, vec![]), "nothing is known of her");
    tallies.take(&usage(b"ann", FEBRUARY + 1, 499));
    assert_eq!(ask(&mut tallies, 0).0, 0);
    tallies.take(&usage(b"ann", FEBRUARY + 2, 1));
    tallies.take(&usage(b"ann", FEBRUARY + 3, 1));
    let day = Period::of(Per::Day, Timestamp(FEBRUARY)).unwrap();
    let block = Act::Block {
        quota: 0,
        realm: (*b"r").into(),
        user: (*b"ann").into(),
        period: day,
        used: 1000,
    };
    // One question, however many events; what memory says blocks nobody.
    assert_eq!(ask(&mut tallies, 999), (1, vec![]));
    tallies.take(&usage(b"ann", FEBRUARY + 4, 1));
    assert_eq!(ask(&mut tallies, 1000), (1, vec![block]));
    // What is emitted while the ledger is asked may not be in its answer.
    tallies.take(&usage(b"eve", FEBRUARY, 1));
    let question = tallies.next_question().unwrap();
    tallies.take(&usage(b"eve", FEBRUARY, 1));
    assert_eq!(tallies.answered(&question, Used { sum: 999, open: 0 }), None);
    assert_eq!(ask(&mut tallies, 1000).0, 1);
    // Another realm's is another user; a new day is a new sum, also where a clock was put back.
    let mut elsewhere = usage(b"ann", FEBRUARY + 5, 1);
    elsewhere.realm = (*b"s").into();
    tallies.take(&elsewhere);
    assert_eq!(ask(&mut tallies, 0).0, 1);
    for at in [day.end, day.start] {
        tallies.take(&usage(b"ann", at, 1));
        assert_eq!(ask(&mut tallies, 0).0, 1);
        tallies.take(&usage(b"ann", at, 1));
        assert_eq!(ask(&mut tallies, 0).0, 0);
    }
    // What could not be asked is asked at the next event; so is what was not heard of.
    for lost in 0..2 {
        tallies.take(&usage(b"bob", FEBRUARY, 1));
        if lost == 0 {
            let question = tallies.next_question().unwrap();
            tallies.failed(&question);
        } else {
            tallies.missed_some();
        }
        tallies.take(&usage(b"bob", FEBRUARY, 1));
        assert_eq!(ask(&mut tallies, 0).0, 1);
    }
}

#[test]
fn an_answer_for_a_day_that_is_over_blocks_nobody() {
    let mut tallies = tallies(&[quota(Per::Day, Most::Bytes(1000))], false);
    tallies.take(&event(EventType::Usage, b"ann", FEBRUARY, 1));
    let question = tallies.next_question().unwrap();
    tallies.take(&event(EventType::Usage, b"ann", FEBRUARY + HOUR, 1));
    assert_eq!(tallies.answered(&question, Used { sum: 5000, open: 0 }), None);
    assert_eq!(ask(&mut tallies, 0).0, 1, "the new one is asked about");
}

#[test]
fn where_other_nodes_count_too_what_was_read_does_not_last() {
    let most = 100 * LEAST;
    let mut tallies = tallies(&[quota(Per::Month, Most::Bytes(most))], true);
    let mut event = |at, bytes| {
        tallies.take(&event(EventType::Usage, b"ann", FEBRUARY + at, bytes));
        ask(&mut tallies, 0).0
    };
    assert_eq!([event(0, 0), event(1, most / 4 - 1), event(2, 1)], [1, 0, 1]);
    assert_eq!([event(3, 0), event(2 + FRESH, 0)], [0, 1]);
}

#[test]
fn seconds_are_asked_about_when_they_can_have_passed() {
    let mut tallies = tallies(&[quota(Per::Day, Most::Millis(100_000))], false);
    let event = |tallies: &mut Tallies, kind, at, sum| {
        tallies.take(&event(kind, b"ann", FEBRUARY + at, 0));
        ask(tallies, sum)
    };
    assert_eq!(event(&mut tallies, EventType::Start, 0, 20_000).0, 1);
    assert_eq!(event(&mut tallies, EventType::Usage, 79_999, 0).0, 0);
    // Two at once use it up in half the time.
    assert_eq!(event(&mut tallies, EventType::Start, 79_999, 90_000), (1, vec![]));
    let (asked, acts) = event(&mut tallies, EventType::Usage, 89_999, 100_000);
    assert_eq!((asked, acts.len()), (1, 1));
}

#[test]
fn realms_are_one_sum_where_that_is_said_and_labels_choose() {
    let mut across = quota(Per::Day, Most::Bytes(1000));
    across.across_realms = true;
    across.filter.realms = vec![Pattern::new("r*")];
    across.filter.labels = vec![("plan".to_owned(), Pattern::new("free"))];
    let mut tallies = tallies(&[across], false);
    let mut of = |realm: &[u8], plan: &[u8]| {
        let mut event = event(EventType::Usage, b"ann", FEBRUARY, 1);
        event.realm = realm.into();
        event.labels = vec![("plan".into(), plan.into())];
        tallies.take(&event);
        ask(&mut tallies, 1000).1
    };
    let realms = |acts: Vec<Act>| -> Vec<Box<[u8]>> {
        let realm = |act| match act {
            Act::Block { realm, .. } => realm,
            Act::End { .. } => Box::default(),
        };
        acts.into_iter().map(realm).collect()
    };
    // Wherever he goes, he is blocked there, by the same sum.
    assert_eq!(realms(of(b"r1", b"free")), [(*b"r1").into()]);
    assert_eq!(realms(of(b"r2", b"free")), [(*b"r2").into()]);
    assert!(of(b"other", b"free").is_empty());
    assert!(of(b"r1", b"paid").is_empty());
}

#[test]
fn a_session_is_ended_with_what_it_continues() {
    let mut tallies = tallies(&[quota(Per::Session, Most::Bytes(1000))], false);
    let event = |tallies: &mut Tallies, kind, id, at, bytes, continues| {
        let mut event = event(kind, b"ann", FEBRUARY + at, 0);
        event.session_id = SessionId([id; 16]);
        event.usage = usage(bytes);
        event.continues = continues;
        tallies.take(&event)
    };
    let end = |id, used| Act::End {
        quota: 0,
        session: SessionId([id; 16]),
        used,
    };
    assert!(event(&mut tallies, EventType::Usage, 1, 0, 999, None).is_empty());
    assert_eq!(
        event(&mut tallies, EventType::Usage, 1, 1, 1000, None),
        [end(1, 1000)]
    );
    // It goes on: once more, and not with each event.
    assert!(event(&mut tallies, EventType::Usage, 1, 2, 1100, None).is_empty());
    let again = 1 + END_AGAIN;
    assert_eq!(
        event(&mut tallies, EventType::Usage, 1, again, 1200, None),
        [end(1, 1200)]
    );
    assert!(event(&mut tallies, EventType::End, 1, again, 1200, None).is_empty());

    let first = Some(SessionId([2; 16]));
    assert!(event(&mut tallies, EventType::Usage, 3, 0, 300, first).is_empty());
    assert_eq!(ask(&mut tallies, 600), (1, vec![]));
    assert!(event(&mut tallies, EventType::Usage, 3, 1, 399, first).is_empty());
    assert_eq!(
        event(&mut tallies, EventType::Usage, 3, 2, 400, first),
        [end(3, 1000)]
    );
    assert!(event(&mut tallies, EventType::Usage, 4, 0, 300, first).is_empty());
    assert_eq!(ask(&mut tallies, 700), (1, vec![end(4, 1000)]));
}

#[test]
fn memory_is_bounded() {
    let mut tallies = tallies(&[quota(Per::Day, Most::Bytes(1000))], false);
    for n in 0..u32::try_from(MOST + 10).unwrap() {
        tallies.take(&event(EventType::Usage, &n.to_be_bytes(), FEBRUARY, 1));
        ask(&mut tallies, 0);
    }
    assert!(tallies.users.len() <= MOST);
    // Who was forgotten is asked about.
    tallies.take(&event(EventType::Usage, &0u32.to_be_bytes(), FEBRUARY, 1));
    assert_eq!(ask(&mut tallies, 0).0, 1);
}
