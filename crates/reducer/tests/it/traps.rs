//! Traps of coturn's stream that no other history here shows by itself.

use turnhook_reducer::{
    event::CloseReason,
    message::{Kind, Leg},
    rules::Rules,
};

use crate::world::{World, bytes, exact, reason};

const MB: u64 = 1_000_000;

/// Trap 4: a constant bit rate makes equal deltas, and each of them counts.
#[test]
fn equal_deltas_in_a_row_all_count() {
    let mut w = World::new(Rules::default());
    w.open("ann", 1);
    for second in 1..=5 {
        w.at(f64::from(second)).traffic("ann", 1, 1000, MB);
    }
    // Its totals are lost: nothing but the deltas says what there was.
    w.at(6.0).deleted("ann", 1);
    w.at(60.0).advance();
    assert_eq!(w.peer_bytes_told(), 5 * MB);
}

/// Trap 14: a call of hours is one `new` and many `refreshed`.
#[test]
fn a_call_of_hours_is_one_session() {
    let mut w = World::new(Rules::default());
    w.open("ann", 1).traffic("ann", 1, 1000, MB);
    for refresh in 1..=60 {
        w.at(f64::from(refresh) * 590.0).refresh("ann", 1);
    }
    w.close("ann", 1, 2000, 2 * MB);
    w.at(36_000.0).advance();
    assert_eq!(w.ends().len(), 1, "{:#?}", w.told());
    let end = w.end(0);
    assert!(exact(end) && reason(end) == CloseReason::Closed, "{end:#?}");
    assert_eq!(w.peer_bytes_told(), 2 * MB);
}

/// Trap 29: one report may have wrapped, and the allocation is heard of again after it was told as expired. What may be
/// missing is missing in the whole of it.
#[test]
fn what_may_have_wrapped_is_never_exact_again() {
    for crash in [false, true] {
        let mut w = World::new(Rules::default());
        let (late, total) = (bytes(4_100_000, 5 * MB), bytes(4_101_000, 6 * MB));
        w.at(0.0).open("ann", 1);
        w.message("ann", 1, Kind::Traffic(Leg::Client, late)).message(
            "ann",
            1,
            Kind::Traffic(Leg::Peer, late),
        );
        w.at(2000.0).advance();
        assert_eq!(reason(w.end(0)), CloseReason::Expired);
        if crash {
            w.crash().hears();
        }
        w.at(2001.0).deleted("ann", 1);
        w.message("ann", 1, Kind::TotalTraffic(Leg::Client, total))
            .message("ann", 1, Kind::TotalTraffic(Leg::Peer, total));
        w.at(3000.0).advance();
        assert_eq!(w.peer_bytes_told(), 6 * MB);
        assert!(!exact(w.end(1)), "{:#?}", w.told());
    }
}
