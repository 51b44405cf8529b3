//! A million allocations: the longest that one message takes while they are opened, and the longest turn of the source's
//! task (tables that grow), and what a report costs once they are open, in an order without pattern. By the CPU time of the
//! thread, so that what else runs on the machine shows less than by a clock.
#![allow(clippy::unwrap_used, missing_docs, reason = "a bench")]

use rustix::time::{ClockId, clock_gettime};
use turnhook_reducer::{
    Identity, Reducer, ServerRef,
    message::{AllocationId, Kind, Leg, Message, Status},
    rules::Rules,
    time::Timestamp,
    usage::Counters,
};

const ALLOCATIONS: u64 = 1_000_000;
/// Messages that the engine hands in before it looks at its sockets again.
const TURN: usize = 8192;
const T0: u64 = 1_795_413_657_000;

fn cpu_nanos() -> u64 {
    let now = clock_gettime(ClockId::ThreadCPUTime);
    now.tv_sec as u64 * 1_000_000_000 + now.tv_nsec as u64
}

fn username(n: u64) -> String {
    let user = n / 3;
    format!("{}:cust_{user:07}", 1_795_413_634 + user)
}

fn id(n: u64) -> AllocationId {
    AllocationId(n % 16 * 1_000_000_000_000_000 + n + 1)
}

fn main() {
    let identity = Identity {
        store: [7; 16],
        source: "bench".into(),
    };
    let mut reducer = Reducer::new(identity, Rules::default());
    reducer.hearing(Timestamp(T0));
    let mut took = Vec::with_capacity(ALLOCATIONS as usize);
    for n in 0..ALLOCATIONS {
        let username = username(n);
        let remote = format!("198.51.{}.{}:{}", n / 50_000 % 250, n % 250, 10_000 + n % 50_000);
        let status = Status {
            lifetime: 36_000,
            transport: Some(b"UDP"),
            local: Some(b"192.0.2.10:3478"),
            remote: Some(remote.as_bytes()),
            ..Status::default()
        };
        let message = Message {
            realm: b"example.org",
            username: username.as_bytes(),
            id: id(n),
            kind: Kind::New(status),
        };
        let before = cpu_nanos();
        reducer.message(Timestamp(T0 + n / 100), ServerRef::UNKNOWN, &message);
        took.push(cpu_nanos() - before);
        // As often as the engine commits.
        if (n as usize).is_multiple_of(TURN) {
            drop(reducer.drain(false));
        }
    }
    let turns = took.chunks(TURN).map(|turn| turn.iter().sum::<u64>());
    let millis = |nanos: u64| nanos as f64 / 1e6;
    println!(
        "longest turn of {TURN} messages: {:.1} ms of CPU",
        millis(turns.max().unwrap())
    );
    took.sort_unstable();
    let longest: Vec<String> = took
        .iter()
        .rev()
        .take(5)
        .map(|n| format!("{:.2}", millis(*n)))
        .collect();
    println!("longest messages: {} ms of CPU", longest.join(", "));
    println!("in all: {:.0} ms of CPU", millis(took.iter().sum()));
    drop(reducer.drain(true));

    // As they are read: one behind the other.
    let order = |n: u64| n.wrapping_mul(387_420_489) % ALLOCATIONS;
    let read: Vec<(AllocationId, String)> = (0..ALLOCATIONS)
        .map(|n| (id(order(n)), username(order(n))))
        .collect();
    let counters = Counters {
        received_packets: 2048,
        received_bytes: 355_328,
        sent_packets: 2048,
        sent_bytes: 347_136,
    };
    let reports: Vec<Message<'_>> = read
        .iter()
        .flat_map(|(id, username)| {
            [Leg::Client, Leg::Peer].map(|leg| Message {
                realm: b"example.org",
                username: username.as_bytes(),
                id: *id,
                kind: Kind::Traffic(leg, counters),
            })
        })
        .collect();
    let mut at = T0 + ALLOCATIONS / 100;
    // In turns, so that whatever else the machine does shows in both.
    let mut nanos = [0; 2];
    for _ in 0..3 {
        for (together, nanos) in nanos.iter_mut().enumerate() {
            let begun = cpu_nanos();
            for batch in reports.chunks(1000) {
                at += 1;
                if together == 1 {
                    reducer.messages(Timestamp(at), ServerRef::UNKNOWN, batch);
                } else {
                    for message in batch {
                        reducer.message(Timestamp(at), ServerRef::UNKNOWN, message);
                    }
                }
            }
            *nanos += cpu_nanos() - begun;
        }
    }
    for (how, nanos) in ["one by one", "together"].iter().zip(nanos) {
        let messages = (3 * reports.len()) as f64;
        println!(
            "reports, looked up {how}: {:.2} million messages for a second of CPU",
            messages / nanos as f64 * 1e3
        );
    }
}
