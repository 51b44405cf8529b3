//! One session: what it relayed, how sure that is, and what became of its events.

use axum::{
    Router,
    extract::{Path, State},
    response::Response,
    routing::get,
};
use serde_json::Value;
use turnhook_reducer::{
    event::{Accuracy, SessionId},
    time::Timestamp,
    usage::Counters,
};
use turnhook_store::{SessionDetail, SessionRow};

use super::{
    bill::{SESSION_COLUMNS, session_row},
    operate,
    table::{Cell, Table},
    timeline::{Span, timeline},
    view::{Block, Shown, View},
};
use crate::{Admin, Refused, Role, actions::now, asked::session_id, text};

pub(super) fn routes() -> Router<Admin> {
    Router::new().route("/sessions/{id}", get(session))
}

/// Which rule made the bytes.
fn rule(name: &str) -> String {
    let words = match name {
        "relayed" => {
            "what was relayed: the bytes that peers were sent, plus those from peers that went on to the client"
        }
        "client" => "the client's leg: what coturn received from the client, plus what it sent to it",
        "egress" => "what coturn sent: to the client, plus to peers",
        "ingress" => "what coturn received: from the client, plus from peers",
        _ => return "the rule that held when it was billed, which this event does not name".to_owned(),
    };
    format!("{words} (billable = \"{name}\")")
}

/// How sure it is, in words.
fn accuracy(detail: &SessionDetail, view: &View) -> (&'static str, String) {
    let row = &detail.row;
    match row.end {
        None => (
            "",
            "It is open: what stands here is what was sent so far.".to_owned(),
        ),
        Some((.., Accuracy::Exact)) => {
            let words = "Exact, to the byte: coturn's own totals were seen for every allocation.";
            ("good", words.to_owned())
        }
        Some((.., Accuracy::LowerBound)) => {
            let mut words =
                "At least this much, never more than was carried: not everything was seen.".to_owned();
            for gap in &detail.gaps {
                let (from, to) = (view.zone.show(gap.from), view.zone.show(gap.to));
                words += &format!(
                    " From {from} to {to} something may have been missed ({}).",
                    gap.reason.as_str()
                );
            }
            if detail.gaps.is_empty() {
                words += " The totals of an allocation are missing.";
            }
            ("warn", words)
        }
    }
}

fn leg(name: &'static str, c: &Counters) -> Vec<Cell> {
    vec![
        Cell::text(name),
        Cell::number(c.received_bytes),
        Cell::number(c.received_packets),
        Cell::number(c.sent_bytes),
        Cell::number(c.sent_packets),
    ]
}

async fn session(State(admin): State<Admin>, Path(id): Path<String>, view: View) -> Response {
    let shown = one_session(&admin, &id, &view).await;
    view.show(shown)
}

async fn one_session(admin: &Admin, id: &str, view: &View) -> Shown {
    let id = session_id(id)?;
    let detail = admin.ledger.session(id).await?;
    let Some(detail) = detail else {
        return Err(Refused::missing(format!(
            "there is no session {id} in the store: it may be past its retention"
        )));
    };
    let (row, zone) = (&detail.row, &view.zone);
    let body: Value = detail
        .last_body
        .as_deref()
        .and_then(|body| serde_json::from_slice(body).ok())
        .unwrap_or_default();
    let (class, words) = accuracy(&detail, view);
    let mut blocks = vec![Block::Say(class, words)];
    let ended = match row.end {
        Some((at, reason, _)) => format!("{}: {}", zone.show(at), reason.as_str().replace('_', " ")),
        None => format!("not yet; last sent at {}", zone.show(row.updated_at)),
    };
    let mut facts = vec![
        ("User", view.user_cell(row.user.as_deref())),
        ("Source", Cell::text(row.source.clone())),
        ("Realm", Cell::name(&row.realm)),
        ("Started", Cell::time(row.started_at, zone)),
        ("Ended", Cell::text(ended)),
        (
            "Lasted",
            Cell::text(text::duration(
                row.end
                    .map_or(row.updated_at, |(at, ..)| at)
                    .since(row.started_at),
            )),
        ),
        ("Billable bytes", Cell::number(row.usage.billable_bytes)),
        (
            "They are",
            Cell::text(rule(body["data"]["billable"].as_str().unwrap_or_default())),
        ),
    ];
    for name in &row.usernames {
        facts.push(("TURN username", Cell::name(name)));
    }
    for (name, value) in &row.labels {
        facts.push(("Label", Cell::Name(format!("{name} = {}", text::shown(value)))));
    }
    if let Some(before) = row.continues {
        facts.push(("Corrects (its bytes add to those of)", view.session_cell(before)));
    }
    let chain = chain(admin, row).await?;
    for next in chain.iter().filter(|next| next.continues == Some(id)) {
        facts.push((
            "Corrected by (whose bytes add to these)",
            view.session_cell(next.id),
        ));
    }
    blocks.push(Block::Facts(facts));
    let mut legs = vec![leg("client and coturn", &row.usage.legs.client)];
    if row.peer_leg {
        legs.push(leg("coturn and peers", &row.usage.legs.peer));
    }
    blocks.push(Block::Table(Table {
        caption: "What coturn counted on each leg".into(),
        columns: vec![
            ("Leg", false),
            ("Received, bytes", true),
            ("Received, packets", true),
            ("Sent, bytes", true),
            ("Sent, packets", true),
        ],
        rows: legs,
        none: "",
        next: None,
    }));
    if chain.len() > 1 {
        blocks.push(Block::Table(together(view, &chain)));
    }
    let spans = spans(&body, view);
    let whole = Span {
        name: "session".to_owned(),
        from: row.started_at,
        to: row.end.map(|(at, ..)| at),
    };
    blocks.push(Block::Plot(timeline(view, &whole, now(), &spans, &detail.gaps)));
    blocks.push(Block::Table(allocations(&body, view)));
    let gaps: Vec<turnhook_store::GapRow> = detail
        .gaps
        .iter()
        .map(|gap| turnhook_store::GapRow {
            source: row.source.clone(),
            gap: gap.clone(),
        })
        .collect();
    let mut gaps = operate::gaps(view, gaps.iter());
    gaps.caption = "Gaps that touch it".to_owned();
    blocks.push(Block::Table(gaps));
    blocks.push(Block::Table(Table {
        caption: "Events, and what became of them".into(),
        columns: vec![
            ("Event", false),
            ("Type", false),
            ("Sequence", true),
            ("Decided", false),
            ("Endpoints", false),
        ],
        rows: detail
            .events
            .iter()
            .map(|event| {
                let shown = event
                    .deliveries
                    .iter()
                    .map(|(name, state)| format!("{name}: {}", state.as_str()));
                let worst = event.deliveries.iter().map(|(_, state)| state.as_str());
                let worst = ["dead", "pending", "discarded", "delivered"]
                    .into_iter()
                    .find(|known| worst.clone().any(|state| state == *known));
                let state = match Cell::state(worst.unwrap_or_default()) {
                    Cell::State(class, _) => class,
                    _ => "",
                };
                vec![
                    view.event_cell(event.event_id),
                    Cell::text(event.event_type.as_str()),
                    Cell::number(event.sequence.into()),
                    Cell::time(event.timestamp, zone),
                    Cell::State(state, shown.collect::<Vec<_>>().join(", ")),
                ]
            })
            .collect(),
        none: "They are past their retention.",
        next: None,
    }));
    let mut links = vec![
        (
            view.link(&format!("/deliveries?session={id}")),
            "Deliveries".to_owned(),
        ),
        (format!("/api/v1/sessions/{id}"), "JSON".to_owned()),
    ];
    let status = admin.engine.status();
    let is_controlled = status
        .sources
        .iter()
        .any(|source| source.name == row.source && source.controlled);
    if row.end.is_none() && is_controlled && view.who.role == Role::Operator {
        let path = format!("/confirm/end?session={id}");
        links.push((view.link(&path), "End it now".to_owned()));
    }
    blocks.push(Block::Links(links));
    Ok((format!("Session {id}"), blocks))
}

/// So many are looked at on each side: a chain is a few sessions long, and must not become a loop.
const CHAIN: usize = 20;

/// What it corrects, itself, and what corrects it, oldest first.
async fn chain(admin: &Admin, row: &SessionRow) -> Result<Vec<SessionRow>, Refused> {
    let mut chain = vec![row.clone()];
    let mut before = row.continues;
    while let Some(id) = before.filter(|_| chain.len() < CHAIN) {
        let Some(found) = admin.ledger.session(id).await? else {
            break;
        };
        before = found.row.continues;
        chain.insert(0, found.row);
    }
    let mut later: Vec<SessionId> = vec![row.id];
    while let Some(id) = later.pop().filter(|_| chain.len() < 2 * CHAIN) {
        for next in admin.ledger.continued_by(id).await? {
            if let Some(found) = admin.ledger.session(next).await? {
                chain.push(found.row);
                later.push(next);
            }
        }
    }
    Ok(chain)
}

fn together(view: &View, chain: &[SessionRow]) -> Table {
    let sum = chain
        .iter()
        .fold(0u64, |sum, row| sum.saturating_add(row.usage.billable_bytes));
    Table {
        caption: format!(
            "With what it corrects and is corrected by: {} billable bytes, and one session",
            text::grouped(sum)
        ),
        columns: SESSION_COLUMNS.to_vec(),
        rows: chain.iter().map(|row| session_row(view, row)).collect(),
        none: "",
        next: None,
    }
}

fn listed(body: &Value) -> impl Iterator<Item = &Value> {
    body["data"]["allocations"].as_array().into_iter().flatten()
}

fn time(value: &Value, view: &View) -> Option<Timestamp> {
    value.as_str().and_then(|text| view.zone.parse(text))
}

/// When each of the allocations that are listed was open.
fn spans(body: &Value, view: &View) -> Vec<Span> {
    let span = |a: &Value| {
        Some(Span {
            name: format!(
                "…{}",
                a["id"].as_str().unwrap_or_default().trim_start_matches('0')
            ),
            from: time(&a["opened_at"], view)?,
            to: time(&a["closed_at"], view),
        })
    };
    listed(body).filter_map(span).collect()
}

fn allocations(body: &Value, view: &View) -> Table {
    let omitted = body["data"]["allocations_omitted"].as_u64().unwrap_or_default();
    let word = |value: &Value, none: &str| match value {
        Value::String(text) => Cell::Name(text::shown(text.as_bytes())),
        Value::Bool(seen) => Cell::text(if *seen { "yes" } else { "no" }),
        Value::Null => Cell::text(none),
        other => Cell::text(other.to_string()),
    };
    let at = |value: &Value, none: &str| {
        time(value, view).map_or_else(|| Cell::text(none), |at| Cell::time(at, &view.zone))
    };
    let why = |a: &Value| Cell::text(a["close_reason"].as_str().unwrap_or("open").replace('_', " "));
    let bytes = |of: &Value| Cell::number(of.as_u64().unwrap_or_default());
    Table {
        caption: match omitted {
            0 => "Allocations, as last sent".to_owned(),
            more => format!("Allocations, as last sent; {more} more are not listed"),
        },
        columns: vec![
            ("Allocation", false),
            ("Client", false),
            ("Over", false),
            ("Opened", false),
            ("Closed", false),
            ("Why", false),
            ("Totals seen", false),
            ("From client", true),
            ("To client", true),
            ("From peers", true),
            ("To peers, bytes", true),
        ],
        rows: listed(body)
            .map(|a| {
                let usage = &a["usage"];
                vec![
                    word(&a["id"], "–"),
                    word(&a["client_address"], "not known"),
                    word(&a["transport"], "not known"),
                    at(&a["opened_at"], "not known"),
                    at(&a["closed_at"], "open"),
                    why(a),
                    word(&a["totals_seen"], "–"),
                    bytes(&usage["client"]["received_bytes"]),
                    bytes(&usage["client"]["sent_bytes"]),
                    bytes(&usage["peer"]["received_bytes"]),
                    bytes(&usage["peer"]["sent_bytes"]),
                ]
            })
            .collect(),
        none: "None is listed.",
        next: None,
    }
}
