//! Rows, as they stand in stores.

use turnhook_reducer::{
    Identity, Reducer, ServerRef,
    message::{AllocationId, Kind, Leg, Message, Status},
    rules::Rules,
    state::Table,
    time::Timestamp,
    usage::Counters,
};

/// As the first part of a row was written from the beginning: what is in a store must be read by every later version.
#[test]
fn a_row_of_an_allocation_is_what_it_was() {
    let identity = Identity {
        store: [7; 16],
        source: "a".into(),
    };
    let mut reducer = Reducer::new(identity.clone(), Rules::default());
    reducer.hearing(Timestamp(1_795_413_657_000));
    let status = Status {
        lifetime: 600,
        transport: Some(b"TLS"),
        local: Some(b"192.0.2.10:5349"),
        remote: Some(b"198.51.100.1:4242"),
        tls_version: Some(b"TLSv1.3"),
        ..Status::default()
    };
    let counters = |received_bytes| Counters {
        received_packets: 3,
        received_bytes,
        sent_packets: 5,
        sent_bytes: 7,
    };
    for (n, kind) in [
        Kind::New(status),
        Kind::Traffic(Leg::Client, counters(1 << 33)),
        Kind::Traffic(Leg::Peer, counters(9)),
        Kind::Deleted,
    ]
    .into_iter()
    .enumerate()
    {
        let message = Message {
            realm: b"r",
            username: b"1:u",
            id: AllocationId(1_000_000_000_000_001),
            kind,
        };
        reducer.message(
            Timestamp(1_795_413_657_001 + n as u64),
            ServerRef::UNKNOWN,
            &message,
        );
    }
    let rows = reducer.dump();
    let row = rows.iter().find(|row| row.table == Table::Allocation).unwrap();
    let written = vec![
        1, 129, 128, 154, 166, 234, 175, 227, 1, 0, 1, 114, 3, 49, 58, 117, 1, 0, 169, 139, 249, 183, 160,
        52, 172, 139, 249, 183, 160, 52, 169, 139, 249, 183, 160, 52, 216, 4, 3, 128, 128, 128, 128, 32, 5,
        7, 3, 9, 5, 7, 1, 198, 51, 100, 1, 146, 33, 1, 15, 49, 57, 50, 46, 48, 46, 50, 46, 49, 48, 58, 53,
        51, 52, 57, 1, 3, 84, 76, 83, 1, 7, 84, 76, 83, 118, 49, 46, 51, 0, 1, 1, 0, 1, 1, 1, 0, 0, 0, 0, 1,
        0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 172, 139, 249, 183, 160, 52, 0, 180, 178, 249, 183, 160, 52, 0, 0, 0,
        0,
    ];
    let value = row.value.clone().unwrap();
    assert_eq!((value[0], &value[1..written.len()]), (2, &written[1..]));
    let read = rows
        .iter()
        .map(|row| (row.table, row.key, row.value.as_ref().unwrap()));
    let mut restored = Reducer::restore(identity.clone(), Rules::default(), reducer.now(), read).unwrap();
    // Until then its row says up to when it heard.
    restored.hearing(reducer.now());
    assert_eq!(restored.dump(), rows);
    // Of a version that wrote no second part.
    let read = rows.iter().map(|row| match row.table {
        Table::Allocation => (row.table, row.key, &written),
        _ => (row.table, row.key, row.value.as_ref().unwrap()),
    });
    let restored = Reducer::restore(identity, Rules::default(), reducer.now(), read).unwrap();
    let again = restored.dump();
    assert_eq!(again[0].value.as_ref().unwrap()[1..written.len()], written[1..]);
}
