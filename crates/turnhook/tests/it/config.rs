//! Configuration: what is wrong is said, what is right is shown, and no secret is either.

use std::{
    fs,
    os::unix::{
        fs::{PermissionsExt as _, chown},
        process::CommandExt as _,
    },
    path::Path,
};

use crate::harness::turnhook::{command, run, stderr, stdout};

pub(crate) const SECRET: &str = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw";

/// Each file in `wrong-config/` gives exactly the message beside it, and status 78. With
/// `UPDATE_EXPECTED=1` the messages are written instead: read the difference before it is committed.
#[test]
fn wrong_configurations() {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/wrong-config");
    let update = std::env::var_os("UPDATE_EXPECTED").is_some();
    let mut seen = 0;
    for entry in fs::read_dir(&directory).unwrap() {
        let name = entry.unwrap().file_name().into_string().unwrap();
        let Some(stem) = name.strip_suffix(".toml") else {
            continue;
        };
        let output = run(&directory, &["check", "--config", &name]);
        assert_eq!(output.status.code(), Some(78), "{name}: {}", stderr(&output));
        assert_eq!(stdout(&output), "", "{name}");
        assert!(
            !stderr(&output).contains("hunter2"),
            "{name} shows a secret: {}",
            stderr(&output)
        );
        let expected = directory.join(format!("{stem}.stderr"));
        if update {
            fs::write(&expected, &output.stderr).unwrap();
        }
        let expected = fs::read_to_string(&expected).unwrap_or_default();
        assert_eq!(stderr(&output), expected, "{name}");
        seen += 1;
    }
    assert!(seen >= 25, "only {seen} wrong configurations were found");
}

#[test]
fn a_file_that_is_not_there() {
    let directory = tempfile::tempdir().unwrap();
    let output = run(directory.path(), &["check", "--config", "nowhere.toml"]);
    assert_eq!(output.status.code(), Some(78));
    assert_eq!(
        stderr(&output),
        "error: nowhere.toml: No such file or directory (os error 2); name another with --config FILE\n"
    );
}

#[test]
fn nothing_configured_at_all() {
    let directory = tempfile::tempdir().unwrap();
    let output = run(directory.path(), &["check"]);
    assert_eq!(output.status.code(), Some(78));
    assert!(
        stderr(&output).contains("there is no turnhook.toml here"),
        "{}",
        stderr(&output)
    );
}

/// The whole of it from the environment, as containers do it.
#[test]
fn from_the_environment_alone() {
    let directory = tempfile::tempdir().unwrap();
    let output = command(directory.path())
        .args(["check", "--format", "json"])
        .env("TURNHOOK_STORE__PATH", "/var/lib/turnhook/x.db")
        .env("TURNHOOK_SHUTDOWN_GRACE", "3s")
        .env("TURNHOOK_SOURCE__0__NAME", "007")
        .env("TURNHOOK_SOURCE__0__TYPE", "direct")
        .env("TURNHOOK_SOURCE__0__LISTEN", "0.0.0.0:6380")
        .env("TURNHOOK_SOURCE__0__PASSWORD", "0123456789")
        .env("TURNHOOK_SOURCE__0__PEER_LEG", "false")
        .env("TURNHOOK_ENDPOINT__0__NAME", "billing")
        .env("TURNHOOK_ENDPOINT__0__URL", "https://billing.example.com/turn")
        .env("TURNHOOK_ENDPOINT__0__SECRETS", format!("[\"{SECRET}\"]"))
        .env("TURNHOOK_ENDPOINT__0__CONCURRENCY", "3")
        // Options of commands, and what Kubernetes puts beside a Service named `turnhook`, are none.
        .env("TURNHOOK_LISTEN_SECRET", SECRET)
        .env("TURNHOOK_PORT", "tcp://10.0.0.1:80")
        .env("TURNHOOK_PORT_80_TCP_ADDR", "10.0.0.1")
        .env("TURNHOOK_SERVICE_HOST", "10.0.0.1")
        .env("TURNHOOK_SERVICE_PORT_HTTP", "80")
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
    let config: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(config["store"]["path"], "/var/lib/turnhook/x.db");
    assert_eq!(config["shutdown_grace"], "3s");
    assert_eq!(config["source"][0]["name"], "007", "a name of digits is a name");
    assert_eq!(config["source"][0]["peer_leg"], false);
    assert_eq!(config["source"][0]["password"], "***");
    assert_eq!(config["endpoint"][0]["concurrency"], 3);
    assert_eq!(config["endpoint"][0]["secrets"][0], "***");
}

#[test]
fn the_environment_goes_over_the_file_and_is_named_in_errors() {
    let directory = tempfile::tempdir().unwrap();
    let file = "[[source]]\nname = \"eu-1\"\ntype = \"direct\"\nlisten = \"127.0.0.1:6380\"\n[session]\nlinger = \"7s\"\n";
    fs::write(directory.path().join("turnhook.toml"), file).unwrap();
    let check = |name: &str, value: &str| {
        command(directory.path())
            .args(["check", "--format", "json"])
            .env(name, value)
            .output()
            .unwrap()
    };
    let output = check("TURNHOOK_SOURCE__0__LISTEN", "127.0.0.1:7000");
    let config: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(config["source"][0]["listen"], "127.0.0.1:7000");
    assert_eq!(config["source"][0]["name"], "eu-1");
    assert_eq!(config["session"]["linger"], "7s");
    assert_eq!(config["session"]["totals_grace"], "5s");
    for (name, value, message) in [
        (
            "TURNHOOK_SESSION__LINGRE",
            "1s",
            "environment: TURNHOOK_SESSION__LINGRE: session.lingre: unknown key; did you mean `linger`?",
        ),
        (
            "TURNHOOK_SESSION__LINGER",
            "soon",
            "environment: TURNHOOK_SESSION__LINGER: session.linger: `soon` is no duration",
        ),
        (
            "TURNHOOK_SOURCE__0__LISTEN",
            "0.0.0.0:1",
            "environment: TURNHOOK_SOURCE__0__LISTEN: source[0].listen: 0.0.0.0:1 can be reached",
        ),
        (
            "TURNHOOK_SOURCE__2__NAME",
            "x",
            "environment: TURNHOOK_SOURCE__2__NAME: source[2].name: there is no source[1] before it",
        ),
        (
            "TURNHOOK_STORE",
            "x",
            "environment: TURNHOOK_STORE: store: expected",
        ),
    ] {
        let output = check(name, value);
        assert_eq!(output.status.code(), Some(78), "{name}: {}", stderr(&output));
        assert!(stderr(&output).contains(message), "{name}: {}", stderr(&output));
    }
}

/// The files that it names are the operator's: here they stand in a directory of the test.
#[test]
fn the_example_is_a_good_configuration() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    let directory = tempfile::tempdir().unwrap();
    let example = fs::read_to_string(root.join("examples/turnhook.toml")).unwrap();
    let here = directory.path().to_str().unwrap();
    fs::write(
        directory.path().join("turnhook.toml"),
        example.replace("/etc/turnhook", here),
    )
    .unwrap();
    for (name, content) in [
        ("coturn.password", "hunter2"),
        ("redis.password", "hunter2"),
        ("support.token", "hunter2"),
        ("billing.secrets", SECRET),
        ("support.secrets", SECRET),
    ] {
        fs::write(directory.path().join(name), content).unwrap();
    }
    let output = run(directory.path(), &["check"]);
    assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
}

/// A line of each kind, of nobody.
const USERS: &str = "bob:viewer:$argon2id$v=19$m=19456,t=2,p=1$btJil9m3CZJDjNtzS3TA4g$atjHZ0YoSXOxIBH6bF2+peHlJJa98xeb0w/gr4YELFo\n";
pub(crate) const TOKENS: &str = "prog:viewer:$sha256$uzcbsB7vBvL_DmJvUMnlniOk-oX4UioxlSr90uxTkQg\n";

/// What users were told that they can write is right, and what of it does nothing is said.
#[test]
fn what_is_promised_is_a_good_configuration() {
    let directory = tempfile::tempdir().unwrap();
    let here = directory.path().to_str().unwrap();
    let promised = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/promised.toml");
    let text = fs::read_to_string(promised).unwrap();
    let text = text.replace("/etc/turnhook", here).replace("/run/secrets", here);
    fs::write(directory.path().join("turnhook.toml"), &text).unwrap();
    for (name, content) in [
        ("openmeter", "hunter2"),
        ("users", USERS),
        ("tokens", TOKENS),
        ("coturn-cli", "hunter2"),
        ("turn-rest", "sixteen-letters-"),
        ("customers.csv", "user,customer\n"),
    ] {
        fs::write(directory.path().join(name), content).unwrap();
    }
    let output = run(directory.path(), &["check"]);
    assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
    let idle = "endpoint[1].unknown: has no effect: it says what to do with whom the map lacks, and there is no `customers_file`";
    assert!(stderr(&output).contains(idle), "{}", stderr(&output));
    let mapped = text.replace(
        "unknown = \"hold\"",
        "unknown = \"hold\"\ncustomers_file = \"customers.csv\"",
    );
    fs::write(directory.path().join("turnhook.toml"), mapped).unwrap();
    let output = run(directory.path(), &["check"]);
    assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
    assert!(!stderr(&output).contains("unknown"), "{}", stderr(&output));
}

const SOURCE: &str = "[[source]]\nname = \"eu-1\"\ntype = \"direct\"\nlisten = \"127.0.0.1:0\"\npassword = \"sixteen-letters-\"\n";

/// Each way in which a file cannot be read has an advice of its own.
#[test]
fn a_file_that_cannot_be_read_says_what_to_do() {
    let directory = tempfile::tempdir().unwrap();
    let at = |name: &str| directory.path().join(name);
    fs::create_dir(at("conf.d")).unwrap();
    let output = run(directory.path(), &["check", "--config", "conf.d"]);
    assert_eq!(output.status.code(), Some(78));
    assert!(
        stderr(&output)
            .contains("it is a directory: name the file in it, like --config conf.d/turnhook.toml"),
        "{}",
        stderr(&output)
    );
    fs::write(at("latin1.toml"), b"# first\n# caf\xe9\n").unwrap();
    let output = run(directory.path(), &["check", "--config", "latin1.toml"]);
    assert_eq!(output.status.code(), Some(78));
    assert!(
        stderr(&output).contains("latin1.toml:2: holds a byte that is not UTF-8; save the file as UTF-8"),
        "{}",
        stderr(&output)
    );
    // Root may read everything: this is for those who are not.
    fs::write(at("secret.toml"), SOURCE).unwrap();
    fs::set_permissions(at("secret.toml"), fs::Permissions::from_mode(0o600)).unwrap();
    let mut check = command(Path::new("/"));
    check.arg("check").arg("--config").arg(at("secret.toml"));
    if are_root() {
        fs::set_permissions(directory.path(), fs::Permissions::from_mode(0o755)).unwrap();
        check.uid(65_534).gid(65_534);
    } else {
        fs::set_permissions(at("secret.toml"), fs::Permissions::from_mode(0o000)).unwrap();
    }
    let output = check.output().unwrap();
    assert_eq!(output.status.code(), Some(78));
    assert!(
        stderr(&output).contains(
            "this user may not read it: run the command as root or as the user that turnhook runs as"
        ),
        "{}",
        stderr(&output)
    );
    assert!(!stderr(&output).contains("name another"), "{}", stderr(&output));
}

/// Whoever checks as root can read everything, and the service that is to run may not.
#[test]
fn root_is_told_what_the_group_of_the_configuration_cannot_read() {
    if !are_root() {
        println!("LEFT OUT: only root can give a file to another group");
        return;
    }
    let group = 65_534;
    let directory = tempfile::tempdir().unwrap();
    let at = |name: &str| directory.path().join(name);
    let mode = |name: &str, mode: u32| {
        fs::set_permissions(at(name), fs::Permissions::from_mode(mode)).unwrap();
    };
    let text = format!(
        "{SOURCE}[[endpoint]]\nname = \"billing\"\nurl = \"https://billing.example.com/turn\"\nsecrets_file = \"secrets/billing\"\n"
    );
    fs::create_dir(at("secrets")).unwrap();
    fs::write(at("secrets/billing"), SECRET).unwrap();
    fs::write(at("turnhook.toml"), text).unwrap();
    mode("turnhook.toml", 0o640);
    mode("secrets", 0o755);
    mode("secrets/billing", 0o600);
    fs::set_permissions(directory.path(), fs::Permissions::from_mode(0o755)).unwrap();
    let said = || {
        let output = run(directory.path(), &["check"]);
        assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
        stderr(&output).to_owned()
    };
    assert_eq!(said(), "", "the configuration is root's own");

    chown(at("turnhook.toml"), None, Some(group)).unwrap();
    let kept = "secrets/billing is kept from group 65534, which the configuration belongs to";
    assert!(
        said().contains("turnhook.toml:9: endpoint[0].secrets_file: ") && said().contains(kept),
        "{}",
        said()
    );
    let doctor = run(directory.path(), &["doctor"]);
    assert!(stdout(&doctor).contains(kept), "{}", stdout(&doctor));
    // What is to be done is said, and is enough.
    let advice = said();
    let (_, advice) = advice.split_once('`').unwrap();
    let (advice, _) = advice.split_once('`').unwrap();
    let done = std::process::Command::new("sh")
        .args(["-c", advice])
        .status()
        .unwrap();
    assert!(done.success(), "{advice}");
    assert_eq!(said(), "", "{advice}");
    // So is a folder on the way, and what is the service's own.
    mode("secrets", 0o700);
    assert!(
        said().contains("/secrets is kept from group 65534") && said().contains("chmod g+x"),
        "{}",
        said()
    );
    chown(at("secrets"), Some(65_534), None).unwrap();
    assert_eq!(said(), "");
}

fn are_root() -> bool {
    fs::metadata("/proc/self").is_ok_and(|found| std::os::unix::fs::MetadataExt::uid(&found) == 0)
}

/// Variables of others do nothing; a slip in one of ours is told of the variable, and not of the file.
#[test]
fn variables_that_are_not_ours_break_nothing() {
    let directory = tempfile::tempdir().unwrap();
    fs::write(directory.path().join("turnhook.toml"), SOURCE).unwrap();
    let check = |name: &str, value: &str| {
        command(directory.path())
            .arg("check")
            .env(name, value)
            .output()
            .unwrap()
    };
    for other in ["TURNHOOK_SECRET", "TURNHOOK_HOME", "TURNHOOK_VERSION"] {
        let output = check(other, SECRET);
        assert_eq!((output.status.code(), stderr(&output)), (Some(0), ""), "{other}");
    }
    let output = check("TURNHOOK_STORE_PATH", "/x.db");
    assert_eq!(output.status.code(), Some(0));
    assert!(stderr(&output).contains("environment: TURNHOOK_STORE_PATH: is no key of the configuration, and does nothing; did you mean TURNHOOK_STORE__PATH?"), "{}", stderr(&output));
    let output = check("TURNHOOK_SESION__LINGER", "1s");
    assert_eq!(output.status.code(), Some(78));
    assert_eq!(
        stderr(&output),
        "error: environment: TURNHOOK_SESION__LINGER: sesion: unknown key; did you mean `session`?\n"
    );
}

/// A command that only looks into the store reads no secret of sources and endpoints.
#[test]
fn what_only_looks_into_the_store_needs_no_secrets() {
    let directory = tempfile::tempdir().unwrap();
    let text = "[[source]]\nname = \"eu-1\"\ntype = \"direct\"\nlisten = \"127.0.0.1:0\"\npassword_file = \"/nowhere/password\"\n\
        tls_cert = \"/nowhere/cert.pem\"\ntls_key = \"/nowhere/key.pem\"\n\
        [[source]]\nname = \"us-1\"\ntype = \"redis\"\nurl_file = \"/nowhere/url\"\nca_file = \"/nowhere/ca.pem\"\n\
        [[endpoint]]\nname = \"billing\"\nurl = \"https://billing.example.com/turn\"\nsecrets_file = \"/nowhere/secrets\"\n\
        bearer_file = \"/nowhere/token\"\nclient_cert = \"/nowhere/c.pem\"\nclient_key = \"/nowhere/k.pem\"\nca_file = \"/nowhere/ca.pem\"\n\
        [[endpoint]]\nname = \"support\"\nurl_file = \"/nowhere/url\"\nheaders_file = \"/nowhere/headers\"\nproxy_file = \"/nowhere/proxy\"\nsecrets_file = \"/nowhere/secrets\"\nbasic_file = \"/nowhere/login\"\n";
    fs::write(directory.path().join("turnhook.toml"), text).unwrap();
    for arguments in [
        &["sessions", "list"][..],
        &["deliveries", "list"],
        &["endpoints", "list"],
        &["usage"],
        &["gaps", "list"],
        &["endpoints", "pause", "billing"],
        &["backup", "copy.db"],
    ] {
        let output = run(directory.path(), arguments);
        let said = stderr(&output);
        assert!(
            said.contains("there is no store here") && !said.contains("/nowhere"),
            "{arguments:?}: {said}"
        );
    }
    for arguments in [&["check"][..], &["run"], &["endpoints", "test", "billing"]] {
        let output = run(directory.path(), arguments);
        assert_eq!(output.status.code(), Some(78), "{arguments:?}");
        assert!(
            stderr(&output).contains("/nowhere/secrets"),
            "{arguments:?}: {}",
            stderr(&output)
        );
    }
}

/// What is wrong with a file comes with what to do about it.
#[test]
fn a_file_that_is_not_there_says_how_it_comes_to_be() {
    let directory = tempfile::tempdir().unwrap();
    let admin =
        "[admin]\nlisten = \"127.0.0.1:0\"\nusers_file = \"users\"\ntls_cert = \"c\"\ntls_key = \"k\"\n";
    fs::write(directory.path().join("turnhook.toml"), format!("{SOURCE}{admin}")).unwrap();
    let output = run(directory.path(), &["check"]);
    let said = stderr(&output);
    for each in [
        "admin.users_file: cannot read users",
        "make it: `turnhook admin user NAME --role viewer` prints a line",
        "admin.tls_cert: cannot read c: No such file or directory (os error 2); make it, or correct its path",
    ] {
        assert!(said.contains(each), "{said}");
    }
}

/// What would keep a store from being opened is told by `check`, and in words at the start.
#[test]
fn a_store_that_cannot_be_there_is_told() {
    let directory = tempfile::tempdir().unwrap();
    let text =
        format!("{SOURCE}[store]\npath = \"/nowhere/at/all/x.db\"\n[http]\nlisten = \"127.0.0.1:0\"\n");
    fs::write(directory.path().join("turnhook.toml"), text).unwrap();
    let output = run(directory.path(), &["check"]);
    assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
    let advice =
        "there is no directory /nowhere/at/all; make it (`install -d -m 0750 -o USER /nowhere/at/all`";
    assert!(stderr(&output).contains(advice), "{}", stderr(&output));
    let output = run(directory.path(), &["run"]);
    assert_eq!(output.status.code(), Some(1));
    let last = stderr(&output).lines().last().unwrap();
    assert!(
        last.contains("/nowhere/at/all/x.db: ") && last.contains(advice),
        "{last}"
    );
}
