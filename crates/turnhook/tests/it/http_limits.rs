//! What strangers can do to the ports that speak HTTP and have no password.

use std::{
    io::{Read as _, Write as _},
    net::TcpStream,
};

use crate::harness::{
    DEADLINE,
    billing::Billing,
    eventually,
    feeder::Feeder,
    process::Process,
    program::{Program, SECRET},
    turnhook::command,
};

/// Sends bytes, and reads all that comes until the other side closes.
fn exchange(address: &str, bytes: &[u8]) -> String {
    let mut stream = connect(address);
    // It may close before all of it is sent.
    let _ = stream.write_all(bytes);
    until_closed(stream)
}

fn connect(address: &str) -> TcpStream {
    let stream = TcpStream::connect(address).unwrap();
    stream.set_read_timeout(Some(DEADLINE)).unwrap();
    stream
}

/// What comes until the other side closes; it must.
#[track_caller]
fn until_closed(mut stream: TcpStream) -> String {
    let mut answer = Vec::new();
    let mut part = [0; 4096];
    loop {
        match stream.read(&mut part) {
            Ok(0) => break,
            Ok(read) => answer.extend_from_slice(&part[..read]),
            Err(error) if error.kind() == std::io::ErrorKind::ConnectionReset => break,
            Err(error) => panic!("it was not closed: {error}"),
        }
    }
    String::from_utf8_lossy(&answer).into_owned()
}

fn get(address: &str, host: &str) -> String {
    exchange(
        address,
        format!("GET /livez HTTP/1.1\r\nhost: {host}\r\nconnection: close\r\n\r\n").as_bytes(),
    )
}

#[test]
fn other_names_than_its_own_are_refused() {
    let billing = Billing::start();
    let mut program = Program::new(&billing.endpoint());
    let file = program.directory.path().join("turnhook.toml");
    let text = std::fs::read_to_string(&file).unwrap();
    let configured = text.replace("[http]\n", "[http]\nhosts = [\"turnhook.example.com\"]\n");
    std::fs::write(&file, configured).unwrap();
    program.start();
    let address = format!("127.0.0.1:{}", program.http);
    for host in ["localhost", "turnhook.example.com:8080", &address] {
        let answer = get(&address, host);
        assert!(answer.starts_with("HTTP/1.1 200"), "{host}: {answer}");
    }
    let refused = get(&address, "rebound.example");
    assert!(
        refused.starts_with("HTTP/1.1 421") && refused.contains("[http] hosts"),
        "{refused}"
    );
    let absolute =
        b"GET http://rebound.example/status HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n";
    let refused = exchange(&address, absolute);
    assert!(refused.starts_with("HTTP/1.1 421"), "{refused}");
}

/// Heads that are too long, never end or are of another protocol; connections that are left open.
fn has_limits(address: &str) {
    let long = format!(
        "GET / HTTP/1.1\r\nhost: localhost\r\nx-long: {}\r\n\r\n",
        "x".repeat(20_000)
    );
    let answer = exchange(address, long.as_bytes());
    assert!(answer.starts_with("HTTP/1.1 431"), "{answer}");

    let many = format!(
        "GET / HTTP/1.1\r\nhost: localhost\r\n{}\r\n",
        "a: b\r\n".repeat(500)
    );
    let answer = exchange(address, many.as_bytes());
    assert!(answer.starts_with("HTTP/1.1 431"), "{answer}");

    // With prior knowledge, as `curl --http2-prior-knowledge` begins: the preface and a SETTINGS frame.
    let preface = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\x00\x00\x00\x04\x00\x00\x00\x00\x00";
    let answer = exchange(address, preface);
    assert!(
        answer.is_empty() || answer.starts_with("HTTP/1.1 4"),
        "{answer:?}"
    );

    // Whoever does not go on is closed: before a head, within one, and after an answer.
    let waiting: [&[u8]; 3] = [
        b"",
        b"GET / HTTP/1.1\r\nhost: loc",
        b"GET /livez HTTP/1.1\r\nhost: localhost\r\n\r\n",
    ];
    let [nothing, half, kept] = std::thread::scope(|scope| {
        waiting
            .map(|bytes| scope.spawn(move || exchange(address, bytes)))
            .map(|thread| thread.join().unwrap())
    });
    assert!(
        nothing.is_empty() && !half.contains(" 200 "),
        "{nothing:?} {half:?}"
    );
    assert!(
        kept.starts_with("HTTP/1.1 "),
        "answered, and closed later: {kept}"
    );
}

#[test]
fn the_port_of_metrics_has_limits() {
    let billing = Billing::start();
    let mut program = Program::new(&billing.endpoint());
    program.start();
    has_limits(&format!("127.0.0.1:{}", program.http));
}

#[test]
fn the_receiver_for_trying_out_has_the_same() {
    let directory = tempfile::tempdir().unwrap();
    let mut process = Process::start(command(directory.path()).args([
        "listen",
        "--listen",
        "127.0.0.1:0",
        "--secret",
        SECRET,
    ]));
    let address = process.line("its address", |line| {
        line.strip_prefix("listening on http://")
            .map(|rest| rest.trim_end_matches('/').to_owned())
    });
    has_limits(&address);
    let head = "POST / HTTP/1.1\r\nhost: localhost\r\ncontent-length: 4194305\r\nconnection: close\r\n\r\n";
    let large = [head.as_bytes(), &vec![b'x'; (4 << 20) + 1]].concat();
    let answer = exchange(&address, &large);
    assert!(answer.starts_with("HTTP/1.1 413"), "{answer}");
}

#[test]
fn a_crowd_takes_neither_the_last_descriptors_nor_the_last_place() {
    crowd(256);
}

/// Fewer than the places that there would be.
#[test]
fn a_crowd_leaves_descriptors_to_others_where_there_are_few() {
    crowd(96);
}

/// Three hundred half requests where there are so many descriptors: they keep out neither a scraper, nor coturn, nor
/// what is to be delivered.
fn crowd(descriptors: u32) {
    let billing = Billing::start();
    let mut program = Program::new(&billing.endpoint());
    program.start_with_descriptors(descriptors);
    program.line("fewer file descriptors");
    let address = format!("127.0.0.1:{}", program.http);
    let mut crowd = Vec::new();
    for _ in 0..300 {
        let mut stream = connect(&address);
        // It may have been turned away.
        let _ = stream.write_all(b"GET /metrics HTTP/1.1\r\nhost: loc");
        crowd.push(stream);
        if crowd.len() % 50 == 0 {
            assert!(
                get(&address, "localhost").starts_with("HTTP/1.1 200"),
                "after {}",
                crowd.len()
            );
        }
    }
    let process = program.process().id();
    // Who is put out is closed a moment after the next one is let in.
    eventually("places that are kept free", || {
        let open = std::fs::read_dir(format!("/proc/{process}/fd")).unwrap().count();
        (open <= descriptors as usize * 7 / 8 + 2).then_some(())
    });
    Feeder::connect(program.source).call("1795413634:cust_42", 1);
    billing.ended("cust_42", 1);
    assert!(!program.log().iter().any(|line| line.contains("cannot accept")));
    drop(crowd);
}
