//! `turnhook schema`: what webhooks look like, for programs that read them.

use clap::Args;

use super::{error::CliError, output::print};

/// Print the JSON Schema of an event, or the OpenAPI document of all webhooks
#[derive(Debug, Args)]
#[command(after_help = "\
Example:
  $ turnhook schema                     # OpenAPI 3.1, all webhooks in one document
  $ turnhook schema --list
  $ turnhook schema session.end         # JSON Schema (draft 2020-12) of one type
  $ turnhook schema examples/session.end.lower_bound

  Within a major version fields are only added: receivers ignore what they do not know.")]
pub(super) struct Schema {
    /// Which document
    #[arg(default_value = "openapi")]
    name: String,
    /// List the documents that there are
    #[arg(long)]
    list: bool,
}

/// Each file of `schema/`: its name, and its text.
macro_rules! documents {
    ($($name:literal),* $(,)?) => {
        &[$(($name, include_str!(concat!("../../../../schema/", $name, ".json")))),*]
    };
}

const DOCUMENTS: &[(&str, &str)] = documents![
    "openapi",
    "session.start",
    "session.usage",
    "session.end",
    "quota.reached",
    "user.blocked",
    "user.unblocked",
    "endpoint.ping",
    "examples/session.start",
    "examples/session.start.continues",
    "examples/session.start.no_user",
    "examples/session.usage",
    "examples/session.usage.no_peer_leg",
    "examples/session.end",
    "examples/session.end.cancelled",
    "examples/session.end.expired",
    "examples/session.end.lower_bound",
    "examples/session.end.many_allocations",
    "examples/session.end.max_session",
    "examples/session.end.not_utf8",
    "examples/session.end.server_restarted",
    "examples/session.end.server_stopped",
    "examples/quota.reached",
    "examples/quota.reached.session",
    "examples/user.blocked",
    "examples/user.blocked.all_realms",
    "examples/user.blocked.not_utf8",
    "examples/user.blocked.quota",
    "examples/user.unblocked",
    "examples/user.unblocked.expired",
    "examples/endpoint.ping",
];

impl Schema {
    pub(super) fn run(self) -> Result<(), CliError> {
        if self.list {
            let names: Vec<&str> = DOCUMENTS.iter().map(|(name, _)| *name).collect();
            return print(&(names.join("\n") + "\n"));
        }
        let wanted = self.name.strip_suffix(".json").unwrap_or(&self.name);
        match DOCUMENTS.iter().find(|(name, _)| *name == wanted) {
            Some((_, text)) => print(text),
            None => {
                let near = DOCUMENTS
                    .iter()
                    .map(|(name, _)| (strsim::damerau_levenshtein(name, wanted), *name))
                    .min()
                    .map_or("openapi", |(_, name)| name);
                Err(CliError::Usage(format!(
                    "there is no document {wanted:?}; did you mean {near}? `turnhook schema --list` lists them"
                )))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::{fs, path::Path};

    use super::*;

    #[test]
    fn all_that_is_in_the_folder_can_be_printed() {
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../schema");
        let mut found = Vec::new();
        for folder in ["", "examples"] {
            for entry in fs::read_dir(root.join(folder)).unwrap() {
                let name = entry.unwrap().file_name().into_string().unwrap();
                if let Some(stem) = name.strip_suffix(".json") {
                    found.push(Path::new(folder).join(stem).to_str().unwrap().to_owned());
                }
            }
        }
        let mut known: Vec<String> = DOCUMENTS.iter().map(|(name, _)| (*name).to_owned()).collect();
        found.sort();
        known.sort();
        assert_eq!(found, known);
    }
}
