//! The shape of `--format json`: what programs are built on. A key that is renamed, or becomes something else, breaks them
//! in silence.

use std::{collections::BTreeMap, fs, path::Path};

use serde_json::Value;

use crate::harness::{
    billing::Billing,
    eventually,
    feeder::{Allocation, Feeder},
    program::{Program, endpoint},
    turnhook::stdout,
};

/// By its path: what stands there, `null` where nothing else was seen.
type Shape = BTreeMap<String, &'static str>;

fn shape(value: &Value, path: &str, shape: &mut Shape) {
    let kind = match value {
        Value::Object(object) => {
            for (key, value) in object {
                self::shape(value, &format!("{path}.{key}"), shape);
            }
            "object"
        }
        Value::Array(list) => {
            for value in list {
                self::shape(value, &format!("{path}[]"), shape);
            }
            "list"
        }
        Value::String(_) => "string",
        Value::Number(_) => "number",
        Value::Bool(_) => "bool",
        Value::Null => "null",
    };
    let known = shape.entry(path.to_owned()).or_insert(kind);
    if *known == "null" {
        *known = kind;
    }
    assert!(kind == "null" || *known == kind, "{path}: {known} and {kind}");
}

/// With `UPDATE_EXPECTED=1` the file is written instead: what is in it may be added to, and what goes breaks a program.
#[test]
fn what_programs_are_built_on_stays() {
    let billing = Billing::start();
    let gone = endpoint("down", "http://127.0.0.1:9/", "");
    let mut program = Program::new(&format!("{}{gone}", billing.endpoint()));
    program.start();
    let mut feeder = Feeder::connect(program.source);
    feeder.call("1795413634:alice", 1);
    feeder.open(&Allocation::new("1795413634:bob", 2), 600).unwrap();
    billing.ended("alice", 1);
    billing.started("bob");
    program.ask(&["block", "zed", "--reason", "for a trial"]);
    program.ask(&["endpoints", "pause", "down", "--reason", "for a trial"]);
    program.ask(&["replay", "--endpoint", "billing", "--state", "delivered"]);
    // A gap.
    program.kill();
    program.start();
    eventually("the gap of the restart", || {
        (!program.objects(&["gaps", "list"]).is_empty()).then_some(())
    });
    let session = program.objects(&["sessions", "list", "--user", "alice"])[0]["session_id"]
        .as_str()
        .unwrap()
        .to_owned();
    let event = eventually("what was replayed", || {
        let delivered = program.deliveries("delivered");
        Some(delivered.first()?["webhook_id"].as_str()?.to_owned())
    });
    let mut found: BTreeMap<String, Shape> = BTreeMap::new();
    for arguments in [
        &["sessions", "list"][..],
        &["sessions", "show", &session],
        &["sessions", "export"],
        &["sessions", "export", "--by", "session"],
        &["usage"],
        &["deliveries", "list"],
        &["deliveries", "show", &event],
        &["endpoints", "list"],
        &["gaps", "list"],
        &["blocks", "list"],
        &["replay", "--history"],
        &["status"],
        &["doctor"],
    ] {
        // A doctor may find something wrong, and says it all the same.
        let output = program.command(&[arguments, &["--format", "json"]].concat());
        let name = arguments.join(" ").replace(&session, "SESSION");
        let name = name.replace(&event, "EVENT");
        let shape = found.entry(name.clone()).or_default();
        for line in stdout(&output).lines() {
            let value = serde_json::from_str(line).unwrap_or_else(|error| panic!("{name}: {error}: {line}"));
            self::shape(&value, "", shape);
        }
        assert!(!shape.is_empty(), "{name} printed nothing");
    }
    program.stop();

    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/shapes.txt");
    if std::env::var_os("UPDATE_EXPECTED").is_some() {
        let lines = found.iter().flat_map(|(name, shape)| {
            let lines = shape.iter().filter(|(path, _)| !path.is_empty());
            lines.map(move |(path, kind)| format!("{name} {path} {kind}\n"))
        });
        fs::write(&file, lines.collect::<String>()).unwrap();
    }
    let expected = fs::read_to_string(&file).unwrap();
    let mut wrong = Vec::new();
    for line in expected.lines() {
        let (rest, kind) = line.rsplit_once(' ').unwrap();
        let (name, path) = rest.rsplit_once(' ').unwrap();
        let shape = found
            .get_mut(name)
            .unwrap_or_else(|| panic!("{name} is not asked"));
        match shape.remove(path) {
            None => wrong.push(format!("{line}: is gone")),
            // What there is not just now may be of either kind.
            Some(found) if found != kind && found != "null" && kind != "null" => {
                wrong.push(format!("{line}: is a {found}"));
            }
            Some(_) => {}
        }
    }
    // More may be told at any time.
    for (name, shape) in &found {
        for path in shape.keys().filter(|path| !path.is_empty()) {
            println!("not on record yet: {name} {path}; UPDATE_EXPECTED=1 puts it there");
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}
