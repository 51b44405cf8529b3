//! The first view: how billing stands, in a sentence.

use axum::{Router, extract::State, response::Response, routing::get};
use turnhook_store::UsageFilter;

use super::{
    plot,
    table::{Cell, Table},
    view::{Block, Shown, View},
};
use crate::{
    Admin, EndpointNow, SourceNow, StatusNow,
    actions::now,
    history::Line,
    report::{self, By},
    text,
    zone::{Period, Zone},
};

pub(super) fn routes() -> Router<Admin> {
    Router::new().route("/", get(overview))
}

const DAY_MS: u64 = 86_400_000;

async fn overview(State(admin): State<Admin>, view: View) -> Response {
    let shown = blocks(&admin, &view).await;
    view.show(shown)
}

async fn blocks(admin: &Admin, view: &View) -> Shown {
    let (status, now) = (admin.engine.status(), now());
    let zone = &view.zone;
    let mut blocks = stands(&status, zone);
    blocks.extend(versions(admin).await?);
    let gaps = admin
        .ledger
        .gaps(
            Some(turnhook_reducer::time::Timestamp(now.0.saturating_sub(DAY_MS))),
            10_000,
        )
        .await?;
    blocks.push(Block::Heading("Sources"));
    blocks.push(Block::Table(Table {
        caption: "Whether coturn is heard".into(),
        columns: vec![
            ("Source", false),
            ("State", false),
            ("Role", false),
            ("Since", false),
            ("Last heard", false),
            ("Open sessions", true),
            ("Gaps in 24 h", true),
            ("Silent threads", true),
        ],
        rows: status
            .sources
            .iter()
            .map(|source| {
                let gaps = gaps.iter().filter(|gap| gap.source == source.name).count();
                vec![
                    Cell::Link(
                        view.link(&format!(
                            "/sources/{}",
                            crate::asked::encoded(source.name.as_bytes())
                        )),
                        source.name.clone(),
                    ),
                    Cell::state(&source.state),
                    Cell::state(&source.role),
                    Cell::time_if_any(source.since, zone),
                    Cell::maybe_time(source.last_message_at, zone),
                    Cell::number(source.open_sessions),
                    Cell::number(gaps as u64),
                    Cell::number(source.silent_threads.len() as u64),
                ]
            })
            .collect(),
        none: "No source is configured.",
        next: None,
    }));
    blocks.push(Block::Heading("Endpoints"));
    blocks.push(Block::Table(endpoints(view, &status.endpoints)));
    let today = zone.day(now);
    let from = today.checked_sub(jiff::ToSpan::days(29)).unwrap_or(today);
    let period = Period {
        zone: zone.clone(),
        from,
        to: today,
    };
    let report = report::usage(&admin.ledger, &UsageFilter::default(), &period, &[By::Day]).await?;
    blocks.push(Block::Heading("The last 30 days"));
    blocks.push(Block::Plot(by_day(
        "Billable bytes by day",
        &period,
        &report.rows,
    )));
    for source in &status.sources {
        for (line, title, words) in [
            (
                Line::OpenSessions(source.name.clone()),
                "open sessions",
                plot::whole as plot::Words,
            ),
            (
                Line::Messages(source.name.clone()),
                "messages a minute",
                plot::whole,
            ),
        ] {
            let title = format!("{}: {title}, the last day", source.name);
            blocks.extend(plot::line(title, &admin.history.line(&line), words, zone).map(Block::Plot));
        }
    }
    Ok(("How billing stands".to_owned(), blocks))
}

/// Every day of the period, those without anything too.
pub(super) fn by_day(title: &str, period: &Period, rows: &[report::Row]) -> plot::Plot {
    let mut days = Vec::new();
    let mut day = period.from;
    while day <= period.to {
        let name = day.to_string();
        let found = rows.iter().filter(|(key, _)| {
            key.first()
                .is_some_and(|key| key.as_deref() == Some(name.as_bytes()))
        });
        let sum = found.fold(0u64, |sum, (_, sums)| {
            sum.saturating_add(sums.usage.billable_bytes)
        });
        days.push((name, sum));
        match day.tomorrow() {
            Ok(next) => day = next,
            Err(_) => break,
        }
    }
    plot::bars(title.to_owned(), "Billable bytes", &days)
}

pub(super) fn endpoints(view: &View, endpoints: &[EndpointNow]) -> Table {
    Table {
        caption: "Whether billing gets its events".into(),
        columns: vec![
            ("Endpoint", false),
            ("State", false),
            ("Pending", true),
            ("Oldest", true),
            ("Dead", true),
            ("Last delivered", false),
            ("Why", false),
        ],
        rows: endpoints
            .iter()
            .map(|endpoint| {
                let name = crate::asked::encoded(endpoint.name.as_bytes());
                vec![
                    Cell::Link(view.link(&format!("/endpoints/{name}")), endpoint.name.clone()),
                    Cell::state(&endpoint.state),
                    Cell::number(endpoint.pending),
                    Cell::Number(age(endpoint).unwrap_or_else(|| "–".into())),
                    Cell::number(endpoint.dead_letters),
                    Cell::maybe_time(endpoint.last_delivered_at, &view.zone),
                    Cell::text(text::shown(
                        endpoint.reason.as_deref().unwrap_or_default().as_bytes(),
                    )),
                ]
            })
            .collect(),
        none: "No endpoint is configured: nothing is sent.",
        next: None,
    }
}

fn age(endpoint: &EndpointNow) -> Option<String> {
    #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)] // an age
    let ms = |seconds: f64| (seconds * 1000.0) as u64;
    endpoint
        .oldest_pending_seconds
        .map(|seconds| text::duration(ms(seconds)))
}

/// Nodes that share the store and are not of one version: for as long as an upgrade takes, that is as it should be.
async fn versions(admin: &Admin) -> Result<Option<Block>, crate::Refused> {
    let Some(seen) = admin.ledger.nodes().await? else {
        return Ok(None);
    };
    let live = seen.nodes.iter().filter(|node| node.live);
    let versions: std::collections::BTreeSet<&str> = live.map(|node| node.version.as_str()).collect();
    let listed = versions.iter().copied().collect::<Vec<_>>().join(", ");
    let words = format!("The nodes are of different versions: {}.", shown(&listed));
    Ok((versions.len() > 1).then_some(Block::Say("warn", words)))
}

/// Longer than a delivery takes that goes well.
const BEHIND: f64 = 60.0;

/// What is wrong, worst first; or that nothing is.
pub(super) fn stands(status: &StatusNow, zone: &Zone) -> Vec<Block> {
    let mut said = Vec::new();
    if !(status.store.writable && status.store.reachable) {
        let why = status
            .store
            .last_error
            .as_deref()
            .unwrap_or("it has not answered yet");
        said.push((
            "bad",
            format!(
                "Nothing is being written down: the store does not take it ({}).",
                shown(why)
            ),
        ));
    }
    for source in status.sources.iter().filter(|source| !source.ready) {
        said.push(("bad", deaf(source, zone)));
    }
    for endpoint in &status.endpoints {
        said.extend(behind(endpoint, zone));
    }
    if said.is_empty() {
        let text = if status.endpoints.is_empty() {
            "Coturn is heard, and nothing is sent: no endpoint is configured."
        } else {
            "Billing gets everything: every source is heard, and nothing waits for long."
        };
        said.push(("good", text.to_owned()));
    }
    said.into_iter()
        .map(|(class, text)| Block::Say(class, text))
        .collect()
}

fn shown(words: &str) -> String {
    text::shown(words.as_bytes())
}

fn deaf(source: &SourceNow, zone: &Zone) -> String {
    let since = source
        .since
        .map(|at| format!(" since {}", zone.show(at)))
        .unwrap_or_default();
    let why = source.last_error.as_deref().unwrap_or("it is starting");
    format!("Source {} hears nothing{since}: {}.", source.name, shown(why))
}

fn behind(endpoint: &EndpointNow, zone: &Zone) -> Vec<(&'static str, String)> {
    let mut said = Vec::new();
    let late = endpoint
        .oldest_pending_seconds
        .is_some_and(|seconds| seconds > BEHIND);
    let name = &endpoint.name;
    let why = endpoint
        .reason
        .as_deref()
        .map(|why| format!(": {}", shown(why)))
        .unwrap_or_default();
    let since = endpoint
        .since
        .map(|at| format!(" since {}", zone.show(at)))
        .unwrap_or_default();
    if endpoint.state == "paused" {
        said.push((
            "bad",
            format!(
                "{name} is paused{since}{why}; {} deliveries wait.",
                endpoint.pending
            ),
        ));
    } else if late {
        let age = age(endpoint).unwrap_or_default();
        said.push((
            "bad",
            format!(
                "{name} is {age} behind{since}{why}; {} deliveries wait.",
                endpoint.pending
            ),
        ));
    } else if endpoint.state != "active" {
        said.push((
            "warn",
            format!("{name} is {}{since}{why}.", endpoint.state.replace('_', " ")),
        ));
    }
    if endpoint.dead_letters > 0 {
        let text = format!(
            "{name} did not get {} events: they are dead letters, and wait for a person.",
            endpoint.dead_letters
        );
        said.push(("warn", text));
    }
    said
}
