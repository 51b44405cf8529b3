//! Blocks in the JSON API of `[admin]`: what the command line does, for programs.

use std::{borrow::Cow, collections::BTreeMap, sync::Arc, time::Duration};

use axum::{
    Extension, Json,
    body::Bytes,
    extract::{Path, RawQuery, State},
    response::{IntoResponse as _, Response},
    routing::{delete, get, post, put},
};
use serde_json::{Value, json};
use turnhook_admin::{Of, Operation, Parameter, Refused, Role, Routes, WantsCsv, Who, csv_answer};
use turnhook_dispatcher::body::rfc3339;
use turnhook_reducer::event::{IdError, SessionId};
use turnhook_store::{Admin, AuditEntry, BlockChange, BlockRow, Ledger, Store};

use super::Blocker;

#[derive(Clone)]
struct Blocks {
    ledger: Ledger,
    admin: Admin,
    blocker: Blocker,
}

const REALM: Parameter = Parameter::text("realm", "In this realm alone; in every one if it is left out.");
const FORMAT: Parameter = Parameter::text("format", "`csv` for CSV, as is `Accept: text/csv`.");
const USER: Parameter = Parameter::text("user", "As webhooks name him.");
const FOR: Parameter = Parameter::new(
    "for",
    "For how long, like 1h; until unblocked if it is left out.",
    Of::Like("[1-9][0-9]{0,3}(s|m|h|days)"),
);
const SESSION: Parameter = Parameter::new("id", "The session.", Of::Like("ses_[0-7][0-9a-hjkmnp-tv-z]{25}"));
const REASON: Parameter = Parameter::text("reason", "Why, for the log and for `data.block_reason`.");

/// For [`turnhook_admin::router`].
pub(crate) fn routes(store: &Store, blocker: Blocker) -> Routes {
    let blocks = Arc::new(Blocks {
        ledger: store.ledger().clone(),
        admin: store.admin().clone(),
        blocker,
    });
    let operation = |method: &'static str, path, summary, role, parameters| Operation {
        method,
        path,
        summary,
        role,
        parameters,
        answer: || json!({ "type": "object" }),
        // Those that read are lists.
        csv: method == "get",
        lines: false,
    };
    Routes::default()
        .route(
            operation("get", "/blocks", "Who is blocked", Role::Viewer, &[FORMAT]),
            get(list).with_state(Arc::clone(&blocks)),
        )
        .route(
            operation(
                "get",
                "/blocks/{user}",
                "The blocks of a user; none if he is not blocked",
                Role::Viewer,
                &[USER, FORMAT],
            ),
            get(one).with_state(Arc::clone(&blocks)),
        )
        .route(
            operation(
                "put",
                "/blocks/{user}",
                "Blocks a user: his allocations are ended, and those that he makes",
                Role::Operator,
                &[USER, REALM, FOR, REASON],
            ),
            put(block).with_state(Arc::clone(&blocks)),
        )
        .route(
            operation(
                "delete",
                "/blocks/{user}",
                "Ends the block of a user",
                Role::Operator,
                &[USER, REALM],
            ),
            delete(unblock).with_state(Arc::clone(&blocks)),
        )
        .route(
            operation(
                "post",
                "/sessions/{id}/end",
                "Ends the allocations that a session has now",
                Role::Operator,
                &[SESSION, REASON],
            ),
            post(end).with_state(blocks),
        )
}

/// What was said in the query, or as a form.
struct Said(Vec<(String, String)>);

impl Said {
    /// A body may also be JSON: taken for a form it would say nothing, and a block of an hour would be one without an
    /// end.
    fn new(query: Option<String>, body: &Bytes) -> Result<Said, Refused> {
        let query = query.unwrap_or_default();
        let pairs = |text: &[u8]| -> Vec<(String, String)> {
            let pairs = url::form_urlencoded::parse(text);
            pairs
                .map(|(k, v)| (Cow::into_owned(k), Cow::into_owned(v)))
                .collect()
        };
        let mut said = pairs(query.as_bytes());
        if body.trim_ascii_start().starts_with(b"{") {
            let object: BTreeMap<String, Option<String>> = serde_json::from_slice(body).map_err(|error| {
                Refused::wrong(format!(
                    "the body is no form, and no JSON object of texts: {error}"
                ))
            })?;
            said.extend(object.into_iter().filter_map(|(key, value)| Some((key, value?))));
        } else {
            said.extend(pairs(body));
        }
        Ok(Said(said))
    }

    fn get(&self, name: &str) -> Option<&str> {
        let found = self.0.iter().rev().find(|(k, v)| k == name && !v.is_empty());
        found.map(|(_, v)| v.as_str())
    }

    fn realm(&self) -> Option<Box<[u8]>> {
        self.get("realm").map(|realm| realm.as_bytes().into())
    }
}

async fn list(State(blocks): State<Arc<Blocks>>, csv: WantsCsv) -> Result<Response, Refused> {
    blocks.shown(None, csv).await
}

async fn one(
    State(blocks): State<Arc<Blocks>>,
    Path(user): Path<String>,
    csv: WantsCsv,
) -> Result<Response, Refused> {
    blocks.shown(Some(user), csv).await
}

async fn block(
    State(blocks): State<Arc<Blocks>>,
    Path(user): Path<String>,
    RawQuery(query): RawQuery,
    Extension(who): Extension<Who>,
    body: Bytes,
) -> Result<Json<Value>, Refused> {
    let said = Said::new(query, &body)?;
    let span: Option<Duration> = match said.get("for").map(humantime::parse_duration) {
        None => None,
        Some(Ok(span)) if !span.is_zero() => Some(span),
        Some(_) => return Err(Refused::wrong("`for` is a time like 30m or 12h")),
    };
    let until = span.map(|span| {
        let millis = u64::try_from(span.as_millis()).unwrap_or(u64::MAX);
        blocks.blocker.now().plus(millis)
    });
    let change = BlockChange::Block {
        realm: said.realm(),
        user: user.as_bytes().into(),
        until,
    };
    let reason = said.get("reason").unwrap_or("blocked");
    blocks.blocker.change(change, reason, &who.name).await?;
    blocks.note(&who, "block", &user, reason).await?;
    blocks.held(Some(user)).await
}

async fn unblock(
    State(blocks): State<Arc<Blocks>>,
    Path(user): Path<String>,
    RawQuery(query): RawQuery,
    Extension(who): Extension<Who>,
    body: Bytes,
) -> Result<Json<Value>, Refused> {
    let said = Said::new(query, &body)?;
    let realm = said.realm();
    let held = blocks.admin.blocks(blocks.blocker.now()).await?;
    let is = |row: &BlockRow| matches!(&row.change, BlockChange::Block { realm: r, user: u, .. } if *r == realm && **u == *user.as_bytes());
    if !held.iter().any(is) {
        return Err(Refused::missing(format!(
            "{user} is not blocked there; GET /api/v1/blocks says who is"
        )));
    }
    let change = BlockChange::Unblock {
        realm,
        user: user.as_bytes().into(),
    };
    blocks.blocker.change(change, "", &who.name).await?;
    blocks.note(&who, "unblock", &user, "").await?;
    blocks.held(Some(user)).await
}

async fn end(
    State(blocks): State<Arc<Blocks>>,
    Path(id): Path<String>,
    RawQuery(query): RawQuery,
    Extension(who): Extension<Who>,
    body: Bytes,
) -> Result<Json<Value>, Refused> {
    let said = Said::new(query, &body)?;
    let session: SessionId = id
        .parse()
        .map_err(|error: IdError| Refused::wrong(error.to_string()))?;
    match blocks.ledger.session(session).await? {
        None => return Err(Refused::missing(format!("{id}: there is no such session"))),
        Some(found) if found.row.end.is_some() => {
            return Err(Refused::wrong(format!("{id}: this session has ended already")));
        }
        Some(_) => {}
    }
    let reason = said.get("reason").unwrap_or("ended by hand");
    let change = BlockChange::EndSession(session);
    blocks.blocker.change(change, reason, &who.name).await?;
    blocks.note(&who, "end", &id, reason).await?;
    Ok(Json(json!({ "session_id": id, "end": "asked for" })))
}

impl Blocks {
    /// For the record of what people did.
    async fn note(&self, who: &Who, action: &str, target: &str, reason: &str) -> Result<(), Refused> {
        let entry = AuditEntry {
            at: self.blocker.now(),
            who: who.name.clone(),
            action: action.to_owned(),
            target: target.to_owned(),
            detail: reason.to_owned(),
            count: 1,
            ..AuditEntry::default()
        };
        Ok(self.admin.note(entry).await?)
    }

    async fn shown(&self, user: Option<String>, WantsCsv(csv): WantsCsv) -> Result<Response, Refused> {
        if csv {
            return csv_answer(&self.rows(user).await?);
        }
        Ok(self.held(user).await?.into_response())
    }

    async fn held(&self, user: Option<String>) -> Result<Json<Value>, Refused> {
        let blocks = self.rows(user).await?;
        Ok(Json(json!({ "blocked": !blocks.is_empty(), "blocks": blocks })))
    }

    async fn rows(&self, user: Option<String>) -> Result<Vec<Value>, Refused> {
        let rows = self.admin.blocks(self.blocker.now()).await?;
        let listed = rows.iter().filter_map(|row| {
            let BlockChange::Block {
                realm,
                user: of,
                until,
            } = &row.change
            else {
                return None;
            };
            let wanted = user.as_ref().is_none_or(|user| **of == *user.as_bytes());
            wanted.then(|| {
                json!({
                    "user": String::from_utf8_lossy(of),
                    "realm": realm.as_deref().map(String::from_utf8_lossy),
                    "since": rfc3339(row.at),
                    "until": until.map(rfc3339),
                    "reason": row.reason,
                    "by": row.who,
                })
            })
        });
        Ok(listed.collect())
    }
}
