#![allow(missing_docs)]
use turnhook_reducer::{
    Identity, Reducer, ServerRef,
    event::EventType,
    message::{AllocationId, Kind, Leg, Message, Status},
    rules::Rules,
    time::Timestamp,
    usage::Counters,
};

fn main() {
    let identity = Identity {
        store: [0; 16],
        source: "eu-1".into(),
    };
    let mut reducer = Reducer::new(identity, Rules::default());
    let at = |seconds: u64| Timestamp((1_800_000_000 + seconds) * 1000);
    let totals = Counters {
        received_packets: 10,
        received_bytes: 9_000,
        sent_packets: 10,
        sent_bytes: 9_000,
    };
    for (seconds, kind) in [
        (
            0,
            Kind::New(Status {
                lifetime: 600,
                ..Status::default()
            }),
        ),
        (30, Kind::Deleted),
        (30, Kind::TotalTraffic(Leg::Client, totals)),
        (30, Kind::TotalTraffic(Leg::Peer, totals)),
    ] {
        let message = Message {
            realm: b"example.org",
            username: b"1800003600:ann",
            id: AllocationId(1),
            kind,
        };
        reducer.message(at(seconds), ServerRef::UNKNOWN, &message);
    }
    // For a while the session waits for a next allocation; then it ends.
    reducer.advance(at(60));

    let events = reducer.drain(true).events;
    let types: Vec<EventType> = events.iter().map(|event| event.event_type).collect();
    assert_eq!(types, [EventType::Start, EventType::End]);
    assert_eq!(events[1].user.as_deref(), Some(b"ann".as_slice()));
    println!("{} bytes are to be billed", events[1].usage.billable_bytes);
}
