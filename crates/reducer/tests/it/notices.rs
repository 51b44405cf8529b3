//! What the operator should hear of is bounded, and never vanishes uncounted.

use turnhook_reducer::{
    Notice, Reducer, ServerRef,
    message::{AllocationId, Kind, Leg, Message, Status},
    rules::Rules,
    time::Timestamp,
};

use crate::world::{START, World, bytes, identity};

#[test]
fn notices_beyond_the_bound_are_counted() {
    let mut reducer = Reducer::new(identity(), Rules::default());
    reducer.hearing(Timestamp(START));
    // Two servers say `new` of one key, again and again.
    for id in 0..1234 {
        for local in ["192.0.2.1:3478", "192.0.2.2:3478"] {
            let status = Status {
                lifetime: 600,
                local: Some(local.as_bytes()),
                remote: Some(b"198.51.100.7:40000"),
                ..Status::default()
            };
            let message = Message {
                realm: b"example.org",
                username: b"cust_42",
                id: AllocationId(id),
                kind: Kind::New(status),
            };
            reducer.message(Timestamp(START + id), ServerRef::UNKNOWN, &message);
        }
    }
    let output = reducer.drain(true);
    assert_eq!(output.notices.len() as u64 + output.notices_omitted, 1234);
    assert_eq!(output.notices_omitted, 234);
    assert_eq!(reducer.drain(true).notices_omitted, 0, "told once");
}

/// Both halves of a late report say that it is late.
#[test]
fn a_late_report_is_noticed_once() {
    let mut w = World::new(Rules::default());
    let (late, in_time) = (bytes(4000, 1_000_000), bytes(100, 1_000));
    w.open("ann", 1);
    for (client, peer) in [(late, late), (late, in_time), (in_time, late), (in_time, in_time)] {
        w.message("ann", 1, Kind::Traffic(Leg::Client, client)).message(
            "ann",
            1,
            Kind::Traffic(Leg::Peer, peer),
        );
    }
    let late = |n: &&Notice| matches!(n, Notice::LateReport { .. });
    assert_eq!(w.notices.iter().filter(late).count(), 3);
    assert_eq!(w.reducer.stats().late_reports, 3);
}
