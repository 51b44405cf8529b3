//! What many commands are given.

use std::path::PathBuf;

use clap::{
    Args, ValueEnum,
    builder::{PossibleValuesParser, TypedValueParser},
};
use turnhook_reducer::event::EventType;

use super::error::CliError;
use crate::config::{self, Config, Input};

/// Where the configuration is.
#[derive(Debug, Args)]
pub(super) struct ConfigArgs {
    // As above: it may stand before the command, too.
    /// The configuration file [default: $TURNHOOK_CONFIG, ./turnhook.toml, /etc/turnhook/turnhook.toml]
    #[arg(long, value_name = "FILE")]
    pub(super) config: Option<PathBuf>,
}

impl ConfigArgs {
    pub(super) fn load(&self) -> Result<Config, CliError> {
        Ok(config::load(&self.input()?)?)
    }

    /// For commands that only look into the store: without the secrets of sources and endpoints.
    pub(super) fn load_for_store(&self) -> Result<Config, CliError> {
        Ok(config::load_for_store(&self.input()?)?)
    }

    pub(super) fn input(&self) -> Result<Input, CliError> {
        let env = std::env::vars_os()
            .filter_map(|(key, value)| Some((key.into_string().ok()?, value.into_string().ok()?)));
        let named = self.config.clone().or_else(|| {
            let named = std::env::var_os("TURNHOOK_CONFIG")?;
            (!named.is_empty()).then(|| named.into())
        });
        Ok(Input::read(named.as_deref(), env)?)
    }
}

/// How lists are printed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub(super) enum Format {
    /// For people: a table on a terminal, aligned columns elsewhere
    #[default]
    Text,
    /// For programs
    Json,
}

/// Types of events, by their names.
pub(super) fn event_type() -> impl TypedValueParser<Value = EventType> {
    let names = PossibleValuesParser::new(EventType::ALL.map(EventType::as_str));
    names.try_map(|name| EventType::from_name(&name).ok_or("no type of events"))
}
