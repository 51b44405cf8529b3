//! What the running program says of itself, and what is checked beside it.

use serde_json::Value;

use crate::{
    config::TOKENS,
    harness::{
        billing::Billing,
        eventually,
        feeder::{Allocation, Feeder},
        process::Process,
        program::{Program, SECRET},
        turnhook::{command, stderr, stdout},
    },
};

#[test]
fn what_runs_says_how_it_is() {
    let billing = Billing::start();
    let mut program = Program::new(&billing.endpoint());
    let url = format!("http://127.0.0.1:{}", program.http);
    for asked in [&["status"][..], &["ready"], &["ready", "--url", &url]] {
        let nobody = program.command(asked);
        assert_eq!(nobody.status.code(), Some(1));
        assert!(
            stderr(&nobody).contains("nobody answers there"),
            "{}",
            stderr(&nobody)
        );
    }
    let before = program.command(&["doctor"]);
    assert_eq!(before.status.code(), Some(0), "{}", stdout(&before));
    for part in [
        "ok    configuration: sources: 1, endpoints: 1",
        "warn  turnhook: none answers at",
        "is made at the first start",
        &format!("source eu-1: 127.0.0.1:{} is free to listen on", program.source),
        "ok    endpoint billing: answers",
        "ok    clock: agrees with that of endpoint billing",
    ] {
        assert!(
            stdout(&before).contains(part),
            "no {part:?} in\n{}",
            stdout(&before)
        );
    }

    program.start();
    assert_eq!(program.ask(&["ready"]), "ready\n");
    let elsewhere = command(&std::env::temp_dir())
        .args(["ready", "--url", &url])
        .output()
        .unwrap();
    assert_eq!(
        elsewhere.status.code(),
        Some(0),
        "no configuration is needed: {}",
        stderr(&elsewhere)
    );
    let none = program.command(&["doctor", "--format", "json"]);
    assert_eq!(none.status.code(), Some(1));
    let lines: Vec<Value> = stdout(&none)
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect();
    let failed: Vec<_> = lines.iter().filter(|line| line["level"] == "fail").collect();
    assert_eq!(failed.len(), 1, "{lines:#?}");
    assert_eq!(
        (&failed[0]["what"], &failed[0]["found"]),
        (&"source eu-1".into(), &"no coturn is connected".into())
    );
    assert!(
        failed[0]["cure"].as_str().unwrap().contains("redis-statsdb"),
        "{failed:#?}"
    );

    let mut feeder = Feeder::connect(program.source);
    feeder.open(&Allocation::new("1795413634:alice", 1), 600).unwrap();
    billing.started("alice");
    program.until("the server", |status| {
        status["sources"]["eu-1"]["servers"][0]["state"] == "connected"
    });
    let healthy = program.command(&["doctor"]);
    assert_eq!(healthy.status.code(), Some(0), "{}", stdout(&healthy));
    assert!(
        stdout(&healthy).contains("coturns connected: 1"),
        "{}",
        stdout(&healthy)
    );
    let status = program.ask(&["status"]);
    assert!(
        status.contains("takes writes") && status.contains("eu-1") && status.contains("billing"),
        "{status}"
    );
    assert_eq!(
        program.objects(&["status"])[0]["sources"]["eu-1"]["open_sessions"],
        1
    );
    let mut watch =
        Process::start(command(program.directory.path()).args(["status", "--watch", "--interval", "100ms"]));
    eventually("two looks", || {
        let looks = watch
            .stdout()
            .iter()
            .filter(|line| line.starts_with("turnhook "))
            .count();
        (looks >= 2).then_some(())
    });
    watch.signal("INT");
    assert!(watch.wait().success());

    // A source that is in the store and no longer configured.
    program.stop();
    let file = program.directory.path().join("turnhook.toml");
    let text = std::fs::read_to_string(&file).unwrap();
    std::fs::write(&file, text.replace("eu-1", "eu-west")).unwrap();
    for asked in [&["check"][..], &["doctor"]] {
        let output = program.command(asked);
        let said = format!("{}{}", stdout(&output), stderr(&output));
        assert!(said.contains("source eu-1 (1 sessions, 1 allocations)"), "{said}");
        assert!(said.contains("`turnhook sources rename eu-1 NEW`"), "{said}");
    }
}

#[test]
fn a_doctor_names_what_is_missing() {
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let others = [(); 2].map(|()| std::net::TcpListener::bind("127.0.0.1:0").unwrap());
    let [admin, gate] = others.each_ref().map(|other| other.local_addr().unwrap());
    let directory = tempfile::tempdir().unwrap();
    let text = format!(
        "[[source]]\nname = \"eu-1\"\ntype = \"direct\"\nlisten = \"{}\"\npassword = \"sixteen-letters-\"\n\
         [[source]]\nname = \"us-1\"\ntype = \"redis\"\nurl = \"redis://127.0.0.1:9\"\n\
         [store]\npath = \"/nowhere/at/all/turnhook.db\"\n[http]\nlisten = \"127.0.0.1:{}\"\n\
         [admin]\nlisten = \"{admin}\"\ntokens_file = \"tokens\"\n\
         [[gate]]\nsource = \"eu-1\"\nrealm = \"example.org\"\nlisten = \"{gate}\"\nsecrets = \"sixteen-letters-\"\nallow_old = true\n\
         [[endpoint]]\nname = \"down\"\nurl = \"https://127.0.0.1:9/\"\nsecrets = [\"{SECRET}\"]\n\
         [[endpoint]]\nname = \"nobody\"\nurl = \"https://nobody.invalid/\"\nsecrets = [\"{SECRET}\"]\n",
        taken.local_addr().unwrap(),
        crate::harness::free_port(),
    );
    std::fs::write(directory.path().join("turnhook.toml"), text).unwrap();
    std::fs::write(directory.path().join("tokens"), TOKENS).unwrap();
    let output = command(directory.path()).arg("doctor").output().unwrap();
    assert_eq!(output.status.code(), Some(1), "{}", stderr(&output));
    let said = stdout(&output);
    for part in [
        "fail  store: there is no directory /nowhere/at/all",
        "another program has it",
        &format!("fail  admin: cannot listen on {admin}: "),
        &format!("fail  gate example.org: cannot listen on {gate}: "),
        "fail  source us-1: subscription: ",
        "fail  source us-1: commands: cannot connect: Connection refused (os error 111)",
        "fail  endpoint down: could not connect",
        "fail  endpoint nobody: the name nobody.invalid cannot be resolved",
    ] {
        assert!(said.contains(part), "no {part:?} in\n{said}");
    }
    assert!(!said.contains("Os {"), "{said}");
    std::fs::write(directory.path().join("turnhook.toml"), "[[source]]\nname = 5\n").unwrap();
    let output = command(directory.path()).arg("doctor").output().unwrap();
    assert_eq!(output.status.code(), Some(78), "{}", stderr(&output));
    assert!(
        stdout(&output).starts_with("fail  configuration: is wrong"),
        "{}",
        stdout(&output)
    );
}

/// A check that could not fail would be none.
#[test]
fn bodies_are_held_to_the_schema() {
    let samples = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../../schema/examples");
    let text = std::fs::read_to_string(samples.join("session.end.json")).unwrap();
    let body: Value = serde_json::from_str(&text).unwrap();
    assert_eq!(crate::harness::schema::faults(&body), Vec::<String>::new());
    let mut wrong = body.clone();
    wrong["data"]["usage"]["client"]["sent_bytes"] = "many".into();
    assert_eq!(crate::harness::schema::faults(&wrong).len(), 1);
    wrong["type"] = "session.other".into();
    assert_eq!(crate::harness::schema::faults(&wrong).len(), 1);
}
