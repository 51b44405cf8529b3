//! What a log has more than was told: in sessions that continue, with the same ids whoever tells them, and not where it may
//! yet be heard.

use turnhook_reducer::{
    event::{Accuracy, CloseReason, EventType},
    heal::Heal,
    message::AllocationId,
    rules::Rules,
    time::Timestamp,
    usage::Legs,
};

use crate::world::{World, bytes, identity};

/// Of the first session that ended.
fn heal(w: &World, missed: Legs) -> Heal {
    let end = w.end(0);
    let told = &end.allocations[0];
    Heal {
        at: Timestamp(w.now + 90_000_000),
        continues: end.session_id,
        realm: end.realm.clone(),
        username: told.username.clone(),
        allocation: told.id,
        opened_at: told.opened_at,
        closed: told.closed.unwrap(),
        server: None,
        transport: Some("UDP".to_owned()),
        server_address: None,
        client_address: None,
        tls: None,
        missed,
    }
}

/// One whose totals were lost.
fn told_too_low() -> World {
    let mut w = World::new(Rules::default());
    w.open("ann", 1).at(5.0).traffic("ann", 1, 10, 1000);
    w.at(6.0).deleted("ann", 1);
    w.at(60.0).advance();
    assert_eq!(w.end(0).end.unwrap().accuracy, Accuracy::LowerBound);
    w
}

fn both(packets: u64, n: u64) -> Legs {
    Legs {
        client: bytes(packets, n),
        peer: bytes(packets, n),
    }
}

#[test]
fn a_session_continues_the_one_that_was_told_too_low() {
    let mut w = told_too_low();
    let heal = heal(&w, both(20, 4000));
    // As long as its tombstone is kept, what was missed may come yet.
    assert!(!w.reducer.heal(Timestamp(w.now), &heal));
    assert!(w.reducer.drain(true).events.is_empty());
    let later = Timestamp(w.now + 90_000_000);
    assert!(w.reducer.heal(later, &heal));
    let events = w.reducer.drain(true).events;
    let [start, end] = &events[..] else {
        panic!("{events:#?}")
    };
    assert_eq!((start.event_type, start.sequence), (EventType::Start, 0));
    assert_eq!((end.event_type, end.sequence), (EventType::End, 1));
    assert_eq!(end.continues, Some(heal.continues));
    assert_eq!((end.usage.legs, end.usage_delta), (heal.missed, end.usage));
    assert_eq!(end.usage.billable_bytes, 8000);
    assert_eq!(end.duration_ms, Some(0));
    let told = end.end.unwrap();
    assert_eq!(
        (told.reason, told.accuracy),
        (CloseReason::Closed, Accuracy::LowerBound)
    );
    // Told again by the next leader, or asked for later: the same ids.
    w.crash().hears();
    let again = Heal {
        at: Timestamp(heal.at.0 + 5000),
        ..heal.clone()
    };
    assert!(w.reducer.heal(later, &again));
    let ids = |events: &[turnhook_reducer::event::SessionEvent]| {
        events.iter().map(|e| (e.id, e.session_id)).collect::<Vec<_>>()
    };
    assert_eq!(ids(&w.reducer.drain(true).events), ids(&events));
    assert_eq!(again.session(&identity()), end.session_id);
    let of_another = Heal {
        allocation: AllocationId(2),
        ..heal
    };
    assert_ne!(of_another.session(&identity()), end.session_id);
}

/// A stranger's packets are no part of the bill.
#[test]
fn what_is_billed_is_certain() {
    let w = told_too_low();
    let mut missed = both(0, 0);
    missed.peer.received_packets = 1_000_000;
    missed.peer.received_bytes = 1_000_000_000;
    assert_eq!(heal(&w, missed).usage(&Rules::default()).billable_bytes, 0);
    missed.peer.sent_packets = 10;
    missed.peer.sent_bytes = 500;
    assert_eq!(heal(&w, missed).usage(&Rules::default()).billable_bytes, 500);
}

/// It is open again under the same number: that is another life, and says nothing of the first.
#[test]
fn a_next_life_does_not_stand_in_the_way() {
    let mut w = told_too_low();
    let heal = heal(&w, both(20, 4000));
    w.at(90_100.0).open("ann", 1);
    assert!(w.reducer.heal(Timestamp(w.now), &heal));
}
