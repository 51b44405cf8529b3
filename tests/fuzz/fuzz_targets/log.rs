//! A line of coturn's log, in which strangers write: never a panic, and what is read is what coturn would have written.
#![no_main]

use libfuzzer_sys::fuzz_target;
use turnhook_reducer::message::Leg;

#[allow(dead_code)]
#[path = "../../../crates/turnhook/src/reconcile/line.rs"]
mod line;

use line::What;

fuzz_target!(|data: &[u8]| {
    let _ = (line::unended(data), line::banner(data), line::record(data));
    let Some(line) = line::line(data) else { return };
    assert!(data.len() >= line.text.len());
    let inside = line::holds_a_record(line.text);
    let Some(record) = line::record(line.text) else { return };
    // Written from the grammar alone.
    let names = [b"realm=<", record.name.realm, b">, username=<", record.name.username, b">"].concat();
    let begin = format!("session {}: ", record.id).into_bytes();
    let body = match record.what {
        What::Usage(leg, c) => {
            let leg = if leg == Leg::Peer { "peer usage: " } else { "usage: " };
            // A leading zero is as good as none.
            let counters = [c.received_packets, c.received_bytes, c.sent_packets, c.sent_bytes];
            assert!(inside && counters.iter().all(|n| *n <= 1 << 53));
            [leg.as_bytes(), &names].concat()
        }
        What::New => [b"new, ", &names[..]].concat(),
        What::Refreshed => [b"refreshed, ", &names[..]].concat(),
        What::Deleted => [b"delete: ", &names[..]].concat(),
        What::Closed => return,
    };
    assert!(line.text.starts_with(&[begin, body].concat()));
    assert!(!record.name.username.contains(&b' '));
});
