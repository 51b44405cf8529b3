//! Endpoints, sources, nodes, and the record of what people did.

use axum::{
    Router,
    extract::{Path, State},
    response::Response,
    routing::{get, post},
};
use turnhook_store::{GapRow, LeaseName, RecordFilter};

use super::{
    overview, plot,
    table::{Cell, Table},
    trial,
    view::{Block, Field, Form, Shown, View, see, text_lines},
};
use crate::{
    Admin, EndpointNow, Refused, Role, SourceNow, actions,
    asked::{self, Asked, encoded},
    history::Line,
    text,
};

pub(super) fn routes() -> Router<Admin> {
    Router::new()
        .route("/endpoints", get(endpoints))
        .route("/endpoints/{name}", get(endpoint))
        .route("/endpoints/{name}/test", post(trial::tried))
        .route("/endpoints/{name}/{action}", post(act))
        .route("/sources", get(sources))
        .route("/sources/{name}", get(source))
        .route("/nodes", get(nodes))
        .route("/audit", get(audit))
}

async fn endpoints(State(admin): State<Admin>, view: View) -> Response {
    let table = overview::endpoints(&view, &admin.engine.status().endpoints);
    view.show(Ok((
        "Endpoints".to_owned(),
        vec![Block::Table(table), view.csv("/endpoints")],
    )))
}

async fn endpoint(State(admin): State<Admin>, Path(name): Path<String>, view: View) -> Response {
    let shown = one_endpoint(&admin, &name, &view).await;
    view.show(shown)
}

async fn one_endpoint(admin: &Admin, name: &str, view: &View) -> Shown {
    let status = admin.engine.status();
    let Some(endpoint) = status.endpoints.iter().find(|endpoint| endpoint.name == name) else {
        return Err(Refused::missing(format!(
            "there is no endpoint {:?}",
            text::shown(name.as_bytes())
        )));
    };
    let zone = &view.zone;
    let shown = |words: &Option<String>| Cell::text(text::shown(words.as_deref().unwrap_or("–").as_bytes()));
    let mut blocks = vec![Block::Facts(vec![
        ("State", Cell::state(&endpoint.state)),
        ("Why", shown(&endpoint.reason)),
        ("Since", Cell::time_if_any(endpoint.since, zone)),
        ("Tried again at", Cell::time_if_any(endpoint.until, zone)),
        ("Pending", Cell::number(endpoint.pending)),
        ("Dead letters", Cell::number(endpoint.dead_letters)),
        (
            "Last delivered",
            Cell::maybe_time(endpoint.last_delivered_at, zone),
        ),
        ("Last error", shown(&endpoint.last_error)),
        ("That was", Cell::time_if_any(endpoint.last_error_at, zone)),
    ])];
    blocks.push(Block::Table(last_hour(admin, endpoint)));
    if view.who.role == Role::Operator {
        let action = if endpoint.paused { "resume" } else { "pause" };
        blocks.push(Block::Form(Form {
            method: "post",
            action: format!("/endpoints/{}/{action}", encoded(name.as_bytes())),
            hidden: Vec::new(),
            fields: vec![Field::new(
                "Why, for the record",
                "reason",
                "text",
                &Asked::default(),
            )],
            button: if endpoint.paused {
                "Resume".into()
            } else {
                "Pause".into()
            },
            danger: !endpoint.paused,
        }));
        blocks.extend(trial::form(view, name));
    }
    let of = encoded(name.as_bytes());
    let links = [
        ("dead", "Dead letters"),
        ("pending", "Pending"),
        ("", "All deliveries"),
    ];
    let links = links.map(|(state, text)| {
        (
            view.link(&format!("/deliveries?endpoint={of}&state={state}")),
            text.to_owned(),
        )
    });
    blocks.push(Block::Links(links.to_vec()));
    let mut lines = vec![
        (
            Line::Backlog(name.to_owned()),
            "pending deliveries".to_owned(),
            plot::whole as plot::Words,
        ),
        (
            Line::Age(name.to_owned()),
            "age of the oldest".to_owned(),
            plot::seconds,
        ),
    ];
    for line in admin.history.outcomes(name) {
        if let Line::Deliveries(_, outcome) = &line {
            let title = format!("attempts a minute that were {}", outcome.replace('_', " "));
            lines.push((line, title, plot::whole));
        }
    }
    for (line, title, words) in lines {
        let points = admin.history.line(&line);
        // What never was has no picture.
        let is_of_interest = matches!(line, Line::Backlog(_)) || points.iter().any(|(_, value)| *value > 0.0);
        if is_of_interest {
            blocks.extend(
                plot::line(format!("{name}: {title}, the last day"), &points, words, zone).map(Block::Plot),
            );
        }
    }
    let settings = serde_json::to_string_pretty(&endpoint.settings).unwrap_or_default();
    blocks.push(Block::Text("Settings; secrets are hidden", text_lines(&settings)));
    Ok((format!("Endpoint {name}"), blocks))
}

/// What attempts came to; the numbers since the start are exact, those of the hour are by the minute.
fn last_hour(admin: &Admin, endpoint: &EndpointNow) -> Table {
    let rows = endpoint.outcomes.iter().map(|(outcome, all)| {
        let line = Line::Deliveries(endpoint.name.clone(), outcome.clone());
        let points = admin.history.line(&line);
        let hour: f64 = points.iter().rev().take(60).map(|(_, count)| count).sum();
        vec![
            Cell::text(outcome.replace('_', " ")),
            Cell::Number(plot::whole(hour)),
            Cell::number(*all),
        ]
    });
    Table {
        caption: "Attempts".into(),
        columns: vec![
            ("What came of them", false),
            ("In the last hour", true),
            ("Since the start", true),
        ],
        rows: rows.collect(),
        none: "There was none yet.",
        next: None,
    }
}

async fn act(
    State(admin): State<Admin>,
    Path((name, action)): Path<(String, String)>,
    view: View,
    asked::Form(asked): asked::Form,
) -> Response {
    let done = match action.as_str() {
        "pause" => actions::pause(&admin.changes, &view.who, &name, &asked).await,
        "resume" => actions::resume(&admin.changes, &view.who, &name, &asked).await,
        _ => Err(Refused::missing("an endpoint is paused or resumed")),
    };
    match done {
        Ok(_) => see(&format!("/endpoints/{}", encoded(name.as_bytes()))),
        Err(refused) => view.refuse(refused),
    }
}

async fn sources(State(admin): State<Admin>, view: View) -> Response {
    let rows = admin.engine.status().sources.into_iter().map(|source| {
        vec![
            Cell::Link(
                view.link(&format!("/sources/{}", encoded(source.name.as_bytes()))),
                source.name.clone(),
            ),
            Cell::text(source.r#type.clone()),
            Cell::state(&source.state),
            Cell::state(&source.role),
            Cell::maybe_time(source.last_message_at, &view.zone),
            Cell::number(source.open_sessions),
            Cell::number(source.open_allocations),
        ]
    });
    let table = Table {
        caption: "Streams of coturn's messages".into(),
        columns: vec![
            ("Source", false),
            ("Type", false),
            ("State", false),
            ("Role", false),
            ("Last heard", false),
            ("Open sessions", true),
            ("Open allocations", true),
        ],
        rows: rows.collect(),
        none: "No source is configured.",
        next: None,
    };
    view.show(Ok((
        "Sources".to_owned(),
        vec![Block::Table(table), view.csv("/sources")],
    )))
}

async fn source(State(admin): State<Admin>, Path(name): Path<String>, view: View) -> Response {
    let shown = one_source(&admin, &name, &view).await;
    view.show(shown)
}

async fn one_source(admin: &Admin, name: &str, view: &View) -> Shown {
    let status = admin.engine.status();
    let Some(source) = status.sources.iter().find(|source| source.name == name) else {
        return Err(Refused::missing(format!(
            "there is no source {:?}",
            text::shown(name.as_bytes())
        )));
    };
    let zone = &view.zone;
    let shown = |words: &Option<String>| Cell::text(text::shown(words.as_deref().unwrap_or("–").as_bytes()));
    let mut blocks = vec![Block::Facts(vec![
        ("Type", Cell::text(source.r#type.clone())),
        ("State", Cell::state(&source.state)),
        ("Since", Cell::time_if_any(source.since, zone)),
        ("Role", Cell::state(&source.role)),
        ("Where", shown(&source.detail)),
        ("Last heard", Cell::maybe_time(source.last_message_at, zone)),
        ("Open sessions", Cell::number(source.open_sessions)),
        ("Open allocations", Cell::number(source.open_allocations)),
        ("Last error", shown(&source.last_error)),
    ])];
    if !source.silent_threads.is_empty() {
        let threads: Vec<String> = source.silent_threads.iter().map(ToString::to_string).collect();
        let words = format!(
            "Relay threads of coturn have fallen silent: {}.",
            threads.join(", ")
        );
        blocks.push(Block::Say("bad", words));
    }
    blocks.push(Block::Table(Table {
        caption: "Servers".into(),
        columns: vec![("Server", false), ("State", false), ("Since", false)],
        rows: source
            .servers
            .iter()
            .map(|server| {
                vec![
                    Cell::Name(text::shown(server.server.as_bytes())),
                    Cell::state(&server.state),
                    Cell::time(server.since, zone),
                ]
            })
            .collect(),
        none: "None has connected, or the source is a Redis, where servers are not distinguished.",
        next: None,
    }));
    blocks.push(Block::Table(counted(source)));
    blocks.push(Block::Table(ended(source)));
    for (line, title) in [
        (Line::OpenSessions(name.to_owned()), "open sessions"),
        (Line::Messages(name.to_owned()), "messages a minute"),
    ] {
        let points = admin.history.line(&line);
        blocks.extend(
            plot::line(
                format!("{name}: {title}, the last day"),
                &points,
                plot::whole,
                zone,
            )
            .map(Block::Plot),
        );
    }
    let only = RecordFilter {
        source: Some(name.to_owned()),
        ..RecordFilter::default()
    };
    let gaps_of = admin.ledger.gaps_on_record(&only, None, 200).await?;
    blocks.push(Block::Table(gaps(view, gaps_of.iter().map(|(_, row)| row))));
    let unbilled = admin.ledger.unattributed(&only, None, 200).await?;
    let unbilled = unbilled.iter().map(|row| {
        vec![
            Cell::time(row.at, zone),
            Cell::name(&row.username),
            Cell::text(row.reason.replace('_', " ")),
            Cell::number(row.usage.billable_bytes),
        ]
    });
    blocks.push(Block::Table(Table {
        caption: "Bytes that were heard of and are billed in no session".into(),
        columns: vec![
            ("When", false),
            ("TURN username", false),
            ("Why", false),
            ("Billable bytes", true),
        ],
        rows: unbilled.collect(),
        none: "There are none on record.",
        next: None,
    }));
    let query = format!("?source={}", encoded(name.as_bytes()));
    let mut links = vec![
        (
            format!("/api/v1/gaps{query}&format=csv"),
            "Gaps as CSV".to_owned(),
        ),
        (
            format!("/api/v1/unattributed{query}&format=csv"),
            "Bytes billed in no session as CSV".to_owned(),
        ),
    ];
    if view.who.role == Role::Operator {
        let path = format!("/api/v1/sources/{}/record", encoded(name.as_bytes()));
        links.push((path, "Record what it hears, until stopped".to_owned()));
    }
    blocks.push(Block::Links(links));
    Ok((format!("Source {name}"), blocks))
}

/// What coturn said since the start, and what of it was passed over.
fn counted(source: &SourceNow) -> Table {
    let heard = source
        .messages
        .iter()
        .map(|(kind, count)| (kind.replace('_', " "), *count));
    let ignored = source.ignored.iter().filter(|(_, count)| *count > 0);
    let ignored = ignored.map(|(why, count)| (format!("passed over: {}", why.replace('_', " ")), *count));
    Table {
        caption: "Messages since the start".into(),
        columns: vec![("Kind", false), ("Messages", true)],
        rows: heard
            .chain(ignored)
            .map(|(kind, count)| vec![Cell::text(kind), Cell::number(count)])
            .collect(),
        none: "None.",
        next: None,
    }
}

fn ended(source: &SourceNow) -> Table {
    let rows = source.ended.iter().filter(|(.., count)| *count > 0);
    Table {
        caption: "Sessions that ended since the start".into(),
        columns: vec![("Why", false), ("Accuracy", false), ("Sessions", true)],
        rows: rows
            .map(|(why, accuracy, count)| {
                vec![
                    Cell::text(why.replace('_', " ")),
                    Cell::state(accuracy),
                    Cell::number(*count),
                ]
            })
            .collect(),
        none: "None yet.",
        next: None,
    }
}

pub(super) fn gaps<'a>(view: &View, rows: impl Iterator<Item = &'a GapRow>) -> Table {
    Table {
        caption: "Gaps".into(),
        columns: vec![
            ("Source", false),
            ("From", false),
            ("To", false),
            ("Why", false),
            ("Server", false),
        ],
        rows: rows
            .map(|row| {
                vec![
                    Cell::text(row.source.clone()),
                    Cell::time(row.gap.from, &view.zone),
                    Cell::time(row.gap.to, &view.zone),
                    Cell::text(row.gap.reason.as_str().replace('_', " ")),
                    Cell::Name(text::shown(
                        row.gap
                            .server
                            .as_deref()
                            .unwrap_or("all of the source".as_bytes()),
                    )),
                ]
            })
            .collect(),
        none: "No gap is on record.",
        next: None,
    }
}

async fn nodes(State(admin): State<Admin>, view: View) -> Response {
    let shown = async {
        let Some(seen) = admin.ledger.nodes().await? else {
            let words = "This is the only one: a store in a SQLite file is run on by one process.";
            return Ok(("Nodes".to_owned(), vec![Block::Say("", words.to_owned())]));
        };
        let sources = admin.ledger.sources().await?;
        let rows = seen.nodes.iter().map(|node| {
            let held = seen
                .leases
                .iter()
                .filter(|lease| lease.holder == Some(node.id) && !lease.expired);
            let (mut lanes, mut leads) = (0, Vec::new());
            for lease in held {
                match lease.name {
                    LeaseName::Lane(_) => lanes += 1,
                    LeaseName::Source(id) => leads.push(actions::named(&sources, id)),
                }
            }
            vec![
                Cell::Name(text::shown(node.name.as_bytes())),
                Cell::state(if node.live { "live" } else { "gone" }),
                Cell::text(node.version.clone()),
                Cell::time(node.started_at, &view.zone),
                Cell::Name(text::shown(leads.join(", ").as_bytes())),
                Cell::number(lanes),
            ]
        });
        let table = Table {
            caption: "By the database's clock".into(),
            columns: vec![
                ("Node", false),
                ("State", false),
                ("Version", false),
                ("Started", false),
                ("Leads", false),
                ("Delivers, of 64 parts", true),
            ],
            rows: rows.collect(),
            none: "None is on record.",
            next: None,
        };
        Ok(("Nodes".to_owned(), vec![Block::Table(table), view.csv("/nodes")]))
    };
    let shown = shown.await;
    view.show(shown)
}

async fn audit(State(admin): State<Admin>, view: View) -> Response {
    let shown = async {
        let limit = view.asked.limit()?;
        let before = view.asked.number("after")?.and_then(|id| i64::try_from(id).ok());
        let rows = admin.ledger.audit(before, limit).await?;
        let next = rows.last().filter(|_| rows.len() == limit);
        let next = next.map(|row| {
            format!(
                "/audit{}",
                view.asked.with(&[("after", row.id.to_string().as_bytes())])
            )
        });
        let table = Table {
            caption: "Newest first".into(),
            columns: vec![
                ("When", false),
                ("Who", false),
                ("What", false),
                ("To what", false),
                ("How many", true),
                ("Why", false),
            ],
            rows: rows
                .iter()
                .map(|entry| {
                    vec![
                        Cell::time(entry.at, &view.zone),
                        Cell::Name(text::shown(entry.who.as_bytes())),
                        Cell::text(entry.action.clone()),
                        Cell::Name(text::shown(entry.target.as_bytes())),
                        Cell::number(entry.count),
                        Cell::Name(text::shown(entry.detail.as_bytes())),
                    ]
                })
                .collect(),
            none: "Nobody has done anything yet.",
            next,
        };
        Ok((
            "What people did".to_owned(),
            vec![Block::Table(table), view.csv("/audit")],
        ))
    };
    let shown = shown.await;
    view.show(shown)
}
