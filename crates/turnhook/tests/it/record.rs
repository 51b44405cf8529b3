//! `turnhook record` on a running program, and `turnhook simulate` on what it wrote: the same events, to the byte.

use std::{
    collections::BTreeMap,
    fs::{self, OpenOptions},
    io::{BufRead as _, BufReader, Read as _, Write as _},
    net::TcpStream,
    os::unix::{fs::PermissionsExt as _, net::UnixStream},
};

use serde_json::value::RawValue;

use crate::harness::{
    DEADLINE,
    billing::{Billing, counted, direct, redis as program_on, statsdb},
    coturn::Coturn,
    eventually,
    feeder::{Allocation, Feeder},
    page::{Page, made},
    process::Process,
    program::{Program, text},
    redis::Redis,
    turn::TurnClient,
    turnhook,
};

/// Records while `meanwhile` runs, and simulates. Gives back the recording.
fn recorded(billing: &Billing, program: &Program, meanwhile: impl FnOnce()) -> String {
    let file = program.directory.path().join("history.jsonl");
    let arguments = ["record", "--source", "eu-1", "--output", text(&file)];
    let mut record = Process::start(turnhook::command(program.directory.path()).args(arguments));
    record.line("its beginning", |line| line.contains("recording").then_some(()));
    // The head of the recording is written: what is decided from now on is in it.
    eventually("the rules in the recording", || {
        fs::metadata(&file).ok().filter(|m| m.len() > 0)
    });
    let before = billing.webhooks().len();
    meanwhile();
    record.signal("INT");
    assert!(record.wait().success(), "{}", record.output());
    let told: BTreeMap<String, Vec<u8>> = billing
        .webhooks()
        .split_off(before)
        .into_iter()
        .map(|webhook| (webhook.id, webhook.bytes))
        .collect();

    #[derive(serde::Deserialize)]
    struct Line {
        webhook_id: String,
        body: Box<RawValue>,
    }
    let first = program.ask(&["simulate", text(&file)]);
    let simulated: BTreeMap<String, Vec<u8>> = first
        .lines()
        .map(|line| {
            let line: Line = serde_json::from_str(line).unwrap();
            (line.webhook_id, line.body.get().as_bytes().to_vec())
        })
        .collect();
    let show = |events: &BTreeMap<String, Vec<u8>>| -> Vec<String> {
        let one = |(id, body): (&String, &Vec<u8>)| format!("{id} {}", String::from_utf8_lossy(body));
        events.iter().map(one).collect()
    };
    // At least a session from its start to its end, and the end of another.
    assert!(told.len() >= 3, "{:#?}", show(&told));
    assert_eq!(show(&simulated), show(&told));
    assert_eq!(simulated, told);
    for _ in 0..3 {
        assert_eq!(program.ask(&["simulate", text(&file)]), first);
    }
    fs::read_to_string(file).unwrap()
}

#[test]
fn a_listeners_history_simulates_to_the_same_bytes() {
    let billing = Billing::start();
    let mut program = direct(&billing);
    program.start();
    let directory = tempfile::tempdir().unwrap();
    let coturn = Coturn::start(directory.path(), &statsdb(&program, 7), &[]);
    // Open before the recording begins, and told so far.
    let mut before = TurnClient::tcp(&coturn, "before").call(&coturn);
    before.relay(2500, 100);
    billing.told("before", 1);
    let history = recorded(&billing, &program, || {
        let mut during = TurnClient::udp(&coturn, "during").call(&coturn);
        during.relay(2500, 100);
        billing.told("during", 1);
        let mut stopped = TurnClient::udp(&coturn, "stopped").call(&coturn);
        stopped.relay(10, 100);
        billing.started("stopped");
        assert_eq!(during.refresh(0), 0);
        drop(before);
        billing.ended("before", 1);
        billing.ended("during", 1);
        coturn.process.signal("KILL");
        assert_eq!(billing.ended("stopped", 1)[0].end_reason(), "server_stopped");
    });
    for input in ["row", "thread_connected", "thread_disconnected", "server_stopped"] {
        assert!(history.contains(&format!("{{\"{input}\"")), "{input}\n{history}");
    }
}

/// An operator without a shell reads the same at the page's address, and it is on record.
#[test]
fn a_recording_is_read_behind_the_admin_listener() {
    let billing = Billing::start();
    let mut program = Program::new("");
    let (page, table) = Page::new(&program);
    program.configure(&(table + &billing.endpoint()));
    program.start();
    let path = "/api/v1/sources/eu-1/record";
    assert_eq!(page.get_as(&page.viewer, path).status, 403);
    assert_eq!(page.get("/api/v1/sources/eu-2/record").status, 404);
    let begin = || {
        let mut stream = TcpStream::connect(("127.0.0.1", page.port)).unwrap();
        stream.set_read_timeout(Some(DEADLINE)).unwrap();
        let head = format!(
            "GET {path} HTTP/1.1\r\nhost: localhost\r\nauthorization: {}\r\n\r\n",
            page.operator
        );
        stream.write_all(head.as_bytes()).unwrap();
        BufReader::new(stream)
    };
    let until = |stream: &mut BufReader<TcpStream>, what: &str| {
        let mut lines = String::new();
        while !lines.contains(what) {
            assert!(stream.read_line(&mut lines).unwrap() > 0, "no {what} in {lines}");
        }
        lines
    };
    let mut first = begin();
    let head = until(&mut first, "\r\n\r\n");
    assert!(
        head.starts_with("HTTP/1.1 200") && head.contains("application/x-ndjson"),
        "{head}"
    );
    until(&mut first, "turnhook_history");
    let busy = page.get(path);
    assert_eq!(busy.status, 409, "{busy:?}");
    let mut feeder = Feeder::connect(program.source);
    let call = feeder.call("ann", 1);
    let heard = until(&mut first, "deleted");
    assert!(
        heard.contains(&call.name()) && heard.contains("lifetime="),
        "{heard}"
    );
    drop(first);
    // The next one may begin once the end of the first was noticed: at the next message, at the latest.
    let mut next = 2;
    let mut second = eventually("another recording", || {
        feeder.call("ann", next);
        next += 1;
        let mut stream = begin();
        let mut line = String::new();
        stream.read_line(&mut line).unwrap();
        line.starts_with("HTTP/1.1 200").then_some(stream)
    });
    until(&mut second, "turnhook_history");
    let did = page.get("/api/v1/audit").json()["items"][0].clone();
    assert_eq!(
        (&did["who"], &did["action"], &did["target"]),
        (&"otto".into(), &"record".into(), &"eu-1".into())
    );
    drop(second);

    // The command line does the same from any machine, with an operator's token.
    let folder = program.directory.path().to_owned();
    let (line, told) = made(&program, &["admin", "token", "support", "--role", "operator"]);
    let mut tokens = OpenOptions::new()
        .append(true)
        .open(folder.join("tokens"))
        .unwrap();
    tokens.write_all(line.as_bytes()).unwrap();
    fs::write(folder.join("operator"), told.trim().rsplit(' ').next().unwrap()).unwrap();
    fs::write(folder.join("viewer"), page.token.trim_start_matches("Bearer ")).unwrap();
    let url = format!("http://127.0.0.1:{}", page.port);
    let arguments = |token: &str, source: &str| {
        [
            "record",
            "--source",
            source,
            "--url",
            &url,
            "--output",
            "far.jsonl",
            "--token-file",
            token,
        ]
        .map(str::to_owned)
    };
    for (token, source, why) in [
        ("viewer", "eu-1", "403"),
        ("operator", "eu-2", "no source named"),
        ("none", "eu-1", "none: "),
    ] {
        let output = program.command(&arguments(token, source).each_ref().map(String::as_str));
        let said = turnhook::stderr(&output);
        assert!(
            output.status.code() == Some(1) && said.contains(why),
            "{why}: {said}"
        );
        assert!(!folder.join("far.jsonl").exists(), "nothing was recorded");
    }
    let mut record = eventually("the end of the recording before", || {
        let mut record = Process::start(turnhook::command(&folder).args(arguments("operator", "eu-1")));
        feeder.call("ann", next);
        next += 1;
        let line = record.line("its beginning", |line| {
            (line.contains("recording; ") || line.contains("another recording")).then(|| line.to_owned())
        });
        line.contains("recording; ").then_some(record)
    });
    let call = feeder.call("far", next);
    let heard = eventually("the call in the recording", || {
        let heard = fs::read_to_string(folder.join("far.jsonl")).ok()?;
        heard.contains(&call.name()).then_some(heard)
    });
    assert!(heard.starts_with("{\"turnhook_history\""), "{heard}");
    // It does not hold up a stop, which ends it.
    program.stop();
    assert!(!record.wait().success(), "{}", record.output());
    let written = fs::read_to_string(folder.join("far.jsonl")).unwrap();
    assert!(
        written.ends_with('\n') && !written.contains("\"ended\""),
        "{written}"
    );
}

#[test]
fn a_subscriptions_history_simulates_to_the_same_bytes() {
    let billing = Billing::start();
    let directory = tempfile::tempdir().unwrap();
    let mut redis = Redis::start(directory.path(), &[]);
    let mut program = program_on(&billing, &format!("url = \"redis://127.0.0.1:{}\"", redis.port));
    program.start();
    program.until("the subscription", |s| {
        s["sources"]["eu-1"]["state"] == "connected"
    });
    let coturn = Coturn::start(directory.path(), &redis.statsdb(), &[]);
    let mut through = TurnClient::udp(&coturn, "through").call(&coturn);
    through.relay(2500, 100);
    billing.told("through", 1);
    let history = recorded(&billing, &program, || {
        let mut during = TurnClient::udp(&coturn, "during").call(&coturn);
        during.relay(50, 100);
        assert_eq!(during.refresh(0), 0);
        billing.ended("during", 1);
        redis.process.signal("KILL");
        program.until("the loss", |s| s["sources"]["eu-1"]["state"] == "deaf");
        redis.start_again();
        program.until("the subscription", |s| {
            s["sources"]["eu-1"]["state"] == "connected"
        });
        let refreshed = || counted(&program, &["turnhook_events_total", "refreshed"]);
        let before = refreshed();
        eventually("a refresh", || {
            assert_eq!(through.refresh(600), 0);
            (refreshed() > before).then_some(())
        });
        assert_eq!(through.refresh(0), 0);
        billing.ended("through", 1);
    });
    for input in ["hearing", "deaf", "gap", "snapshot_began", "snapshot_ended"] {
        assert!(history.contains(&format!("{{\"{input}\"")), "{input}\n{history}");
    }
}

/// What was open before goes on in the recording as it does in the program: it is known that the source hears, so that
/// it can expire, and which relay threads are connected.
#[test]
fn a_recording_begins_with_what_is_known_of_the_source() {
    let billing = Billing::start();
    let mut program = direct(&billing);
    program.start();
    let mut feeder = Feeder::connect(program.source);
    let mut before = Allocation::new("before", 1);
    feeder.open(&before, 600).unwrap();
    feeder.relay(&mut before, 1000, 1000).unwrap();
    billing.started("before");
    let history = recorded(&billing, &program, || {
        for id in 2..4 {
            feeder.call("during", id);
            billing.ended("during", id as usize - 1);
        }
    });
    let file = program.directory.path().join("history.jsonl");
    let settled = program.ask(&["simulate", "--settle", text(&file)]);
    let expired = settled
        .lines()
        .any(|line| line.contains("session.end") && line.contains("\"before\"") && line.contains("expired"));
    assert!(expired, "{settled}\n{history}");
    assert!(history.contains("{\"thread_connected\""), "{history}");
}

/// Where the program is asked.
fn socket(program: &Program) -> std::path::PathBuf {
    program.directory.path().join("turnhook.db.sock")
}

/// Asks by hand; the answer.
fn ask(program: &Program, source: &str) -> (BufReader<UnixStream>, String) {
    let mut stream = UnixStream::connect(socket(program)).unwrap();
    stream.set_read_timeout(Some(DEADLINE)).unwrap();
    writeln!(stream, "{{\"record\":\"{source}\"}}").unwrap();
    let mut reader = BufReader::new(stream);
    let mut answer = String::new();
    reader.read_line(&mut answer).unwrap();
    (reader, answer)
}

#[test]
fn only_the_owner_can_record_and_one_at_a_time() {
    let billing = Billing::start();
    let mut program = direct(&billing);
    program.start();
    assert_eq!(program.get("/record/eu-1").0, 404, "HTTP serves no history");
    let mode = fs::metadata(socket(&program)).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    assert!(ask(&program, "us-1").1.contains("no source named"));
    let (mut first, answer) = ask(&program, "eu-1");
    assert!(answer.contains("recording"), "{answer}");
    let file = program.directory.path().join("second.jsonl");
    let second = program.command(&["record", "--source", "eu-1", "--output", text(&file)]);
    assert_eq!(second.status.code(), Some(1));
    let said = turnhook::stderr(&second);
    assert!(said.contains("another recording is under way"), "{said}");
    // The first one goes on.
    let mut feeder = Feeder::connect(program.source);
    feeder.call("cust_42", 1);
    eventually("the call in the first recording", || {
        let mut line = String::new();
        first.read_line(&mut line).unwrap();
        line.contains("total_traffic/peer").then_some(())
    });
    drop(first);
    eventually("another one to be taken", || {
        ask(&program, "eu-1").1.contains("recording\"").then_some(())
    });
    // A program that stops says so, and takes its socket with it.
    let (mut last, _) = eventually("another one to be taken", || {
        Some(ask(&program, "eu-1")).filter(|(_, answer)| answer.contains("recording\""))
    });
    program.stop();
    let mut rest = String::new();
    last.read_to_string(&mut rest).unwrap();
    assert!(rest.ends_with("{\"ended\":\"turnhook stops\"}\n"), "{rest}");
    assert!(!socket(&program).exists());
}

/// Who does not read costs what is bounded, ends its own recording, and is told why.
#[test]
fn who_reads_too_slowly_is_cut_off() {
    let billing = Billing::start();
    let mut program = direct(&billing);
    program.start();
    let mut feeder = Feeder::connect(program.source);
    let mut allocation = Allocation::new("cust_42", 1);
    feeder.open(&allocation, 3600).unwrap();
    let before = program.memory("VmRSS");
    let (mut reader, answer) = ask(&program, "eu-1");
    assert!(answer.contains("recording"), "{answer}");
    let ended = |program: &Program| program.log().iter().any(|line| line.contains("read too slowly"));
    let mut told = 0u64;
    while !ended(&program) {
        for _ in 0..2_000 {
            feeder.relay(&mut allocation, 3, 2).unwrap();
        }
        told += 4_000;
        assert!(told < 4_000_000, "never cut off");
    }
    let after = program.memory("VmRSS");
    assert!(
        after < before + 200 * 1024,
        "{before} KiB before, {after} KiB after"
    );
    // It gets what had been sent to it, and no more; and all messages were heard.
    let mut rest = Vec::new();
    reader.read_to_end(&mut rest).unwrap();
    assert!(rest.starts_with(b"{\"turnhook_history\""));
    assert!(rest.len() < 33 * 1024 * 1024, "{}", rest.len());
    eventually("all of it to be heard", || {
        let heard = counted(&program, &["turnhook_events_total", "\"traffic"]);
        (heard == told).then_some(())
    });
    assert_eq!(counted(&program, &["turnhook_gaps_total"]), 0);
    // And the next one can begin.
    assert!(ask(&program, "eu-1").1.contains("recording\""));
    program.stop();
}
