//! `turnhook completions`.

use clap::{Args, Command};
use clap_complete::Shell;

use super::{error::CliError, output::print};

/// Print what completes the command line in a shell
#[derive(Debug, Args)]
#[command(after_help = "\
Example:
  $ turnhook completions bash > /etc/bash_completion.d/turnhook
  $ turnhook completions zsh > \"${fpath[1]}/_turnhook\"
  $ turnhook completions fish > ~/.config/fish/completions/turnhook.fish")]
pub(super) struct Completions {
    /// The shell
    #[arg(value_enum)]
    shell: Shell,
}

impl Completions {
    pub(super) fn run(self, mut command: Command) -> Result<(), CliError> {
        let mut script = Vec::new();
        clap_complete::generate(self.shell, &mut command, "turnhook", &mut script);
        print(&String::from_utf8_lossy(&script))
    }
}
