//! What stands in `deploy/`, tried on the programs that it is for.

use std::{fs, net::IpAddr, path::PathBuf, process::Command};

use serde_json::Value;

use crate::harness::{
    coturn::{Coturn, Transport, turnserver},
    eventually, free_port,
    process::Process,
    redis::Redis,
    turnhook::command,
};

pub(crate) fn deploy(name: &str) -> PathBuf {
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
    let mut turnserver = Process::start(turnserver().arg("-c").arg(&file).args([
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

/// The ranges of addresses that clients cannot relay to.
fn denied<'a>(lines: impl Iterator<Item = &'a str>) -> Vec<&'a str> {
    lines
        .filter_map(|line| line.trim_start_matches("--").strip_prefix("denied-peer-ip="))
        .collect()
}

/// What every coturn is to be told: no client can have it name another realm, and none can take all of its memory.
const NEEDED: [&str; 4] = [
    "no-tcp-relay",
    "no-multicast-peers",
    "user-quota=24",
    "total-quota=20000",
];

/// Through a relay a client reaches what coturn's machine reaches.
#[test]
fn clients_are_kept_from_the_inside_wherever_coturn_runs() {
    let fragment = fs::read_to_string(deploy("turnserver.conf")).unwrap();
    let ranges = denied(fragment.lines());
    let address = |text: &str| -> IpAddr { text.parse().unwrap_or_else(|e| panic!("{text}: {e}")) };
    let is_denied = |ip: &str| {
        let ip = address(ip);
        ranges.iter().any(|range| {
            let (first, last) = range.split_once('-').unwrap_or((range, range));
            let (first, last) = (address(first), address(last));
            assert_eq!(first.is_ipv4(), last.is_ipv4(), "{range}");
            first.is_ipv4() == ip.is_ipv4() && (first..=last).contains(&ip)
        })
    };
    for inside in [
        "0.0.0.0",
        "10.1.2.3",
        "100.64.0.1",
        "100.100.100.200",
        "127.0.0.1",
        "168.63.129.16",
        "169.254.169.254",
        "172.31.255.255",
        "192.0.0.192",
        "192.168.1.1",
        "198.18.0.1",
        "255.255.255.255",
        "::",
        "::1",
        "::10.0.0.1",
        "::ffff:10.0.0.1",
        "64:ff9b::a00:1",
        "64:ff9b:1::a00:1",
        "2001::a00:1",
        "2002:a00:1::",
        "fd00:ec2::254",
        "fe80::1",
        "fec0::1",
    ] {
        assert!(is_denied(inside), "{inside}");
    }
    for outside in [
        "8.8.8.8",
        "100.63.0.1",
        "100.128.0.1",
        "168.63.129.17",
        "192.0.1.1",
        "2001:4860::1",
        "2606::1",
    ] {
        assert!(!is_denied(outside), "{outside}");
    }
    for name in ["compose.yaml", "compose.redis.yaml", "compose.cluster.yaml"] {
        let file = &yaml(name)[0];
        let command = file["services"]["coturn"]["command"].as_array().unwrap();
        let options: Vec<_> = command.iter().filter_map(Value::as_str).collect();
        assert_eq!(denied(options.iter().copied()), ranges, "{name}");
        for needed in NEEDED {
            assert!(
                options.contains(&format!("--{needed}").as_str()),
                "{name}: {needed}"
            );
        }
        // Older than 4.13, a stranger's username stops it.
        assert_eq!(
            file["services"]["coturn"]["image"], "coturn/coturn:4.17",
            "{name}"
        );
    }
    for needed in NEEDED {
        assert!(fragment.lines().any(|line| line == needed), "{needed}");
    }
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
    // All that a doctor asks a Redis for, its clock too, which is told nowhere else if it may not be asked for.
    let url = format!("redis://turnhook:change-me-too@127.0.0.1:{}", redis.port);
    let source = format!("[[source]]\nname = \"eu-1\"\ntype = \"redis\"\nurl = \"{url}\"\n");
    fs::write(directory.path().join("turnhook.toml"), source).unwrap();
    let doctor = command(directory.path()).arg("doctor").output().unwrap();
    let said = String::from_utf8_lossy(&doctor.stdout).into_owned();
    assert!(said.contains("agrees with that of the Redis of eu-1"), "{said}");
    assert!(!said.contains("NOPERM"), "{said}");
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
    // A key that can be set and not deleted is an allocation that is over and looks open.
    let delete = ["--no-auth-warning", "-a", "change-me", "del", "turn/x", ""];
    assert_eq!(redis.ask(&delete), "0");
    let left = || ask(&["scan", "0", "count", "1000"]);
    eventually("the keys of what has ended to go", || {
        (!left().contains("turn/")).then_some(())
    });
    let denied = redis.ask(&["--no-auth-warning", "-a", "change-me", "acl", "log"]);
    assert!(
        denied.contains("NOPERM"),
        "coturn's user cannot read the log: {denied}"
    );
}

/// Whatever a `docker compose` would put into a container's place.
pub(crate) const SECRETS: [(&str, &str); 5] = [
    ("coturn", "change-me"),
    ("billing", "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"),
    (
        "store-url",
        "postgres://turnhook:change-me@postgres/turnhook?sslmode=disable",
    ),
    ("redis-password", "change-me"),
    ("postgres", "change-me"),
];

pub(crate) fn yaml(name: &str) -> Vec<Value> {
    let text = fs::read_to_string(deploy(name)).unwrap();
    serde_saphyr::from_multiple(&text).unwrap_or_else(|error| panic!("{name}: {error}"))
}

/// Each node of each compose file has an environment that is a configuration, and what it names is there.
#[test]
fn the_compose_files_configure_turnhook() {
    for (name, nodes) in [
        ("compose.yaml", 1),
        ("compose.redis.yaml", 1),
        ("compose.cluster.yaml", 2),
    ] {
        let file = &yaml(name)[0];
        let services = file["services"].as_object().unwrap();
        let mut seen = Vec::new();
        for (service, node) in services.iter().filter(|(name, _)| name.starts_with("turnhook")) {
            let directory = tempfile::tempdir().unwrap();
            for secret in node["secrets"].as_array().unwrap() {
                let secret = secret.as_str().unwrap();
                assert!(file["secrets"][secret]["file"].is_string(), "{name}: {secret}");
                let (_, content) = SECRETS.iter().find(|(name, _)| *name == secret).unwrap();
                fs::write(directory.path().join(secret), content).unwrap();
            }
            let mut check = command(directory.path());
            for (variable, value) in node["environment"].as_object().unwrap() {
                let value = value.as_str().unwrap();
                let value = value.replace("/run/secrets", directory.path().to_str().unwrap());
                let value = if value.starts_with("${BILLING_URL") {
                    "https://billing.example.com/".to_owned()
                } else {
                    value
                };
                check.env(variable, value);
            }
            let output = check.args(["check", "--format", "json"]).output().unwrap();
            assert!(
                output.status.success(),
                "{name}: {service}: {}",
                String::from_utf8_lossy(&output.stderr)
            );
            let config: Value = serde_json::from_slice(&output.stdout).unwrap();
            seen.push((node["ports"][0].as_str().unwrap(), config));
            for needed in node["depends_on"].as_object().into_iter().flatten() {
                assert!(services.contains_key(needed.0), "{name}: {needed:?}");
            }
        }
        assert_eq!(seen.len(), nodes, "{name}");
        if let [(port, one), (other_port, other)] = &mut seen[..] {
            // The same but for what tells them apart.
            assert_ne!(port, other_port, "{name}");
            assert_ne!(one["store"]["node"], other["store"]["node"], "{name}");
            assert!(one["store"]["url_file"].is_string());
            for config in [&mut *one, &mut *other] {
                config["store"]["node"] = Value::Null;
                // Each has secrets in a directory of its own here.
                config["store"]["url_file"] = Value::Null;
                config["endpoint"][0]["secrets_file"] = Value::Null;
            }
            assert_eq!(one, other, "{name}");
        }
    }
}

/// What a process holds in memory, secrets among it, is not to lie on a disk after a crash.
#[test]
fn nothing_that_is_deployed_leaves_a_core_file() {
    let mut units = 0;
    let mut folders = vec![deploy("")];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|extension| extension == "service") {
                let unit = fs::read_to_string(&path).unwrap();
                let (_, service) = unit.split_once("[Service]").unwrap();
                let service = service.split("\n[").next().unwrap();
                let limits: Vec<&str> = service
                    .lines()
                    .filter(|line| line.starts_with("LimitCORE"))
                    .collect();
                assert_eq!(limits, ["LimitCORE=0"], "{}", path.display());
                units += 1;
            }
        }
    }
    assert!(units > 0, "there is no unit");
    for name in ["compose.yaml", "compose.redis.yaml", "compose.cluster.yaml"] {
        for file in yaml(name) {
            let services = file["services"].as_object().unwrap().iter();
            for (service, of) in services.filter(|(service, _)| service.starts_with("turnhook")) {
                assert_eq!(of["ulimits"]["core"], 0, "{name}: {service}");
            }
        }
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
