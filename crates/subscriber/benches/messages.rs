//! What one message costs: decoding alone, and from the bytes of a subscription to a decoded message.
#![allow(clippy::unwrap_used, missing_docs, reason = "a bench")]

use std::hint::black_box;

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use turnhook_reducer::time::Timestamp;
use turnhook_subscriber::{
    decode::decode,
    resp::{Frame, Limits, Reader},
    signal::Batch,
};

/// The messages of a real server.
fn captured() -> Vec<(Vec<u8>, Vec<u8>)> {
    include_str!("../tests/captures/coturn-4.17.1.jsonl")
        .lines()
        .filter(|line| !line.is_empty())
        .map(|line| serde_json::from_str::<(f64, String, String)>(line).unwrap())
        .map(|(_, channel, payload)| (channel.into_bytes(), payload.into_bytes()))
        .collect()
}

fn frame(words: &[&[u8]]) -> Vec<u8> {
    let mut out = format!("*{}\r\n", words.len()).into_bytes();
    for word in words {
        out.extend([format!("${}\r\n", word.len()).as_bytes(), word, b"\r\n"].concat());
    }
    out
}

fn messages(c: &mut Criterion) {
    let messages = captured();
    let mut group = c.benchmark_group("messages");
    group.throughput(Throughput::Elements(messages.len() as u64));
    group.bench_function("decode", |b| {
        b.iter(|| {
            for (channel, payload) in &messages {
                let _ = black_box(decode(black_box(channel), black_box(payload)));
            }
        });
    });

    // As many as fill a few reads, over and over.
    let stream: Vec<u8> = messages
        .iter()
        .flat_map(|(channel, payload)| frame(&[b"pmessage", b"turn/realm/*", channel, payload]))
        .collect::<Vec<_>>()
        .repeat(64);
    let count = messages.len() * 64;
    group.throughput(Throughput::Elements(count as u64));
    let mut reader = Reader::replies(
        Limits {
            frame: 64 * 1024,
            args: 16,
        },
        256 * 1024,
    );
    for decoded in [false, true] {
        let name = if decoded {
            "read, decode, batch and take"
        } else {
            "read, decode and batch"
        };
        group.bench_function(name, |b| {
            b.iter(|| {
                let (mut rest, mut seen) = (stream.as_slice(), 0);
                while !rest.is_empty() {
                    let space = reader.space();
                    let n = space.len().min(rest.len());
                    space[..n].copy_from_slice(&rest[..n]);
                    rest = &rest[n..];
                    reader.filled(n);
                    let mut batch = Batch::new(Timestamp(0), None);
                    while let Some(Frame::Array(args)) = reader.next().unwrap() {
                        batch.push(args.get(2), args.get(3));
                    }
                    seen += batch.len();
                    if decoded {
                        for message in batch.messages() {
                            let _ = black_box(message);
                        }
                    }
                }
                assert_eq!(seen, count);
            });
        });
    }
    group.finish();
}

criterion_group!(benches, messages);
criterion_main!(benches);
