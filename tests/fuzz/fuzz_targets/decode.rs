//! A channel and a payload, whatever they are: never a panic, and what is read names its channel.
#![no_main]

use libfuzzer_sys::fuzz_target;
use turnhook_reducer::message::{Kind, Leg};
use turnhook_subscriber::decode::{decode, decode_key};

// Input: channel, newline, payload.
fuzz_target!(|data: &[u8]| {
    let at = data.iter().position(|&b| b == b'\n').unwrap_or(data.len());
    let (channel, payload) = (&data[..at], data.get(at + 1..).unwrap_or_default());
    let key = decode_key(channel);
    let Ok(message) = decode(channel, payload) else { return };
    let (kind, leg) = match message.kind {
        Kind::New(_) | Kind::Refreshed(_) | Kind::Deleted => ("status", Leg::Client),
        Kind::Traffic(leg, _) => ("traffic", leg),
        Kind::TotalTraffic(leg, _) => ("total_traffic", leg),
    };
    assert_eq!(key.is_ok(), kind == "status");
    // Written from the grammar alone.
    let mut again = b"turn/".to_vec();
    if !message.realm.is_empty() {
        again.extend_from_slice(&[b"realm/", message.realm, b"/"].concat());
    }
    again.extend_from_slice(&[b"user/", message.username].concat());
    let peer = if leg == Leg::Peer { "/peer" } else { "" };
    again.extend_from_slice(format!("/allocation/{}/{kind}{peer}", message.id).as_bytes());
    assert_eq!(again, channel);
});
