//! `turnhook status`: what the running program says of itself, as tables.

use std::{
    io::{IsTerminal, stdout},
    time::Duration,
};

use clap::Args;
use serde_json::Value;
use turnhook_admin::Zone;

use super::{
    args::{ConfigArgs, Format},
    ask,
    error::CliError,
    output::{self, Rows, print},
    units::duration,
    zone::{ZoneArgs, shown},
};
use crate::{shutdown, text::harmless_json};

/// Show what the running turnhook is doing
#[derive(Debug, Args)]
#[command(after_help = "\
Example:
  $ turnhook status
  $ turnhook status --watch
  $ turnhook status --format json | jq .endpoints.billing.pending

  Asks GET /status of the program that runs. Times are UTC, or those of --tz. With several machines each one answers for itself.")]
pub(super) struct Status {
    #[command(flatten)]
    config: ConfigArgs,
    /// Where turnhook serves [default: `[http] listen` of the configuration]
    #[arg(long, value_name = "URL")]
    url: Option<String>,
    /// Show it again and again, until interrupted
    #[arg(long)]
    watch: bool,
    /// How long to wait in between
    #[arg(long, value_name = "TIME", default_value = "2s", value_parser = humantime::parse_duration, requires = "watch")]
    interval: Duration,
    #[command(flatten)]
    zone: ZoneArgs,
    /// How to print it; json: one object a line
    #[arg(long, value_enum, default_value_t)]
    format: Format,
}

/// It answers from memory.
const PATIENCE: Duration = Duration::from_secs(5);

impl Status {
    pub(super) async fn run(self) -> Result<(), CliError> {
        let url = ask::at(self.url.as_deref(), &self.config)? + "/status";
        if !self.watch {
            return print(&self.look(&url).await?);
        }
        let stop = shutdown::on_signals().map_err(CliError::failed)?;
        // On a terminal each look takes the place of the one before.
        let clear = if stdout().is_terminal() && self.format == Format::Text {
            "\u{1b}[2J\u{1b}[H"
        } else {
            ""
        };
        loop {
            match self.look(&url).await {
                Ok(text) => print(&format!("{clear}{text}"))?,
                // It may be on its way up again.
                Err(error) if !clear.is_empty() => print(&format!("{clear}{error}\n"))?,
                Err(error) => return Err(error),
            }
            tokio::select! {
                () = tokio::time::sleep(self.interval) => {}
                () = stop.cancelled() => return Ok(()),
            }
        }
    }

    async fn look(&self, url: &str) -> Result<String, CliError> {
        let answer = ask::get(url, PATIENCE).await?;
        let wrong = || CliError::failed(format!("{url} answered {}, and no status", answer.status));
        if answer.status != 200 {
            return Err(wrong());
        }
        let status: Value = serde_json::from_str(&answer.body).map_err(|_| wrong())?;
        Ok(match self.format {
            Format::Json => harmless_json(&status.to_string()).into_owned() + "\n",
            Format::Text => text(&status, &self.zone),
        })
    }
}

fn word(value: &Value) -> String {
    output::name(value.as_str().unwrap_or("-").as_bytes())
}

fn number(value: &Value) -> String {
    value.as_u64().map_or_else(|| "-".to_owned(), |n| n.to_string())
}

fn text(status: &Value, zone: &Zone) -> String {
    let uptime = status["uptime_seconds"]
        .as_u64()
        .unwrap_or_default()
        .saturating_mul(1000);
    let store = &status["store"];
    let writable = store["writable"] == true && store["reachable"] != false;
    let mut text = format!(
        "turnhook {}, running for {}; store: {}\n",
        word(&status["version"]),
        duration(uptime),
        if writable {
            "takes writes".to_owned()
        } else {
            format!("TAKES NO WRITES: {}", word(&store["last_error"]))
        }
    );
    if let Some(node) = status["node"].as_object() {
        let live = node.get("live").and_then(Value::as_array).map_or(0, Vec::len);
        let lanes = node.get("lanes").cloned().unwrap_or_default();
        text += &format!(
            "node {}, of {live} that live; delivers {} of 64 lanes\n",
            word(&node["id"]),
            number(&lanes)
        );
    }
    text += "\n";
    text += &sources(&status["sources"], zone);
    text += "\n";
    text += &endpoints(&status["endpoints"], zone);
    text += &troubles(status, zone);
    text
}

fn sources(sources: &Value, zone: &Zone) -> String {
    let mut table = Rows::new(&[
        ("SOURCE", false),
        ("STATE", false),
        ("SINCE (UTC)", false),
        ("LAST MESSAGE (UTC)", false),
        ("COTURNS", true),
        ("SESSIONS", true),
        ("ALLOCATIONS", true),
    ])
    .narrow(&["SINCE (UTC)", "ALLOCATIONS"], &["SOURCE"])
    .of_zone(zone);
    for (name, source) in sources.as_object().into_iter().flatten() {
        let servers = source["servers"].as_array();
        let connected = servers.map(|all| all.iter().filter(|one| one["state"] == "connected").count());
        table.push([
            output::name(name.as_bytes()),
            word(&source["state"]),
            shown(&source["since"], zone),
            shown(&source["last_message_at"], zone),
            if source["type"] == "direct" {
                connected.unwrap_or(0).to_string()
            } else {
                "-".to_owned()
            },
            number(&source["open_sessions"]),
            number(&source["open_allocations"]),
        ]);
    }
    table.text("no sources", output::columns())
}

fn endpoints(endpoints: &Value, zone: &Zone) -> String {
    let mut table = Rows::new(&[
        ("ENDPOINT", false),
        ("STATE", false),
        ("UNTIL (UTC)", false),
        ("PENDING", true),
        ("OLDEST", true),
        ("DEAD", true),
        ("LAST DELIVERED (UTC)", false),
    ])
    .narrow(&["UNTIL (UTC)"], &["ENDPOINT"])
    .of_zone(zone);
    for (name, endpoint) in endpoints.as_object().into_iter().flatten() {
        let oldest = endpoint["oldest_pending_seconds"].as_f64();
        table.push([
            output::name(name.as_bytes()),
            word(&endpoint["state"]).replace('_', " "),
            endpoint["until"]
                .as_str()
                .map_or_else(String::new, |_| shown(&endpoint["until"], zone)),
            number(&endpoint["pending"]),
            oldest.map_or_else(
                || "-".to_owned(),
                |seconds| {
                    duration(
                        Duration::try_from_secs_f64(seconds)
                            .unwrap_or_default()
                            .as_secs()
                            .saturating_mul(1000),
                    )
                },
            ),
            number(&endpoint["dead_letters"]),
            shown(&endpoint["last_delivered_at"], zone),
        ]);
    }
    table.text("no endpoints", output::columns())
}

/// What a person should look at, in words.
fn troubles(status: &Value, zone: &Zone) -> String {
    let mut lines = Vec::new();
    for (name, source) in status["sources"].as_object().into_iter().flatten() {
        let name = output::name(name.as_bytes());
        if let Some(error) = source["last_error"].as_str() {
            let at = shown(&source["last_error_at"], zone);
            lines.push(format!("source {name}, {at}: {}", output::name(error.as_bytes())));
        }
        for gap in source["recent_gaps"].as_array().into_iter().flatten() {
            let (from, to) = (shown(&gap["from"], zone), shown(&gap["to"], zone));
            lines.push(format!(
                "source {name}: gap from {from} to {to}: {}",
                word(&gap["reason"])
            ));
        }
        let wedged = source["wedged_threads"].as_array().map_or(0, Vec::len);
        if wedged > 0 {
            lines.push(format!(
                "source {name}: {wedged} relay threads of coturn have fallen silent: restart that coturn, or set heal = true"
            ));
        }
        for server in source["servers"].as_array().into_iter().flatten() {
            if server["state"] == "gone" {
                let since = shown(&server["since"], zone);
                lines.push(format!(
                    "source {name}: {} has been gone since {since}",
                    word(&server["server"])
                ));
            }
        }
    }
    for (name, endpoint) in status["endpoints"].as_object().into_iter().flatten() {
        if endpoint["state"] != "active"
            && let Some(reason) = endpoint["reason"].as_str()
        {
            let name = output::name(name.as_bytes());
            lines.push(format!("endpoint {name}: {}", output::name(reason.as_bytes())));
        }
    }
    if lines.is_empty() {
        return String::new();
    }
    format!("\n{}\n", lines.join("\n"))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use serde_json::json;

    use super::*;

    #[test]
    fn what_is_shown_is_harmless_and_names_the_trouble() {
        let status = json!({
            "version": "0.1.0", "uptime_seconds": 125,
            "store": {"writable": true, "reachable": true},
            "sources": {"eu-1": {
                "type": "direct", "state": "listening", "since": "2026-11-22T06:00:57.624Z", "last_message_at": null,
                "open_sessions": 3, "open_allocations": 4, "last_error": "a\u{1b}[2Jb", "last_error_at": "2026-11-22T06:00:57.624Z",
                "servers": [{"server": "10.0.0.7/-/0", "state": "connected"}, {"server": "10.0.0.8/-/0", "state": "gone", "since": "2026-11-22T06:00:57.624Z"}],
                "recent_gaps": [{"from": "2026-11-22T06:00:57.624Z", "to": "2026-11-22T06:01:57.624Z", "reason": "restart"}],
                "wedged_threads": [7]}},
            "endpoints": {"billing": {"state": "breaker_open", "until": "2026-11-22T06:00:57.624Z", "reason": "answered 503",
                "pending": 12, "oldest_pending_seconds": 61.4, "dead_letters": 0, "last_delivered_at": null}},
        });
        let there = text(&status, &Zone::named(Some("Asia/Kolkata")).unwrap());
        for part in [
            "SINCE (Asia/Kolkata)",
            "listening  2026-11-22 11:30:57",
            "breaker open  2026-11-22 11:30:57",
            "gap from 2026-11-22 11:30:57 to 2026-11-22 11:31:57",
            "gone since 2026-11-22 11:30:57",
        ] {
            assert!(there.contains(part), "no {part:?} in\n{there}");
        }
        assert!(!there.contains("UTC") && !there.contains(" 06:0"), "{there}");
        let text = text(&status, &Zone::utc());
        for part in [
            "turnhook 0.1.0, running for 2m 05s; store: takes writes",
            "eu-1    listening",
            "billing   breaker open  2026-11-22 06:00:57",
            "1m 01s",
            "source eu-1, 2026-11-22 06:00:57: a\\u{1b}[2Jb",
            "gap from 2026-11-22 06:00:57 to 2026-11-22 06:01:57: restart",
            "1 relay threads of coturn have fallen silent: restart that coturn, or set heal = true",
            "10.0.0.8/-/0 has been gone since",
            "endpoint billing: answered 503",
        ] {
            assert!(text.contains(part), "no {part:?} in\n{text}");
        }
        assert!(!text.contains('\u{1b}'));
    }
}
