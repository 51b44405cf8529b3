//! Deliveries, what is done to all that match, and one event.

use axum::{
    Router,
    extract::{Path, State},
    response::Response,
    routing::{get, post},
};

use turnhook_reducer::event::EventType;
use turnhook_store::{DeliveryDetail, DeliveryFilter, DeliveryState};

use super::{
    bill::DAY,
    table::{Cell, Table},
    view::{Block, Field, Form, Shown, View, see},
};
use crate::{
    Admin, Refused, Role,
    actions::{Bulk, CHOICE, in_words},
    api::reads::{cursor, cursor_text},
    asked::{self, event_id},
    text,
};

pub(super) fn routes() -> Router<Admin> {
    Router::new()
        .route("/deliveries", get(deliveries))
        .route("/confirm/deliveries/{action}", get(confirm))
        .route("/deliveries/{action}", post(act))
        .route("/events/{id}", get(event))
}

async fn deliveries(State(admin): State<Admin>, view: View) -> Response {
    let shown = listed(&admin, &view).await;
    view.show(shown)
}

async fn listed(admin: &Admin, view: &View) -> Shown {
    let asked = &view.asked;
    let (filter, limit) = (asked.deliveries()?, asked.limit()?);
    let rows = admin
        .ledger
        .deliveries(filter.clone(), cursor(asked)?, limit)
        .await?;
    let next = rows.last().filter(|_| rows.len() == limit);
    let next = next.map(|row| {
        format!(
            "/deliveries{}",
            asked.with(&[("after", cursor_text(row).as_bytes())])
        )
    });
    let states = [
        ("", "any"),
        ("dead", "dead"),
        ("pending", "pending"),
        ("delivered", "delivered"),
        ("discarded", "discarded"),
    ];
    let mut types = vec![("", "any")];
    types.extend(EventType::ALL.map(|one| (one.as_str(), one.as_str())));
    let fields = vec![
        Field::new("State", "state", "text", asked).of(&states),
        Field::new("Type", "type", "text", asked).of(&types),
        Field::new("Endpoint", "endpoint", "text", asked),
        Field::new("User", "user", "text", asked),
        Field::new("Session", "session", "text", asked),
        Field::new("Since", "since", "text", asked).hint(DAY),
        Field::new("Until", "until", "text", asked).hint(DAY),
    ];
    let mut blocks = vec![view.filter(fields, "Show")];
    if let Some(done) = asked.text("done") {
        blocks.push(Block::Say(
            "good",
            format!("Done: {}.", text::shown(done.as_bytes())),
        ));
    }
    let mut links = Vec::new();
    if view.who.role == Role::Operator {
        let chosen = asked.with(&[("after", b""), ("limit", b""), ("done", b"")]);
        links.push((
            format!("/confirm/deliveries/replay{chosen}"),
            "Replay all that match".to_owned(),
        ));
        links.push((
            format!("/confirm/deliveries/discard{chosen}"),
            "Discard all that match".to_owned(),
        ));
    }
    blocks.push(Block::Links(links));
    let caption = match counted(admin, &filter).await? {
        Some(count) => format!("{} match, newest event first", text::grouped(count)),
        None => "Newest event first".to_owned(),
    };
    blocks.push(Block::Table(Table {
        caption,
        columns: vec![
            ("Event", false),
            ("Type", false),
            ("Decided", false),
            ("User", false),
            ("Endpoint", false),
            ("State", false),
            ("Why", false),
            ("Attempts", true),
            ("Next attempt, or finished", false),
            ("Session", false),
        ],
        rows: rows
            .iter()
            .map(|row| {
                vec![
                    view.event_cell(row.event_id),
                    Cell::text(row.event_type.as_str()),
                    Cell::time(row.timestamp, &view.zone),
                    view.user_cell(row.user.as_deref()),
                    Cell::text(row.endpoint.clone()),
                    Cell::state(row.state.as_str()),
                    Cell::text(text::shown(row.reason.as_deref().unwrap_or("–").as_bytes())),
                    Cell::number(row.attempts.into()),
                    Cell::maybe_time(row.next_attempt_at.or(row.finished_at), &view.zone),
                    row.session()
                        .map_or_else(|| Cell::text("–"), |id| view.session_cell(id)),
                ]
            })
            .collect(),
        none: "There are none.",
        next,
    }));
    blocks.push(view.csv("/deliveries"));
    Ok(("Deliveries".to_owned(), blocks))
}

/// How many match, where that is a walk over just those.
async fn counted(admin: &Admin, filter: &DeliveryFilter) -> Result<Option<u64>, Refused> {
    let is_narrow = matches!(
        filter.states.as_slice(),
        [DeliveryState::Dead] | [DeliveryState::Pending]
    ) || filter.session.is_some()
        || filter.user.is_some();
    if !is_narrow {
        return Ok(None);
    }
    Ok(Some(admin.ledger.count_deliveries(filter.clone()).await?))
}

async fn confirm(State(admin): State<Admin>, Path(action): Path<String>, view: View) -> Response {
    let shown = asked_again(&admin, &action, &view).await;
    view.show(shown)
}

/// How many it would be, before it is done.
async fn asked_again(admin: &Admin, action: &str, view: &View) -> Shown {
    let bulk = Bulk::named(action)?;
    let count = admin.ledger.count_deliveries(Bulk::filter(&view.asked)?).await?;
    let which = text::shown(in_words(&view.asked).as_bytes());
    let words = match bulk {
        Bulk::Replay => {
            format!("{count} deliveries match ({which}). They are queued again, with the same ids and bytes.")
        }
        Bulk::Discard => {
            format!("{count} deliveries match ({which}). They are given up, and nobody receives them.")
        }
    };
    let mut fields = vec![Field::new("Why, for the record", "reason", "text", &view.asked)];
    if bulk == Bulk::Replay {
        fields.push(Field::new(
            "At most so many a second",
            "rate",
            "number",
            &view.asked,
        ));
    }
    let mut chosen = view.asked.only(&CHOICE);
    chosen.extend(view.asked.only(&["tz"]));
    let form = Form {
        method: "post",
        action: format!("/deliveries/{action}"),
        hidden: chosen,
        fields,
        button: format!(
            "{} {count} deliveries",
            if bulk == Bulk::Replay { "Replay" } else { "Discard" }
        ),
        danger: bulk == Bulk::Discard,
    };
    let back = format!("/deliveries{}", view.asked.with(&[]));
    let blocks = vec![
        Block::Say("warn", words),
        Block::Form(form),
        Block::Links(vec![(back, "No, back".to_owned())]),
    ];
    Ok((format!("Really {action}?"), blocks))
}

async fn act(
    State(admin): State<Admin>,
    Path(action): Path<String>,
    view: View,
    asked::Form(asked): asked::Form,
) -> Response {
    let done = async {
        let bulk = Bulk::named(&action)?;
        let count = bulk.run(&admin.changes, &view.who, &asked).await?;
        Ok::<_, Refused>(format!("{count} deliveries, {action}"))
    };
    match done.await {
        Ok(done) => {
            let back = asked.with(&[
                ("reason", b""),
                ("rate", b""),
                ("state", b""),
                ("done", done.as_bytes()),
            ]);
            see(&format!("/deliveries{back}"))
        }
        Err(refused) => view.refuse(refused),
    }
}

async fn event(State(admin): State<Admin>, Path(id): Path<String>, view: View) -> Response {
    let shown = one_event(&admin, &id, &view).await;
    view.show(shown)
}

async fn one_event(admin: &Admin, id: &str, view: &View) -> Shown {
    let id = event_id(id)?;
    let found = admin.ledger.delivery(id).await?;
    let Some(first) = found.first() else {
        return Err(Refused::missing(format!(
            "there is no event {id} in the store: nobody wanted it, or it is past its retention"
        )));
    };
    let row = &first.row;
    let mut facts = vec![("Type", Cell::text(row.event_type.as_str()))];
    match row.session() {
        Some(id) => facts.extend([
            ("Session", view.session_cell(id)),
            ("Sequence", Cell::number(row.sequence.into())),
        ]),
        None => facts.push(("User", view.user_cell(row.user.as_deref()))),
    }
    facts.push(("Decided", Cell::time(row.timestamp, &view.zone)));
    let mut blocks = vec![Block::Facts(facts)];
    let mut attempts = Vec::new();
    for delivery in &found {
        let row = &delivery.row;
        blocks.push(Block::Facts(vec![
            ("Endpoint", Cell::text(row.endpoint.clone())),
            ("State", Cell::state(row.state.as_str())),
            (
                "Next attempt, or finished",
                Cell::maybe_time(row.next_attempt_at.or(row.finished_at), &view.zone),
            ),
            (
                "Why",
                Cell::text(text::shown(row.reason.as_deref().unwrap_or("–").as_bytes())),
            ),
        ]));
        for attempt in &delivery.attempts {
            let answer = attempt.answer.as_deref().unwrap_or_default();
            attempts.push(vec![
                Cell::text(row.endpoint.clone()),
                Cell::number(attempt.number.into()),
                Cell::time(attempt.at, &view.zone),
                Cell::Number(format!("{} ms", attempt.latency_ms)),
                Cell::Number(
                    attempt
                        .status
                        .map_or_else(|| "–".to_owned(), |status| status.to_string()),
                ),
                Cell::text(text::shown(
                    attempt.error.as_deref().unwrap_or("taken").as_bytes(),
                )),
                Cell::Name(text::shown(answer)),
            ]);
        }
    }
    blocks.push(Block::Table(Table {
        caption: "Attempts".into(),
        columns: vec![
            ("Endpoint", false),
            ("Number", true),
            ("At", false),
            ("Took", true),
            ("Status", true),
            ("What came of it", false),
            ("Answer", false),
        ],
        rows: attempts,
        none: "There was none yet.",
        next: None,
    }));
    if view.who.role == Role::Operator {
        let links = ["pending", "delivered", "dead", "discarded"];
        let states: Vec<&str> = links
            .into_iter()
            .filter(|state| found.iter().any(|d| d.row.state.as_str() == *state))
            .collect();
        let links = states.iter().filter(|state| **state != "pending").map(|state| {
            (
                format!("/confirm/deliveries/replay?id={id}&state={state}"),
                format!("Replay this ({state})"),
            )
        });
        blocks.push(Block::Links(links.collect()));
    }
    blocks.push(Block::Text("Body, as it is signed", text::shown(&first.body)));
    for delivery in &found {
        blocks.extend(as_sent(admin, delivery, &id.to_string()));
    }
    Ok((format!("Event {id}"), blocks))
}

/// What is sent of it to an endpoint: a request like that of a webhook, or the records that a billing product is given.
fn as_sent(admin: &Admin, delivery: &DeliveryDetail, id: &str) -> Vec<Block> {
    let endpoints = admin.engine.status().endpoints;
    let settings = endpoints
        .iter()
        .find(|endpoint| endpoint.name == delivery.row.endpoint)
        .map(|endpoint| &endpoint.settings);
    let kind = settings.and_then(|settings| settings["type"].as_str());
    if let Some(kind) = kind.filter(|kind| *kind != "webhook") {
        let name = &delivery.row.endpoint;
        let words = format!(
            "{name} is a {kind}: it is given records made of this body, and not the body; `turnhook endpoints render` prints them."
        );
        return vec![Block::Say("", words)];
    }
    let secrets = settings
        .and_then(|settings| settings["secrets"].as_array())
        .map_or(0, Vec::len);
    let signed = match secrets {
        0 => "Its endpoint is not configured any more.".to_owned(),
        1 => {
            "The one secret of its endpoint signs each attempt anew, with the time of the attempt.".to_owned()
        }
        n => format!("The {n} secrets of its endpoint sign each attempt anew, with the time of the attempt."),
    };
    let url = settings
        .and_then(|settings| settings["url"].as_str())
        .unwrap_or("URL");
    vec![
        Block::Text("As curl, without the signature", curl(url, &delivery.body, id)),
        Block::Say("", signed),
    ]
}

/// A signature is good for five minutes: whoever has the secret makes one.
fn curl(url: &str, body: &[u8], id: &str) -> String {
    let quoted = |text: &str| format!("'{}'", text.replace('\'', r"'\''"));
    format!(
        "curl {} \\\n  -H 'content-type: application/json' \\\n  -H 'webhook-id: {id}' \\\n  -H \"webhook-timestamp: $(date +%s)\" \\\n  \
         -H 'webhook-signature: v1,…' \\\n  --data-raw {}",
        quoted(&text::shown(url.as_bytes())),
        quoted(&text::shown(body))
    )
}
