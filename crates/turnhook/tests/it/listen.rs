//! `turnhook listen`.

use std::{
    io::{Read, Write},
    net::TcpStream,
    time::{SystemTime, UNIX_EPOCH},
};

use turnhook_dispatcher::signature::{self, Secret};

use crate::harness::{eventually, process::Process, turnhook::command};

const SECRET: &str = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw";
const OTHER: &str = "whsec_AAECAwQFBgcICQoLDA0ODxAREhMUFRYX";

fn start(arguments: &[&str]) -> (Process, String) {
    let directory = std::env::temp_dir();
    let mut process = Process::start(
        command(&directory)
            .args(["listen", "--listen", "127.0.0.1:0"])
            .args(arguments),
    );
    let address = process.line("its address", |line| {
        line.strip_prefix("listening on http://")
            .map(|rest| rest.trim_end_matches('/').to_owned())
    });
    (process, address)
}

fn now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs()
}

/// Sends a webhook signed with `secret`; the status of the answer.
fn post(address: &str, secret: &str, body: &str, timestamp: u64) -> u16 {
    let signature = signature::sign(
        &[Secret::parse(secret).unwrap()],
        "evt_1",
        timestamp,
        body.as_bytes(),
    );
    let mut stream = TcpStream::connect(address).unwrap();
    write!(
        stream,
        "POST /any/path HTTP/1.1\r\nhost: {address}\r\nconnection: close\r\ncontent-length: {}\r\nwebhook-id: evt_1\r\n\
         webhook-timestamp: {timestamp}\r\nwebhook-signature: {signature}\r\n\r\n{body}",
        body.len()
    )
    .unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    answer.split(' ').nth(1).unwrap().parse().unwrap()
}

#[test]
fn json_lines_tell_what_verifies() {
    let (mut process, address) = start(&["--json", "--secret", OTHER, "--secret", SECRET]);
    let body = r#"{"type":"session.start","data":{"user":"cust_42"}}"#;
    assert_eq!(post(&address, SECRET, body, now()), 204);
    assert_eq!(post(&address, OTHER, body, now()), 204);
    assert_eq!(
        post(&address, "whsec_Ly4vLi8uLy4vLi8uLy4vLi8uLy4vLi8u", body, now()),
        401
    );
    assert_eq!(post(&address, SECRET, body, now() - 3600), 401);
    let lines = eventually("four lines", || {
        Some(process.stdout()).filter(|lines| lines.len() >= 4)
    });
    let lines: Vec<serde_json::Value> = lines
        .iter()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect();
    let verified: Vec<_> = lines
        .iter()
        .map(|line| line["verified"].as_bool().unwrap())
        .collect();
    assert_eq!(verified, [true, true, false, false]);
    assert_eq!(lines[0]["webhook_id"], "evt_1");
    assert_eq!(lines[0]["body"]["data"]["user"], "cust_42");
    assert!(lines[2]["error"].as_str().unwrap().contains("no signature"));
    assert!(lines[3]["error"].as_str().unwrap().contains("old"));
    process.signal("TERM");
    assert!(process.wait().success());
}

#[test]
fn people_see_a_line_and_a_secret_is_made_where_none_is_given() {
    let (mut process, address) = start(&[]);
    let secret = process.line("the secret", |line| {
        line.strip_prefix("the secret: ").map(str::to_owned)
    });
    assert_eq!(
        post(
            &address,
            &secret,
            r#"{"type":"session.start","data":{"session_id":"ses_1","user":"cust_42"}}"#,
            now()
        ),
        204
    );
    process.line("the webhook", |line| {
        (line.contains("cust_42") && line.contains("[verified]")).then_some(())
    });
}

#[test]
fn a_taken_address_is_said() {
    let (_process, address) = start(&["--secret", SECRET]);
    let output = command(&std::env::temp_dir())
        .args(["listen", "--listen", &address])
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(1));
    let stderr = String::from_utf8(output.stderr).unwrap();
    assert!(
        stderr.contains(&format!("cannot listen on {address}")) && stderr.contains("another program has it"),
        "{stderr}"
    );
}
