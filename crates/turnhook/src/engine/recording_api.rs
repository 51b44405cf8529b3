//! A recording for whoever has no shell on this machine: what a source hears, as lines of JSON, for as long as the answer is
//! read.

use axum::{
    Extension,
    body::Body,
    extract::{Path, State},
    http::{StatusCode, header},
    response::{IntoResponse as _, Response},
    routing::get,
};
use futures_util::stream;
use serde_json::json;
use tracing::{info, warn};
use turnhook_admin::{Operation, Parameter, Refused, Role, Routes, Who};
use turnhook_dispatcher::clock::Clocks;
use turnhook_store::{AuditEntry, Store};

use super::recorder::{Answer, Begun, NotBegun, Recordings};

const SOURCE: Parameter = Parameter::text("name", "The source's name");

#[derive(Clone)]
struct Recording {
    recordings: Recordings,
    store: Store,
    clocks: Clocks,
}

/// For [`turnhook_admin::router`].
pub(crate) fn routes(recordings: Recordings, store: &Store, clocks: &Clocks) -> Routes {
    let state = Recording {
        recordings,
        store: store.clone(),
        clocks: clocks.clone(),
    };
    let operation = Operation {
        method: "get",
        path: "/sources/{name}/record",
        summary: "What a source hears from now on, line by line, until the answer is not read any more; \
            it holds usernames and addresses",
        role: Role::Operator,
        parameters: &[SOURCE],
        answer: || json!({ "type": "string" }),
        csv: false,
        lines: true,
    };
    Routes::default().route(operation, get(record).with_state(state))
}

async fn record(
    State(recording): State<Recording>,
    Path(source): Path<String>,
    Extension(who): Extension<Who>,
) -> Result<Response, Refused> {
    let begun = recording.recordings.begin(&source).await.map_err(|why| {
        let status = match why {
            NotBegun::Busy => StatusCode::CONFLICT,
            NotBegun::Unknown => StatusCode::NOT_FOUND,
        };
        Refused::new(status, why.words(&source))
    })?;
    let entry = AuditEntry {
        at: recording.clocks.wall(),
        who: who.name.clone(),
        action: "record".to_owned(),
        target: source.clone(),
        count: 1,
        ..AuditEntry::default()
    };
    recording.store.admin().note(entry).await?;
    info!(source, who = who.name, "a recording begins");
    let lines = stream::unfold(Some((begun, 0)), move |at| next(at, source.clone()));
    let kind = [(header::CONTENT_TYPE, "application/x-ndjson")];
    Ok((kind, Body::from_stream(lines)).into_response())
}

type Chunk = Result<String, std::convert::Infallible>;

/// The next lines, once those before (`written` bytes of them) are on their way; the last one says why there are no more.
async fn next(at: Option<(Begun, usize)>, source: String) -> Option<(Chunk, Option<(Begun, usize)>)> {
    let (mut begun, written) = at?;
    begun.stream.written(written);
    if let Some(chunk) = begun.stream.recv().await {
        let bytes = chunk.len();
        return Some((Ok(chunk), Some((begun, bytes))));
    }
    let reason = begun.stream.ended().await.as_str();
    warn!(source, reason, "a recording has ended");
    let last = serde_json::to_string(&Answer::Ended(reason.to_owned())).unwrap_or_default() + "\n";
    Some((Ok(last), None))
}
