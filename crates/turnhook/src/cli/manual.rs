//! `turnhook manual`: manual pages, for whoever makes packages.

use std::{
    fs, io,
    path::{Path, PathBuf},
};

use clap::{Args, Command};
use clap_mangen::roff::{Roff, bold, roman};

use super::error::CliError;
use crate::config::DEFAULT_TOML;

/// Write manual pages into a directory: one for each command, and turnhook.toml(5)
#[derive(Debug, Args)]
#[command(after_help = "\
Example:
  $ turnhook manual target/man && man -l target/man/turnhook.1")]
pub(super) struct Manual {
    /// Where to write them; made if it is not there
    directory: PathBuf,
}

impl Manual {
    pub(super) fn run(self, command: Command) -> Result<(), CliError> {
        let write = || -> io::Result<()> {
            fs::create_dir_all(&self.directory)?;
            clap_mangen::generate_to(command.disable_help_subcommand(true), &self.directory)?;
            fs::write(self.directory.join("turnhook.toml.5"), configuration())
        };
        write().map_err(|error| CliError::failed(format!("{}: {error}", shown(&self.directory))))
    }
}

fn shown(path: &Path) -> String {
    path.display().to_string()
}

/// The page of the configuration: what each key is, as the file of defaults says it.
fn configuration() -> String {
    let mut page = Roff::new();
    page.control(
        "TH",
        [
            "turnhook.toml",
            "5",
            "",
            concat!("turnhook ", env!("CARGO_PKG_VERSION")),
            "File formats",
        ],
    );
    page.control("SH", ["NAME"]);
    page.text([roman("turnhook.toml - the configuration of turnhook")]);
    page.control("SH", ["DESCRIPTION"]);
    page.text([
        roman("Looked for at "),
        bold("--config"),
        roman(", $TURNHOOK_CONFIG, ./turnhook.toml and /etc/turnhook/turnhook.toml, in this order. "),
        roman("What follows is all of it, with its defaults; a key that is commented out has none, or is one of a table that can occur any number of times."),
    ]);
    let mut example = false;
    for line in DEFAULT_TOML.lines() {
        if line.starts_with("# ---") {
            continue;
        }
        // Words flow, keys stand in lines of their own.
        let comment = line.strip_prefix("# ").or_else(|| (line == "#").then_some(""));
        let is_prose = comment.is_some_and(|text| !is_key(text));
        if example == is_prose {
            page.control(if is_prose { "fi" } else { "nf" }, []);
            example = !is_prose;
        }
        match comment {
            Some("") => page.control("PP", []),
            Some(text) if is_prose => page.text([roman(text)]),
            Some(text) => page.text([bold(format!("# {text}"))]),
            None if line.is_empty() => page.control("PP", []),
            None => page.text([bold(line)]),
        };
    }
    if example {
        page.control("fi", []);
    }
    page.control("SH", ["SEE ALSO"]);
    page.text([
        bold("turnhook"),
        roman("(1), "),
        bold("turnhook-check"),
        roman("(1)"),
    ]);
    page.render()
}

fn is_key(text: &str) -> bool {
    text.starts_with('[')
        || text
            .split_once(" = ")
            .is_some_and(|(name, _)| !name.contains(' '))
}
