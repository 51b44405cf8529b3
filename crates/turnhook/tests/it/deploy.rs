//! What stands in `deploy/`, tried on the programs that it is for.

use std::{fs, path::PathBuf, process::Command};

use crate::harness::{
    coturn::{Coturn, Transport},
    eventually, free_port,
    process::Process,
    redis::Redis,
    turnhook::command,
};

fn deploy(name: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
        .join("../../deploy")
        .join(name)
}

/// Starts turnserver with a file, on ports of its own, and returns what it complains about.
fn complaints(config: &str) -> Vec<String> {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("turnserver.conf");
    fs::write(&file, config).unwrap();
    let port = free_port();
    let mut turnserver = Process::start(Command::new("turnserver").arg("-c").arg(&file).args([
        "--log-file=stdout".to_owned(),
        "--no-tls".to_owned(),
        "--no-dtls".to_owned(),
        "--listening-ip=127.0.0.1".to_owned(),
        format!("--listening-port={port}"),
        format!("--pidfile={}", directory.path().join("pid").display()),
        format!("--userdb={}", directory.path().join("turndb").display()),
    ]));
    let up = format!("UDP listener opened on: 127.0.0.1:{port}");
    turnserver.line("its listener", |line| line.contains(&up).then_some(()));
    let lines = turnserver.stdout().into_iter().chain(turnserver.stderr());
    lines
        .filter(|line| line.contains("Bad configuration") || line.contains("Wrong") || line.contains("rror"))
        .collect()
}

#[test]
fn turnserver_takes_every_line_of_the_fragment() {
    let fragment = fs::read_to_string(deploy("turnserver.conf")).unwrap();
    // Nothing listens where its redis-statsdb points to: that it may complain about.
    let about_the_fragment = |lines: Vec<String>| -> Vec<String> {
        lines.into_iter().filter(|line| !line.contains("edis")).collect()
    };
    assert_eq!(about_the_fragment(complaints(&fragment)), Vec::<String>::new());
    // The other form of redis-statsdb, and proof that a wrong line would have been seen.
    let other = fragment
        .replace("\nredis-statsdb", "\n#redis-statsdb")
        .replace("\n##redis", "\nredis");
    assert_eq!(about_the_fragment(complaints(&other)), Vec::<String>::new());
    assert_ne!(
        about_the_fragment(complaints(&format!("{fragment}\nmax-alocate-lifetime=3\n"))),
        Vec::<String>::new()
    );
}

/// With the fragment's users, coturn can publish all that it publishes, and turnhook's user can read what
/// turnhook reads and change nothing.
#[test]
fn redis_takes_the_fragment_and_its_users_can_do_their_work() {
    let directory = tempfile::tempdir().unwrap();
    let redis = Redis::start(directory.path(), &[deploy("redis.conf").to_str().unwrap()]);
    let turnhook = [
        "--no-auth-warning",
        "--user",
        "turnhook",
        "--pass",
        "change-me-too",
    ];
    let ask = |arguments: &[&str]| redis.ask(&[&turnhook, arguments].concat());
    assert_eq!(ask(&["ping"]), "PONG");
    for allowed in [
        &["get", "turn/realm/r/user/u/allocation/1/status"][..],
        &["object", "idletime", "turn/x"],
    ] {
        assert_eq!(ask(allowed), "", "{allowed:?}");
    }
    assert!(ask(&["scan", "0"]).starts_with('0'));
    for refused in [
        &["set", "turn/x", "1"][..],
        &["keys", "*"],
        &["get", "other"],
        &["flushall"],
        &["config", "get", "*"],
    ] {
        assert!(ask(refused).contains("NOPERM"), "{refused:?}: {}", ask(refused));
    }
    let mut subscriber = Process::start(
        Command::new("redis-cli")
            .args(["-p", &redis.port.to_string()])
            .args(turnhook)
            .args(["psubscribe", "turn/*"]),
    );
    subscriber.line("its subscription", |line| (line == "psubscribe").then_some(()));
    let statsdb = format!(
        "ip=127.0.0.1 port={} dbname=0 password=change-me connect_timeout=5",
        redis.port
    );
    let coturn = Coturn::start(directory.path(), &statsdb, &[]);
    let mut client = coturn.client("cust_42", Transport::Tcp, 20, 100);
    assert!(client.wait().success());
    let totals = || {
        subscriber
            .stdout()
            .iter()
            .filter(|line| line.contains("total_traffic/peer"))
            .count()
    };
    // One for each of the two channels and of the two probes.
    eventually("coturn's totals in Redis", || (totals() >= 4).then_some(()));
    let denied = redis.ask(&["--no-auth-warning", "-a", "change-me", "acl", "log"]);
    assert!(
        denied.contains("NOPERM"),
        "coturn's user cannot read the log: {denied}"
    );
}

/// The environment of each compose file is a configuration.
#[test]
fn the_compose_files_configure_turnhook() {
    for name in ["compose.yaml", "compose.redis.yaml"] {
        let directory = tempfile::tempdir().unwrap();
        for secret in ["coturn", "billing"] {
            fs::write(
                directory.path().join(secret),
                "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw\n",
            )
            .unwrap();
        }
        let text = fs::read_to_string(deploy(name)).unwrap();
        let mut check = command(directory.path());
        let mut count = 0;
        for line in text.lines().filter(|line| line.trim().starts_with("TURNHOOK_")) {
            let (variable, value) = line.trim().split_once(": ").unwrap();
            let value = value
                .trim_matches('"')
                .replace("/run/secrets", directory.path().to_str().unwrap());
            let value = if value.starts_with("${BILLING_URL") {
                "https://billing.example.com/".to_owned()
            } else {
                value
            };
            check.env(variable, value);
            count += 1;
        }
        assert!(count >= 6, "{name}");
        let output = check.arg("check").output().unwrap();
        assert!(
            output.status.success(),
            "{name}: {}",
            String::from_utf8_lossy(&output.stderr)
        );
    }
}

/// Where systemd is there to ask.
#[test]
fn systemd_takes_the_unit() {
    let directory = tempfile::tempdir().unwrap();
    let unit = fs::read_to_string(deploy("turnhook.service")).unwrap();
    // It looks for the program, which is installed elsewhere here.
    let unit = unit.replace("/usr/local/bin/turnhook", env!("CARGO_BIN_EXE_turnhook"));
    let verify = |text: &str| {
        let file = directory.path().join("turnhook.service");
        fs::write(&file, text).unwrap();
        Command::new("systemd-analyze").arg("verify").arg(&file).output()
    };
    let Ok(output) = verify(&unit) else {
        eprintln!("no systemd-analyze here: the unit was not checked");
        return;
    };
    assert_eq!(String::from_utf8_lossy(&output.stderr), "");
    assert!(output.status.success());
    let wrong = verify(&unit.replace("ProtectSystem", "ProtectSytem")).unwrap();
    assert!(!wrong.stderr.is_empty(), "a wrong line is not noticed");
}
