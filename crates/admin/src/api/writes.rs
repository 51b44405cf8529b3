//! What is changed, by operators alone.

use axum::{
    Extension, Json,
    extract::{Path, State},
    response::{IntoResponse as _, Response},
    routing::post,
};
use serde_json::json;

use super::{
    operation::writes,
    reads::{EVENT, SESSION, STATES, TYPES},
};
use crate::{
    Admin, Of, Parameter, Refused, Routes, Who,
    actions::{self, Bulk},
    asked::Form,
    json,
};

const STATE: Parameter = Parameter::new("state", "Only in this state; without it, dead", STATES);
const TO: Parameter = Parameter::text("endpoint", "Only to this endpoint");
const OF: Parameter = Parameter::new("session", "Only of this session", SESSION);
const USER: Parameter = Parameter::text("user", "Only of this user");
const TYPE: Parameter = Parameter::new("type", "Only of this type", TYPES);
const SINCE: Parameter = Parameter::new("since", "Only of events of this time or later", Of::Time);
const UNTIL: Parameter = Parameter::new("until", "Only of events before this time", Of::Time);
const ID: Parameter = Parameter::new("id", "Only this event", EVENT);
const REASON: Parameter = Parameter::text("reason", "Why, for the record");
const DRY_RUN: Parameter = Parameter::text("dry_run", "Only say how many match");
const DISCARD: &[Parameter] = &[STATE, TO, OF, USER, TYPE, SINCE, UNTIL, ID, REASON, DRY_RUN];
const REPLAY: &[Parameter] = &[
    STATE,
    TO,
    OF,
    USER,
    TYPE,
    SINCE,
    UNTIL,
    ID,
    REASON,
    DRY_RUN,
    Parameter::new("rate", "At most so many a second", Of::Number(1, 1_000_000)),
    Parameter::text("may_repeat", "Also what a product may have counted already"),
];
const ENDPOINT: &[Parameter] = &[
    Parameter::text("name", "The endpoint's name"),
    Parameter::text("reason", "Why, for the record"),
];

type Answer = Result<Response, Refused>;

pub(super) fn add(admin: &Admin, routes: Routes) -> Routes {
    let state = || admin.clone();
    routes
        .route(
            writes(
                "/deliveries/replay",
                "Queue all deliveries that match again",
                REPLAY,
            ),
            post(|state: State<Admin>, who: Extension<Who>, form: Form| bulk(Bulk::Replay, state, who, form))
                .with_state(state()),
        )
        .route(
            writes(
                "/deliveries/discard",
                "Give up all deliveries that match for good",
                DISCARD,
            ),
            post(|state: State<Admin>, who: Extension<Who>, form: Form| {
                bulk(Bulk::Discard, state, who, form)
            })
            .with_state(state()),
        )
        .route(
            writes(
                "/endpoints/{name}/pause",
                "Send nothing to an endpoint until it is resumed",
                ENDPOINT,
            ),
            post(
                |State(admin): State<Admin>,
                 Extension(who): Extension<Who>,
                 Path(name): Path<String>,
                 Form(asked): Form| async move {
                    let changed = actions::pause(&admin.changes, &who, &name, &asked).await?;
                    Ok::<_, Refused>(Json(json!({ "changed": changed })))
                },
            )
            .with_state(state()),
        )
        .route(
            writes("/endpoints/{name}/resume", "Send to an endpoint again", ENDPOINT),
            post(
                |State(admin): State<Admin>,
                 Extension(who): Extension<Who>,
                 Path(name): Path<String>,
                 Form(asked): Form| async move {
                    let changed = actions::resume(&admin.changes, &who, &name, &asked).await?;
                    Ok::<_, Refused>(Json(json!({ "changed": changed })))
                },
            )
            .with_state(state()),
        )
}

async fn bulk(
    bulk: Bulk,
    State(admin): State<Admin>,
    Extension(who): Extension<Who>,
    Form(asked): Form,
) -> Answer {
    let count = if asked.text("dry_run").is_some() {
        bulk.rate(&asked)?;
        admin.ledger.count_deliveries(Bulk::filter(&asked)?).await?
    } else {
        bulk.run(&admin.changes, &who, &asked).await?
    };
    Ok(Json(json!({ "count": json::number(count) })).into_response())
}
