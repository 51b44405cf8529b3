//! `turnhook admin`: who may see the page.

use std::io::{self, BufRead as _, IsTerminal as _, Write as _};

use clap::{Args, Subcommand, ValueEnum};
use rustix::termios::{LocalModes, OptionalActions, tcgetattr, tcsetattr};
use secrecy::{ExposeSecret as _, SecretString};
use turnhook_admin::{make_token, make_user};

use super::{error::CliError, output::print};

/// Make users and tokens for the page and the JSON API
#[derive(Debug, Args)]
pub(super) struct Admin {
    #[command(subcommand)]
    command: AdminCommand,
}

#[derive(Debug, Subcommand)]
enum AdminCommand {
    User(User),
    Token(Token),
}

/// What somebody may do
#[derive(Clone, Copy, Debug, ValueEnum)]
enum Role {
    /// Look at everything
    Viewer,
    /// Also replay, discard, pause and resume
    Operator,
}

impl From<Role> for turnhook_admin::Role {
    fn from(role: Role) -> turnhook_admin::Role {
        match role {
            Role::Viewer => turnhook_admin::Role::Viewer,
            Role::Operator => turnhook_admin::Role::Operator,
        }
    }
}

/// Print a line for `users_file`
#[derive(Debug, Args)]
#[command(after_help = "\
Example:
  $ turnhook admin user anna --role operator >> /etc/turnhook/users
  password:

  The password is asked for on a terminal, else it is the first line of stdin. The line holds a hash of it (Argon2id).
  A running turnhook reads the file again when it has changed.")]
struct User {
    /// Letters, digits, `.`, `_`, `-` and `@`
    name: String,
    /// What the person may do
    #[arg(long)]
    role: Role,
}

/// Make a token for a program: print a line for `tokens_file`, and the token itself on stderr
#[derive(Debug, Args)]
#[command(after_help = "\
Example:
  $ turnhook admin token invoices --role viewer >> /etc/turnhook/tokens
  token (it is not shown again): tht_…
  $ curl -H 'Authorization: Bearer tht_…' http://127.0.0.1:8081/api/v1/usage")]
struct Token {
    /// Letters, digits, `.`, `_`, `-` and `@`
    name: String,
    /// What the program may do
    #[arg(long)]
    role: Role,
}

impl Admin {
    pub(super) fn run(self) -> Result<(), CliError> {
        match self.command {
            AdminCommand::User(user) => {
                let password = ask_password()?;
                let line = make_user(&user.name, user.role.into(), &password).map_err(CliError::failed)?;
                print(&(line + "\n"))
            }
            AdminCommand::Token(token) => {
                let (secret, line) = make_token(&token.name, token.role.into()).map_err(CliError::failed)?;
                print(&(line + "\n"))?;
                let mut stderr = io::stderr();
                writeln!(
                    stderr,
                    "token (it is not shown again): {}",
                    secret.expose_secret()
                )
                .map_err(|error| CliError::failed(format!("cannot show the token: {error}")))
            }
        }
    }
}

/// A line of stdin; on a terminal without showing it.
fn ask_password() -> Result<SecretString, CliError> {
    let stdin = io::stdin();
    let cannot =
        |error: &dyn std::fmt::Display| CliError::failed(format!("cannot read the password: {error}"));
    let shown = stdin
        .is_terminal()
        .then(|| tcgetattr(&stdin))
        .transpose()
        .map_err(|error| cannot(&error))?;
    if let Some(shown) = &shown {
        let mut hidden = shown.clone();
        hidden.local_modes.remove(LocalModes::ECHO);
        tcsetattr(&stdin, OptionalActions::Flush, &hidden).map_err(|error| cannot(&error))?;
        // The prompt is for people; the line for the file is stdout.
        let _ = write!(io::stderr(), "password: ");
    }
    let mut line = String::new();
    let read = stdin.lock().read_line(&mut line);
    if let Some(shown) = &shown {
        let _ = tcsetattr(&stdin, OptionalActions::Flush, shown);
        let _ = writeln!(io::stderr());
    }
    read.map_err(|error| cannot(&error))?;
    Ok(SecretString::from(line.trim_end_matches(['\n', '\r'])))
}
