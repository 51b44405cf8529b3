//! Prints signed webhooks, one JSON object a line, for other libraries to verify: `tests/interop/run.sh`.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::time::{SystemTime, UNIX_EPOCH};

use secrecy::ExposeSecret as _;
use serde_json::json;
use turnhook_dispatcher::{
    body::ping_body,
    signature::{HEADER_ID, HEADER_SIGNATURE, HEADER_TIMESTAMP, Secret, sign},
};
use turnhook_reducer::time::Timestamp;

fn main() {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs();
    for (n, name) in ["billing", "räksmörgås", "引用", "quote\"\\", "line\nbreak", ""]
        .into_iter()
        .enumerate()
    {
        // One secret, then two, as while one takes over from the other.
        let (secrets, texts): (Vec<_>, Vec<_>) = (0..=n % 2).map(|_| Secret::generate().unwrap()).unzip();
        let body = ping_body(Timestamp(now * 1000), name);
        let id = format!("evt_{n:026}");
        let line = json!({
            "secrets": texts.iter().map(|text| text.expose_secret()).collect::<Vec<_>>(),
            "headers": {
                HEADER_ID: id,
                HEADER_TIMESTAMP: now.to_string(),
                HEADER_SIGNATURE: sign(&secrets, &id, now, &body),
            },
            "body": std::str::from_utf8(&body).unwrap(),
        });
        println!("{line}");
    }
}
