//! `turnhook sessions show`.

use clap::Args;
use serde_json::{Value, json};
use turnhook_admin::Zone;
use turnhook_dispatcher::body::rfc3339;
use turnhook_reducer::{event::SessionId, source::Gap, usage::Counters};
use turnhook_store::{DeliveryState, SessionDetail, SessionEventRow};

use super::{
    super::{
        args::{ConfigArgs, Format},
        error::CliError,
        output::print,
    },
    row::to_json,
};
use crate::cli::{
    output::{self, Rows, print_json},
    store,
    units::{bytes, duration},
    zone::{ZoneArgs, shown},
};

/// Show a session: its events and what became of them, its allocations, and gaps in its time
#[derive(Debug, Args)]
#[command(after_help = "\
Example:
  $ turnhook sessions show ses_06epcj2hhm0000000000000001

  Times are UTC, or those of --tz; 1 kB is 1000 bytes. An open session shows what was sent of it last.")]
pub(super) struct Show {
    #[command(flatten)]
    config: ConfigArgs,
    /// The session's id
    #[arg(value_name = "SESSION")]
    id: SessionId,
    #[command(flatten)]
    zone: ZoneArgs,
    /// How to print it
    #[arg(long, value_enum, default_value_t)]
    format: Format,
}

impl Show {
    pub(super) async fn run(self) -> Result<(), CliError> {
        let (_, store) = store::open(&self.config).await?;
        let Some(detail) = store.ledger().session(self.id).await? else {
            return Err(CliError::failed(format!(
                "there is no session {} in the store",
                self.id
            )));
        };
        let last: Value = detail
            .last_body
            .as_deref()
            .and_then(|body| serde_json::from_slice(body).ok())
            .unwrap_or_default();
        let allocations = &last["data"]["allocations"];
        match self.format {
            Format::Json => {
                let mut object = to_json(&detail.row);
                object["events"] = detail.events.iter().map(event_json).collect();
                object["allocations"] = allocations.clone();
                object["gaps"] = detail.gaps.iter().map(gap_json).collect();
                print_json(&object)
            }
            Format::Text => text(&detail, allocations, &self.zone),
        }
    }
}

fn event_json(event: &SessionEventRow) -> Value {
    let deliveries: serde_json::Map<String, Value> = event
        .deliveries
        .iter()
        .map(|(name, state)| (name.clone(), state.as_str().into()))
        .collect();
    json!({
        "webhook_id": event.event_id.to_string(),
        "type": event.event_type.as_str(),
        "sequence": event.sequence,
        "timestamp": rfc3339(event.timestamp),
        "deliveries": deliveries,
    })
}

fn gap_json(gap: &Gap) -> Value {
    json!({
        "from": rfc3339(gap.from),
        "to": rfc3339(gap.to),
        "reason": gap.reason.as_str(),
        "server": gap.server.as_deref().map(String::from_utf8_lossy),
    })
}

fn text(detail: &SessionDetail, allocations: &Value, zone: &Zone) -> Result<(), CliError> {
    let row = &detail.row;
    let leg = |counters: &Counters| {
        format!(
            "received {} B in {} packets, sent {} B in {} packets",
            counters.received_bytes, counters.received_packets, counters.sent_bytes, counters.sent_packets
        )
    };
    let mut facts = vec![
        ("session", row.id.to_string()),
        ("source", row.source.clone()),
        ("realm", output::name(&row.realm)),
        ("user", output::user(row.user.as_deref())),
        (
            "usernames",
            row.usernames
                .iter()
                .map(|name| output::name(name))
                .collect::<Vec<_>>()
                .join(", "),
        ),
    ];
    facts.extend(row.continues.map(|id| ("continues", id.to_string())));
    facts.extend(
        row.labels
            .iter()
            .map(|(name, value)| ("label", format!("{name} = {}", output::name(value)))),
    );
    facts.push(("started", zone.show(row.started_at)));
    match row.end {
        Some((at, reason, accuracy)) => {
            let took = duration(at.since(row.started_at));
            facts.push((
                "ended",
                format!(
                    "{} after {took}: {}, {}",
                    zone.show(at),
                    reason.as_str(),
                    accuracy.as_str()
                ),
            ));
        }
        None => facts.push((
            "ended",
            format!("not yet; last sent at {}", zone.show(row.updated_at)),
        )),
    }
    facts.push(("client", leg(&row.usage.legs.client)));
    facts.push((
        "peer",
        if row.peer_leg {
            leg(&row.usage.legs.peer)
        } else {
            "not reported by this coturn".to_owned()
        },
    ));
    facts.push((
        "billable",
        format!(
            "{} B ({})",
            row.usage.billable_bytes,
            bytes(row.usage.billable_bytes)
        ),
    ));
    let facts: String = facts
        .into_iter()
        .map(|(name, value)| format!("{name:<10} {value}\n"))
        .collect();
    print(&facts)?;

    print("\n")?;
    let mut events = Rows::new(&[
        ("#", true),
        ("EVENT", false),
        ("AT (UTC)", false),
        ("WEBHOOK-ID", false),
        ("DELIVERIES", false),
    ])
    .narrow(&[], &["DELIVERIES"])
    .of_zone(zone);
    for event in &detail.events {
        let deliveries: Vec<String> = event
            .deliveries
            .iter()
            .map(|(name, state): &(String, DeliveryState)| format!("{name}: {}", state.as_str()))
            .collect();
        events.push([
            event.sequence.to_string(),
            event.event_type.as_str().to_owned(),
            zone.show(event.timestamp),
            event.event_id.to_string(),
            deliveries.join(", "),
        ]);
    }
    events.print("its events were trimmed")?;

    print("\n")?;
    let mut table = Rows::new(&[
        ("ALLOCATION", false),
        ("USERNAME", false),
        ("OPENED (UTC)", false),
        ("CLOSED (UTC)", false),
        ("TOTALS", false),
        ("CLIENT", false),
        ("RECEIVED", true),
        ("SENT", true),
    ])
    .narrow(
        &["TOTALS", "CLIENT", "OPENED (UTC)"],
        &["CLOSED (UTC)", "USERNAME"],
    )
    .of_zone(zone);
    let word = |value: &Value| output::name(value.as_str().unwrap_or("-").as_bytes());
    let number = |value: &Value| bytes(value.as_u64().unwrap_or_default());
    for one in allocations.as_array().into_iter().flatten() {
        let closed = one["close_reason"].as_str().map_or_else(
            || "-".to_owned(),
            |reason| {
                format!(
                    "{} {}",
                    shown(&one["closed_at"], zone),
                    output::name(reason.as_bytes())
                )
            },
        );
        let usage = &one["usage"]["client"];
        table.push([
            word(&one["id"]),
            word(&one["username"]),
            shown(&one["opened_at"], zone)
                + if one["opened_seen"] == false {
                    " (first heard of)"
                } else {
                    ""
                },
            closed,
            if one["totals_seen"] == true {
                "seen"
            } else {
                "not seen"
            }
            .to_owned(),
            format!("{} {}", word(&one["transport"]), word(&one["client_address"])),
            number(&usage["received_bytes"]),
            number(&usage["sent_bytes"]),
        ]);
    }
    table.print("no allocations are listed")?;

    if !detail.gaps.is_empty() {
        print("\n")?;
        let mut gaps = Rows::new(&[
            ("GAP FROM (UTC)", false),
            ("TO (UTC)", false),
            ("REASON", false),
            ("SERVER", false),
        ])
        .narrow(&[], &["SERVER"])
        .of_zone(zone);
        for gap in &detail.gaps {
            let server = gap
                .server
                .as_deref()
                .map_or_else(|| "all".to_owned(), output::name);
            gaps.push([
                zone.show(gap.from),
                zone.show(gap.to),
                gap.reason.as_str().to_owned(),
                server,
            ]);
        }
        gaps.print("")?;
    }
    Ok(())
}
