//! What explains a bill: users, their sessions, usage.

use axum::{Router, extract::State, http::Uri, response::Response, routing::get};
use turnhook_reducer::time::Timestamp;
use turnhook_store::{
    DeliveryFilter, DeliveryState, RecordFilter, SessionFilter, SessionRow, Sums, UsageFilter,
};

use super::{
    overview::by_day,
    table::{Cell, Table},
    view::{Block, Field, Shown, View},
};
use crate::{
    Admin, Refused,
    answer::rfc3339,
    api::reads::period,
    asked::{Asked, encoded, part},
    report::{self, By},
    text,
    zone::Period,
};

pub(super) fn routes() -> Router<Admin> {
    Router::new()
        .route("/sessions", get(sessions))
        .route("/users/{user}", get(user))
        .route("/usage", get(usage))
}

/// How a day is written.
pub(super) const DAY: &str = "2026-11-22";

pub(super) const SESSION_COLUMNS: [(&str, bool); 7] = [
    ("Session", false),
    ("User", false),
    ("Source", false),
    ("Started", false),
    ("Lasted", true),
    ("Billable", true),
    ("Accuracy", false),
];

pub(super) fn session_row(view: &View, row: &SessionRow) -> Vec<Cell> {
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
        .ledger
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
            Field::new("Since", "since", "text", asked).hint(DAY),
            Field::new("Until", "until", "text", asked).hint(DAY),
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
    let report = report::usage(&admin.ledger, &filter, &period, &[By::Day, By::Source]).await?;
    let (days_of, sources) = (report.by_one(0), report.by_one(1));
    let ended = admin.ledger.usage_ended(user.to_vec(), from, to).await?;
    let mut blocks = super::blocks::of_user(admin, view, user).await?;
    blocks.push(days(view, &period, Vec::new()));
    let (class, words) = compared(&report.total, &ended);
    blocks.push(Block::Say(class, words));
    blocks.extend(not_received(admin, view, user, (from, to)).await?);
    if report.whole_days {
        let words = "Some of these days were summed up in UTC, by an older version; each counts on the day of its noon.";
        blocks.push(Block::Say("", words.to_owned()));
    }
    let mut open = view.asked.sessions()?;
    open.user = Some(user.to_vec());
    open.open = Some(true);
    let open = admin.ledger.sessions(open, None, MOST_OPEN).await?.len();
    let more = if open == MOST_OPEN { " or more" } else { "" };
    blocks.push(Block::Facts(vec![
        (
            "Billable bytes, by usage_delta of all events",
            Cell::number(report.total.usage.billable_bytes),
        ),
        (
            "Billable bytes, by usage of session.end",
            Cell::number(ended.usage.billable_bytes),
        ),
        ("Sessions started", Cell::number(report.total.started)),
        ("Sessions ended", Cell::number(ended.ended)),
        (
            "Of these a lower bound",
            Cell::text(share(ended.lower_bound, ended.ended)),
        ),
        ("They lasted", Cell::text(text::duration(ended.duration_ms))),
        (
            "Open now",
            Cell::Link(
                view.link(&format!("/sessions?open=true&user={}", encoded(user))),
                format!("{open}{more}"),
            ),
        ),
    ]));
    blocks.push(Block::Plot(by_day("Billable bytes by day", &period, &days_of)));
    blocks.push(Block::Table(Table {
        caption: "By day, as sent".into(),
        columns: vec![
            ("Day", false),
            ("Started", true),
            ("Ended", true),
            ("Lower bound", true),
            ("Minutes of those ended", true),
            ("From client", true),
            ("To client", true),
            ("From peers", true),
            ("To peers", true),
            ("Billable bytes", true),
        ],
        rows: days_of.iter().map(|(key, sums)| day_row(key, sums)).collect(),
        none: "Nothing was sent in these days.",
        next: None,
    }));
    let path = format!("/users/{}/usage", encoded(user));
    blocks.push(view.csv(&path));
    let mut only = view.asked.sessions()?;
    only.user = Some(user.to_vec());
    (only.since, only.until) = (Some(from), Some(to));
    blocks.push(Block::Heading("Sessions of that time"));
    let table = listed(admin, view, only, "Newest first", view.asked.limit()?).await?;
    blocks.push(Block::Table(table));
    blocks.push(Block::Heading("When something may have been missed meanwhile"));
    let mut gaps = Vec::new();
    for (source, _) in sources {
        let source = source.first().and_then(Option::as_deref).unwrap_or_default();
        let of = RecordFilter {
            source: Some(String::from_utf8_lossy(source).into_owned()),
            since: Some(from),
            until: Some(to),
        };
        gaps.extend(admin.ledger.gaps_on_record(&of, None, MOST_GAPS).await?);
    }
    let gaps = gaps.iter().map(|(_, gap)| gap);
    blocks.push(Block::Table(super::operate::gaps(view, gaps)));
    Ok((format!("User {}", text::shown(user)), blocks))
}

/// More are counted as "or more".
const MOST_OPEN: usize = 100;
/// Of each source.
const MOST_GAPS: usize = 100;

/// What billing did not get of that user in that time, and whether it still will be.
async fn not_received(
    admin: &Admin,
    view: &View,
    user: &[u8],
    (from, to): (Timestamp, Timestamp),
) -> Result<Vec<Block>, Refused> {
    let mut blocks = Vec::new();
    for (state, class, words) in [
        (
            DeliveryState::Dead,
            "bad",
            "deliveries of that time are dead letters: billing did not get them, and will not until a person replays them.",
        ),
        (
            DeliveryState::Pending,
            "warn",
            "deliveries of that time are still under way.",
        ),
    ] {
        let filter = DeliveryFilter {
            user: Some(user.to_vec()),
            since: Some(from),
            until: Some(to),
            states: vec![state],
            ..DeliveryFilter::default()
        };
        let count = admin.ledger.count_deliveries(filter).await?;
        if count > 0 {
            blocks.push(Block::Say(class, format!("{} {words}", text::grouped(count))));
            let of = format!(
                "/deliveries?state={}&user={}&since={}&until={}",
                state.as_str(),
                encoded(user),
                encoded(rfc3339(from).as_bytes()),
                encoded(rfc3339(to).as_bytes()),
            );
            blocks.push(Block::Links(vec![(view.link(&of), "Look at them".to_owned())]));
        }
    }
    Ok(blocks)
}

/// `3 (12 %)`.
fn share(part: u64, of: u64) -> String {
    let part_of = u128::from(part) * 100;
    match part_of.checked_div(u128::from(of)) {
        Some(percent) if part > 0 => format!("{} ({percent} %)", text::grouped(part)),
        _ => text::grouped(part),
    }
}

fn day_row(key: &[Option<Vec<u8>>], sums: &Sums) -> Vec<Cell> {
    let day = key.first().and_then(Option::as_deref).unwrap_or_default();
    let (client, peer) = (&sums.usage.legs.client, &sums.usage.legs.peer);
    vec![
        Cell::text(text::shown(day)),
        Cell::number(sums.started),
        Cell::number(sums.ended),
        Cell::number(sums.lower_bound),
        Cell::number(sums.duration_ms / 60_000),
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
                "{bytes} billable bytes by deltas; {} less by ends: sessions that ended later, or are open, were billed \
                 here in parts.",
                text::grouped(by_deltas - by_ends)
            ),
        ),
        std::cmp::Ordering::Less => (
            "",
            format!(
                "{bytes} billable bytes by deltas; {} more by ends: sessions that ended here had begun before, and a part \
                 of them was billed then.",
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

fn most_first(mut rows: Vec<report::Row>) -> Vec<report::Row> {
    rows.sort_by_key(|(_, sums)| std::cmp::Reverse(sums.usage.billable_bytes));
    rows.truncate(TOP);
    rows
}

async fn all_usage(admin: &Admin, view: &View) -> Shown {
    let period = period(&view.asked)?;
    let asked: &Asked = &view.asked;
    let filter = UsageFilter {
        user: None,
        source: asked.text("source"),
        realm: asked.bytes("realm").map(<[u8]>::to_vec),
    };
    let report = report::usage(&admin.ledger, &filter, &period, &[By::Day, By::Source, By::Realm]).await?;
    let earlier = period.before();
    let before = report::usage(&admin.ledger, &filter, &earlier, &[By::Source]).await?;
    let fields = vec![
        Field::new("Source", "source", "text", asked),
        Field::new("Realm", "realm", "text", asked),
    ];
    let mut blocks = vec![days(view, &period, fields)];
    blocks.push(Block::Facts(vec![
        ("Billable bytes", Cell::number(report.total.usage.billable_bytes)),
        (
            "As many days before that",
            Cell::number(before.total.usage.billable_bytes),
        ),
        ("Sessions started", Cell::number(report.total.started)),
        ("Sessions ended", Cell::number(report.total.ended)),
        ("Of these a lower bound", Cell::number(report.total.lower_bound)),
    ]));
    blocks.push(Block::Plot(by_day(
        "Billable bytes by day",
        &period,
        &report.by_one(0),
    )));
    blocks.push(view.csv("/usage"));
    let top = report::top_users(&admin.ledger, &filter, &period, TOP).await?;
    for (by, caption, rows) in [
        (By::Source, "By source", most_first(report.by_one(1))),
        (By::Realm, "By realm", most_first(report.by_one(2))),
        (By::User, "Users with the most", top),
    ] {
        let rows = rows.iter().map(|(key, sums)| {
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
            none: "Nothing was sent in these days.",
            next: None,
        }));
    }
    Ok((format!("Usage from {} to {}", period.from, period.to), blocks))
}
