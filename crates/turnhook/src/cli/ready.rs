//! `turnhook ready`: for health checks of containers, which have neither a shell nor curl.

use std::time::Duration;

use clap::Args;
use serde_json::Value;

use super::{args::ConfigArgs, ask, error::CliError, output::print};
use crate::text::Untrusted;

/// Ask the running turnhook whether it is ready: status 0 if it is, 1 if not
#[derive(Debug, Args)]
#[command(after_help = "\
Example:
  $ turnhook ready
  $ turnhook ready --url http://127.0.0.1:8080

  In a Dockerfile: HEALTHCHECK CMD [\"turnhook\", \"ready\"]. It asks GET /readyz: every source hears, and
  the store takes writes. A part that is not ready is named.")]
pub(super) struct Ready {
    #[command(flatten)]
    config: ConfigArgs,
    /// Where turnhook serves [default: `[http] listen` of the configuration]
    #[arg(long, value_name = "URL")]
    url: Option<String>,
    /// How long to wait for the answer
    #[arg(long, value_name = "TIME", default_value = "5s", value_parser = humantime::parse_duration)]
    timeout: Duration,
}

impl Ready {
    pub(super) async fn run(self) -> Result<(), CliError> {
        let url = ask::at(self.url.as_deref(), &self.config)? + "/readyz";
        let answer = ask::get(&url, self.timeout).await?;
        if answer.status == 200 {
            return print("ready\n");
        }
        let body: Value = serde_json::from_str(&answer.body).unwrap_or_default();
        let mut parts = Vec::new();
        if body["store"]["ready"] == false {
            parts.push(format!(
                "the store: {}",
                reason(&body["store"]["error"], "takes no writes")
            ));
        }
        for (name, source) in body["sources"].as_object().into_iter().flatten() {
            if source["ready"] == false {
                let state = source["state"].as_str().unwrap_or("not ready");
                parts.push(format!(
                    "source {name}: {state}: {}",
                    reason(&source["error"], "no reason known")
                ));
            }
        }
        if parts.is_empty() {
            parts.push(format!("{url} answered {}", answer.status));
        }
        Err(CliError::failed(format!("not ready: {}", parts.join("; "))))
    }
}

fn reason(error: &Value, unknown: &str) -> String {
    Untrusted::from(error.as_str().unwrap_or(unknown)).to_string()
}
