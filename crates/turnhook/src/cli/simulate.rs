//! `turnhook simulate`.

use std::{
    fs::File,
    io::{self, BufRead, BufReader},
    path::{Path, PathBuf},
};

use clap::Args;
use serde::Serialize;
use serde_json::value::RawValue;
use turnhook_dispatcher::body::body;
use turnhook_reducer::event::SessionEvent;

use super::{error::CliError, output::print_json};
use crate::{
    config::{self, Input},
    engine::{player::Player, settings::History},
};

/// Replay a recorded history through the reducer, and print the events that it makes
#[derive(Debug, Args)]
#[command(after_help = "\
Example:
  $ turnhook simulate history.jsonl | jq -c .body.data.usage
  $ turnhook simulate --settle messages.jsonl     # lines of [seconds, channel, payload]

  A recording of `turnhook record` brings its own rules. A file of messages alone is read with the
  defaults, or with [session] of --config.")]
pub(super) struct Simulate {
    /// The history; - for stdin
    file: PathBuf,
    /// Take the rules from this configuration, where the history has none
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// The source in that configuration; its first, if none is named
    #[arg(long, value_name = "NAME")]
    source: Option<String>,
    /// Let time pass afterwards until everything has ended
    #[arg(long)]
    settle: bool,
}

/// Rules for a history that brings none.
const DEFAULTS: &str = "[[source]]\nname = \"simulated\"\ntype = \"redis\"\nurl = \"redis://127.0.0.1\"\n";

impl Simulate {
    pub(super) fn run(self) -> Result<(), CliError> {
        let mut player = Player::new(self.rules()?);
        let input: Box<dyn BufRead> = if self.file == Path::new("-") {
            Box::new(io::stdin().lock())
        } else {
            let file = File::open(&self.file);
            Box::new(BufReader::new(file.map_err(|error| self.wrong(&error))?))
        };
        for (number, line) in input.lines().enumerate() {
            let events = line.map_err(|error| self.wrong(&error)).and_then(|line| {
                player.line(&line).map_err(|error| {
                    CliError::failed(format!("{}:{}: {error}", self.file.display(), number + 1))
                })
            })?;
            events.iter().try_for_each(print_event)?;
        }
        if self.settle {
            player
                .settle()
                .map_err(CliError::failed)?
                .iter()
                .try_for_each(print_event)?;
        }
        Ok(())
    }

    fn wrong(&self, error: &io::Error) -> CliError {
        CliError::failed(format!("{}: {error}", self.file.display()))
    }

    fn rules(&self) -> Result<History, CliError> {
        let input = match &self.config {
            Some(path) => Input::read(Some(path), [])?,
            None => Input {
                file: Some((PathBuf::from("defaults"), DEFAULTS.to_owned())),
                env: Vec::new(),
            },
        };
        let config = config::load(&input)?;
        let source = match &self.source {
            None => config.sources.first(),
            Some(name) => config.sources.iter().find(|source| source.name == *name),
        };
        let source = source.ok_or_else(|| CliError::failed("no source of that name is configured"))?;
        Ok(History::new(&config.session, &config.limits, source, [0; 16]))
    }
}

fn print_event(event: &SessionEvent) -> Result<(), CliError> {
    #[derive(Serialize)]
    struct Line {
        webhook_id: String,
        /// As it is sent, to the byte.
        body: Box<RawValue>,
    }
    let text = String::from_utf8_lossy(&body(event)).into_owned();
    let body = RawValue::from_string(text).map_err(CliError::failed)?;
    print_json(&Line {
        webhook_id: event.id.to_string(),
        body,
    })
}
