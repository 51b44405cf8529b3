//! Sources: the listener and who is connected, or the Redis and its rights.

use serde_json::Value;
use turnhook_reducer::time::Timestamp;
use turnhook_subscriber::source::SourceConfig;

use super::{
    super::error::CliError,
    clocks::Clocks,
    report::{Report, port},
};
use crate::{
    config::{Direct, Source, SourceKind},
    engine::settings,
};

pub(super) async fn look(
    source: &Source,
    running: Option<&Value>,
    clocks: &mut Clocks,
    report: &mut Report,
) -> Result<(), CliError> {
    let what = format!("source {}", source.name);
    let status = running.map(|status| &status["sources"][source.name.as_str()]);
    match &source.kind {
        SourceKind::Direct(direct) => listener(&what, direct, status, report).await?,
        SourceKind::Redis(redis) => {
            let SourceConfig::Redis(config) = settings::source(source) else {
                return Ok(());
            };
            let examined = config.examine(redis.heal).await.map_err(CliError::failed)?;
            for (look, found) in examined.looks {
                match found {
                    Ok(found) => report.ok(&what, format!("{look}: {found}"))?,
                    // It says itself what is needed.
                    Err(error) => report.fail(&what, format!("{look}: {error}"), cure(&error))?,
                }
            }
            for (look, warning) in examined.warnings {
                report.warn(&what, format!("{look}: {warning}"), "")?;
            }
            if let Some(clock) = examined.clock {
                clocks.add(format!("the Redis of {}", source.name), Timestamp(clock), false);
            }
        }
    }
    if let Some(status) = status {
        heard(&what, status, report)?;
    }
    Ok(())
}

fn cure(error: &str) -> &'static str {
    if error.contains("NOPERM") {
        "`ACL SETUSER` gives a user rights; deploy/redis.conf has all that is needed"
    } else if error.contains("refused (os error") || error.contains("no answer within") {
        "is Redis running, is the address right, and does a firewall let it through?"
    } else {
        ""
    }
}

async fn listener(
    what: &str,
    direct: &Direct,
    status: Option<&Value>,
    report: &mut Report,
) -> Result<(), CliError> {
    let Some(status) = status else {
        return port(what, direct.listen, report).await;
    };
    let servers = status["servers"].as_array().cloned().unwrap_or_default();
    let connected = servers
        .iter()
        .filter(|server| server["state"] == "connected")
        .count();
    if connected > 0 {
        report.ok(what, format!("coturns connected: {connected}"))?;
    } else {
        let address = direct.listen;
        report.fail(
            what,
            "no coturn is connected",
            format!(
                "give coturn redis-statsdb=\"ip=… port={} dbname=0 password=…\" with this source's password, and restart \
                 coturn: it does not read that again",
                address.port()
            ),
        )?;
    }
    for server in servers.iter().filter(|server| server["state"] == "gone") {
        let (name, since) = (&server["server"], &server["since"]);
        report.warn(
            what,
            format!(
                "{} has been gone since {}",
                name.as_str().unwrap_or("?"),
                since.as_str().unwrap_or("?")
            ),
            "is that coturn running? Where it was taken out of service, this is right",
        )?;
    }
    Ok(())
}

/// What the running program says it hears.
fn heard(what: &str, status: &Value, report: &mut Report) -> Result<(), CliError> {
    let state = status["state"]
        .as_str()
        .unwrap_or("not configured in the program that runs");
    let error = status["last_error"].as_str();
    match state {
        "connected" | "listening" | "following" => report.ok(what, format!("is {state}"))?,
        _ => report.fail(
            what,
            format!("is {state}: {}", error.unwrap_or("no reason known")),
            "",
        )?,
    }
    match status["last_message_at"].as_str() {
        Some(at) => report.ok(what, format!("last heard of coturn at {at}"))?,
        None => report.warn(
            what,
            "nothing was heard of coturn since the start",
            "make a call; if there is still nothing, coturn publishes elsewhere, or was not restarted",
        )?,
    }
    if status["wedged_threads"]
        .as_array()
        .is_some_and(|threads| !threads.is_empty())
    {
        report.warn(
            what,
            "relay threads of coturn have fallen silent",
            "restart that coturn, or set heal = true",
        )?;
    }
    Ok(())
}
