//! No secret shows up in anything that the program says, wherever it was configured.

use std::fs;

use base64::{Engine as _, engine::general_purpose::STANDARD};

use crate::harness::{
    feeder::Feeder,
    free_port,
    process::Process,
    program::Program,
    receiver::{Receiver, Reply},
    turnhook::{self, stderr, stdout},
};

const SOURCE_PASSWORD: &str = "hunter2-source-password";
const REDIS_PASSWORD: &str = "hunter2-redis-password";
const URL_PASSWORD: &str = "hunter2-redis-url-password";
const FILE_PASSWORD: &str = "hunter2-redis-url-in-a-file";
const SIGNING: [&str; 3] = [
    "whsec_aHVudGVyMi1zaWduaW5nLW5vLTEtaGVyZQ==",
    "whsec_aHVudGVyMi1zaWduaW5nLW5vLTItaGVyZQ==",
    "whsec_aHVudGVyMi1zaWduaW5nLWluLWEtZmlsZQ==",
];
const HEADER: &str = "hunter2-header";
const BEARER: &str = "hunter2-bearer";
const BEARER_FILE: &str = "hunter2-bearer-in-a-file";
const BASIC: &str = "somebody:hunter2-basic";
const PROXY_PASSWORD: &str = "hunter2-proxy";
const FILED_HEADER: &str = "hunter2-header-in-a-file";
const QUERY: &str = "hunter2-in-the-query";
const STORE_PASSWORD: &str = "hunter2-postgres";

/// In every form in which it might slip out.
fn forms() -> Vec<String> {
    let mut forms: Vec<String> = [
        // Most of them, in clear.
        "hunter2",
        // What goes over the wire.
        &STANDARD.encode(BASIC),
        &STANDARD.encode(format!("somebody:{PROXY_PASSWORD}")),
    ]
    .map(str::to_owned)
    .to_vec();
    forms.extend(
        SIGNING
            .iter()
            .map(|secret| secret.trim_start_matches("whsec_").to_owned()),
    );
    // A part of one is too much, too: 18 letters of what was encoded.
    forms.extend(
        forms
            .clone()
            .iter()
            .filter(|one| one.len() > 18)
            .map(|one| one[..18].to_owned()),
    );
    forms
}

#[track_caller]
fn assert_hidden(what: &str, text: &str) {
    for form in forms() {
        if let Some(at) = text.find(&form) {
            let around: String = text[at.saturating_sub(300)..].chars().take(400).collect();
            panic!("{what} shows a secret: {around}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn no_secret_is_ever_shown() {
    let good = Receiver::start(|_| Reply::Status(200)).await;
    let bad =
        Receiver::start(|request| Reply::Status(if request.line.contains("422") { 422 } else { 500 })).await;
    // Stands in the way of one endpoint, as its proxy.
    let proxy = Receiver::start(|_| Reply::Status(502)).await;
    let nobody = free_port();
    let mut program = Program::new("");
    let folder = program.directory.path().to_owned();
    let file = |name: &str, text: &str| {
        fs::write(folder.join(name), format!("{text}\n")).unwrap();
        name.to_owned()
    };
    let (signing_file, bearer_file) = (file("signing", SIGNING[2]), file("bearer", BEARER_FILE));
    let redis_file = file("redis", &format!("redis://:{FILE_PASSWORD}@127.0.0.1:{nobody}"));
    let password_file = file("password", REDIS_PASSWORD);
    let proxy_address = proxy
        .url()
        .trim_start_matches("http://")
        .trim_end_matches("/turn")
        .to_owned();
    let url_file = file("url", &format!("http://127.0.0.1:{nobody}/filed?token={QUERY}"));
    let headers_file = file("headers", &format!("X-Filed: {FILED_HEADER}"));
    let proxy_file = file(
        "proxy",
        &format!("http://somebody:{PROXY_PASSWORD}@{proxy_address}"),
    );
    let config = format!(
        r#"
shutdown_grace = "1s"
[[source]]
name = "eu-1"
type = "direct"
listen = "127.0.0.1:{source}"
password = "{SOURCE_PASSWORD}"
[[source]]
name = "us-1"
type = "redis"
url = "redis://somebody:{URL_PASSWORD}@127.0.0.1:{nobody}"
[[source]]
name = "us-2"
type = "redis"
url_file = "{redis_file}"
[[source]]
name = "us-3"
type = "redis"
url = "rediss://127.0.0.1:{nobody}"
user = "somebody"
password_file = "{password_file}"
[session]
group_by = "allocation"
linger = "0s"
[http]
listen = "127.0.0.1:{http}"
[[endpoint]]
name = "good"
url = "{good}?token={QUERY}"
secrets = ["{}", "{}"]
headers = {{ x-key = "{HEADER}" }}
bearer = "{BEARER}"
[[endpoint]]
name = "bad"
url = "{bad}/500?token={QUERY}"
secrets_file = "{signing_file}"
basic = "{BASIC}"
[[endpoint]]
name = "rejected"
url = "{bad}/422?token={QUERY}"
secrets = ["{}"]
bearer_file = "{bearer_file}"
[[endpoint]]
name = "behind"
url = "http://127.0.0.1:{nobody}/turn?token={QUERY}"
secrets = ["{}"]
proxy = "http://somebody:{PROXY_PASSWORD}@{proxy_address}"
[[endpoint]]
name = "filed"
url_file = "{url_file}"
headers_file = "{headers_file}"
proxy_file = "{proxy_file}"
secrets = ["{}"]
[[endpoint]]
name = "nobody"
url = "http://127.0.0.1:{nobody}/turn?token={QUERY}"
secrets = ["{}"]
[log]
level = "trace"
"#,
        SIGNING[0],
        SIGNING[1],
        SIGNING[0],
        SIGNING[1],
        SIGNING[0],
        SIGNING[1],
        source = program.source,
        http = program.http,
        good = good.url(),
        bad = bad.url(),
    );
    let path = folder.join("turnhook.toml");
    fs::write(&path, &config).unwrap();

    for arguments in [&["check"][..], &["check", "--format", "json"]] {
        let checked = program.ask(arguments);
        assert!(checked.contains("behind"), "{checked}");
        assert_hidden("check", &checked);
    }
    program.start();
    let mut record = Process::start(turnhook::command(&folder).args(["record", "--source", "eu-1"]));
    record.line("the recording", |line| line.contains("recording").then_some(()));
    let stranger = Feeder::login(program.source, "a guess");
    Feeder::login(program.source, SOURCE_PASSWORD).call("alice", 1);
    drop(stranger);
    program.until("deliveries, dead letters and failures", |status| {
        let endpoints = &status["endpoints"];
        endpoints["good"]["pending"] == 0
            && endpoints["good"]["last_delivered_at"].is_string()
            && endpoints["rejected"]["dead_letters"] == 2
            && ["bad", "behind", "filed", "nobody"]
                .iter()
                .all(|name| endpoints[*name]["last_error"].is_string())
            && ["us-1", "us-2", "us-3"]
                .iter()
                .all(|name| status["sources"][*name]["last_error"].is_string())
    });
    record.line("a message", |line| line.contains("total_traffic").then_some(()));

    // They are in use, each of them.
    let header = |receiver: &Receiver, name: &str| receiver.received()[0].header(name).to_owned();
    assert_eq!(header(&good, "authorization"), format!("Bearer {BEARER}"));
    assert_eq!(header(&good, "x-key"), HEADER);
    assert!(good.received()[0].line.contains(QUERY));
    let logins: Vec<String> = bad
        .received()
        .iter()
        .map(|one| one.header("authorization").to_owned())
        .collect();
    assert!(logins.contains(&format!("Basic {}", STANDARD.encode(BASIC))));
    assert!(logins.contains(&format!("Bearer {BEARER_FILE}")));
    let login = STANDARD.encode(format!("somebody:{PROXY_PASSWORD}"));
    assert_eq!(header(&proxy, "proxy-authorization"), format!("Basic {login}"));
    {
        let received = proxy.received();
        let filed = received.iter().find(|one| one.line.contains("/filed")).unwrap();
        assert!(filed.line.contains(QUERY), "{}", filed.line);
        assert_eq!(filed.header("x-filed"), FILED_HEADER);
        assert_eq!(filed.header("proxy-authorization"), format!("Basic {login}"));
    }

    for path in ["/status", "/metrics", "/readyz", "/record/nowhere"] {
        assert_hidden(path, &program.get(path).1);
    }
    let event = program.deliveries("dead")[0]["webhook_id"]
        .as_str()
        .unwrap()
        .to_owned();
    let session = program.deliveries("dead")[0]["session_id"]
        .as_str()
        .unwrap()
        .to_owned();
    let outputs = |arguments: &[&str]| {
        let output = program.command(arguments);
        assert_hidden(
            &format!("{arguments:?}"),
            &format!("{}{}", stdout(&output), stderr(&output)),
        );
    };
    for command in [
        &["endpoints", "list"][..],
        &["endpoints", "list", "--format", "json"],
        &["endpoints", "test", "good"],
        &["endpoints", "test", "bad"],
        &["endpoints", "test", "behind"],
        &["endpoints", "test", "filed"],
        &["endpoints", "test", "nobody"],
        &["endpoints", "test", "unknown"],
        &["endpoints", "render", "rejected", &event],
        &["deliveries", "list"],
        &["deliveries", "list", "--format", "json"],
        &["deliveries", "show", &event],
        &["deliveries", "show", &event, "--format", "json"],
        &["sessions", "list"],
        &["sessions", "show", &session],
        &["sessions", "export"],
        &["replay", "--dry-run"],
        &["replay"],
        &["replay", "--history"],
        // The store is taken.
        &["run"],
    ] {
        outputs(command);
    }
    record.signal("INT");
    record.wait();
    assert_hidden("record", &record.output());
    let log = program.stop().join("\n");
    assert!(
        log.contains("\"TRACE\"") && log.contains("us-3"),
        "nothing was logged"
    );
    assert_hidden("the log", &log);
    for entry in fs::read_dir(&folder).unwrap() {
        let path = entry.unwrap().path();
        if path.file_name().unwrap().to_string_lossy().contains(".db") {
            assert_hidden("the store", &String::from_utf8_lossy(&fs::read(path).unwrap()));
        }
    }

    // Mistakes in files.
    for (name, wrong) in [
        ("url", "hunter2 is no URL"),
        ("proxy", "hp://somebody:hunter2@127.0.0.1"),
        ("headers", "hunter2-without-a-name"),
        ("headers", "X-Filed: hunter2\nx-filed: hunter2"),
        ("headers", "X Filed: hunter2"),
    ] {
        let right = fs::read_to_string(folder.join(name)).unwrap();
        file(name, wrong);
        let output = program.command(&["check"]);
        assert_eq!(output.status.code(), Some(78), "{name}: {}", stderr(&output));
        let key = format!("endpoint[4].{name}_file: ");
        assert!(stderr(&output).contains(&key), "{}", stderr(&output));
        assert_hidden(name, &format!("{}{}", stdout(&output), stderr(&output)));
        file(name, right.trim_end());
    }

    // Mistakes beside them, and in them.
    let mistakes: [(&str, &str); 9] = [
        ("password = \"", "pasword = \""),
        ("password = \"hunter2", "password = hunter2"),
        ("bearer = \"", "bearer = [\""),
        ("secrets = [\"whsec_", "secrets = [\"hunter2"),
        ("secrets = [\"whsec_aHV", "secrets = [\"whsec_?aHV"),
        ("basic = \"somebody:", "basic = \"somebody-"),
        ("url = \"redis://", "url = \"radis://"),
        ("proxy = \"http://", "proxy = \"hp://"),
        (
            "[log]",
            &format!("[store]\nurl = \"postgres://u:{STORE_PASSWORD}@127.0.0.1/x\"\n[log]"),
        ),
    ];
    for (right, wrong) in mistakes {
        assert!(config.contains(right), "{right}");
        fs::write(&path, config.replacen(right, wrong, 1)).unwrap();
        for command in [
            &["check"][..],
            &["run"],
            &["endpoints", "test", "good"],
            &["replay"],
        ] {
            let output = program.command(command);
            let store = wrong.contains("postgres");
            assert!(
                store || output.status.code() == Some(78),
                "{wrong}: {}",
                stderr(&output)
            );
            assert_hidden(wrong, &format!("{}{}", stdout(&output), stderr(&output)));
        }
    }
}
