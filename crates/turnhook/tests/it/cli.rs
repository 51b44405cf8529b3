//! The command line itself.

use crate::harness::turnhook::{command, run, stderr, stdout};

#[test]
fn every_command_shows_an_example() {
    let directory = tempfile::tempdir().unwrap();
    let help = run(directory.path(), &["--help"]);
    let commands: Vec<&str> = stdout(&help)
        .lines()
        .skip_while(|line| *line != "Commands:")
        .skip(1)
        .take_while(|line| !line.is_empty())
        // A description that goes on in the next line is indented further.
        .filter(|line| !line.starts_with("   "))
        .filter_map(|line| line.split_whitespace().next())
        .filter(|name| *name != "help")
        .collect();
    assert!(commands.contains(&"check"), "{}", stdout(&help));
    for command in commands {
        let help = run(directory.path(), &[command, "--help"]);
        assert_eq!(help.status.code(), Some(0), "{command}");
        assert!(
            stdout(&help).contains(&format!("$ turnhook {command}")) || stdout(&help).contains("Commands:"),
            "{command}: {}",
            stdout(&help)
        );
    }
}

#[test]
fn wrong_usage_is_status_2() {
    let directory = tempfile::tempdir().unwrap();
    for arguments in [
        &["chekc"][..],
        &["check", "--confg", "x"],
        &[],
        &["listen", "--listen", "here"],
    ] {
        let output = run(directory.path(), arguments);
        assert_eq!(
            output.status.code(),
            Some(2),
            "{arguments:?}: {}",
            stderr(&output)
        );
    }
}

#[test]
fn secrets_are_good_and_never_the_same() {
    let directory = tempfile::tempdir().unwrap();
    let outputs = [
        run(directory.path(), &["secret"]),
        run(directory.path(), &["secret"]),
    ];
    for output in &outputs {
        turnhook_dispatcher::signature::Secret::parse(stdout(output).trim()).unwrap();
    }
    assert_ne!(outputs[0].stdout, outputs[1].stdout);
}

/// It stands before or after the command, in the environment, or is found where packages put it.
#[test]
fn the_configuration_is_named_anywhere_on_the_line() {
    let (elsewhere, here) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let file = elsewhere.path().join("other.toml");
    let source = "[[source]]\nname = \"here-it-is\"\ntype = \"direct\"\nlisten = \"127.0.0.1:0\"\n";
    std::fs::write(&file, source).unwrap();
    let name = file.to_str().unwrap();
    for arguments in [&["--config", name, "check"][..], &["check", "--config", name]] {
        let output = run(here.path(), arguments);
        assert!(
            stdout(&output).contains("here-it-is"),
            "{arguments:?}: {}",
            stderr(&output)
        );
    }
    let nested = [
        &["--config", name, "sessions", "list"][..],
        &["sessions", "--config", name, "list"],
        &["sessions", "list", "--config", name],
    ];
    for arguments in nested {
        let output = run(here.path(), arguments);
        assert!(
            stderr(&output).contains("there is no store here"),
            "{arguments:?}: {}",
            stderr(&output)
        );
    }
    let output = command(here.path())
        .arg("check")
        .env("TURNHOOK_CONFIG", name)
        .output()
        .unwrap();
    assert!(stdout(&output).contains("here-it-is"), "{}", stderr(&output));
    // The command line goes before the environment.
    let output = command(here.path())
        .args(["--config", name, "check"])
        .env("TURNHOOK_CONFIG", "/nowhere")
        .output()
        .unwrap();
    assert!(stdout(&output).contains("here-it-is"), "{}", stderr(&output));
    let help = run(here.path(), &["--help"]);
    assert!(
        stdout(&help).contains("/etc/turnhook/turnhook.toml"),
        "{}",
        stdout(&help)
    );
}

#[test]
fn completions_manual_pages_and_schemas_are_printed() {
    let directory = tempfile::tempdir().unwrap();
    for shell in ["bash", "zsh", "fish"] {
        let output = run(directory.path(), &["completions", shell]);
        assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
        for command in ["doctor", "unattributed", "completions"] {
            assert!(stdout(&output).contains(command), "{shell}: no {command}");
        }
    }
    let output = run(directory.path(), &["manual", "pages"]);
    assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
    let page = |name: &str| std::fs::read_to_string(directory.path().join("pages").join(name)).unwrap();
    assert!(page("turnhook.1").contains("turnhook\\-doctor(1)"));
    assert!(page("turnhook-sessions-export.1").contains("base64"));
    let configuration = page("turnhook.toml.5");
    for key in ["max_session = \"24h\"", "[[source]]", "retention = \"30d\""] {
        let escaped = key.replace('-', "\\-");
        assert!(configuration.contains(&escaped), "no {key} in turnhook.toml(5)");
    }
    let list = run(directory.path(), &["schema", "--list"]);
    for name in stdout(&list).lines() {
        let output = run(directory.path(), &["schema", name]);
        let document: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
        assert!(document.is_object(), "{name}");
    }
    let all: serde_json::Value = serde_json::from_slice(&run(directory.path(), &["schema"]).stdout).unwrap();
    assert_eq!(all["openapi"], "3.1.0");
    let unknown = run(directory.path(), &["schema", "session.ends"]);
    assert_eq!(unknown.status.code(), Some(2));
    assert!(
        stderr(&unknown).contains("did you mean session.end?"),
        "{}",
        stderr(&unknown)
    );
}
