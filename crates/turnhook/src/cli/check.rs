//! `turnhook check`.

use std::time::Duration;

use clap::Args;
use turnhook_reducer::rules::UserPattern;
use turnhook_store::Mode;

use super::{
    args::{ConfigArgs, Format},
    error::CliError,
    output::{print, warn},
};
use crate::{
    config::{Config, GroupBy, StoreKind},
    engine::unconfigured::{self, Unconfigured},
    store,
};

/// A database that is away is not waited for.
const PATIENCE: Duration = Duration::from_secs(3);

/// Check the configuration and print what holds in the end, secrets hidden
#[derive(Debug, Args)]
#[command(after_help = "\
Example:
  $ turnhook check --config /etc/turnhook/turnhook.toml
  $ TURNHOOK_STORE__PATH=/tmp/x.db turnhook check --format json

  Ends with status 78 if something is wrong, and says where and what. What is right and can still
  be a mistake is a warning, on stderr.")]
pub(super) struct Check {
    #[command(flatten)]
    config: ConfigArgs,
    /// How to print it
    #[arg(long, value_enum, default_value_t)]
    format: Format,
}

impl Check {
    pub(super) async fn run(self) -> Result<(), CliError> {
        let config = self.config.load()?;
        for warning in config.warnings.iter().chain(&config.kept_from_group) {
            warn(warning);
        }
        for source in unconfigured(&config).await {
            warn(source);
        }
        match self.format {
            Format::Text => print(&(place(&config) + &names(&config) + &config.to_toml())),
            Format::Json => print(&format!("{:#}\n", config.to_json())),
        }
    }
}

/// Sources that the store knows and the configuration does not. One that cannot be opened now says nothing: `doctor`
/// tries it.
async fn unconfigured(config: &Config) -> Vec<String> {
    let look = async {
        let store = store::open(&config.store.kind, Mode::Shared).await?;
        unconfigured::find(config, &store).await
    };
    match tokio::time::timeout(PATIENCE, look).await {
        Ok(Ok(found)) => found.iter().map(Unconfigured::warning).collect(),
        _ => Vec::new(),
    }
}

/// A name of the TURN REST API, its expiry alone, an account's own name, and one that only looks like a REST name.
const USERNAMES: [&str; 4] = ["1795413634:cust_42", "1795413634", "cust_42", "1:victim"];

/// What some usernames come to under the configured pattern, as comments: whom a session is billed to hangs on it.
fn names(config: &Config) -> String {
    let session = &config.session;
    // It was checked before, or nothing would be printed.
    let Ok(pattern) = UserPattern::new(&session.user_pattern) else {
        return String::new();
    };
    let nobody = match session.group_by {
        GroupBy::User => "no user, so that each allocation is a session of its own",
        GroupBy::Username | GroupBy::Allocation => "no user",
    };
    let lines = USERNAMES.map(|username| {
        let user = pattern.user(username.as_bytes());
        let user = user.map(|user| format!("user {:?}", String::from_utf8_lossy(user)));
        let shown = format!("{username:?}");
        format!("#   {shown:<20}  {}\n", user.as_deref().unwrap_or(nobody))
    });
    format!(
        "# What usernames come to under `user_pattern`:\n{}\n",
        lines.concat()
    )
}

/// Where the store is, as a comment: what is printed is a configuration again. A URL may stand in a file.
fn place(config: &Config) -> String {
    match &config.store.kind {
        StoreKind::Sqlite(path) => {
            let path = std::path::absolute(path).unwrap_or_else(|_| path.clone());
            format!("# The store: SQLite, {path:?}\n\n")
        }
        StoreKind::Postgres(postgres) => {
            let options = store::options(postgres);
            // It was read before, or nothing would be printed.
            let place = options.describe().unwrap_or_default();
            format!(
                "# The store: PostgreSQL, {place:?}; this node: {:?}\n\n",
                options.node
            )
        }
    }
}
