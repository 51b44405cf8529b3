//! The life of an allocation as a table in STATES.md: every state with every input, as the code does it.
//! `TURNHOOK_BLESS=1` writes the table; without it the test compares.

use std::{collections::BTreeSet, fmt::Write as _};

use turnhook_reducer::{
    Notice, Reducer,
    event::{Accuracy, EventType, SessionEvent},
    message::{AllocationId, Kind, Leg, Message, Status},
    rules::Rules,
    state::Change,
    time::Timestamp,
    usage::Legs,
};

use crate::world::{START, World, bytes, identity};

const PAGE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/STATES.md");
const BEGIN: &str = "<!-- state table: begin -->";
const END: &str = "<!-- state table: end -->";
const MB: u64 = 1_000_000;

#[derive(Clone, Copy, PartialEq, Eq)]
enum State {
    Unknown,
    Unconfirmed,
    OnlyNew,
    FromSnapshot,
    Open,
    AskedForDeletion,
    Closing,
    Parked,
    Settled,
    Unsettled,
    Shared,
}

impl State {
    const ALL: [(State, &str); 11] = [
        (State::Unknown, "unknown"),
        (State::Unconfirmed, "unconfirmed"),
        (State::OnlyNew, "open, only `new` heard"),
        (State::FromSnapshot, "open, by a snapshot"),
        (State::Open, "open"),
        (State::AskedForDeletion, "open, deletion asked for"),
        (State::Closing, "closing"),
        (State::Parked, "open, parked"),
        (State::Settled, "ended, both totals seen"),
        (State::Unsettled, "ended, totals missing"),
        (State::Shared, "shared by two servers"),
    ];
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Input {
    New,
    NewOtherRemote,
    NewOtherLocal,
    Refreshed,
    RefreshedOtherRemote,
    RefreshedZero,
    Deleted,
    Traffic,
    ClientTotal,
    PeerTotal,
    SameTotals,
    SnapshotKey,
    TimePasses,
    ServerStopped,
    ServerRestarted,
}

impl Input {
    const ALL: [(Input, &str); 15] = [
        (Input::New, "`new`"),
        (Input::NewOtherRemote, "`new`, other `remote`"),
        (Input::NewOtherLocal, "`new`, other `local` (`redis`)"),
        (Input::Refreshed, "`refreshed`"),
        (Input::RefreshedOtherRemote, "`refreshed`, other `remote`"),
        (Input::RefreshedZero, "`refreshed lifetime=0`"),
        (Input::Deleted, "`deleted`"),
        (Input::Traffic, "`traffic/peer`"),
        (Input::ClientTotal, "`total_traffic`, above what was counted"),
        (Input::PeerTotal, "`total_traffic/peer`, above what was counted"),
        (Input::SameTotals, "both totals, as counted"),
        (Input::SnapshotKey, "a snapshot's key (`redis`)"),
        (Input::TimePasses, "time passes"),
        (Input::ServerStopped, "its server has stopped (`direct`)"),
        (Input::ServerRestarted, "its server was started anew (`direct`)"),
    ];

    fn only_direct(self) -> bool {
        matches!(self, Input::ServerStopped | Input::ServerRestarted)
    }
}

fn snapshot(w: &mut World) {
    let status = w.status("127.0.0.1:40000", 600);
    let now = Timestamp(w.now);
    w.reducer.snapshot_began(now);
    w.reducer
        .snapshot_key(now, b"example.org", b"bob", AllocationId(1), status, Some(1));
    w.reducer.snapshot_ended(now);
    w.advance();
}

fn new_elsewhere(w: &World) -> Status<'static> {
    Status {
        local: Some(b"127.0.0.9:3478"),
        ..w.status("127.0.0.1:40000", 600)
    }
}

/// A world in which allocation 1 of bob is in the state, and the second in which it came to be.
fn world(state: State, direct: bool) -> Option<(World, u64)> {
    let mut w = World::new(Rules {
        direct,
        usage_interval: 0,
        ..Rules::default()
    });
    if direct {
        w.server = w.reducer.server(b"10.0.0.1/-/0");
    }
    w.at(10.0);
    let mut since = 10;
    match state {
        State::Unknown => {}
        State::Unconfirmed => {
            w.traffic("bob", 1, 100, MB);
        }
        State::OnlyNew => {
            w.open("bob", 1);
        }
        State::FromSnapshot if direct => return None,
        State::FromSnapshot => snapshot(&mut w),
        State::Open => {
            w.open("bob", 1).traffic("bob", 1, 100, MB);
        }
        State::AskedForDeletion => {
            w.open("bob", 1).traffic("bob", 1, 100, MB);
            w.at(98.0).ask_deletion("bob", 1);
            since = 98;
        }
        State::Closing => {
            w.open("bob", 1).traffic("bob", 1, 100, MB);
            w.at(98.0).deleted("bob", 1);
            since = 98;
        }
        State::Parked => {
            w.open("bob", 1).traffic("bob", 1, 0, 0);
            w.open("bob", 2).traffic("bob", 2, 100, MB);
            w.at(20.0).close("bob", 2, 100, MB);
            w.at(50.0).advance();
        }
        State::Settled => {
            w.open("bob", 1).traffic("bob", 1, 100, MB);
            w.at(90.0).close("bob", 1, 100, MB);
            since = 90;
        }
        State::Unsettled => {
            w.open("bob", 1).traffic("bob", 1, 100, MB);
            w.at(80.0).deleted("bob", 1);
            since = 85;
        }
        State::Shared if direct => return None,
        State::Shared => {
            w.open("bob", 1);
            let status = new_elsewhere(&w);
            w.message("bob", 1, Kind::New(status));
            w.traffic("bob", 1, 100, MB);
        }
    }
    w.at(100.0).advance();
    w.events.clear();
    Some((w, since))
}

/// The same reducer once more, to try out what it would do.
fn twin(w: &World) -> Reducer {
    let rows = w
        .reducer
        .dump()
        .into_iter()
        .filter_map(|Change { table, key, value }| Some((table, key, value?)));
    let mut twin = Reducer::restore(identity(), w.rules.clone(), w.reducer.now(), rows).unwrap();
    twin.hearing(twin.now());
    twin
}

/// What a twin answers to a message about allocation 1.
fn hear(w: &World, twin: &mut Reducer, kind: Kind<'_>) -> bool {
    let message = Message {
        realm: b"example.org",
        username: b"bob",
        id: AllocationId(1),
        kind,
    };
    let server = if w.rules.direct {
        twin.server(b"10.0.0.1/-/0")
    } else {
        w.server
    };
    twin.message(twin.now(), server, &message)
}

/// The state of allocation 1, by what the reducer would do with it.
fn observed(w: &World) -> &'static str {
    let (tombstones, unconfirmed) = w.reducer.kept_aside();
    let mut probe = twin(w);
    // Of the other allocation of the parked one's world nothing is left by then but its tombstone.
    let known = hear(w, &mut probe, Kind::Deleted);
    if w.reducer.open_allocations() == 0 {
        return match (unconfirmed, probe.open_allocations(), known) {
            (1, ..) if tombstones > 0 => "as it was, traffic unconfirmed",
            (1, ..) => "unconfirmed",
            (_, _, false) => "ended, both totals seen",
            _ if twin(w).kept_aside().0 == 0 => "unknown",
            _ => "ended, totals missing",
        };
    }
    if !known {
        return "closing";
    }
    let total = bytes(1000, 100 * MB);
    hear(w, &mut probe, Kind::TotalTraffic(Leg::Client, total));
    hear(w, &mut probe, Kind::TotalTraffic(Leg::Peer, total));
    if probe.open_allocations() > 0 {
        return "shared by two servers";
    }
    let mut probe = twin(w);
    probe.advance(probe.now().plus(61_000));
    match (w.reducer.open_sessions(), probe.open_allocations()) {
        (0, _) => "open, parked",
        (_, 0) => "open, deletion asked for",
        _ => "open",
    }
}

/// What would be billed of allocation 1 if nothing more were heard: bytes, and in how many lives.
fn worth(w: &World) -> (u64, usize) {
    let mut twin = twin(w);
    twin.advance(twin.now().plus(10_000_000));
    let output = twin.drain(true);
    let of_both = |legs: &Legs| legs.client.sent_bytes + legs.peer.sent_bytes;
    let events = w.events.iter().chain(&output.events);
    let records = w.unattributed.iter().chain(&output.unattributed);
    let bytes = events.clone().map(|e| of_both(&e.usage_delta.legs)).sum::<u64>()
        + records.map(|u| of_both(&u.usage.legs)).sum::<u64>();
    let lives = events.filter(|e| e.end.is_some()).flat_map(|e| &e.allocations);
    let lives: BTreeSet<_> = lives
        .filter(|a| a.id == AllocationId(1))
        .map(|a| (a.opened_at, a.closed.map(|(_, reason)| reason.as_str())))
        .collect();
    (bytes, lives.len())
}

fn give(w: &mut World, input: Input) -> Option<bool> {
    let now = Timestamp(w.now);
    let status = w.status("127.0.0.1:40000", 600);
    let moved = w.status("127.0.0.1:50000", 600);
    let before = w.reducer.stats().repeats;
    let kind = match input {
        Input::New => Kind::New(status),
        Input::NewOtherRemote => Kind::New(moved),
        Input::NewOtherLocal => Kind::New(new_elsewhere(w)),
        Input::Refreshed => Kind::Refreshed(status),
        Input::RefreshedOtherRemote => Kind::Refreshed(moved),
        Input::RefreshedZero => Kind::Refreshed(Status {
            lifetime: 0,
            ..status
        }),
        Input::Deleted => Kind::Deleted,
        Input::Traffic => Kind::Traffic(Leg::Peer, bytes(50, MB)),
        Input::ClientTotal => Kind::TotalTraffic(Leg::Client, bytes(300, 3 * MB)),
        Input::PeerTotal => Kind::TotalTraffic(Leg::Peer, bytes(300, 3 * MB)),
        Input::SameTotals => {
            w.totals("bob", 1, 100, MB);
            return Some(w.reducer.stats().repeats == before);
        }
        Input::SnapshotKey => {
            snapshot(w);
            return None;
        }
        Input::TimePasses => return None,
        Input::ServerStopped => {
            w.reducer.server_stopped(now, w.server, now);
            return None;
        }
        Input::ServerRestarted => {
            w.reducer.server_restarted(now, w.server, now);
            return None;
        }
    };
    w.message("bob", 1, kind);
    Some(w.reducer.stats().repeats == before)
}

fn described(e: &SessionEvent) -> String {
    let mut text = match (e.event_type, e.end) {
        (EventType::Start, _) => "start".to_owned(),
        (EventType::Usage, _) => "usage".to_owned(),
        (_, Some(end)) => {
            let exact = end.accuracy == Accuracy::Exact;
            let accuracy = if exact { "exact" } else { "lower bound" };
            format!("end ({}, {accuracy})", end.reason.as_str())
        }
        _ => String::new(),
    };
    if e.continues.is_some() && e.event_type == EventType::Start {
        text += " that continues";
    }
    text
}

/// Lets time pass until the state changes; after how many seconds in it that was.
fn outlast(w: &mut World, since: u64) -> Option<u64> {
    let before = observed(w);
    for seconds in [5, 60, 660, 3600, 86_400] {
        w.now = w.now.max(START + (since + seconds) * 1000 + 1);
        w.advance();
        if observed(w) != before {
            return Some(seconds);
        }
    }
    None
}

/// Next state and effect.
fn cell(state: State, input: Input) -> Option<(String, String)> {
    let (mut w, since) = world(state, input.only_direct())?;
    w.at(101.0);
    let (was, before, aside) = (observed(&w), worth(&w), w.reducer.kept_aside().1);
    let used = give(&mut w, input);
    let mut effects = Vec::new();
    if input == Input::TimePasses
        && let Some(seconds) = outlast(&mut w, since)
    {
        effects.push(format!("after {seconds} s"));
    }
    w.advance();
    let (now, after) = (observed(&w), worth(&w));
    if input != Input::TimePasses {
        if used == Some(false) && now == was {
            effects.push("ignored".to_owned());
        }
        if after.1 > before.1 && w.reducer.open_allocations() > 0 && before.1 > 0 {
            effects.push("the old life ends, a new one opens".to_owned());
        }
        if after.0 > before.0 {
            effects.push("counted".to_owned());
        } else if aside > w.reducer.kept_aside().1 {
            effects.push("what was unconfirmed is dropped".to_owned());
        }
    }
    effects.extend(w.events.iter().map(|e| format!("emitted: {}", described(e))));
    effects.extend(
        w.unattributed
            .iter()
            .map(|u| format!("on record: {}", u.reason.as_str())),
    );
    let shared = |n: &Notice| matches!(n, Notice::SharedKey { .. });
    if w.notices.iter().any(shared) && state != State::Shared {
        effects.push("the operator gets a notice".to_owned());
    }
    let next = if now == was {
        "the same".to_owned()
    } else {
        now.to_owned()
    };
    let effect = if effects.is_empty() {
        "—".to_owned()
    } else {
        effects.join(", ")
    };
    Some((next, effect))
}

fn table() -> String {
    let mut text = String::from(
        "| state | input | next state | effect (—: nothing is emitted or counted) |\n|---|---|---|---|\n",
    );
    for (state, state_name) in State::ALL {
        for (input, input_name) in Input::ALL {
            let (next, effect) = cell(state, input).unwrap_or_else(|| {
                (
                    "cannot be".to_owned(),
                    "such a state is of `redis` sources".to_owned(),
                )
            });
            let _ = writeln!(text, "| {state_name} | {input_name} | {next} | {effect} |");
        }
    }
    text
}

#[test]
fn the_table_of_states_is_what_the_code_does() {
    let page = std::fs::read_to_string(PAGE).unwrap();
    let (head, rest) = page.split_once(BEGIN).expect("STATES.md has a state table");
    let (found, tail) = rest.split_once(END).expect("the state table has an end");
    let table = table();
    if std::env::var_os("TURNHOOK_BLESS").is_some() {
        std::fs::write(PAGE, format!("{head}{BEGIN}\n{table}{END}{tail}")).unwrap();
        return;
    }
    for (found, is) in found.trim().lines().zip(table.trim().lines()) {
        assert_eq!(
            found, is,
            "STATES.md (left) is not what the code does (right); TURNHOOK_BLESS=1 writes it"
        );
    }
    assert_eq!(found.trim(), table.trim(), "the table in STATES.md is short");
}
