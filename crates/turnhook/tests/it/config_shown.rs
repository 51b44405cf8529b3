//! `turnhook check`: what holds is shown, what is doubtful is said, and no secret is either.

use std::fs;

use crate::config::SECRET;
use crate::harness::{
    process::Process,
    turnhook::{command, run, stderr, stdout},
};

/// Every way of giving a secret, and none of them shown.
#[test]
fn check_shows_what_holds_and_hides_secrets() {
    let directory = tempfile::tempdir().unwrap();
    let at = |name: &str| directory.path().join(name);
    fs::write(at("password"), "hunter2-file\n").unwrap();
    fs::write(at("secrets"), format!("{SECRET}\n")).unwrap();
    fs::write(at("url"), "redis://u:hunter2-url@127.0.0.1:6379\n").unwrap();
    let file = format!(
        r#"
        [[source]]
        name = "eu-1"
        type = "direct"
        listen = "[::]:6380"
        user = "coturn"
        password_file = "password"
        [[source]]
        name = "us-1"
        type = "redis"
        url = "redis://someone:hunter2-in-url@127.0.0.1:6379/1"
        [[source]]
        name = "us-2"
        type = "redis"
        url_file = "url"
        password = "hunter2-plain"
        [[endpoint]]
        name = "billing"
        url = "https://billing.example.com/turn"
        secrets = ["{SECRET}"]
        headers = {{ x-token = "hunter2-header" }}
        basic = "turnhook:hunter2-basic"
        proxy = "http://turnhook:hunter2-proxy@proxy.example.com:3128"
        [[endpoint]]
        name = "support"
        url = "https://support.example.com/turn"
        secrets_file = "secrets"
        bearer = "hunter2-bearer"
        rate_limit = "unlimited"
        "#
    );
    fs::write(at("turnhook.toml"), &file).unwrap();
    for format in ["text", "json"] {
        let output = run(directory.path(), &["check", "--format", format]);
        assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
        for text in [stdout(&output), stderr(&output)] {
            assert!(!text.contains("hunter2") && !text.contains(SECRET), "{text}");
        }
    }
    let output = run(directory.path(), &["check"]);
    // What is shown is a configuration again.
    let shown: toml::Table = stdout(&output).parse().unwrap();
    assert_eq!(shown["source"][0]["password_file"].as_str(), Some("password"));
    assert_eq!(
        shown["source"][1]["url"].as_str(),
        Some("redis://someone:***@127.0.0.1:6379/1")
    );
    assert_eq!(shown["endpoint"][1]["rate_limit"].as_str(), Some("unlimited"));
    assert_eq!(shown["endpoint"][0]["timeout"].as_str(), Some("15s"));
    assert_eq!(shown["session"]["residue"].as_str(), Some("64KiB"));
}

/// A store in PostgreSQL: from the file, from a secret's file, from the environment; its password is nowhere.
#[test]
fn a_store_in_postgres() {
    let directory = tempfile::tempdir().unwrap();
    let at = |name: &str| directory.path().join(name);
    let source = "[[source]]\nname = \"eu-1\"\ntype = \"direct\"\nlisten = \"127.0.0.1:6380\"\n";
    fs::write(
        at("store-url"),
        "postgres://turnhook:hunter2@db.example.com/turnhook\n",
    )
    .unwrap();
    let key = rcgen::generate_simple_self_signed(["db.example.com".to_owned()]).unwrap();
    fs::write(at("ca.pem"), key.cert.pem()).unwrap();
    let url = "postgres://turnhook:hunter2@10.0.0.9:5433,10.0.0.10/turnhook?sslmode=verify-full";
    for (more, env, place, node) in [
        (
            format!(
                "[store]\nurl = \"{url}\"\nnode = \"turnhook-1\"\nlease = \"30s\"\nca_file = \"ca.pem\"\n"
            ),
            None,
            "postgres://10.0.0.9:5433,10.0.0.10:5432/turnhook",
            Some("turnhook-1"),
        ),
        (
            "[store]\nurl_file = \"store-url\"\nca_file = \"ca.pem\"\n".to_owned(),
            None,
            "postgres://db.example.com:5432/turnhook",
            None,
        ),
        (
            String::new(),
            Some(("TURNHOOK_STORE__URL", "postgresql://u:hunter2@[::1]:6432/th")),
            "postgres://[::1]:6432/th",
            None,
        ),
        (
            "[store]\nurl_file = \"store-url\"\n".to_owned(),
            Some(("TURNHOOK_STORE__NODE", "7")),
            "postgres://db.example.com:5432/turnhook",
            Some("7"),
        ),
    ] {
        fs::write(at("turnhook.toml"), format!("{source}{more}")).unwrap();
        let check = |format: &str| {
            let mut check = command(directory.path());
            check.args(["check", "--format", format]).envs(env);
            let output = check.output().unwrap();
            assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
            let text = stdout(&output).to_owned();
            assert!(!(text.clone() + stderr(&output)).contains("hunter2"), "{text}");
            text
        };
        let text = check("text");
        let said = text.lines().next().unwrap();
        assert!(
            said.starts_with(&format!("# The store: PostgreSQL, \"{place}\"; this node: \"")),
            "{said}"
        );
        let shown: toml::Table = text.parse().unwrap();
        // The default of a key that is not used is not shown.
        assert!(!shown["store"].as_table().unwrap().contains_key("path"), "{text}");
        let config: serde_json::Value = serde_json::from_str(&check("json")).unwrap();
        assert_eq!(config["store"]["node"].as_str(), node);
        match node {
            Some(node) => assert!(said.ends_with(&format!("\"{node}\"")), "{said}"),
            None => assert!(!said.ends_with("\"\""), "{said}"),
        }
    }
    // And where it is not.
    fs::write(at("turnhook.toml"), source).unwrap();
    let output = run(directory.path(), &["check"]);
    let path = at("turnhook.db")
        .canonicalize()
        .unwrap_or_else(|_| at("turnhook.db"));
    assert!(
        stdout(&output).starts_with(&format!("# The store: SQLite, {path:?}\n")),
        "{}",
        stdout(&output)
    );
}

/// Whom a username would be billed to can be seen before anybody is billed.
#[test]
fn check_shows_what_usernames_come_to() {
    let directory = tempfile::tempdir().unwrap();
    let nobody = "no user, so that each allocation is a session of its own";
    for (session, users) in [
        (
            "",
            [
                r#"user "cust_42""#,
                nobody,
                r#"user "cust_42""#,
                r#"user "1:victim""#,
            ],
        ),
        (
            r"user_pattern = '^(?P<user>.*)$'",
            [
                r#"user "1795413634:cust_42""#,
                r#"user "1795413634""#,
                r#"user "cust_42""#,
                r#"user "1:victim""#,
            ],
        ),
        (
            "user_pattern = '^\\d+:(?P<user>.+)$'\ngroup_by = \"username\"",
            [r#"user "cust_42""#, "no user", "no user", r#"user "victim""#],
        ),
    ] {
        let source = "[[source]]\nname = \"eu-1\"\ntype = \"direct\"\nlisten = \"127.0.0.1:6380\"\n";
        let text = format!("{source}[session]\n{session}\n");
        fs::write(directory.path().join("turnhook.toml"), text).unwrap();
        let output = run(directory.path(), &["check"]);
        assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
        let shown = stdout(&output);
        let usernames = ["1795413634:cust_42", "1795413634", "cust_42", "1:victim"];
        for (username, user) in usernames.iter().zip(users) {
            let line = format!("#   {:<20}  {user}", format!("{username:?}"));
            assert!(shown.lines().any(|one| one == line), "no `{line}` in\n{shown}");
        }
        shown.parse::<toml::Table>().unwrap();
    }
}

/// A source that anybody on the machine can write to, and passwords that others could guess: right, and warned of, by `check`
/// and at the start. What coturn could not send is wrong.
#[test]
fn sources_that_others_could_write_to_are_warned_of() {
    let directory = tempfile::tempdir().unwrap();
    let write = |listen: &str, more: &str| {
        let http = "[http]\nlisten = \"127.0.0.1:0\"\n";
        let text =
            format!("[[source]]\nname = \"eu-1\"\ntype = \"direct\"\nlisten = \"{listen}\"\n{more}\n{http}");
        fs::write(directory.path().join("turnhook.toml"), text).unwrap();
    };
    for (listen, more, warning) in [
        (
            "127.0.0.1:0",
            "",
            "turnhook.toml:4: source[0].listen: without `password` anybody on this machine",
        ),
        ("[::1]:0", "", "anybody on this machine can connect to [::1]:0"),
        ("127.0.0.1:0", "password = \"short\"", ""),
        (
            "0.0.0.0:0",
            "password = \"fifteen-letters\"",
            "source[0].password: is shorter than 16 characters",
        ),
        ("0.0.0.0:0", "password = \"sixteen-letters-\"", ""),
    ] {
        write(listen, more);
        let output = run(directory.path(), &["check"]);
        assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
        let said = stderr(&output);
        assert_eq!(said.lines().count(), usize::from(!warning.is_empty()), "{said}");
        assert!(
            said.contains(warning) && (warning.is_empty() || said.starts_with("warning: ")),
            "{said}"
        );
        assert!(!said.contains("fifteen-letters"), "{said}");
    }
    write("127.0.0.1:0", "");
    let mut process = Process::start(command(directory.path()).arg("run"));
    process.line("the warning", |line| {
        line.contains("anybody on this machine").then_some(())
    });
    write("127.0.0.1:0", "password = \"two words\"");
    let output = run(directory.path(), &["check"]);
    assert_eq!(output.status.code(), Some(78));
    assert!(
        stderr(&output).contains("has a space in it") && !stderr(&output).contains("two words"),
        "{}",
        stderr(&output)
    );
}

/// What is right and bills nobody, or hands out keys to everybody.
#[test]
fn endpoints_that_hear_of_nobody_and_open_gates_are_warned_of() {
    let directory = tempfile::tempdir().unwrap();
    let source = "[[source]]\nname = \"eu-1\"\ntype = \"direct\"\nlisten = \"127.0.0.1:0\"\npassword = \"sixteen-letters-\"\n";
    let endpoint = format!(
        "[[endpoint]]\nname = \"billing\"\nurl = \"https://billing.example.com/turn\"\nsecrets = [\"{SECRET}\"]\n"
    );
    let gate =
        "[[gate]]\nrealm = \"example.org\"\nsource = \"eu-1\"\ncoturn = \"4.17\"\nsecrets = \"hunter2\"\n";
    for (more, warning) in [
        (format!("{endpoint}sources = [\"eu-*\"]\n"), ""),
        (
            format!("{endpoint}sources = [\"eu-1\", \"us-1\"]\n"),
            "endpoint[0].sources[1]: `us-1` is no source; there are: eu-1",
        ),
        (
            format!("{endpoint}labels = {{ tenant = \"acme\" }}\n"),
            "endpoint[0].labels.tenant: [session] user_pattern has no group `tenant`",
        ),
        (
            format!("{gate}listen = \"127.0.0.1:0\"\n"),
            "gate[0].listen: without `password` anybody on this machine can ask",
        ),
        (
            format!("{gate}listen = \"0.0.0.0:0\"\npassword = \"fifteen-letters\"\n"),
            "gate[0].password: is shorter than 16 characters",
        ),
        (
            format!("{gate}listen = \"0.0.0.0:0\"\npassword = \"sixteen-letters-\"\n"),
            "",
        ),
    ] {
        let http = "[http]\nlisten = \"127.0.0.1:0\"\n";
        fs::write(
            directory.path().join("turnhook.toml"),
            format!("{source}{more}{http}"),
        )
        .unwrap();
        let output = run(directory.path(), &["check"]);
        let said = stderr(&output);
        assert_eq!(output.status.code(), Some(0), "{said}");
        assert_eq!(said.lines().count(), usize::from(!warning.is_empty()), "{said}");
        assert!(
            said.contains(warning) && !said.contains("fifteen-letters"),
            "{said}"
        );
    }
}

/// A session that never ends is never billed by its end.
#[test]
fn who_bills_by_an_end_that_may_never_come_is_warned() {
    let directory = tempfile::tempdir().unwrap();
    let source = "[[source]]\nname = \"eu-1\"\ntype = \"direct\"\nlisten = \"127.0.0.1:0\"\npassword = \"sixteen-letters-\"\n";
    let for_ever = "[session]\nmax_session = \"0s\"\n";
    let webhook = format!(
        "[[endpoint]]\nname = \"billing\"\nurl = \"https://billing.example.com/turn\"\nsecrets = [\"{SECRET}\"]\n"
    );
    let by_the_end = format!("{webhook}events = [\"session.start\", \"session.end\"]\n");
    let product = "[[endpoint]]\nname = \"billing\"\ntype = \"openmeter\"\nurl = \"https://openmeter.example.com\"\nbearer = \"hunter2\"\n\
                   meters = [{ event = \"relay\", value = \"billable_bytes\" }]\n";
    for (more, key) in [
        (format!("{for_ever}{by_the_end}"), "endpoint[0].events: hears of"),
        (
            format!("{for_ever}{product}count = \"end\"\n"),
            "endpoint[0].count: hears of",
        ),
        // One hears of usage as well; one of no session; with the default all sessions end.
        (format!("{for_ever}{webhook}"), ""),
        (format!("{for_ever}{product}"), ""),
        (format!("{for_ever}{webhook}events = [\"user.blocked\"]\n"), ""),
        (by_the_end.clone(), ""),
    ] {
        fs::write(directory.path().join("turnhook.toml"), format!("{source}{more}")).unwrap();
        let output = run(directory.path(), &["check"]);
        let said = stderr(&output);
        assert_eq!(output.status.code(), Some(0), "{said}");
        assert_eq!(said.lines().count(), usize::from(!key.is_empty()), "{said}");
        assert!(said.contains(key), "{said}");
    }
}

/// Two keys may be of one account, which nobody can see: then all would be billed twice.
#[test]
fn two_keys_for_one_meter_are_warned_of() {
    let directory = tempfile::tempdir().unwrap();
    let endpoint = |name: &str, more: &str| {
        format!(
            "[[endpoint]]\nname = \"{name}\"\ntype = \"orb\"\nbearer = \"key-{name}\"\noldest = \"80h\"\n\
             meters = [{{ event = \"relay\", value = \"billable_bytes\" }}]\n{more}\n"
        )
    };
    let source = "[[source]]\nname = \"eu-1\"\ntype = \"direct\"\nlisten = \"127.0.0.1:0\"\npassword = \"sixteen-letters-\"\n";
    let said = |one: &str, two: &str| {
        let text = format!("{source}{}{}", endpoint("one", one), endpoint("two", two));
        fs::write(directory.path().join("turnhook.toml"), text).unwrap();
        let output = run(directory.path(), &["check"]);
        assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
        stderr(&output).to_owned()
    };
    let warned = said("", "realms = [\"example.org\"]");
    assert!(
        warned.contains("endpoint[1].meters[0].event: the endpoint \"one\" counts into a meter of this name")
            && !warned.contains("key-"),
        "{warned}"
    );
    // Each of its own tenant.
    let apart = said("realms = [\"example.com\"]", "realms = [\"example.org\"]");
    assert_eq!(apart, "");
}
