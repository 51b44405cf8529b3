//! Any part of the program that ends before its time, by a panic or a return, ends the process with status 1, and the log
//! names it: nothing goes on half.

use std::{
    io::Read,
    net::TcpListener,
    path::{Path, PathBuf},
};

use serde_json::Value;

use crate::harness::{
    billing::{Billing, QUICK, counted},
    eventually,
    feeder::{Allocation, Feeder},
    free_port,
    nodes::{Shared, ready},
    page::Page,
    postgres::Postgres,
    program::{Program, endpoint},
};
use crate::{
    housekeeping::{self, MANY},
    stopping::{hears, on_postgres},
};

/// The line that names the part and the cause.
fn ended_early(log: &[String]) -> Option<(String, String)> {
    log.iter().find_map(|line| {
        let line: Value = serde_json::from_str(line).ok()?;
        let text = |key: &str| line[key].as_str().map(str::to_owned);
        text("message")?
            .contains("ended before its time")
            .then(|| text("part").zip(text("cause")))?
    })
}

fn trigger(directory: &Path) -> PathBuf {
    directory.join("fault")
}

/// Starts a program with a fault that waits for its trigger.
fn launch(program: &mut Program, fault: &str, part: &str) {
    let asked = format!("{fault}:{part}@{}", trigger(program.directory.path()).display());
    program.launch_with(&[("FAULT_INJECTION", &asked)]);
    program.line("\"running\"");
}

/// Ends each way in which a part can end; what was heard until then is committed.
fn ends_the_process(part: &str, faults: &[&str]) {
    ends_the_process_with(|_| String::new(), part, faults);
}

/// The same with more in its configuration.
fn ends_the_process_with(more: impl Fn(&Program) -> String, part: &str, faults: &[&str]) {
    let billing = Billing::start();
    for fault in faults {
        let mut program = Program::new(&billing.endpoint());
        program.configure(&format!("{}{}", billing.endpoint(), more(&program)));
        launch(&mut program, fault, part);
        let mut feeder = Feeder::connect(program.source);
        feeder.open(&Allocation::new("cust_42", 1), 600).unwrap();
        eventually("the allocation", || {
            (counted(&program, &["turnhook_open_allocations"]) == 1).then_some(())
        });
        std::fs::write(trigger(program.directory.path()), "").unwrap();
        let (status, log) = program.ended();
        assert_eq!(status, Some(1), "{log:#?}");
        let (named, cause) =
            ended_early(&log).unwrap_or_else(|| panic!("{fault} of the {part} is not told: {log:#?}"));
        assert_eq!(named, part);
        let told = match *fault {
            "panic" => "it panicked: a fault was asked for",
            "abort" => "it was aborted",
            _ => "it returned",
        };
        assert_eq!(cause, told);
        assert!(
            log.last().unwrap().contains("has ended before its time"),
            "{log:#?}"
        );
        // What was heard was committed.
        program.start();
        program.line("\"source\":\"eu-1\",\"allocations\":1");
        program.stop();
    }
}

#[test]
fn a_source() {
    ends_the_process("source \"eu-1\"", &["panic", "return"]);
}

/// `abort` ends the subscriber's own task, as a panic in it would.
#[test]
fn a_subscriber() {
    ends_the_process("subscriber of source \"eu-1\"", &["panic", "return", "abort"]);
}

#[test]
fn the_writer_of_outcomes() {
    ends_the_process("writer of outcomes", &["panic", "return"]);
}

#[test]
fn the_dispatcher() {
    ends_the_process("dispatcher", &["panic", "return"]);
}

#[test]
fn the_housekeeper() {
    ends_the_process("housekeeper", &["panic", "return"]);
}

#[test]
fn the_http_server() {
    ends_the_process("HTTP server", &["panic", "return"]);
}

#[test]
fn the_recorder() {
    ends_the_process("recorder", &["panic", "return"]);
}

#[test]
fn what_keeps_blocks_and_quotas() {
    for part in ["block keeper", "quota keeper"] {
        ends_the_process(part, &["panic", "return"]);
    }
}

#[test]
fn what_tells_of_users_and_of_what_was_healed() {
    for part in ["notifier of users' events", "heal keeper"] {
        ends_the_process(part, &["panic", "return"]);
    }
}

#[test]
fn what_listens_to_the_service_manager() {
    for part in ["reloader", "watchdog"] {
        ends_the_process(part, &["panic", "return"]);
    }
}

#[test]
fn the_page() {
    let page = |program: &Program| Page::new(program).1;
    ends_the_process_with(page, "server of page and JSON API", &["panic", "return"]);
}

#[test]
fn what_speaks_to_coturn() {
    let (cli, port) = (free_port(), free_port());
    let control =
        format!("[[control]]\nsource = \"eu-1\"\naddress = \"127.0.0.1:{cli}\"\npassword = \"cli-only\"\n");
    ends_the_process_with(
        |_| control.clone(),
        &format!("control of eu-1 at 127.0.0.1:{cli}"),
        &["panic", "return"],
    );
    let gate = format!(
        "[[gate]]\nlisten = \"127.0.0.1:{port}\"\nrealm = \"example.org\"\nsource = \"eu-1\"\n\
         secrets = \"a-secret-of-tests-only\"\npassword = \"gate-tests-only\"\nallow_old = true\n"
    );
    ends_the_process_with(|_| gate.clone(), "gate", &["panic", "return"]);
}

/// The parts that there are only where nodes share a store.
#[test]
fn the_cluster_member_and_the_lane_keeper() {
    let shared = Shared::start("2s", String::new());
    for part in [
        "cluster member",
        "lane keeper",
        "source \"eu-1\"",
        "subscriber of source \"eu-1\"",
    ] {
        for fault in ["panic", "return"] {
            let mut node = shared.node("node-1");
            launch(&mut node.program, fault, part);
            std::fs::write(trigger(node.program.directory.path()), "").unwrap();
            let (status, log) = node.program.ended();
            assert_eq!(status, Some(1), "{log:#?}");
            assert_eq!(
                ended_early(&log).map(|(named, _)| named).as_deref(),
                Some(part),
                "{log:#?}"
            );
        }
    }
}

/// Sets the fault off, and waits for the end: the part that is named, and the cause.
#[track_caller]
fn set_off(program: &mut Program) -> (String, String) {
    std::fs::write(trigger(program.directory.path()), "").unwrap();
    named(program)
}

#[track_caller]
fn named(program: &mut Program) -> (String, String) {
    let (status, log) = program.ended();
    assert_eq!(status, Some(1), "{log:#?}");
    ended_early(&log).unwrap_or_else(|| panic!("no part is named: {log:#?}"))
}

/// The listener that a leader opens is no part of its own: its source ends with it. What was heard is committed.
#[test]
fn the_listener_of_a_leader() {
    let postgres = Postgres::start();
    let mut program = on_postgres(&postgres, "");
    launch(&mut program, "abort", "listener of a leader");
    let _feeder = hears(&program, 1);
    assert_eq!(
        set_off(&mut program),
        (
            "source \"eu-1\"".to_owned(),
            "its listener has ended: it was aborted".to_owned()
        )
    );
    program.start();
    program.line("\"source\":\"eu-1\",\"allocations\":1");
    program.stop();
}

/// What is packed, committed and handed on apart from the source's task.
#[test]
fn a_large_commit() {
    let billing = Billing::start();
    for step in ["packing", "committing", "handing on"] {
        let mut program = Program::new(&billing.endpoint());
        launch(&mut program, "panic", step);
        std::fs::write(trigger(program.directory.path()), "").unwrap();
        let _feeder = housekeeping::a_large_commit(&mut program, MANY);
        assert_eq!(
            named(&mut program),
            (
                "source \"eu-1\"".to_owned(),
                "a commit cannot be made: it panicked: a fault was asked for".to_owned()
            ),
            "{step}"
        );
    }
}

#[test]
fn a_takeover() {
    let shared = Shared::start("2s", String::new());
    for step in ["loading", "joining"] {
        let mut first = shared.node("node-1");
        first.launch();
        let mut nodes = vec![first];
        ready(&nodes);
        let mut heir = shared.node("node-2");
        launch(&mut heir.program, "panic", step);
        std::fs::write(trigger(heir.program.directory.path()), "").unwrap();
        nodes[0].kill();
        assert_eq!(
            named(&mut heir.program),
            (
                "source \"eu-1\"".to_owned(),
                "a takeover: it panicked: a fault was asked for".to_owned()
            ),
            "{step}"
        );
    }
}

#[test]
fn a_request_for_leases() {
    let postgres = Postgres::start();
    let mut program = on_postgres(&postgres, "");
    std::fs::write(trigger(program.directory.path()), "").unwrap();
    launch(&mut program, "panic", "taking leases");
    assert_eq!(
        named(&mut program),
        (
            "cluster member".to_owned(),
            "a request for leases: it panicked: a fault was asked for".to_owned()
        )
    );
}

/// The thread that writes to the file. What it was asked for last is not committed, and counts as missed.
#[test]
fn the_store() {
    ends_the_process("store threads", &["panic", "return"]);
    let mut program = Program::new("");
    launch(&mut program, "panic", "store");
    let mut feeder = hears(&program, 1);
    std::fs::write(trigger(program.directory.path()), "").unwrap();
    feeder.open(&Allocation::new("cust_43", 2), 600).unwrap();
    assert_eq!(
        named(&mut program),
        (
            "store threads".to_owned(),
            "its thread \"store\" panicked: a fault was asked for".to_owned()
        )
    );
    program.start();
    program.line("\"source\":\"eu-1\",\"allocations\":1");
    program.stop();
}

/// What merely moved is saved every few seconds, and once more at such an end.
#[test]
fn what_can_be_committed_is() {
    let billing = Billing::start();
    let mut program = Program::new(&format!("{QUICK}{}", billing.endpoint()));
    launch(&mut program, "return", "housekeeper");
    let mut feeder = hears(&program, 1);
    let mut allocation = Allocation::new("cust_42", 1);
    feeder.relay(&mut allocation, 30, 50).unwrap();
    eventually("what was relayed", || {
        (counted(&program, &["turnhook_events_total", "traffic"]) == 2).then_some(())
    });
    let (part, _) = set_off(&mut program);
    assert_eq!(part, "housekeeper");
    program.start();
    // Its totals never come: what is billed is what was heard before.
    Feeder::connect(program.source).delete(&allocation).unwrap();
    let session = billing.ended("cust_42", 1).remove(0);
    let usage = session.usage();
    assert_eq!((usage.client, usage.peer), (allocation.client, allocation.peer));
    program.stop();
}

/// While the rest is being committed and requests are finished, nobody takes the source for one that is served.
#[test]
fn its_source_is_not_ready() {
    let silent = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}/", silent.local_addr().unwrap());
    let (asked, asks) = std::sync::mpsc::channel();
    // Ends with the process: requests are read, and none is answered.
    std::thread::spawn(move || {
        for mut connection in silent.incoming().flatten() {
            let asked = asked.clone();
            std::thread::spawn(move || {
                while connection.read(&mut [0; 4096]).is_ok_and(|n| n > 0) {
                    let _ = asked.send(());
                }
            });
        }
    });
    let mut program = Program::new(&endpoint("silent", &url, "timeout = \"300s\"\n"));
    launch(&mut program, "return", "source \"eu-1\"");
    let mut feeder = Feeder::connect(program.source);
    feeder.open(&Allocation::new("cust_42", 1), 600).unwrap();
    asks.recv_timeout(crate::harness::DEADLINE).unwrap();
    std::fs::write(trigger(program.directory.path()), "").unwrap();
    // A request is under way until the deadline, and so long the program answers.
    let said = eventually("the source to be told as dead", || {
        let (code, body) = program.try_get("/readyz")?;
        (code == 503).then_some(body)
    });
    assert!(said.contains("has ended before its time"), "{said}");
    let (_, metrics) = program.get("/metrics");
    assert!(
        metrics.contains("turnhook_source_up{source=\"eu-1\"} 0"),
        "{metrics}"
    );
    assert_eq!(program.ended().0, Some(1));
}

/// A panic in a connection of the HTTP server costs that connection; it is counted, and named in the log.
#[test]
fn a_connection_of_the_http_server() {
    let mut program = Program::new("");
    launch(&mut program, "panic", "a connection of the HTTP server");
    let internal_errors = || counted(&program, &["turnhook_internal_errors_total"]);
    assert_eq!(internal_errors(), 0);
    std::fs::write(trigger(program.directory.path()), "").unwrap();
    assert_eq!(program.try_get("/livez"), None, "it panicked");
    std::fs::remove_file(trigger(program.directory.path())).unwrap();
    eventually("the panic to be counted", || {
        (internal_errors() == 1).then_some(())
    });
    let log = program.stop();
    let told = log
        .iter()
        .find(|line| line.contains("a connection of the HTTP server panicked"));
    assert!(
        told.is_some_and(|line| line.contains("a fault was asked for")),
        "{log:#?}"
    );
}

/// The same of the recorder's.
#[test]
fn a_connection_of_the_recorder() {
    let mut program = Program::new("");
    launch(&mut program, "panic", "a connection of the recorder");
    std::fs::write(trigger(program.directory.path()), "").unwrap();
    let asked = program.command(&["record", "--source", "eu-1"]);
    assert!(!asked.status.success());
    eventually("the panic to be counted", || {
        (counted(&program, &["turnhook_internal_errors_total"]) == 1).then_some(())
    });
    assert!(
        program
            .stop()
            .iter()
            .any(|line| line.contains("a connection of the recorder panicked"))
    );
}
