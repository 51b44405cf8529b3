//! The command line itself.

use crate::harness::turnhook::{run, stderr, stdout};

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
