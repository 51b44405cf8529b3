//! SIGHUP: what changes without a socket being closed, what needs a restart, and what a wrong file does. What systemd is told.

use std::{
    fs,
    io::{Read as _, Write as _},
    net::{TcpListener, TcpStream},
    os::unix::net::UnixDatagram,
    sync::mpsc,
};

use turnhook_dispatcher::signature::{self, Secret};

use crate::harness::{
    DEADLINE,
    billing::{Billing, counted},
    eventually,
    feeder::{Allocation, Feeder},
    free_port,
    program::{Program, SECRET, endpoint},
};

const OTHER: &str = "whsec_b3RoZXItc2VjcmV0LW9mLWFub3RoZXItdGltZQ==";

/// What of a request says who signed it.
struct Signed {
    id: String,
    at: String,
    signature: String,
    body: Vec<u8>,
}

impl Signed {
    fn is_by(&self, secret: &str) -> bool {
        let secrets = [Secret::parse(secret).unwrap()];
        let now = self.at.parse().unwrap();
        signature::verify(&secrets, &self.id, &self.at, &self.signature, &self.body, now).is_ok()
    }
}

/// A receiver that takes everything. Ends with the process.
fn receiver() -> (String, mpsc::Receiver<Signed>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}/", listener.local_addr().unwrap());
    let (sender, received) = mpsc::channel();
    std::thread::spawn(move || {
        for mut stream in listener.incoming().flatten() {
            let mut bytes = Vec::new();
            let mut buffer = [0; 4096];
            let (head, body) = loop {
                match stream.read(&mut buffer) {
                    Ok(n) if n > 0 => bytes.extend_from_slice(&buffer[..n]),
                    _ => break (String::new(), Vec::new()),
                }
                let Some(end) = bytes.windows(4).position(|four| four == b"\r\n\r\n") else {
                    continue;
                };
                let head = String::from_utf8_lossy(&bytes[..end]).into_owned();
                let length: usize = header(&head, "content-length").parse().unwrap();
                if bytes.len() >= end + 4 + length {
                    break (head, bytes[end + 4..].to_vec());
                }
            };
            let _ = stream.write_all(b"HTTP/1.1 204 No Content\r\nconnection: close\r\n\r\n");
            let signed = Signed {
                id: header(&head, "webhook-id"),
                at: header(&head, "webhook-timestamp"),
                signature: header(&head, "webhook-signature"),
                body,
            };
            let _ = sender.send(signed);
        }
    });
    (url, received)
}

fn header(head: &str, name: &str) -> String {
    let line = head.lines().find_map(|line| {
        let (found, value) = line.split_once(':')?;
        found.eq_ignore_ascii_case(name).then(|| value.trim().to_owned())
    });
    line.unwrap_or_default()
}

/// Has it read its configuration again, and waits for what it says of that.
#[track_caller]
fn reload(program: &mut Program, said: &str) {
    let before = program.log().len();
    program.process().signal("HUP");
    eventually(said, || {
        let log = program.log();
        log[before..].iter().any(|line| line.contains(said)).then_some(())
    });
}

const READ: &str = "the configuration was read again";

#[test]
fn secrets_and_endpoints_change_and_no_socket_is_closed() {
    let billing = Billing::start();
    let (url, received) = receiver();
    let partner = |secret: &str| endpoint("partner", &url, &format!("secrets = [\"{secret}\"]\n"));
    let mut program = Program::new(&partner(SECRET));
    program.start();
    let mut feeder = Feeder::connect(program.source);
    feeder.call("1795413634:before", 1);
    for _ in 0..2 {
        assert!(received.recv_timeout(DEADLINE).unwrap().is_by(SECRET));
    }

    // Another secret, and one more who is told.
    program.configure(&(partner(OTHER) + &billing.endpoint()));
    reload(&mut program, READ);
    let log = program.log();
    let told = log.iter().find(|line| line.contains(READ)).unwrap();
    assert!(
        told.contains("partner (changed)") && told.contains("billing (added)"),
        "{told}"
    );
    feeder.call("1795413634:between", 2);
    for _ in 0..2 {
        let signed = received.recv_timeout(DEADLINE).unwrap();
        assert!(signed.is_by(OTHER) && !signed.is_by(SECRET));
    }
    billing.ended("between", 1);
    let metrics = program.get("/metrics").1;
    assert!(metrics.contains("turnhook_deliveries_total{endpoint=\"billing\",outcome=\"gave_up\"} 0"));

    // One who is told no more.
    program.configure(&billing.endpoint());
    reload(&mut program, "partner (removed)");
    feeder.call("1795413634:after", 3);
    billing.ended("after", 1);
    assert!(received.try_recv().is_err(), "it was removed");
    assert!(billing.sessions_of("before").is_empty(), "it was not there yet");

    // All of it over one connection, and without a gap.
    let status = program.status();
    assert_eq!(status["sources"]["eu-1"]["recent_gaps"], serde_json::json!([]));
    assert_eq!(counted(&program, &["turnhook_gaps_total"]), 0);
    program.stop();
}

/// What waits for an endpoint when it is changed is delivered by what it is changed to.
#[test]
fn what_waits_goes_where_the_endpoint_leads_now() {
    let (url, received) = receiver();
    let mut program = Program::new(&endpoint("billing", "http://127.0.0.1:9/", ""));
    program.start();
    Feeder::connect(program.source).call("1795413634:cust_42", 1);
    program.until("it to wait", |status| {
        status["endpoints"]["billing"]["pending"] == 2
    });
    program.configure(&endpoint("billing", &url, ""));
    reload(&mut program, READ);
    let ids: Vec<String> = (0..2)
        .map(|_| received.recv_timeout(DEADLINE).unwrap().id)
        .collect();
    assert_ne!(ids[0], ids[1]);
    program.nothing_pending();
    assert!(received.try_recv().is_err(), "each once");
}

#[test]
fn a_wrong_configuration_changes_nothing_and_what_needs_a_restart_is_said() {
    let billing = Billing::start();
    let mut program = Program::new(&billing.endpoint());
    program.start();
    let mut feeder = Feeder::connect(program.source);
    program.configure(&(billing.endpoint() + "[log]\nlevle = \"debug\"\n"));
    reload(&mut program, "nothing was changed");
    let log = program.log();
    let told = log
        .iter()
        .find(|line| line.contains("nothing was changed"))
        .unwrap();
    assert!(
        told.contains("levle") && told.contains("\"level\":\"ERROR\""),
        "{told}"
    );
    // One whose endpoint cannot be used is no better.
    let missing = "ca_file = \"/nowhere/ca.pem\"\n";
    program.configure(&endpoint("billing", "https://127.0.0.1:9/", missing));
    let before = program.log().len();
    program.process().signal("HUP");
    eventually("the refusal", || {
        program.log()[before..]
            .iter()
            .any(|l| l.contains("nothing was changed"))
            .then_some(())
    });
    feeder.call("1795413634:cust_42", 1);
    billing.ended("cust_42", 1);

    program.configure(
        &(billing.endpoint()
            + "[store]\nretention = \"3d\"\n[session]\nlinger = \"1s\"\n\
               [[source]]\nname = \"us-1\"\ntype = \"redis\"\nurl = \"redis://127.0.0.1:9\"\n"),
    );
    reload(&mut program, READ);
    let log = program.log();
    for what in ["[store] retention", "[session] linger", "source \\\"us-1\\\""] {
        let told = log
            .iter()
            .find(|line| line.contains("needs a restart") && line.contains(what));
        assert!(told.is_some(), "{what}: {log:#?}");
    }
    assert!(
        !log.iter()
            .any(|line| line.contains("needs a restart") && line.contains("eu-1"))
    );
    feeder.call("1795413634:cust_43", 2);
    billing.ended("cust_43", 1);
    program.stop();
}

/// A password that is changed is for whoever connects from then on.
#[test]
fn the_password_of_a_source() {
    let mut program = Program::new("");
    let file = program.directory.path().join("password");
    fs::write(&file, "the-first-of-two-passwords\n").unwrap();
    program.start_with(&[("TURNHOOK_SOURCE__0__PASSWORD_FILE", file.to_str().unwrap())]);
    let mut feeder = Feeder::login(program.source, "the-first-of-two-passwords");
    let open = |program: &Program, count: u64| {
        eventually("the allocation", || {
            (counted(program, &["turnhook_open_allocations"]) == count).then_some(())
        });
    };
    feeder.open(&Allocation::new("cust_1", 1), 600).unwrap();
    open(&program, 1);

    fs::write(&file, "the-second-of-two-passwords\n").unwrap();
    reload(&mut program, READ);
    feeder.open(&Allocation::new("cust_2", 2), 600).unwrap();
    open(&program, 2);
    let mut second = Feeder::login(program.source, "the-second-of-two-passwords");
    second.open(&Allocation::new("cust_3", 3), 600).unwrap();
    open(&program, 3);
    let _stale = Feeder::login(program.source, "the-first-of-two-passwords");
    eventually("the refusal", || {
        (counted(&program, &["turnhook_logins_refused_total", "wrong_password"]) == 1).then_some(())
    });
    assert!(!program.log().iter().any(|line| line.contains("needs a restart")));
    program.stop();
}

/// Secrets of a gate are in files that do not change their names; a control's password needs a restart, which is said.
#[test]
fn the_secrets_of_a_gate_and_the_password_of_a_control() {
    let (port, cli) = (free_port(), free_port());
    let mut program = Program::new("");
    let folder = program.directory.path().to_owned();
    let write = |name: &str, text: &str| fs::write(folder.join(name), text).unwrap();
    write("rest", "north\n");
    write("gate-password", "the-first-of-two-passwords\n");
    write("cli-password", "one\n");
    program.configure(&format!(
        "[[gate]]\nlisten = \"127.0.0.1:{port}\"\nrealm = \"example.org\"\nsource = \"eu-1\"\ncoturn = \"4.17\"\n\
         secrets_file = \"rest\"\npassword_file = \"gate-password\"\n\
         [[control]]\nsource = \"eu-1\"\naddress = \"127.0.0.1:{cli}\"\npassword_file = \"cli-password\"\n"
    ));
    program.start();
    let asked = |password: &str| -> String {
        let question = "turn/realm/example.org/user/4000000000:cust_42/key";
        let said = format!(
            "*2\r\n$4\r\nAUTH\r\n${}\r\n{password}\r\n*2\r\n$3\r\nget\r\n${}\r\n{question}\r\n",
            password.len(),
            question.len()
        );
        let mut stream = TcpStream::connect(("127.0.0.1", port)).unwrap();
        stream.write_all(said.as_bytes()).unwrap();
        stream.shutdown(std::net::Shutdown::Write).unwrap();
        let mut answer = String::new();
        let _ = stream.read_to_string(&mut answer);
        answer
    };
    let first = asked("the-first-of-two-passwords");
    assert!(first.starts_with("+OK\r\n$32\r\n"), "{first:?}");

    write("rest", "south\n");
    write("gate-password", "the-second-of-two-passwords\n");
    write("cli-password", "two\n");
    reload(&mut program, READ);
    let second = asked("the-second-of-two-passwords");
    assert!(
        second.starts_with("+OK\r\n$32\r\n") && second != first,
        "{second:?}"
    );
    assert!(!asked("the-first-of-two-passwords").starts_with("+OK"));
    let log = program.stop();
    let needs: Vec<_> = log
        .iter()
        .filter(|line| line.contains("needs a restart"))
        .collect();
    assert!(needs.len() == 1 && needs[0].contains("\"control\""), "{needs:#?}");
}

#[test]
fn the_level_of_the_log_and_limits() {
    let billing = Billing::start();
    let mut program = Program::new(&billing.endpoint());
    program.start();
    let mut feeder = Feeder::connect(program.source);
    feeder.call("1795413634:cust_42", 1);
    billing.ended("cust_42", 1);
    let attempts = |program: &Program| {
        program
            .log()
            .iter()
            .filter(|line| line.contains("\"attempt\""))
            .count()
    };
    assert_eq!(attempts(&program), 0);
    let more = "[log]\nlevel = \"info,turnhook_dispatcher=debug\"\n[limits]\nallocations = 1\n";
    program.configure(&(billing.endpoint() + more));
    reload(&mut program, READ);
    feeder.call("1795413634:cust_43", 2);
    billing.ended("cust_43", 1);
    eventually("the attempts", || (attempts(&program) >= 2).then_some(()));
    for id in [3, 4] {
        feeder.open(&Allocation::new("cust_44", id), 600).unwrap();
    }
    eventually("the second to be refused", || {
        let refused = &["turnhook_events_ignored_total", "too_many_allocations"];
        (counted(&program, refused) >= 1).then_some(())
    });
    assert_eq!(counted(&program, &["turnhook_open_allocations"]), 1);
    program.stop();
}

/// A service manager hears that the program is ready, reads its configuration, still moves, and stops.
#[test]
fn a_service_manager_is_told() {
    let mut program = Program::new("");
    let path = program.directory.path().join("notify");
    let socket = UnixDatagram::bind(&path).unwrap();
    socket.set_read_timeout(Some(DEADLINE)).unwrap();
    let next = || {
        let mut buffer = [0; 4096];
        let read = socket.recv(&mut buffer).unwrap();
        String::from_utf8_lossy(&buffer[..read]).trim().to_owned()
    };
    let next_but_watchdog = || loop {
        let said = next();
        if said != "WATCHDOG=1" {
            return said;
        }
    };
    program.start_with(&[
        ("NOTIFY_SOCKET", path.to_str().unwrap()),
        ("WATCHDOG_USEC", "300000"),
    ]);
    assert_eq!(next_but_watchdog(), "READY=1");
    for _ in 0..3 {
        assert_eq!(next(), "WATCHDOG=1");
    }
    program.process().signal("HUP");
    let said = next_but_watchdog();
    assert!(
        said.contains("RELOADING=1") && said.contains("MONOTONIC_USEC="),
        "{said}"
    );
    assert_eq!(next_but_watchdog(), "READY=1");
    program.process().signal("TERM");
    assert_eq!(next_but_watchdog(), "STOPPING=1");
    assert!(program.process().wait().success());
}
