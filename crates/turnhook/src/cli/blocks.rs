//! `turnhook block`, `unblock` and `blocks`; the end of one session is beside the other commands for sessions.

use std::time::Duration;

use clap::{Args, Subcommand};
use serde_json::json;
use turnhook_dispatcher::{body::rfc3339, clock::wall_clock};
use turnhook_reducer::time::Timestamp;
use turnhook_store::{BlockChange, BlockRow};

use super::{
    args::{ConfigArgs, Format},
    error::CliError,
    output::{self, Rows, print, print_json, warn},
    store,
    zone::ZoneArgs,
};

/// Block a user: his allocations are ended, and so are those that he makes from now on
#[derive(Debug, Args)]
#[command(after_help = "\
Example:
  $ turnhook block cust_42 --for 1h --reason \"no balance\"
  $ turnhook block cust_42 --realm example.org

  The user is the one that webhooks name (`user`), not the whole username. Every running turnhook on
  the store learns of it within a moment. What ends allocations is a [[control]]; what refuses new ones
  is a [[gate]], or whoever issues the credentials.")]
pub(super) struct Block {
    #[command(flatten)]
    config: ConfigArgs,
    /// As webhooks name him
    user: String,
    /// In this realm alone [default: in every one]
    #[arg(long)]
    realm: Option<String>,
    /// For how long, like 30m or 12h [default: until unblocked]
    #[arg(long = "for", value_name = "TIME", value_parser = parse_span)]
    span: Option<Duration>,
    /// Why, for the log and for `data.block_reason`
    #[arg(long, default_value = "blocked")]
    reason: String,
}

fn parse_span(text: &str) -> Result<Duration, String> {
    match humantime::parse_duration(text) {
        Ok(span) if !span.is_zero() => Ok(span),
        _ => Err("write a time like 30m, 12h or 7days".to_owned()),
    }
}

impl Block {
    pub(super) async fn run(self) -> Result<(), CliError> {
        let (config, store) = store::open(&self.config).await?;
        let now = wall_clock();
        let until = self.span.map(|span| {
            let millis = u64::try_from(span.as_millis()).unwrap_or(u64::MAX);
            now.plus(millis)
        });
        let change = BlockChange::Block {
            realm: self.realm.as_ref().map(|realm| realm.as_bytes().into()),
            user: self.user.as_bytes().into(),
            until,
        };
        store
            .admin()
            .change_block(now, change, &self.reason, &store::who())
            .await?;
        let target = output::name(self.user.as_bytes());
        store::note(&store, "block", target, &self.reason, 1).await?;
        if config.controls.is_empty() {
            warn("there is no [[control]]: what this user has open goes on");
        }
        let until = until.map_or_else(
            || "until somebody unblocks him".to_owned(),
            |at| format!("until {} UTC", output::time(at)),
        );
        print(&format!(
            "{} is blocked {until}\n",
            output::name(self.user.as_bytes())
        ))
    }
}

/// End the block of a user
#[derive(Debug, Args)]
#[command(after_help = "\
Example:
  $ turnhook unblock cust_42
  $ turnhook unblock cust_42 --realm example.org

  A block of one realm and a block of all realms are two; each is ended as it was made.")]
pub(super) struct Unblock {
    #[command(flatten)]
    config: ConfigArgs,
    /// As he was blocked
    user: String,
    /// The realm that he was blocked in [default: every one]
    #[arg(long)]
    realm: Option<String>,
}

impl Unblock {
    pub(super) async fn run(self) -> Result<(), CliError> {
        let (_, store) = store::open(&self.config).await?;
        let now = wall_clock();
        let (user, realm) = (
            self.user.as_bytes(),
            self.realm.as_ref().map(|realm| realm.as_bytes()),
        );
        let blocks = store.admin().blocks(now).await?;
        if !blocks.iter().any(|row| names(row) == Some((user, realm))) {
            return Err(CliError::failed(format!(
                "{} is not blocked{}; `turnhook blocks list` says who is",
                output::name(user),
                if realm.is_some() {
                    " in this realm"
                } else {
                    " in every realm"
                },
            )));
        }
        let change = BlockChange::Unblock {
            realm: realm.map(Into::into),
            user: user.into(),
        };
        store.admin().change_block(now, change, "", &store::who()).await?;
        store::note(&store, "unblock", output::name(user), "", 1).await?;
        print(&format!("{} is not blocked any more\n", output::name(user)))
    }
}

/// Whom a block blocks, and where.
fn names(row: &BlockRow) -> Option<(&[u8], Option<&[u8]>)> {
    match &row.change {
        BlockChange::Block { realm, user, .. } => Some((user, realm.as_deref())),
        _ => None,
    }
}

/// Look at who is blocked
#[derive(Debug, Args)]
pub(super) struct Blocks {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    List(List),
}

/// List who is blocked now
#[derive(Debug, Args)]
#[command(after_help = "\
Example:
  $ turnhook blocks list
  $ turnhook blocks list --format json | jq -r .user

  Times are UTC, or those of --tz.")]
struct List {
    #[command(flatten)]
    config: ConfigArgs,
    #[command(flatten)]
    zone: ZoneArgs,
    /// How to print them; json: one object a line
    #[arg(long, value_enum, default_value_t)]
    format: Format,
}

impl Blocks {
    pub(super) async fn run(self) -> Result<(), CliError> {
        match self.command {
            Command::List(command) => command.run().await,
        }
    }
}

impl List {
    async fn run(self) -> Result<(), CliError> {
        let (_, store) = store::open(&self.config).await?;
        let mut table = Rows::new(&[
            ("USER", false),
            ("REALM", false),
            ("SINCE (UTC)", false),
            ("UNTIL (UTC)", false),
            ("REASON", false),
            ("BY", false),
        ])
        .of_zone(&self.zone);
        for row in store.admin().blocks(wall_clock()).await? {
            let BlockChange::Block { realm, user, until } = &row.change else {
                continue;
            };
            match self.format {
                Format::Json => print_json(&to_json(&row, realm.as_deref(), user, *until))?,
                Format::Text => table.push([
                    output::name(user),
                    realm.as_deref().map_or_else(|| "*".to_owned(), output::name),
                    self.zone.show(row.at),
                    until.map_or_else(|| "unblocked".to_owned(), |at| self.zone.show(at)),
                    row.reason.clone(),
                    row.who.clone(),
                ]),
            }
        }
        match self.format {
            Format::Json => Ok(()),
            Format::Text => table.print("nobody is blocked"),
        }
    }
}

fn to_json(row: &BlockRow, realm: Option<&[u8]>, user: &[u8], until: Option<Timestamp>) -> serde_json::Value {
    json!({
        "user": String::from_utf8_lossy(user),
        "realm": realm.map(String::from_utf8_lossy),
        "since": rfc3339(row.at),
        "until": until.map(rfc3339),
        "reason": row.reason,
        "by": row.who,
    })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn a_block_lasts_for_some_time() {
        assert_eq!(parse_span("1h"), Ok(Duration::from_secs(3600)));
        for wrong in ["", "0s", "-1h", "soon"] {
            parse_span(wrong).unwrap_err();
        }
    }
}
