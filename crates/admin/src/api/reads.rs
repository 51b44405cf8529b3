//! What is read.

use axum::{
    Extension, Json,
    extract::{Path, State},
    http::Uri,
    response::{IntoResponse as _, Response},
    routing::get,
};
use jiff::ToSpan as _;
use serde_json::{Map, Value, json};
use turnhook_store::{DeliveryCursor, DeliveryId, LeaseName, RecordFilter, UsageFilter};

use super::operation::{page, reads};
use crate::{
    Admin, Of, Parameter, Refused, Routes, Who,
    actions::{named, now},
    asked::{Asked, event_id, part, session_id},
    json,
    report::{self, By, Report},
    zone::Period,
};

/// Sessions and events, as they are named.
pub(super) const SESSION: Of = Of::Like("ses_[0-7][0-9a-hjkmnp-tv-z]{25}");
pub(super) const EVENT: Of = Of::Like("evt_[0-7][0-9a-hjkmnp-tv-z]{25}");
pub(super) const STATES: Of = Of::Words(&["pending", "delivered", "dead", "discarded"]);
pub(super) const TYPES: Of = Of::Words(&[
    "session.start",
    "session.usage",
    "session.end",
    "quota.reached",
    "user.blocked",
    "user.unblocked",
]);

const BEFORE: &str = "`next` of the page before";
const AFTER: Parameter = Parameter::new("after", BEFORE, Of::Like("[0-9]{1,18}"));
const LIMIT: Parameter = Parameter::new("limit", "At most so many; 50 without it", Of::Number(1, 1000));
const FORMAT: Parameter = Parameter::text("format", "`csv` for CSV, as is `Accept: text/csv`");
const SINCE: Parameter = Parameter::new("since", "A time, or a day: its beginning in the zone", Of::Time);
const UNTIL: Parameter = Parameter::new("until", "Before this time", Of::Time);
const TZ: Parameter = Parameter::new("tz", "Whose days, like Europe/Berlin; UTC without it", Of::Zone);
const FROM: Parameter = Parameter::new(
    "from",
    "The first day; without it the first of the month",
    Of::Day,
);
const TO: Parameter = Parameter::new("to", "The last day; without it today", Of::Day);
const USER: Parameter = Parameter::text("user", "Only of this user");
const SOURCE: Parameter = Parameter::text("source", "Only of this source");
const REALM: Parameter = Parameter::text("realm", "Only in this realm");
const BY: Parameter = Parameter::new(
    "by",
    "What rows are grouped by: some of month, day, hour, source, realm, user",
    Of::Like("(month|day|hour|source|realm|user)(,(month|day|hour|source|realm|user)){0,5}"),
);
const TOP: Parameter = Parameter::new(
    "top",
    "Only so many rows, those with the most billable bytes",
    Of::Number(1, 1_000_000),
);
const SESSION_ID: Parameter = Parameter::new("id", "ses_…", SESSION);
const EVENT_ID: Parameter = Parameter::new("id", "evt_…", EVENT);

const OPEN: Parameter = Parameter::new(
    "open",
    "`true`: only open ones; `false`: only ended ones",
    Of::Words(&["true", "false", "1", "0"]),
);
const SESSIONS: &[Parameter] = &[
    USER,
    SOURCE,
    REALM,
    OPEN,
    SINCE,
    UNTIL,
    TZ,
    Parameter::new("after", BEFORE, SESSION),
    LIMIT,
    FORMAT,
];
const USER_USAGE: &[Parameter] = &[
    Parameter::text("user", "Percent-encoded"),
    FROM,
    TO,
    TZ,
    BY,
    FORMAT,
];
const DELIVERIES: &[Parameter] = &[
    Parameter::new("state", "Only in this state", STATES),
    Parameter::text("endpoint", "Only to this endpoint"),
    Parameter::new("session", "Only of this session", SESSION),
    Parameter::new("type", "Only of this type", TYPES),
    USER,
    SINCE,
    UNTIL,
    TZ,
    Parameter::new(
        "after",
        BEFORE,
        Of::Like("evt_[0-7][0-9a-hjkmnp-tv-z]{25}\\.[0-9]{1,18}"),
    ),
    LIMIT,
    FORMAT,
];

const ON_RECORD: &[Parameter] = &[SOURCE, SINCE, UNTIL, TZ, AFTER, LIMIT, FORMAT];

type Answer = Result<Response, Refused>;

pub(super) fn add(admin: &Admin, routes: Routes) -> Routes {
    let state = || admin.clone();
    routes
        .route(
            reads("/whoami", "Whom turnhook takes the caller for", &[], false),
            get(|Extension(who): Extension<Who>| async move { Json(who) }),
        )
        .route(
            reads("/status", "What the program is doing", &[], false),
            get(|State(admin): State<Admin>| async move { Json(admin.engine.status()) }).with_state(state()),
        )
        .route(
            reads("/sessions", "Sessions, newest first", SESSIONS, true),
            get(sessions).with_state(state()),
        )
        .route(
            reads(
                "/sessions/{id}",
                "A session with all that is known of it",
                &[SESSION_ID],
                false,
            ),
            get(session).with_state(state()),
        )
        .route(
            reads(
                "/users/{user}/usage",
                "What a user used, by day or as asked; as billed by ends and by deltas",
                USER_USAGE,
                true,
            ),
            get(user_usage).with_state(state()),
        )
        .route(
            reads(
                "/usage",
                "What was used",
                &[FROM, TO, TZ, BY, USER, SOURCE, REALM, TOP, FORMAT],
                true,
            ),
            get(usage).with_state(state()),
        )
        .route(
            reads("/deliveries", "Deliveries, newest event first", DELIVERIES, true),
            get(deliveries).with_state(state()),
        )
        .route(
            reads(
                "/events/{id}",
                "An event: its body, and what became of it at each endpoint",
                &[EVENT_ID],
                false,
            ),
            get(event).with_state(state()),
        )
        .route(
            reads("/endpoints", "Endpoints, as they are now", &[FORMAT], true),
            get(|State(admin): State<Admin>, asked: Asked| async move {
                all(&admin.engine.status().endpoints, &asked)
            })
            .with_state(state()),
        )
        .route(
            reads("/sources", "Sources, as they are now", &[FORMAT], true),
            get(|State(admin): State<Admin>, asked: Asked| async move {
                all(&admin.engine.status().sources, &asked)
            })
            .with_state(state()),
        )
        .route(
            reads(
                "/gaps",
                "When something may have been missed, newest first",
                ON_RECORD,
                true,
            ),
            get(gaps).with_state(state()),
        )
        .route(
            reads(
                "/unattributed",
                "Bytes that were heard of and are billed in no session, newest first",
                ON_RECORD,
                true,
            ),
            get(unattributed).with_state(state()),
        )
        .route(
            reads(
                "/nodes",
                "The nodes that share the store, and who holds what",
                &[FORMAT],
                true,
            ),
            get(nodes).with_state(state()),
        )
        .route(
            reads(
                "/audit",
                "What people did, newest first",
                &[AFTER, LIMIT, FORMAT],
                true,
            ),
            get(audit).with_state(state()),
        )
}

fn all<T: serde::Serialize>(items: &[T], asked: &Asked) -> Answer {
    let items = items.iter().filter_map(|item| serde_json::to_value(item).ok());
    page(items.collect(), None, asked.wants_csv())
}

async fn sessions(State(admin): State<Admin>, asked: Asked) -> Answer {
    let limit = asked.limit()?;
    let rows = admin
        .ledger
        .sessions(asked.sessions()?, asked.session("after")?, limit)
        .await?;
    let next = rows
        .last()
        .filter(|_| rows.len() == limit)
        .map(|row| row.id.to_string());
    page(rows.iter().map(json::session).collect(), next, asked.wants_csv())
}

async fn session(State(admin): State<Admin>, Path(id): Path<String>) -> Answer {
    let id = session_id(&id)?;
    let detail = admin.ledger.session(id).await?;
    let detail = detail.ok_or_else(|| Refused::missing(format!("there is no session {id} in the store")))?;
    let body: Value = detail
        .last_body
        .as_deref()
        .and_then(|body| serde_json::from_slice(body).ok())
        .unwrap_or_default();
    let continued = admin.ledger.continued_by(id).await?;
    let mut answer = json::session(&detail.row);
    answer["continued_by"] = continued.iter().map(|id| Value::from(id.to_string())).collect();
    answer["billable"] = body["data"]["billable"].clone();
    answer["events"] = detail.events.iter().map(json::event).collect();
    answer["allocation_list"] = body["data"]["allocations"].clone();
    answer["gaps"] = detail.gaps.iter().map(json::gap).collect();
    Ok(Json(answer).into_response())
}

/// The days asked for; the month so far, if none are.
pub(crate) fn period(asked: &Asked) -> Result<Period, Refused> {
    let zone = asked.zone()?;
    let day = |name: &str| {
        let parse = |text: String| {
            text.parse()
                .map_err(|_| Refused::wrong(format!("`{name}` is a day like 2026-11-22, not {text:?}")))
        };
        asked.text(name).map(parse).transpose()
    };
    let to = day("to")?.unwrap_or_else(|| zone.day(now()));
    let from = day("from")?.unwrap_or_else(|| to.first_of_month());
    if from > to {
        return Err(Refused::wrong("`from` is after `to`"));
    }
    let longest = from.checked_add(2.years()).unwrap_or(jiff::civil::Date::MAX);
    if to > longest {
        return Err(Refused::wrong("a period is at most two years long"));
    }
    Ok(Period { zone, from, to })
}

fn by(asked: &Asked, usual: &[By]) -> Result<Vec<By>, Refused> {
    let Some(text) = asked.text("by") else {
        return Ok(usual.to_vec());
    };
    text.split(',')
        .map(|name| {
            let found = By::ALL.into_iter().find(|by| by.as_str() == name.trim());
            found.ok_or_else(|| {
                Refused::wrong(format!(
                    "`by` is some of month, day, hour, source, realm, user, not {name:?}"
                ))
            })
        })
        .collect()
}

fn rows(report: &Report, by: &[By]) -> Vec<Value> {
    let rows = report.rows.iter().map(|(key, sums)| {
        let mut row: Map<String, Value> = Map::new();
        for (by, value) in by.iter().zip(key) {
            row.insert(by.as_str().to_owned(), value.as_deref().map(json::text).into());
        }
        if let Value::Object(sums) = json::sums(sums) {
            row.extend(sums);
        }
        Value::Object(row)
    });
    rows.collect()
}

async fn usage(State(admin): State<Admin>, asked: Asked) -> Answer {
    let (period, by) = (period(&asked)?, by(&asked, &[By::User])?);
    let filter = UsageFilter {
        user: asked.bytes("user").map(<[u8]>::to_vec),
        source: asked.text("source"),
        realm: asked.bytes("realm").map(<[u8]>::to_vec),
    };
    let top = asked
        .between("top", 1, 1_000_000)?
        .map(|top| usize::try_from(top).unwrap_or(usize::MAX));
    let mut report = Report::default();
    match top {
        Some(top) if by == [By::User] && filter.user.is_none() => {
            report.rows = report::top_users(&admin.ledger, &filter, &period, top).await?;
        }
        top => {
            report = report::usage(&admin.ledger, &filter, &period, &by).await?;
            if let Some(top) = top {
                report.keep_top(top);
            }
        }
    }
    page(rows(&report, &by), None, asked.wants_csv())
}

async fn user_usage(State(admin): State<Admin>, uri: Uri, asked: Asked) -> Answer {
    // `/api/v1/users/{user}/usage`
    let user = part(&uri, 3);
    let (period, by) = (period(&asked)?, by(&asked, &[By::Day])?);
    let filter = UsageFilter {
        user: Some(user.clone()),
        ..UsageFilter::default()
    };
    let report = report::usage(&admin.ledger, &filter, &period, &by).await?;
    let items = rows(&report, &by);
    if asked.wants_csv() {
        return page(items, None, true);
    }
    let (from, to) = period.times();
    let ended = admin.ledger.usage_ended(user.clone(), from, to).await?;
    Ok(Json(json!({
        "user": json::text(&user),
        "from": period.from.to_string(),
        "to": period.to.to_string(),
        "tz": period.zone.name(),
        "items": items,
        "next": null,
        "by_deltas": json::sums(&report.total),
        "by_ends": json::sums(&ended),
        "whole_days": report.whole_days,
    }))
    .into_response())
}

/// Where a list of deliveries goes on.
pub(crate) fn cursor(asked: &Asked) -> Result<Option<DeliveryCursor>, Refused> {
    let Some(text) = asked.text("after") else {
        return Ok(None);
    };
    let parts = text
        .split_once('.')
        .and_then(|(event, id)| Some((event, id.parse().ok()?)));
    let (event, id) = parts.ok_or_else(|| Refused::wrong("`after` is `next` of the page before"))?;
    Ok(Some(DeliveryCursor {
        event_id: event_id(event)?,
        id: DeliveryId(id),
    }))
}

pub(crate) fn cursor_text(row: &turnhook_store::DeliveryRow) -> String {
    format!("{}.{}", row.event_id, row.id.0)
}

async fn deliveries(State(admin): State<Admin>, asked: Asked) -> Answer {
    let limit = asked.limit()?;
    let rows = admin
        .ledger
        .deliveries(asked.deliveries()?, cursor(&asked)?, limit)
        .await?;
    let next = rows.last().filter(|_| rows.len() == limit).map(cursor_text);
    page(rows.iter().map(json::delivery).collect(), next, asked.wants_csv())
}

async fn event(State(admin): State<Admin>, Path(id): Path<String>) -> Answer {
    let id = event_id(&id)?;
    let found = admin.ledger.delivery(id).await?;
    let Some(first) = found.first() else {
        return Err(Refused::missing(format!(
            "there is no event {id} in the store, or nobody wanted it"
        )));
    };
    // As a text: what is signed are its very bytes.
    Ok(Json(json!({
        "webhook_id": id.to_string(),
        "body": json::text(&first.body),
        "deliveries": found.iter().map(json::detail).collect::<Vec<_>>(),
    }))
    .into_response())
}

fn record(asked: &Asked) -> Result<(RecordFilter, Option<i64>, usize), Refused> {
    let filter = RecordFilter {
        source: asked.text("source"),
        since: asked.time("since")?,
        until: asked.time("until")?,
    };
    let before = asked.number("after")?.and_then(|id| i64::try_from(id).ok());
    Ok((filter, before, asked.limit()?))
}

async fn unattributed(State(admin): State<Admin>, asked: Asked) -> Answer {
    let (filter, before, limit) = record(&asked)?;
    let rows = admin.ledger.unattributed(&filter, before, limit).await?;
    let next = rows
        .last()
        .filter(|_| rows.len() == limit)
        .map(|row| row.number.to_string());
    page(
        rows.iter().map(json::unattributed).collect(),
        next,
        asked.wants_csv(),
    )
}

async fn gaps(State(admin): State<Admin>, asked: Asked) -> Answer {
    let (filter, before, limit) = record(&asked)?;
    let rows = admin.ledger.gaps_on_record(&filter, before, limit).await?;
    let next = rows
        .last()
        .filter(|_| rows.len() == limit)
        .map(|(number, _)| number.to_string());
    let items = rows.iter().map(|(_, row)| json::gap_row(row)).collect();
    page(items, next, asked.wants_csv())
}

async fn nodes(State(admin): State<Admin>, asked: Asked) -> Answer {
    let Some(view) = admin.ledger.nodes().await? else {
        return page(Vec::new(), None, asked.wants_csv());
    };
    let sources = admin.ledger.sources().await?;
    let nodes = view.nodes.iter().map(|node| {
        let held = view
            .leases
            .iter()
            .filter(|lease| lease.holder == Some(node.id) && !lease.expired);
        let leads = held.clone().filter_map(|lease| match lease.name {
            LeaseName::Source(id) => Some(named(&sources, id)),
            LeaseName::Lane(_) => None,
        });
        json!({
            "id": node.id.to_string(),
            "name": node.name,
            "version": node.version,
            "started_at": crate::answer::rfc3339(node.started_at),
            "live": node.live,
            "leads": leads.collect::<Vec<_>>(),
            "holds": held.map(|lease| lease.name.to_string()).collect::<Vec<_>>(),
        })
    });
    page(nodes.collect(), None, asked.wants_csv())
}

async fn audit(State(admin): State<Admin>, asked: Asked) -> Answer {
    let limit = asked.limit()?;
    let before = asked.number("after")?.and_then(|id| i64::try_from(id).ok());
    let rows = admin.ledger.audit(before, limit).await?;
    let next = rows
        .last()
        .filter(|_| rows.len() == limit)
        .map(|row| row.id.to_string());
    page(rows.iter().map(json::audit).collect(), next, asked.wants_csv())
}
