//! What is changed, by operators alone.

use axum::{
    Extension, Json,
    extract::{Path, State},
    response::{IntoResponse as _, Response},
    routing::post,
};
use serde_json::json;

use super::writes;
use crate::{
    Admin, Parameter, Refused, Routes, Who,
    actions::{self, Bulk},
    asked::Form,
    json,
};

const CHOICE: &[Parameter] = &[
    Parameter::text("state", "pending, delivered, dead or discarded; without it, dead"),
    Parameter::text("endpoint", "Only to this endpoint"),
    Parameter::text("session", "Only of this session"),
    Parameter::text("user", "Only of this user"),
    Parameter::text("type", "session.start, session.usage or session.end"),
    Parameter::text("since", "Only of events of this time or later"),
    Parameter::text("until", "Only of events before this time"),
    Parameter::text("id", "Only this event"),
    Parameter::number("rate", "At most so many a second (replay)"),
    Parameter::text("reason", "Why, for the record"),
    Parameter::text(
        "may_repeat",
        "Also what a product may have counted already (replay)",
    ),
    Parameter::text("dry_run", "Only say how many match"),
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
                CHOICE,
            ),
            post(|state: State<Admin>, who: Extension<Who>, form: Form| bulk(Bulk::Replay, state, who, form))
                .with_state(state()),
        )
        .route(
            writes(
                "/deliveries/discard",
                "Give up all deliveries that match for good",
                CHOICE,
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
                    let changed = actions::pause(&admin.store, &who, &name, &asked).await?;
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
                    let changed = actions::resume(&admin.store, &who, &name, &asked).await?;
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
        admin.store.count_deliveries(Bulk::filter(&asked)?).await?
    } else {
        bulk.run(&admin.store, &who, &asked).await?
    };
    Ok(Json(json!({ "count": json::number(count) })).into_response())
}
