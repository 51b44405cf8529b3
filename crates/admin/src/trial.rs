//! An endpoint is tried: sent something that nobody is billed for.

use axum::{
    Extension, Json,
    extract::{Path, State},
    routing::post,
};
use serde_json::json;
use turnhook_reducer::event::EventType;

use crate::{
    Admin, Of, Operation, Parameter, Refused, Role, Routes, Sample, Trial, Who, actions,
    asked::{Asked, Form},
    text,
};

/// A trial of its own kind, about no session and no user.
pub(crate) const PING: &str = "endpoint.ping";

/// What may be special about a sample, with words for it.
pub const CASES: [(&str, &str); 5] = [
    ("exact", "all that coturn said was heard"),
    ("lower-bound", "something may have been missed"),
    ("continues", "its session corrects another"),
    ("no-user", "no user, no realm"),
    ("many", "more allocations than are listed"),
];

/// Sends it, and puts on record first who had it sent.
pub(crate) async fn run(admin: &Admin, who: &Who, name: &str, asked: &Asked) -> Result<Trial, Refused> {
    let sample = sample(asked)?;
    let missing = || Refused::missing(format!("there is no endpoint {:?}", text::shown(name.as_bytes())));
    let status = admin.engine.status();
    if !status.endpoints.iter().any(|endpoint| endpoint.name == name) {
        return Err(missing());
    }
    let mut detail = sample.event_type.map_or(PING, EventType::as_str).to_owned();
    if let Some(reason) = asked.text("reason") {
        detail += &format!(": {reason}");
    }
    actions::note_in_words(&admin.changes, who, "test", name.to_owned(), detail, 1).await?;
    admin.engine.try_endpoint(name, sample).await.ok_or_else(missing)
}

fn sample(asked: &Asked) -> Result<Sample, Refused> {
    let event_type = match asked.text("type").as_deref() {
        None | Some(PING) => None,
        Some(name) => Some(EventType::from_name(name).ok_or_else(|| {
            let known = EventType::ALL.map(EventType::as_str).join(", ");
            Refused::wrong(format!("`type` is {PING} or one of {known}, not {name:?}"))
        })?),
    };
    let case = asked.text("case").unwrap_or_else(|| CASES[0].0.to_owned());
    let found = CASES.into_iter().find(|(known, _)| *known == case);
    let (case, _) = found.ok_or_else(|| {
        let known = CASES.map(|(name, _)| name).join(", ");
        Refused::wrong(format!("`case` is one of {known}, not {case:?}"))
    })?;
    Ok(Sample { event_type, case })
}

const PARAMETERS: &[Parameter] = &[
    Parameter::text("name", "The endpoint's name"),
    Parameter::new(
        "type",
        "A sample of which type; a ping without it",
        Of::Words(&[
            PING,
            "session.start",
            "session.usage",
            "session.end",
            "quota.reached",
            "user.blocked",
            "user.unblocked",
        ]),
    ),
    Parameter::new(
        "case",
        "What is special about the sample",
        Of::Words(&["exact", "lower-bound", "continues", "no-user", "many"]),
    ),
    Parameter::text("reason", "Why, for the record"),
];

pub(crate) fn add(admin: &Admin, routes: Routes) -> Routes {
    let operation = Operation {
        method: "post",
        path: "/endpoints/{name}/test",
        summary: "Send an endpoint a ping or a sample, for which nobody is billed; ask a billing product whether it takes the credentials",
        role: Role::Operator,
        parameters: PARAMETERS,
        answer: || {
            json!({
                "type": "object",
                "required": ["well", "sent", "status", "latency_ms", "answer", "error", "means", "requests"],
                "properties": {
                    "well": { "type": "boolean", "description": "Whether the endpoint took it." },
                    "sent": { "type": ["string", "null"], "description": "An id, or a request's first line; null: nothing was sent." },
                    "status": { "type": ["integer", "null"], "description": "Of the answer; null: none came." },
                    "latency_ms": { "type": "integer" },
                    "answer": { "type": "string", "description": "How the answer begins." },
                    "error": { "type": ["string", "null"] },
                    "means": { "type": "string", "description": "What an event comes to that is answered so." },
                    "requests": { "type": "array", "items": { "type": "string" }, "description": "What a billing product would be sent." },
                },
            })
        },
        csv: false,
        lines: false,
    };
    let handler = post(
        |State(admin): State<Admin>,
         Extension(who): Extension<Who>,
         Path(name): Path<String>,
         Form(asked): Form| async move {
            let trial = run(&admin, &who, &name, &asked).await?;
            Ok::<_, Refused>(Json(json!({
                "well": trial.error.is_none(),
                "sent": (!trial.sent.is_empty()).then_some(trial.sent),
                "status": trial.status,
                "latency_ms": trial.latency_ms,
                "answer": String::from_utf8_lossy(&trial.answer),
                "error": trial.error,
                "means": trial.means,
                "requests": trial.requests,
            })))
        },
    );
    routes.route(operation, handler.with_state(admin.clone()))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::panic)]

    use super::*;

    /// What the API's document offers is what there is.
    #[test]
    fn all_types_and_cases_are_offered() {
        let offered = |name: &str| match PARAMETERS.iter().find(|one| one.name == name).map(|one| &one.of) {
            Some(Of::Words(words)) => words.to_vec(),
            other => panic!("{other:?}"),
        };
        let types = EventType::ALL.map(EventType::as_str);
        assert_eq!(offered("type"), [&[PING][..], &types].concat());
        assert_eq!(offered("case"), CASES.map(|(name, _)| name));
    }
}
