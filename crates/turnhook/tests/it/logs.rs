//! What the log is like, and what it says of deliveries.

use std::{fs, os::unix::fs::MetadataExt as _, process::Command};

use crate::harness::{
    billing::Billing, eventually, feeder::Feeder, process::Process, program::Program, turnhook::command,
};

/// Starts it with its log in a file, which it is told is the journal's; what it logs until it was stopped.
fn logged_to_a_file(inode_is_right: bool) -> String {
    let program = Program::new(
        "[[endpoint]]\nname = \"billing\"\nurl = \"http://127.0.0.1:9/\"\nsecrets_file = \"s\"\n",
    );
    fs::write(
        program.directory.path().join("s"),
        format!("{}\n", crate::harness::program::SECRET),
    )
    .unwrap();
    let file = program.directory.path().join("log");
    let meta = fs::File::create(&file).unwrap().metadata().unwrap();
    let inode = if inode_is_right {
        meta.ino()
    } else {
        meta.ino() + 1
    };
    let made = command(program.directory.path());
    let mut shell = Command::new("sh");
    shell
        .current_dir(program.directory.path())
        .args(["-c", "exec \"$0\" run 2>> log"])
        .arg(made.get_program())
        .env("JOURNAL_STREAM", format!("{}:{inode}", meta.dev()));
    let mut process = Process::start(&mut shell);
    let read = || fs::read_to_string(&file).unwrap();
    eventually("it to run", || read().contains("running").then_some(()));
    process.signal("TERM");
    assert!(process.wait().success(), "{}", read());
    read()
}

#[test]
fn under_systemd_lines_are_text_with_priorities() {
    let log = logged_to_a_file(true);
    let lines: Vec<&str> = log.lines().collect();
    assert!(!lines.is_empty());
    for line in &lines {
        let priority = line.get(..3).unwrap();
        assert!(["<3>", "<4>", "<6>", "<7>"].contains(&priority), "{line}");
        assert!(!line.contains('{') || !line.contains("\"level\""), "{line}");
    }
    let running = lines.iter().find(|line| line.contains(" running ")).unwrap();
    assert!(running.starts_with("<6>turnhook::engine: running "), "{running}");
}

/// The variable is inherited by whatever a service starts: who writes elsewhere keeps to JSON.
#[test]
fn what_only_inherits_the_variable_is_not_under_systemd() {
    let log = logged_to_a_file(false);
    assert!(log.lines().all(|line| line.starts_with('{')), "{log}");
}

/// At debug each attempt is a line, with all that is needed to find it.
#[test]
fn each_attempt_is_a_line_at_debug() {
    let billing = Billing::start();
    let mut program = Program::new(&format!(
        "{}[log]\nlevel = \"info,turnhook_dispatcher=debug\"\n",
        billing.endpoint()
    ));
    program.start();
    Feeder::connect(program.source).call("1795413634:cust_42", 1);
    billing.ended("cust_42", 1);
    program.nothing_pending();
    let log = program.stop();
    let attempts: Vec<serde_json::Value> = log
        .iter()
        .filter_map(|line| serde_json::from_str(line).ok())
        .filter(|line: &serde_json::Value| line["message"] == "attempt")
        .collect();
    assert_eq!(attempts.len(), 2, "{log:#?}");
    for (attempt, event_type) in attempts.iter().zip(["session.start", "session.end"]) {
        assert_eq!(attempt["endpoint"], "billing");
        assert_eq!(attempt["type"], event_type);
        assert_eq!(attempt["status"], 204);
        assert_eq!(attempt["outcome"], "delivered");
        assert!(attempt["took_ms"].is_u64());
        assert!(attempt["event"].as_str().unwrap().starts_with("evt_"));
        assert!(attempt["session"].as_str().unwrap().starts_with("ses_"));
    }
}
