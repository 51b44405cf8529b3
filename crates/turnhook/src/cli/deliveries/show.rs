//! `turnhook deliveries show`.

use clap::Args;
use serde_json::{Value, json};
use turnhook_admin::Zone;
use turnhook_dispatcher::body::rfc3339;
use turnhook_reducer::event::EventId;
use turnhook_store::{Attempt, DeliveryDetail};

use super::{
    super::{
        args::{ConfigArgs, Format},
        error::CliError,
        output::{print, print_bytes},
    },
    row::{next_attempt, to_json},
};
use crate::cli::{
    output::{self, Rows, print_json},
    running::Running,
    store,
    zone::ZoneArgs,
};

/// Show an event's deliveries: the payload, and each attempt
#[derive(Debug, Args)]
#[command(after_help = "\
Example:
  $ turnhook deliveries show evt_06epcj2hhm0000000000000001
  $ turnhook deliveries show evt_06epcj2hhm0000000000000001 --format json | jq .attempts
  $ turnhook deliveries show evt_06epcj2hhm0000000000000001 --body | jq

  The body is shown as it is signed. Times are UTC, or those of --tz.")]
pub(super) struct Show {
    #[command(flatten)]
    config: ConfigArgs,
    /// The event's id, which is its `webhook-id`
    #[arg(value_name = "EVENT")]
    id: EventId,
    /// Only to this endpoint
    #[arg(long, value_name = "NAME")]
    endpoint: Option<String>,
    /// Print the body alone, to the byte: what is signed
    #[arg(long, conflicts_with_all = ["endpoint", "format"])]
    body: bool,
    #[command(flatten)]
    zone: ZoneArgs,
    /// How to print them; json: one object a line for each endpoint
    #[arg(long, value_enum, default_value_t)]
    format: Format,
}

impl Show {
    pub(super) async fn run(self) -> Result<(), CliError> {
        let (config, store) = store::open(&self.config).await?;
        let mut found = store.ledger().delivery(self.id).await?;
        found.retain(|detail| {
            self.endpoint
                .as_ref()
                .is_none_or(|name| *name == detail.row.endpoint)
        });
        if found.is_empty() {
            return Err(CliError::failed(format!(
                "there is no delivery of {} in the store",
                self.id
            )));
        }
        if let (true, Some(detail)) = (self.body, found.first()) {
            return print_bytes(&detail.body);
        }
        let running = Running::ask(&config, &store).await?;
        running.say_if_unanswered();
        match self.format {
            Format::Json => found
                .iter()
                .try_for_each(|detail| print_json(&detail_json(detail, &running))),
            Format::Text => text(&found, &running, &self.zone),
        }
    }
}

fn answer(attempt: &Attempt) -> String {
    attempt
        .answer
        .as_deref()
        .map(String::from_utf8_lossy)
        .unwrap_or_default()
        .into_owned()
}

fn detail_json(detail: &DeliveryDetail, running: &Running) -> Value {
    let attempts = detail.attempts.iter().map(|attempt| {
        json!({
            "number": attempt.number,
            "at": rfc3339(attempt.at),
            "latency_ms": attempt.latency_ms,
            "status": attempt.status,
            "error": attempt.error,
            "answer": attempt.answer.is_some().then(|| answer(attempt)),
        })
    });
    let mut object = to_json(&detail.row, running);
    object["attempts"] = attempts.collect();
    // As a string: the bytes that are signed, and nothing that was parsed and printed again.
    object["body"] = String::from_utf8_lossy(&detail.body).into();
    object
}

fn text(found: &[DeliveryDetail], running: &Running, zone: &Zone) -> Result<(), CliError> {
    for (index, detail) in found.iter().enumerate() {
        let row = &detail.row;
        if index == 0 {
            let of = row.session().map_or_else(
                || format!("user {}", output::name(row.user.as_deref().unwrap_or_default())),
                |id| format!("session {id} #{}", row.sequence),
            );
            print(&format!("{}  {}  {of}\n", row.event_id, row.event_type.as_str()))?;
            // As it was signed, in one line; only what a terminal would obey is escaped.
            print(&format!("{}\n", output::name(&detail.body)))?;
        }
        let next = match next_attempt(row, running, zone) {
            none if none.is_empty() => none,
            at => format!(", next attempt {at}"),
        };
        let finished = row
            .finished_at
            .map(|at| format!(" {}", zone.show(at)))
            .unwrap_or_default();
        let reason = row
            .reason
            .as_ref()
            .map(|reason| format!(": {}", output::name(reason.as_bytes())))
            .unwrap_or_default();
        let replay = row
            .replay
            .map(|replay| format!(", by replay {}", replay.0))
            .unwrap_or_default();
        print(&format!(
            "\n{}: {}{finished}{reason}{next}{replay}\n",
            row.endpoint,
            row.state.as_str()
        ))?;
        let mut table = Rows::new(&[
            ("#", true),
            ("AT (UTC)", false),
            ("STATUS", true),
            ("TOOK", true),
            ("ERROR", false),
            ("ANSWER", false),
        ])
        .narrow(&[], &["ANSWER", "ERROR"])
        .of_zone(zone);
        for attempt in &detail.attempts {
            table.push([
                attempt.number.to_string(),
                zone.show(attempt.at),
                attempt
                    .status
                    .map_or_else(|| "-".to_owned(), |status| status.to_string()),
                format!("{} ms", attempt.latency_ms),
                output::name(attempt.error.as_deref().unwrap_or_default().as_bytes()),
                output::name(answer(attempt).replace('\n', " ").as_bytes()),
            ]);
        }
        table.print("no attempts yet")?;
    }
    Ok(())
}
