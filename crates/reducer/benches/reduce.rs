//! What one message costs the reducer: reports of open allocations, a thousand of them or a million, and whole
//! lives of allocations.
#![allow(clippy::unwrap_used, missing_docs, reason = "a bench")]

use std::{hint::black_box, ops::Range, time::Duration};

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use turnhook_reducer::{
    Identity, Reducer, ServerRef, TOGETHER,
    message::{AllocationId, Kind, Leg, Message, Status},
    rules::Rules,
    time::Timestamp,
    usage::Counters,
};

const T0: u64 = 1_795_413_657_000;
/// As long as a turn of the engine: messages of one read are taken at about one time.
const MESSAGES_PER_MS: usize = 1000;

/// The `n`th allocation: three to a user, over sixteen relay threads.
struct Named {
    id: AllocationId,
    username: Vec<u8>,
    remote: String,
}

fn named(n: usize) -> Named {
    let user = n / 3;
    Named {
        id: AllocationId((n % 16) as u64 * 1_000_000_000_000_000 + n as u64 + 1),
        username: format!("{}:cust_{user:07}", 1_795_413_634 + user).into_bytes(),
        remote: format!("198.51.{}.{}:{}", n / 50_000 % 250, n % 250, 10_000 + n % 50_000),
    }
}

impl Named {
    fn says<'a>(&'a self, kind: Kind<'a>) -> Message<'a> {
        Message {
            realm: b"example.org",
            username: &self.username,
            id: self.id,
            kind,
        }
    }

    fn status(&self, lifetime: u32) -> Status<'_> {
        Status {
            lifetime,
            transport: Some(b"UDP"),
            local: Some(b"192.0.2.10:3478"),
            remote: Some(self.remote.as_bytes()),
            ..Status::default()
        }
    }
}

const REPORT: Counters = Counters {
    received_packets: 2048,
    received_bytes: 355_328,
    sent_packets: 2048,
    sent_bytes: 347_136,
};

fn reducer() -> Reducer {
    let identity = Identity {
        store: [7; 16],
        source: "bench".into(),
    };
    let mut reducer = Reducer::new(identity, Rules::default());
    reducer.hearing(Timestamp(T0));
    reducer
}

/// SplitMix64, as an order of visits without pattern.
fn shuffled(n: usize) -> Vec<usize> {
    let mut order: Vec<usize> = (0..n).collect();
    let mut state = 42_u64;
    for i in (1..n).rev() {
        state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = state;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        order.swap(i, ((z ^ (z >> 31)) % (i as u64 + 1)) as usize);
    }
    order
}

/// Reports, as coturn sends them: the client leg's, then the peer leg's, of one allocation after the other.
/// Their names lie in the order in which they are read, as in a socket's buffer.
fn reports(c: &mut Criterion) {
    let mut group = c.benchmark_group("reports");
    group.sample_size(20).measurement_time(Duration::from_secs(5));
    const REPORTS: usize = 50_000;
    group.throughput(Throughput::Elements(2 * REPORTS as u64));
    for open in [1_000, 100_000, 1_000_000] {
        let mut reducer = reducer();
        for n in 0..open {
            let one = named(n);
            reducer.message(
                Timestamp(T0),
                ServerRef::UNKNOWN,
                &one.says(Kind::New(one.status(36_000))),
            );
        }
        let mut names = Vec::new();
        let mut read = Vec::new();
        for n in shuffled(open) {
            let one = named(n);
            read.push((one.id, names.len()..names.len() + one.username.len()));
            names.extend(&one.username);
        }
        let mut told = 0;
        let mut report = |reducer: &mut Reducer, some: &[(AllocationId, Range<usize>)]| {
            let some: Vec<Message<'_>> = some
                .iter()
                .flat_map(|(id, username)| {
                    [Leg::Client, Leg::Peer].map(|leg| Message {
                        realm: b"example.org",
                        username: &names[username.clone()],
                        id: *id,
                        kind: Kind::Traffic(leg, REPORT),
                    })
                })
                .collect();
            told += some.len();
            let at = Timestamp(T0 + (told / MESSAGES_PER_MS) as u64);
            reducer.messages(at, ServerRef::UNKNOWN, black_box(&some));
        };
        // As many as are handed in together.
        let reads: Vec<_> = read.chunks(TOGETHER / 2).collect();
        for some in &reads {
            report(&mut reducer, some);
        }
        drop(reducer.drain(true));
        let mut next = reads.iter().cycle();
        group.bench_function(BenchmarkId::new("open", open), |b| {
            b.iter(|| {
                let mut left = REPORTS;
                while let Some(some) = next.next().filter(|_| left > 0) {
                    report(&mut reducer, some);
                    left = left.saturating_sub(some.len());
                }
                // What is due at once; counters wait for their turn.
                drop(black_box(reducer.drain(false)));
            });
        });
    }
}

/// Whole lives: opened, reported twice, refreshed, reported, deleted with totals; the sessions and rows that come of
/// it are made too.
fn lives(c: &mut Criterion) {
    let mut group = c.benchmark_group("lives");
    group.sample_size(20).measurement_time(Duration::from_secs(5));
    const LIVES: usize = 3_000;
    let all: Vec<Named> = (0..LIVES).map(named).collect();
    let total = Counters {
        received_packets: 3 * REPORT.received_packets,
        received_bytes: 3 * REPORT.received_bytes,
        sent_packets: 3 * REPORT.sent_packets,
        sent_bytes: 3 * REPORT.sent_bytes,
    };
    let report = [
        Kind::Traffic(Leg::Client, REPORT),
        Kind::Traffic(Leg::Peer, REPORT),
    ];
    let mut at = T0;
    let mut reducer = reducer();
    group.throughput(Throughput::Elements(11 * LIVES as u64));
    group.bench_function("whole", |b| {
        b.iter(|| {
            let mut tell = |reducer: &mut Reducer, kinds: &dyn Fn(&Named) -> Vec<Kind<'_>>| {
                at += 10_000;
                for one in &all {
                    for kind in kinds(one) {
                        reducer.message(Timestamp(at), ServerRef::UNKNOWN, &one.says(kind));
                    }
                }
                drop(black_box(reducer.drain(true)));
            };
            tell(&mut reducer, &|one| vec![Kind::New(one.status(600))]);
            tell(&mut reducer, &|_| report.to_vec());
            tell(&mut reducer, &|_| report.to_vec());
            tell(&mut reducer, &|one| vec![Kind::Refreshed(one.status(600))]);
            tell(&mut reducer, &|_| report.to_vec());
            tell(&mut reducer, &|_| {
                vec![
                    Kind::Deleted,
                    Kind::TotalTraffic(Leg::Client, total),
                    Kind::TotalTraffic(Leg::Peer, total),
                ]
            });
            // Linger and tombstones run out: each round is a new life.
            at += 200_000;
            reducer.advance(Timestamp(at));
            drop(black_box(reducer.drain(true)));
        });
    });
}

/// Which of 100 coturns' 64 threads have fallen silent, with as many tombstones as there may be.
fn silence(c: &mut Criterion) {
    const COTURNS: u64 = 100;
    const THREADS: u64 = 64;
    let rules = Rules::default();
    let ended = rules.tombstone_limit as u64;
    let mut reducer = reducer();
    let mut tell = |n: u64, kinds: &[Kind<'_>]| {
        let thread = n % (COTURNS * THREADS);
        let id = AllocationId(thread % THREADS * 1_000_000_000_000_000 + n + 1);
        let local = format!("192.0.2.{}:3478", thread / THREADS);
        let username = format!("cust_{n}").into_bytes();
        let mut say = |kind| {
            let message = Message {
                realm: b"example.org",
                username: &username,
                id,
                kind,
            };
            reducer.message(Timestamp(T0 + n / 1000), ServerRef::UNKNOWN, &message);
        };
        say(Kind::New(Status {
            lifetime: 600,
            local: Some(local.as_bytes()),
            ..Status::default()
        }));
        kinds.iter().for_each(|kind| say(*kind));
    };
    let end = [
        Kind::Deleted,
        Kind::TotalTraffic(Leg::Client, REPORT),
        Kind::TotalTraffic(Leg::Peer, REPORT),
    ];
    for n in 0..ended {
        tell(n, &end);
    }
    for n in ended..ended + COTURNS * THREADS {
        tell(n, &[]);
    }
    drop(reducer.drain(true));
    c.bench_function("silent threads of 100 coturns, 200,000 tombstones", |b| {
        b.iter(|| black_box(reducer.silent_threads(5_000)));
    });
}

criterion_group!(benches, reports, lives, silence);
criterion_main!(benches);
