//! `turnhook sessions tail`.

use clap::Args;
use serde_json::json;
use turnhook_admin::Zone;
use turnhook_dispatcher::body::rfc3339;
use turnhook_store::{EmittedEvent, RecordFilter};

use super::{
    super::{
        args::{ConfigArgs, Format},
        error::CliError,
        output::print,
    },
    row::{base64, usage_json},
};
use crate::{
    cli::{
        follow,
        output::{self, print_json},
        pages::PAGE,
        store,
        units::{bytes, duration},
        zone::ZoneArgs,
    },
    shutdown,
};

/// Print what sessions come to, as it is decided
#[derive(Debug, Args)]
#[command(after_help = "\
Example:
  $ turnhook sessions tail
  $ turnhook sessions tail --user cust_42 --format json

  Until interrupted. Times are UTC, or those of --tz; 1 kB is 1000 bytes.")]
pub(super) struct Tail {
    #[command(flatten)]
    config: ConfigArgs,
    /// Only of this user
    #[arg(long)]
    user: Option<String>,
    /// Only of this source
    #[arg(long)]
    source: Option<String>,
    /// Only in this realm
    #[arg(long)]
    realm: Option<String>,
    #[command(flatten)]
    zone: ZoneArgs,
    /// How to print them; json: one object a line
    #[arg(long, value_enum, default_value_t)]
    format: Format,
}

impl Tail {
    pub(super) async fn run(self) -> Result<(), CliError> {
        let (_, store) = store::open(&self.config).await?;
        let stop = shutdown::on_signals().map_err(CliError::failed)?;
        let filter = RecordFilter {
            source: self.source.clone(),
            ..RecordFilter::default()
        };
        let mut after = store.ledger().newest_event().await?;
        eprintln!("waiting for sessions; Ctrl-C ends it");
        loop {
            let page = store.ledger().emitted_events(&filter, after, PAGE).await?;
            for event in &page {
                after = event.number;
                let is = |wanted: &Option<String>, found: &[u8]| {
                    wanted.as_ref().is_none_or(|text| text.as_bytes() == found)
                };
                let user = self
                    .user
                    .as_ref()
                    .is_none_or(|user| event.user.as_deref() == Some(user.as_bytes()));
                if !(user && is(&self.realm, &event.realm)) {
                    continue;
                }
                match self.format {
                    Format::Json => print_json(&json(event))?,
                    Format::Text => print(&(line(event, &self.zone) + "\n"))?,
                }
            }
            if page.len() < PAGE && !follow::next(&stop).await {
                return Ok(());
            }
        }
    }
}

fn line(event: &EmittedEvent, zone: &Zone) -> String {
    let mut line = format!(
        "{}  {:<13}  {:<12}  {} #{}",
        zone.show(event.timestamp),
        event.event_type.as_str(),
        output::user(event.user.as_deref()),
        event.session,
        event.sequence,
    );
    if event.sequence > 0 {
        line += &format!("  billable {}", bytes(event.usage.billable_bytes));
    }
    if let Some(end) = event.end {
        line += &format!(
            "; {} in {}, {}",
            end.reason.as_str(),
            duration(end.ended_at.since(event.started_at)),
            end.accuracy.as_str()
        );
    }
    line
}

fn json(event: &EmittedEvent) -> serde_json::Value {
    json!({
        "webhook_id": event.id.to_string(),
        "type": event.event_type.as_str(),
        "timestamp": rfc3339(event.timestamp),
        "session_id": event.session.to_string(),
        "sequence": event.sequence,
        "continues": event.continues.map(|id| id.to_string()),
        "source": event.source,
        "realm": (!event.realm.is_empty()).then(|| String::from_utf8_lossy(&event.realm)),
        "realm_base64": base64(&event.realm),
        "user": event.user.as_deref().map(String::from_utf8_lossy),
        "user_base64": event.user.as_deref().and_then(base64),
        "started_at": rfc3339(event.started_at),
        "ended_at": event.end.map(|end| rfc3339(end.ended_at)),
        "end_reason": event.end.map(|end| end.reason.as_str()),
        "accuracy": event.end.map(|end| end.accuracy.as_str()),
        "usage": usage_json(&event.usage, true),
        "usage_delta": usage_json(&event.usage_delta, true),
    })
}
