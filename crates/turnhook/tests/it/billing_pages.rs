//! The pages of `examples/billing`, followed to the letter: their configurations, and the commands that they name.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::{Path, PathBuf},
    sync::{Arc, Mutex},
};

use serde_json::Value;

use crate::harness::{
    eventually,
    fakes::Fakes,
    feeder::Feeder,
    program::Program,
    receiver::{Receiver, Reply},
    turnhook,
};

/// The configurations of `examples/billing`, by page.
fn pages() -> Vec<(String, String)> {
    let mut found = Vec::new();
    for (name, text) in texts() {
        let blocks = text.split("```toml\n").skip(1);
        found.extend(blocks.map(|block| (name.clone(), block.split("```").next().unwrap().to_owned())));
    }
    found
}

/// The pages.
fn texts() -> Vec<(String, String)> {
    let folder = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../examples/billing");
    let paths = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    let pages = paths.filter(|path| path.extension().is_some_and(|extension| extension == "md"));
    let read = |path: PathBuf| {
        let name = path.file_name().unwrap().to_string_lossy().into_owned();
        (name, fs::read_to_string(&path).unwrap())
    };
    pages.map(read).collect()
}

/// What a configuration points to is in this folder: keys, and a map of customers.
fn furnish(endpoint: &str, folder: &Path) -> String {
    let at = folder.display();
    let endpoint = endpoint
        .replace("/run/secrets/", &format!("{at}/"))
        .replace("/etc/turnhook/", &format!("{at}/"));
    for line in endpoint.lines().filter(|line| line.contains("_file = \"")) {
        let file = line.split('"').nth(1).unwrap();
        let is_map = line.contains("customers");
        let text = if is_map {
            "user,customer\nalice,cus_alice\n"
        } else {
            "sk_test_1"
        };
        fs::write(file, text).unwrap();
    }
    endpoint
}

#[test]
fn each_pages_configuration_is_valid() {
    let pages = pages();
    assert!(pages.len() >= 9, "{pages:#?}");
    for (page, endpoint) in pages {
        let directory = tempfile::tempdir().unwrap();
        let endpoint = furnish(&endpoint, directory.path());
        let at = directory.path().display();
        let text = format!(
            "[[source]]\nname = \"eu-1\"\ntype = \"direct\"\nlisten = \"127.0.0.1:6380\"\npassword = \"p\"\n\
             [store]\npath = \"{at}/turnhook.db\"\n{endpoint}"
        );
        fs::write(directory.path().join("turnhook.toml"), text).unwrap();
        let output = turnhook::run(directory.path(), &["check"]);
        let said = turnhook::stderr(&output);
        assert!(output.status.success(), "{page}: {said}");
        assert!(!said.contains("warning"), "{page}: {said}");
    }
}

#[test]
fn every_preset_of_the_page_is_one() {
    let page = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../examples/billing/template.md");
    let page = fs::read_to_string(page).unwrap();
    let rows = page.lines().filter_map(|line| line.strip_prefix("| `"));
    let names: Vec<&str> = rows
        .take_while(|row| !row.starts_with("id`"))
        .filter_map(|row| row.split('`').next())
        .collect();
    assert_eq!(names.len(), 10, "{names:?}");
    for name in names {
        let directory = tempfile::tempdir().unwrap();
        let text = format!(
            "[[source]]\nname = \"eu-1\"\ntype = \"direct\"\nlisten = \"127.0.0.1:6380\"\n\
             [[endpoint]]\nname = \"x\"\ntype = \"template\"\nurl = \"https://billing.example.com\"\nbearer = \"t\"\n\
             meters = [{{ event = \"relay\", value = \"billable_bytes\" }}]\n[endpoint.options]\npreset = \"{name}\"\n"
        );
        fs::write(directory.path().join("turnhook.toml"), text).unwrap();
        let output = turnhook::run(directory.path(), &["check"]);
        assert!(output.status.success(), "{name}: {}", turnhook::stderr(&output));
    }
}

/// Each page's endpoint as it stands there, but for the address, which is the fake's.
fn at(url: &str, endpoint: &str) -> String {
    let mut text = String::new();
    for line in endpoint.lines().filter(|line| !line.starts_with("url = ")) {
        // For the impatient.
        text += &line.replace("wait = \"5s\"", "wait = \"1s\"");
        text += "\n";
        if line.starts_with("type = ") {
            text += &format!("url = \"{url}\"\n");
        }
    }
    text
}

fn name_of(endpoint: &str) -> &str {
    let line = endpoint.lines().find(|line| line.starts_with("name = ")).unwrap();
    line.split('"').nth(1).unwrap()
}

/// The product of the page for products without a file of their own: it takes what its template makes.
#[derive(Default)]
struct InHouse {
    bytes: BTreeMap<String, String>,
}

impl InHouse {
    fn take(&mut self, body: &[u8]) {
        let body: Value = serde_json::from_slice(body).unwrap();
        for usage in body["usage"].as_array().unwrap() {
            assert!(
                usage["customer"] == "alice" && usage["kind"] == "relay",
                "{usage}"
            );
            let id = usage["id"].as_str().unwrap().to_owned();
            self.bytes.insert(id, usage["gigabytes"].to_string());
        }
    }
}

/// A stranger follows all pages at once: tries each endpoint out, which bills nothing, sees usage at the product, and
/// looks at what was sent.
#[tokio::test(flavor = "multi_thread")]
async fn each_page_can_be_followed() {
    let fakes = Fakes::start(&[
        "events=cloudevents",
        "lago",
        "metronome",
        "openmeter",
        "orb",
        "polar",
        "stripe",
        "meteroid",
    ]);
    let ours = Arc::new(Mutex::new(InHouse::default()));
    let kept = Arc::clone(&ours);
    let in_house = Receiver::start(move |request| {
        if request.line.contains("/v1/usage/batch ") {
            kept.lock().unwrap().take(&request.body);
        }
        Reply::Status(200)
    })
    .await;
    let pages = pages();
    let names: Vec<&str> = pages.iter().map(|(_, endpoint)| name_of(endpoint)).collect();
    let mut program = Program::new("");
    let endpoints = pages.iter().map(|(_, endpoint)| {
        let url = match name_of(endpoint) {
            "in-house" => in_house.url().trim_end_matches('/').to_owned(),
            name => fakes.url(name).to_owned(),
        };
        at(&url, &furnish(endpoint, program.directory.path()))
    });
    program.configure(&endpoints.collect::<String>());

    // `endpoints test`, with every sample there is.
    let cases = ["exact", "lower-bound", "continues", "no-user", "many"];
    for name in &names {
        for event_type in ["session.start", "session.usage", "session.end"] {
            for case in cases {
                if event_type != "session.usage" && case != "exact" {
                    continue;
                }
                let shown = program.ask(&["endpoints", "test", name, "--type", event_type, "--case", case]);
                let nobody = case == "no-user" && *name != "events";
                let nothing = shown.contains("comes to nothing") || shown.contains("waits: its customer");
                let expected = if nobody {
                    shown.contains("is a dead letter (anonymous)")
                } else {
                    nothing || shown.contains("evt_test_")
                };
                assert!(expected, "{name} {event_type} {case}: {shown}");
                assert!(!shown.contains("sk_test_1"), "{name}: {shown}");
            }
        }
        if *name != "in-house" {
            assert_eq!(fakes.state(name)["requests"], 0, "{name} was sent something");
        }
    }

    program.start();
    let mut feeder = Feeder::connect(program.source);
    let bytes: u64 = (1..=4)
        .map(|id| feeder.call("alice", id))
        .map(|allocation| allocation.peer[1] + allocation.peer[3])
        .sum();
    let delivered = |name: &str| {
        program.objects(&[
            "deliveries",
            "list",
            "--state",
            "delivered",
            "--endpoint",
            name,
            "--limit",
            "100",
        ])
    };
    // Of starts without traffic only who is sent whole events hears, and who counts sessions; ends come after them.
    let is_end = |row: &&Value| row["type"] == "session.end";
    eventually("everything to be delivered", || {
        let all = |name: &&str| delivered(name).iter().filter(is_end).count() == 4;
        names.iter().all(all).then_some(())
    });
    for name in names.iter().filter(|name| **name != "in-house") {
        let value = if *name == "stripe" {
            "value"
        } else {
            "billable_bytes"
        };
        let sums = fakes.by_customer(name, value);
        // By what the page's map says, or by the user.
        let customers: Vec<&str> = sums.keys().map(String::as_str).collect();
        let expected = if customers == ["alice"] {
            "alice"
        } else {
            "cus_alice"
        };
        assert_eq!(sums, BTreeMap::from([(expected.to_owned(), bytes)]), "{name}");
    }
    // Thousand-millionths, with nine decimals.
    let gigabytes = ours.lock().unwrap().bytes.clone();
    let sum: f64 = gigabytes.values().map(|text| text.parse::<f64>().unwrap()).sum();
    assert_eq!((sum * 1e9).round(), bytes as f64);

    // `endpoints render` shows what was sent.
    for name in &names {
        let rows = delivered(name);
        let row = rows.iter().find(is_end).unwrap();
        let id = row["webhook_id"].as_str().unwrap();
        let rendered = program.ask(&["endpoints", "render", name, id]);
        assert!(
            rendered.starts_with("POST http://127.0.0.1:")
                && rendered.contains(id)
                && !rendered.contains("sk_test_1"),
            "{name}: {rendered}"
        );
        // Where a request carries one record, it is shown to the byte.
        if *name == "stripe" {
            let (_, body) = rendered.trim_end().split_once("\n\n").unwrap();
            let sent = fakes.requests(name);
            assert!(sent.iter().any(|request| request["body"] == body), "{rendered}");
        }
    }
    program.stop();
}

/// Every `turnhook …` on a page is a command with these options.
#[test]
fn commands_on_the_pages_are_there() {
    let mut helps: BTreeMap<String, String> = BTreeMap::new();
    let mut seen = BTreeSet::new();
    for (page, text) in texts() {
        // Line breaks within a command are only the page's.
        let text = text.replace('\n', " ");
        for command in text.split("`turnhook ").skip(1) {
            let command = command.split('`').next().unwrap();
            let words: Vec<&str> = command.split_whitespace().collect();
            let is_name = |word: &&&str| word.chars().all(|c| c.is_ascii_lowercase());
            let names: Vec<&str> = words.iter().take_while(is_name).copied().collect();
            let directory = tempfile::tempdir().unwrap();
            let help = helps.entry(names.join(" ")).or_insert_with(|| {
                let output = turnhook::run(directory.path(), &[&names[..], &["--help"]].concat());
                assert!(output.status.success(), "{page}: turnhook {command}");
                turnhook::stdout(&output).to_owned()
            });
            for option in words.iter().filter(|word| word.starts_with("--")) {
                assert!(help.contains(option), "{page}: turnhook {command}: {help}");
            }
            seen.insert(names.join(" "));
        }
    }
    for expected in [
        "check",
        "endpoints test",
        "endpoints render",
        "replay",
        "deliveries discard",
    ] {
        assert!(seen.contains(expected), "{seen:?}");
    }
}
