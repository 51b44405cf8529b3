//! turnhook itself.

use std::{
    path::Path,
    process::{Command, Output},
};

/// The program, without anything of this machine's environment that would configure it.
pub(crate) fn command(directory: &Path) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_turnhook"));
    command.current_dir(directory);
    for (name, _) in std::env::vars_os() {
        if name.to_string_lossy().starts_with("TURNHOOK_") {
            command.env_remove(name);
        }
    }
    command
}

/// The same, with so many file descriptors at most.
pub(crate) fn command_with_descriptors(directory: &Path, most: u32) -> Command {
    let command = command(directory);
    let mut shell = Command::new("sh");
    shell
        .current_dir(directory)
        .args(["-c", &format!("ulimit -n {most} && exec \"$0\" \"$@\"")])
        .arg(command.get_program());
    for (name, value) in command.get_envs() {
        match value {
            Some(value) => shell.env(name, value),
            None => shell.env_remove(name),
        };
    }
    shell
}

/// Runs it to its end.
pub(crate) fn run(directory: &Path, arguments: &[&str]) -> Output {
    command(directory).args(arguments).output().unwrap()
}

pub(crate) fn stdout(output: &Output) -> &str {
    std::str::from_utf8(&output.stdout).unwrap()
}

pub(crate) fn stderr(output: &Output) -> &str {
    std::str::from_utf8(&output.stderr).unwrap()
}
