//! What is said of the servers of a `direct` source, and of those who are turned away: in the log, in `/status`, in
//! metrics.

use std::{net::TcpStream, path::Path};

use crate::harness::{coturn::Coturn, eventually, feeder::Feeder, program::Program};

const PASSWORD: &str = "right-and-long-enough";

/// A source with a password, and nobody to tell.
fn locked() -> Program {
    let program = Program::new("");
    let text = format!(
        "shutdown_grace = \"5s\"\n[[source]]\nname = \"eu-1\"\ntype = \"direct\"\nlisten = \"127.0.0.1:{}\"\n\
         password = \"{PASSWORD}\"\n[http]\nlisten = \"127.0.0.1:{}\"\n",
        program.source, program.http
    );
    std::fs::write(program.directory.path().join("turnhook.toml"), text).unwrap();
    program
}

fn coturn(directory: &Path, program: &Program, password: &str) -> Coturn {
    let statsdb = format!(
        "ip=127.0.0.1 port={} dbname=3 connect_timeout=5 {password}",
        program.source
    );
    Coturn::start(directory, &statsdb, &["--relay-threads=2"])
}

/// The value of a series, which must be there.
#[track_caller]
fn metric(program: &Program, series: &str) -> f64 {
    let text = program.get("/metrics").1;
    let line = text
        .lines()
        .find_map(|line| line.strip_prefix(series)?.strip_prefix(' '));
    line.unwrap_or_else(|| panic!("no {series} in\n{text}"))
        .parse()
        .unwrap()
}

fn lines(program: &Program, text: &str) -> usize {
    program.log().iter().filter(|line| line.contains(text)).count()
}

/// A wrong password, then the right one, then its end: each is said, and can be alerted on.
#[test]
fn a_coturn_that_is_not_let_in_one_that_is_and_one_that_is_gone() {
    for (given, reason) in [("password=wrong", "wrong_password"), ("", "no_password")] {
        let mut program = locked();
        program.start();
        let refused =
            |reason: &str| format!("turnhook_logins_refused_total{{source=\"eu-1\",reason=\"{reason}\"}}");
        for reason in [
            "wrong_password",
            "no_password",
            "too_slow",
            "no_place",
            "not_redis",
            "tls",
            "too_many_servers",
        ] {
            assert_eq!(metric(&program, &refused(reason)), 0.0);
        }
        let servers = "turnhook_source_servers{source=\"eu-1\"}";
        let last = "turnhook_source_last_message_timestamp_seconds{source=\"eu-1\"}";
        assert_eq!((metric(&program, servers), metric(&program, last)), (0.0, 0.0));
        assert_eq!(
            metric(&program, "turnhook_last_gap_timestamp_seconds{source=\"eu-1\"}"),
            0.0
        );

        let directory = tempfile::tempdir().unwrap();
        let wrong = coturn(directory.path(), &program, given);
        program.line("turned away");
        eventually("all its connections", || {
            (metric(&program, &refused(reason)) >= 3.0).then_some(())
        });
        let status = program.status();
        let error = status["sources"]["eu-1"]["last_error"]
            .as_str()
            .unwrap()
            .to_owned();
        assert!(
            error.starts_with("127.0.0.1 gave") && error.contains("redis-statsdb"),
            "{error}"
        );
        assert!(status["sources"]["eu-1"]["last_error_at"].is_string());
        let said: Vec<String> = program
            .log()
            .into_iter()
            .filter(|l| l.contains("turned away"))
            .collect();
        assert_eq!(said.len(), 1, "{said:#?}");
        for part in ["WARN", "eu-1", "127.0.0.1", reason, &error] {
            assert!(said[0].contains(part), "{part} in {}", said[0]);
        }
        assert_eq!(program.get("/readyz").0, 200, "it listens");
        assert_eq!(metric(&program, servers), 0.0);
        assert_eq!(lines(&program, "server connected"), 0);
        drop(wrong);

        // Put right: what it could not say before is a gap.
        let right = coturn(directory.path(), &program, &format!("password={PASSWORD}"));
        program.line("server connected");
        let is = |state: &'static str| {
            move |status: &serde_json::Value| {
                let servers = &status["sources"]["eu-1"]["servers"];
                servers[0]["server"] == "127.0.0.1/-/3"
                    && servers[0]["state"] == state
                    && servers[0]["since"].is_string()
            }
        };
        let status = program.until("it to be there", is("connected"));
        assert_eq!(metric(&program, servers), 1.0);
        assert_eq!(
            status["sources"]["eu-1"]["recent_gaps"][0]["reason"],
            "turned_away"
        );
        assert!(metric(&program, "turnhook_last_gap_timestamp_seconds{source=\"eu-1\"}") > 1e9);
        right.process.signal("KILL");
        program.line("server gone");
        program.until("it to be gone", is("gone"));
        assert_eq!(metric(&program, servers), 0.0);
        program.stop();
    }
}

/// Strangers come without end: that somebody may have been turned away is a gap on record, once, and who logs in is heard.
#[test]
fn strangers_at_the_door_are_counted_and_keep_nobody_out() {
    let mut program = locked();
    program.start();
    let mut strangers = Vec::new();
    for _ in 0..400 {
        strangers.push(TcpStream::connect(("127.0.0.1", program.source)).unwrap());
    }
    let status = program.until("the gap", |s| s["sources"]["eu-1"]["recent_gaps"][0].is_object());
    assert_eq!(
        status["sources"]["eu-1"]["recent_gaps"][0]["reason"],
        "turned_away"
    );
    assert_eq!(
        metric(
            &program,
            "turnhook_gaps_total{source=\"eu-1\",reason=\"turned_away\"}"
        ),
        1.0
    );
    let refused = "turnhook_logins_refused_total{source=\"eu-1\",reason=\"no_place\"}";
    assert!(metric(&program, refused) >= 200.0);
    assert_eq!(lines(&program, "found no place"), 1, "{:#?}", program.log());
    Feeder::login(program.source, PASSWORD).call("alice", 1);
    let last = "turnhook_source_last_message_timestamp_seconds{source=\"eu-1\"}";
    eventually("its messages", || (metric(&program, last) > 1e9).then_some(()));
    assert!(program.status()["sources"]["eu-1"]["last_message_at"].is_string());
    assert_eq!(program.get("/readyz").0, 200);
    drop(strangers);
    program.stop();
}
