//! What explains a bill: users, sessions, usage.

use axum::{
    Router,
    extract::{Path, State},
    http::Uri,
    response::Response,
    routing::get,
};
use serde_json::Value;
use turnhook_reducer::{event::Accuracy, usage::Counters};
use turnhook_store::{SessionDetail, SessionFilter, SessionRow, Sums, UsageFilter};

use super::{Block, Cell, Field, Shown, Table, View, overview::by_day};
use crate::{
    Admin, Refused,
    api::reads::period,
    asked::{Asked, encoded, part, session_id},
    report::{self, By},
    text,
    zone::Period,
};

pub(super) fn routes() -> Router<Admin> {
    Router::new()
        .route("/sessions", get(sessions))
        .route("/sessions/{id}", get(session))
        .route("/users/{user}", get(user))
        .route("/usage", get(usage))
}

const SESSION_COLUMNS: [(&str, bool); 7] = [
    ("Session", false),
    ("User", false),
    ("Source", false),
    ("Started", false),
    ("Lasted", true),
    ("Billable", true),
    ("Accuracy", false),
];

fn session_row(view: &View, row: &SessionRow) -> Vec<Cell> {
    let lasted = row.end.map(|(at, ..)| at.since(row.started_at));
    vec![
        view.session_cell(row.id),
        view.user_cell(row.user.as_deref()),
        Cell::text(row.source.clone()),
        Cell::time(row.started_at, &view.zone),
        Cell::Number(lasted.map_or_else(|| "open".to_owned(), text::duration)),
        Cell::bytes(row.usage.billable_bytes),
        row.end.map_or_else(
            || Cell::text("open"),
            |(.., accuracy)| Cell::state(accuracy.as_str()),
        ),
    ]
}

async fn listed(
    admin: &Admin,
    view: &View,
    filter: SessionFilter,
    caption: &str,
    limit: usize,
) -> Result<Table, Refused> {
    let rows = admin
        .store
        .sessions(filter, view.asked.session("after")?, limit)
        .await?;
    let next = rows.last().filter(|_| rows.len() == limit);
    let next = next.map(|row| {
        format!(
            "{}{}",
            view.here,
            view.asked.with(&[("after", row.id.to_string().as_bytes())])
        )
    });
    Ok(Table {
        caption: caption.to_owned(),
        columns: SESSION_COLUMNS.to_vec(),
        rows: rows.iter().map(|row| session_row(view, row)).collect(),
        none: "There are none.",
        next,
    })
}

async fn sessions(State(admin): State<Admin>, view: View) -> Response {
    let shown = async {
        let table = listed(
            &admin,
            &view,
            view.asked.sessions()?,
            "Newest first",
            view.asked.limit()?,
        )
        .await?;
        let asked = &view.asked;
        let fields = vec![
            Field::new("User", "user", "text", asked),
            Field::new("Source", "source", "text", asked),
            Field::new("Realm", "realm", "text", asked),
            Field::new("Since", "since", "text", asked),
            Field::new("Until", "until", "text", asked),
            Field::new("Which", "open", "text", asked).of(&[
                ("", "all"),
                ("true", "open"),
                ("false", "ended"),
            ]),
        ];
        Ok((
            "Sessions".to_owned(),
            vec![
                view.filter(fields, "Show"),
                view.csv("/sessions"),
                Block::Table(table),
            ],
        ))
    };
    let shown = shown.await;
    view.show(shown)
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
        _ => return "the rule that held when it was told, which this event does not name".to_owned(),
    };
    format!("{name}: {words}")
}

/// How sure it is, in words.
fn accuracy(detail: &SessionDetail, view: &View) -> (&'static str, String) {
    let row = &detail.row;
    match row.end {
        None => (
            "",
            "It is open: what stands here is what was told so far.".to_owned(),
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
    let detail = admin.store.session(id).await?;
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
        None => format!("not yet; last told at {}", zone.show(row.updated_at)),
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
            "That is",
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
    for next in admin.store.continued_by(id).await? {
        facts.push(("Corrected by (whose bytes add to these)", view.session_cell(next)));
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
            ("packets", true),
            ("Sent, bytes", true),
            ("packets", true),
        ],
        rows: legs,
        none: "",
        next: None,
    }));
    blocks.push(Block::Table(allocations(&body)));
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
                let told = event
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
                    Cell::State(state, told.collect::<Vec<_>>().join(", ")),
                ]
            })
            .collect(),
        none: "They are past their retention.",
        next: None,
    }));
    blocks.push(Block::Links(vec![
        (
            view.link(&format!("/deliveries?session={id}")),
            "Deliveries".to_owned(),
        ),
        (format!("/api/v1/sessions/{id}"), "JSON".to_owned()),
    ]));
    Ok((format!("Session {id}"), blocks))
}

fn allocations(body: &Value) -> Table {
    let listed = body["data"]["allocations"]
        .as_array()
        .cloned()
        .unwrap_or_default();
    let omitted = body["data"]["allocations_omitted"].as_u64().unwrap_or_default();
    let word = |value: &Value| match value {
        Value::String(text) => Cell::Name(text::shown(text.as_bytes())),
        Value::Bool(seen) => Cell::text(if *seen { "yes" } else { "no" }),
        Value::Null => Cell::text("not known"),
        other => Cell::text(other.to_string()),
    };
    let bytes = |of: &Value| Cell::number(of.as_u64().unwrap_or_default());
    Table {
        caption: match omitted {
            0 => "Allocations, as told last".to_owned(),
            more => format!("Allocations, as told last; {more} more are not listed"),
        },
        columns: vec![
            ("Allocation", false),
            ("Client", false),
            ("Over", false),
            ("Opened", false),
            ("Closed", false),
            ("Why", false),
            ("Totals seen", false),
            ("From client, bytes", true),
            ("To peers, bytes", true),
        ],
        rows: listed
            .iter()
            .map(|a| {
                vec![
                    word(&a["id"]),
                    word(&a["client_address"]),
                    word(&a["transport"]),
                    word(&a["opened_at"]),
                    word(&a["closed_at"]),
                    word(&a["close_reason"]),
                    word(&a["totals_seen"]),
                    bytes(&a["usage"]["client"]["received_bytes"]),
                    bytes(&a["usage"]["peer"]["sent_bytes"]),
                ]
            })
            .collect(),
        none: "None is told of.",
        next: None,
    }
}

fn days(view: &View, period: &Period, more: Vec<Field>) -> Block {
    let day = |label, name, day: jiff::civil::Date| Field {
        value: day.to_string(),
        ..Field::new(label, name, "date", &view.asked)
    };
    let mut fields = vec![day("From", "from", period.from), day("To", "to", period.to)];
    fields.extend(more);
    view.filter(fields, "Show")
}

async fn user(State(admin): State<Admin>, uri: Uri, view: View) -> Response {
    let shown = one_user(&admin, &part(&uri, 1), &view).await;
    view.show(shown)
}

async fn one_user(admin: &Admin, user: &[u8], view: &View) -> Shown {
    let period = period(&view.asked)?;
    let (from, to) = period.times();
    let filter = UsageFilter {
        user: Some(user.to_vec()),
        ..UsageFilter::default()
    };
    let report = report::usage(&admin.store, &filter, &period, &[By::Day]).await?;
    let ended = admin.store.usage_ended(user.to_vec(), from, to).await?;
    let mut blocks = vec![days(view, &period, Vec::new())];
    let (class, words) = compared(&report.total, &ended);
    blocks.push(Block::Say(class, words));
    if report.whole_days {
        let words = "Some of these days were summed up in UTC, by an older version; each counts on the day of its noon.";
        blocks.push(Block::Say("", words.to_owned()));
    }
    blocks.push(Block::Facts(vec![
        (
            "Billable by usage_delta of all events",
            Cell::number(report.total.usage.billable_bytes),
        ),
        (
            "Billable by usage of session.end",
            Cell::number(ended.usage.billable_bytes),
        ),
        ("Sessions started", Cell::number(report.total.started)),
        ("Sessions ended", Cell::number(ended.ended)),
        ("Of these a lower bound", Cell::number(ended.lower_bound)),
        ("They lasted", Cell::text(text::duration(ended.duration_ms))),
    ]));
    blocks.push(Block::Plot(by_day(
        "Billable bytes by day",
        &period,
        &report.rows,
    )));
    blocks.push(Block::Table(Table {
        caption: "By day, as told".into(),
        columns: vec![
            ("Day", false),
            ("Started", true),
            ("Ended", true),
            ("Lower bound", true),
            ("From client", true),
            ("To client", true),
            ("From peers", true),
            ("To peers", true),
            ("Billable bytes", true),
        ],
        rows: report.rows.iter().map(|(key, sums)| day_row(key, sums)).collect(),
        none: "Nothing was told of in these days.",
        next: None,
    }));
    let path = format!("/users/{}/usage", encoded(user));
    blocks.push(view.csv(&path));
    let mut only = view.asked.sessions()?;
    only.user = Some(user.to_vec());
    (only.since, only.until) = (Some(from), Some(to));
    blocks.push(Block::Heading("Sessions of that time"));
    let table = listed(admin, view, only.clone(), "Newest first", view.asked.limit()?).await?;
    blocks.push(Block::Table(table));
    blocks.push(Block::Heading("When something may have been missed meanwhile"));
    let sources: Vec<String> = admin
        .store
        .sessions(only, None, 1000)
        .await?
        .into_iter()
        .map(|row| row.source)
        .collect();
    let gaps = admin.store.gaps(Some(from), 10_000).await?;
    let gaps = gaps
        .iter()
        .filter(|row| row.gap.from < to && sources.contains(&row.source));
    blocks.push(Block::Table(super::operate::gaps(view, gaps.take(100))));
    Ok((format!("User {}", text::shown(user)), blocks))
}

fn day_row(key: &[Option<Vec<u8>>], sums: &Sums) -> Vec<Cell> {
    let day = key.first().and_then(Option::as_deref).unwrap_or_default();
    let (client, peer) = (&sums.usage.legs.client, &sums.usage.legs.peer);
    vec![
        Cell::text(text::shown(day)),
        Cell::number(sums.started),
        Cell::number(sums.ended),
        Cell::number(sums.lower_bound),
        Cell::number(client.received_bytes),
        Cell::number(client.sent_bytes),
        Cell::number(peer.received_bytes),
        Cell::number(peer.sent_bytes),
        Cell::number(sums.usage.billable_bytes),
    ]
}

/// Why what was billed by ends is not what was billed by deltas.
fn compared(deltas: &Sums, ended: &Sums) -> (&'static str, String) {
    let (by_deltas, by_ends) = (deltas.usage.billable_bytes, ended.usage.billable_bytes);
    let bytes = text::grouped(by_deltas);
    match by_deltas.cmp(&by_ends) {
        std::cmp::Ordering::Equal => (
            "good",
            format!("{bytes} billable bytes, by ends and by deltas alike."),
        ),
        std::cmp::Ordering::Greater => (
            "",
            format!(
                "{bytes} billable bytes by deltas; {} less by ends: sessions that ended later, or are open, were told of \
                 here in parts.",
                text::grouped(by_deltas - by_ends)
            ),
        ),
        std::cmp::Ordering::Less => (
            "",
            format!(
                "{bytes} billable bytes by deltas; {} more by ends: sessions that ended here had begun before, and a part \
                 of them was told of then.",
                text::grouped(by_ends - by_deltas)
            ),
        ),
    }
}

async fn usage(State(admin): State<Admin>, view: View) -> Response {
    let shown = all_usage(&admin, &view).await;
    view.show(shown)
}

const TOP: usize = 25;

async fn all_usage(admin: &Admin, view: &View) -> Shown {
    let period = period(&view.asked)?;
    let asked: &Asked = &view.asked;
    let filter = UsageFilter {
        user: None,
        source: asked.text("source"),
        realm: asked.bytes("realm").map(<[u8]>::to_vec),
    };
    let days_of = report::usage(&admin.store, &filter, &period, &[By::Day]).await?;
    let earlier = period.before();
    let before = report::usage(&admin.store, &filter, &earlier, &[By::Source]).await?;
    let fields = vec![
        Field::new("Source", "source", "text", asked),
        Field::new("Realm", "realm", "text", asked),
    ];
    let mut blocks = vec![days(view, &period, fields)];
    blocks.push(Block::Facts(vec![
        ("Billable bytes", Cell::number(days_of.total.usage.billable_bytes)),
        (
            "As many days before that",
            Cell::number(before.total.usage.billable_bytes),
        ),
        ("Sessions started", Cell::number(days_of.total.started)),
        ("Sessions ended", Cell::number(days_of.total.ended)),
        ("Of these a lower bound", Cell::number(days_of.total.lower_bound)),
    ]));
    blocks.push(Block::Plot(by_day(
        "Billable bytes by day",
        &period,
        &days_of.rows,
    )));
    blocks.push(view.csv("/usage"));
    for (by, caption) in [
        (By::Source, "By source"),
        (By::Realm, "By realm"),
        (By::User, "Users with the most"),
    ] {
        let mut report = report::usage(&admin.store, &filter, &period, &[by]).await?;
        report.keep_top(TOP);
        let rows = report.rows.iter().map(|(key, sums)| {
            let key = key.first().and_then(Option::as_deref);
            vec![
                if by == By::User {
                    view.user_cell(key)
                } else {
                    Cell::name(key.unwrap_or_default())
                },
                Cell::number(sums.started),
                Cell::number(sums.ended),
                Cell::number(sums.usage.billable_bytes),
            ]
        });
        blocks.push(Block::Table(Table {
            caption: caption.to_owned(),
            columns: vec![
                ("Which", false),
                ("Started", true),
                ("Ended", true),
                ("Billable bytes", true),
            ],
            rows: rows.collect(),
            none: "Nothing was told of in these days.",
            next: None,
        }));
    }
    Ok((format!("Usage from {} to {}", period.from, period.to), blocks))
}
