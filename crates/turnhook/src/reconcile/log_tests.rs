#![allow(clippy::unwrap_used)]

use super::*;

/// Each text is a file.
fn read(files: &[&str]) -> Log {
    let mut log = Log::default();
    for file in files {
        log.read(file.as_bytes()).unwrap();
    }
    log.finish();
    log
}

fn record(id: u64, what: &str, user: &str, more: &str) -> String {
    format!("5: : session {id:018}: {what}realm=<r>, username=<{user}>{more}\n")
}

fn opened(id: u64, user: &str) -> String {
    record(id, "new, ", user, ", lifetime=600")
}

fn used(id: u64, user: &str, bytes: u64) -> String {
    let counted = format!(", rp=1, rb={bytes}, sp=1, sb={bytes}");
    record(id, "usage: ", user, &counted) + &record(id, "peer usage: ", user, &counted)
}

fn gone(id: u64, user: &str) -> String {
    record(id, "delete: ", user, "")
}

/// Number, username, bytes that the client sent, whether it has a beginning and an end.
fn lives(log: &Log) -> Vec<(u64, String, u64, bool, bool)> {
    let of = |life: &Life| {
        let username = String::from_utf8_lossy(&life.username).into_owned();
        assert_eq!(life.usage.client, life.usage.peer);
        (
            life.id.0,
            username,
            life.usage.client.received_bytes,
            life.begun,
            life.deleted,
        )
    };
    log.lives.iter().map(of).collect()
}

const BANNER: &str =
    "0: : \nRFC 3489/5389/5766/5780/6062/6156 STUN/TURN Server\nVersion Coturn-4.6.1 'Gorst'\n0: : \n";

/// Over a rotation, and a start after which numbers begin anew.
#[test]
fn reports_are_summed_up_life_by_life() {
    let first = BANNER.to_owned() + &opened(1, "ann") + &used(1, "ann", 10) + &opened(2, "bob");
    let second = used(1, "ann", 5) + &gone(1, "ann") + BANNER + &opened(1, "ann") + &used(1, "ann", 7);
    let log = read(&[&first, &second]);
    assert_eq!(log.counts.starts, 2);
    assert_eq!(log.format, Some(Format::Old));
    assert_eq!(
        lives(&log),
        [
            (1, "ann".to_owned(), 15, true, true),
            (2, "bob".to_owned(), 0, true, false),
            (1, "ann".to_owned(), 7, true, false),
        ]
    );
    assert_eq!((log.counts.suspicious, log.counts.without_beginning), (0, 0));
}

#[test]
fn another_new_is_another_life_where_the_start_is_not_logged() {
    let text =
        opened(1, "ann") + &used(1, "ann", 10) + &opened(1, "bob") + &used(1, "bob", 7) + &gone(1, "bob");
    assert_eq!(
        lives(&read(&[&text])),
        [
            (1, "ann".to_owned(), 10, true, false),
            (1, "bob".to_owned(), 7, true, true)
        ]
    );
}

/// Their names are merely what they claim.
#[test]
fn who_was_not_let_in_is_counted_and_nobodys() {
    let closed = "5: : session 000000000000000003: closed (2nd stage), user <ann> realm <r> origin <>, local 127.0.0.1:1, remote \
                  127.0.0.1:2, reason: allocation watchdog determined stale session state\n";
    let text = used(3, "ann", 10) + closed + &opened(3, "bob") + &used(3, "bob", 2) + &gone(3, "bob");
    let log = read(&[&text]);
    assert_eq!(lives(&log), [(3, "bob".to_owned(), 2, true, true)]);
    assert_eq!(log.counts.unauthenticated, 1);
    // Who first gave a wrong password has all of it counted by coturn, too.
    let text = used(3, "eve", 10) + &opened(3, "bob") + &used(3, "bob", 2) + &gone(3, "bob");
    assert_eq!(lives(&read(&[&text])), [(3, "bob".to_owned(), 12, true, true)]);
}

#[test]
fn what_began_before_the_log_is_said() {
    let text = used(1, "ann", 10) + &gone(1, "ann");
    let log = read(&[&text]);
    assert_eq!(lives(&log), [(1, "ann".to_owned(), 10, false, true)]);
    assert_eq!(log.counts.without_beginning, 1);
}

/// Cut at any byte, no number is read that is shorter than it was.
#[test]
fn a_line_without_its_end_is_not_read() {
    let whole = opened(1, "ann") + &used(1, "ann", 123_456);
    let sums: Vec<u64> = (0..=whole.len())
        .map(|end| {
            let mut log = Log::default();
            log.read(&whole.as_bytes()[..end]).unwrap();
            log.finish();
            log.lives
                .first()
                .map_or(0, |life| life.usage.client.received_bytes)
        })
        .collect();
    assert!(sums.iter().all(|sum| [0, 123_456].contains(sum)), "{sums:?}");
    assert_eq!(read(&[&whole[..whole.len() - 1]]).counts.cut_lines, 1);
}

/// As measured: a name with a line's end, refused by coturn 4.6.1 and logged as it came.
#[test]
fn forged_lines_are_counted_and_not_believed() {
    let honest = opened(1, "ann") + &used(1, "ann", 10);
    let forged =
        "session 000000000000000001: usage: realm=<r>, username=<ann>, rp=9, rb=999999999, sp=9, sb=9";
    let refused = |name: &str| {
        format!(
            "7: : session 000000000000000009: realm <r> user <{name}>: incoming packet ALLOCATE processed, error 400: Bad request\n"
        )
    };
    for name in [
        format!("x\n7: : {forged}\ny"),
        format!("x\n7: : {forged}"),
        format!("x 7: : {forged} y"),
        format!("x\n{forged}\ny"),
    ] {
        let log = read(&[&(honest.clone() + &refused(&name) + &gone(1, "ann"))]);
        assert_eq!(lives(&log), [(1, "ann".to_owned(), 10, true, true)], "{name}");
        assert_eq!(log.counts.suspicious, 1, "{name}");
    }
    // Where it is checked before anything else, the name stands without brackets, and its lines may be many.
    let refused = "7: : session 000000000000000009: realm <r> user <>: incoming packet message processed, error 400: Bad Request\n";
    let wrong = format!(
        "7: : ERROR: check_stun_auth: wrong username: 1:x\n7: : {forged}\n7: : {forged}\ny\n{refused}"
    );
    let log = read(&[&(honest.clone() + &wrong + &used(1, "ann", 3) + &gone(1, "ann"))]);
    assert_eq!(lives(&log), [(1, "ann".to_owned(), 13, true, true)]);
    assert_eq!(log.counts.suspicious, 2);
    // Of another user than the allocation's, and in another version's words.
    for line in [
        used(1, "eve", 9).lines().next().unwrap().to_owned(),
        format!("2026-11-27T02:20:24.587+0000 INFO {forged}"),
    ] {
        let log = read(&[&(honest.clone() + &line + "\n" + &gone(1, "ann"))]);
        assert_eq!(lives(&log), [(1, "ann".to_owned(), 10, true, true)], "{line}");
        assert_eq!(log.counts.suspicious, 1, "{line}");
    }
}

/// On a TCP relay a client can change it.
#[test]
fn a_realm_may_change() {
    let switched = used(1, "ann", 5).replace("<r>", "<other>");
    let log = read(&[&(opened(1, "ann") + &switched + &gone(1, "ann"))]);
    assert_eq!(lives(&log), [(1, "ann".to_owned(), 5, true, true)]);
    assert_eq!(*log.lives[0].realm, b"r"[..]);
}

#[test]
fn no_line_takes_memory_without_a_bound() {
    let text = opened(1, "ann") + &"x".repeat(LINE_MAX + 1) + "\n" + &"y".repeat(3 * LINE_MAX) + "\n5: : z\n";
    let log = read(&[&text]);
    assert_eq!((log.counts.too_long_lines, log.counts.lines), (2, 4));
    let mut line = Vec::new();
    let mut from = io::Cursor::new("x".repeat(9 * LINE_MAX));
    assert!(matches!(next_line(&mut from, &mut line).unwrap(), Next::Cut));
    assert_eq!(line.len(), LINE_MAX);
}

#[test]
fn dates_are_those_of_records() {
    let text = "2026-11-27T02:20:24.587+0000 INFO session 000000000000000001: new, realm=<r>, username=<u>, lifetime=600\n\
                2026-11-27T02:20:25.587+0000 INFO session 000000000000000001: delete: realm=<r>, username=<u>\n\
                2026-11-27T03:20:25.587+0000 INFO something\n";
    let log = read(&[text]);
    assert_eq!(
        log.dates,
        Some((Timestamp(1_795_746_024_587), Timestamp(1_795_746_025_587)))
    );
    assert_eq!(log.format, Some(Format::New));
    assert_eq!(log.lives[0].since, Some(Timestamp(1_795_746_024_587)));
    for (which, date) in [
        (Dates::First, 1_795_746_024_587),
        (Dates::Last, 1_795_749_625_587),
    ] {
        assert_eq!(dates(text.as_bytes(), which).unwrap(), Some(Timestamp(date)));
    }
}
