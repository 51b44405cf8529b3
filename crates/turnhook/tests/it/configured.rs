//! Every configuration of README and of the chapters, as it stands there, given to `turnhook check`.

use std::{fs, path::Path, process::Command};

use crate::{
    harness::{free_port, program::SECRET, turnhook},
    pasted::pages,
};

/// The blocks of a page that are in this language, without the margin of a list that one may stand in.
pub(crate) fn blocks(page: &str, language: &str) -> Vec<String> {
    let mut found = Vec::new();
    let mut lines = page.lines();
    while let Some(fence) = lines.next() {
        let inner = fence.trim_start();
        if inner != format!("```{language}") {
            continue;
        }
        let margin = &fence[..fence.len() - inner.len()];
        let block = lines.by_ref().take_while(|line| line.trim() != "```");
        let block: Vec<&str> = block
            .map(|line| line.strip_prefix(margin).unwrap_or(line))
            .collect();
        found.push(block.join("\n") + "\n");
    }
    found
}

/// What stands around a chapter's blocks: README's source and endpoint.
const BESIDE: &str = "[[source]]\nname = \"eu-1\"\ntype = \"direct\"\nlisten = \"127.0.0.1:6380\"\npassword = \"…\"\n\
                      [[endpoint]]\nname = \"billing\"\nurl = \"https://billing.example.com/turn\"\nsecrets = [\"whsec_…\"]\n";

/// The files that a configuration names are in this folder.
fn furnish(configuration: &str, folder: &Path) -> String {
    let here = format!("\"{}/", folder.display());
    let configuration = configuration
        .replace("whsec_…", SECRET)
        .replace("\"/run/secrets/", &here)
        .replace("\"/etc/turnhook/", &here)
        .replace("\"/var/lib/turnhook/", &here);
    for line in configuration.lines().filter(|line| line.contains("_file")) {
        let (key, value) = line.split_once('=').unwrap();
        let file = value.split('"').nth(1).unwrap();
        let text = match key.trim() {
            // Nobody listens there.
            "url_file" => format!("postgres://turnhook:hunter2@127.0.0.1:{}/turnhook", free_port()),
            "users_file" | "tokens_file" => {
                let what = if key.trim() == "users_file" {
                    "user"
                } else {
                    "token"
                };
                let asked = format!(
                    "echo 'six words that nobody would guess' | '{}' admin {what} anna --role viewer",
                    env!("CARGO_BIN_EXE_turnhook")
                );
                let made = Command::new("sh").args(["-c", &asked]).output().unwrap();
                turnhook::stdout(&made).to_owned()
            }
            _ => "hunter2-hunter2-hunter2".to_owned(),
        };
        fs::write(file, text).unwrap();
    }
    configuration
}

/// A page's blocks are of one configuration, so that each is looked at with those before it. Those of the billing products
/// have a test of their own (`billing_pages.rs`).
#[test]
fn configurations_on_pages_are_good_ones() {
    let mut seen = 0;
    for (page, text) in pages() {
        if page.starts_with("examples/billing/") {
            continue;
        }
        let blocks = blocks(&text, "toml");
        let is_whole = blocks.first().is_some_and(|block| block.contains("[[source]]"));
        let mut configuration = if is_whole { "" } else { BESIDE }.to_owned();
        for block in blocks {
            configuration += &block;
            let directory = tempfile::tempdir().unwrap();
            let furnished = furnish(&configuration, directory.path());
            fs::write(directory.path().join("turnhook.toml"), furnished).unwrap();
            let output = turnhook::run(directory.path(), &["check"]);
            let said = turnhook::stderr(&output);
            assert!(
                output.status.success() && said.is_empty(),
                "{page}: {said}\n{block}"
            );
            seen += 1;
        }
    }
    assert!(seen >= 6, "only {seen} configurations were found");
}

#[test]
fn blocks_are_found() {
    let page = "a\n```toml\nb = 1\n```\n1. c\n\n   ```toml\n   d = [\n     2,\n   ]\n   ```\n```sql\nSELECT 1\n```\n";
    assert_eq!(blocks(page, "toml"), ["b = 1\n", "d = [\n  2,\n]\n"]);
    assert_eq!(blocks(page, "sql"), ["SELECT 1\n"]);
}
