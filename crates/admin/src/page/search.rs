//! The one box: a user, a session, an event, a TURN username, or a client's address.

use std::net::IpAddr;

use axum::{Router, extract::State, response::Response, routing::get};
use turnhook_reducer::{event::SessionId, time::Timestamp};
use turnhook_store::SessionFilter;

use super::{
    table::{Cell, Table},
    view::{Block, View, see},
};
use crate::{
    Admin, Refused,
    actions::now,
    asked::{encoded, event_id, session_id},
};

pub(super) fn routes() -> Router<Admin> {
    Router::new().route("/search", get(search))
}

/// Addresses stand in the bodies of events alone: so many of the newest sessions are looked at.
const SESSIONS: usize = 300;
const WEEK_MS: u64 = 7 * 86_400_000;

async fn search(State(admin): State<Admin>, view: View) -> Response {
    match find(&admin, &view).await {
        Ok(Found::At(path)) => see(&view.link(&path)),
        Ok(Found::Sessions(sessions)) => {
            let rows = sessions.into_iter().map(|(id, at, user)| {
                vec![
                    view.session_cell(id),
                    Cell::time(at, &view.zone),
                    view.user_cell(user.as_deref()),
                ]
            });
            let table = Table {
                caption: "Sessions with that address".into(),
                columns: vec![("Session", false), ("Started", false), ("User", false)],
                rows: rows.collect(),
                none: "Nothing was found.",
                next: None,
            };
            let text = format!("Looked at the {SESSIONS} newest sessions of the last seven days.");
            view.show(Ok((
                "Found".to_owned(),
                vec![Block::Say("", text), Block::Table(table)],
            )))
        }
        Ok(Found::Nothing) => {
            let text = "There is no such user, session or event. What was delivered is kept for `retention`.";
            view.show(Ok((
                "Nothing was found".to_owned(),
                vec![Block::Say("warn", text.to_owned())],
            )))
        }
        Err(refused) => view.refuse(refused),
    }
}

enum Found {
    At(String),
    Sessions(Vec<(SessionId, Timestamp, Option<Vec<u8>>)>),
    Nothing,
}

async fn find(admin: &Admin, view: &View) -> Result<Found, Refused> {
    let Some(asked) = view.asked.text("q") else {
        return Ok(Found::At("/".to_owned()));
    };
    let lower = asked.to_ascii_lowercase();
    if lower.starts_with("ses_") && session_id(&lower).is_ok() {
        return Ok(Found::At(format!("/sessions/{lower}")));
    }
    if lower.starts_with("evt_") && event_id(&lower).is_ok() {
        return Ok(Found::At(format!("/events/{lower}")));
    }
    let as_asked = asked.clone().into_bytes();
    for user in [Some(as_asked.clone()), admin.engine.user_of(&as_asked)]
        .into_iter()
        .flatten()
    {
        let filter = SessionFilter {
            user: Some(user.clone()),
            ..SessionFilter::default()
        };
        if !admin.ledger.sessions(filter, None, 1).await?.is_empty() {
            return Ok(Found::At(format!("/users/{}", encoded(&user))));
        }
    }
    if let Some(address) = address(&asked) {
        return by_address(admin, &address).await;
    }
    Ok(Found::Nothing)
}

/// As it begins in a body: with a port or without.
fn address(text: &str) -> Option<String> {
    if let Ok(socket) = text.parse::<std::net::SocketAddr>() {
        return Some(socket.to_string());
    }
    let address: IpAddr = text.trim_matches(['[', ']']).parse().ok()?;
    Some(match address {
        IpAddr::V4(address) => format!("{address}:"),
        IpAddr::V6(address) => format!("[{address}]:"),
    })
}

async fn by_address(admin: &Admin, address: &str) -> Result<Found, Refused> {
    let filter = SessionFilter {
        since: Some(Timestamp(now().0.saturating_sub(WEEK_MS))),
        ..SessionFilter::default()
    };
    let needle = format!("\"client_address\":\"{address}");
    let mut found = Vec::new();
    for row in admin.ledger.sessions(filter, None, SESSIONS).await? {
        let detail = admin.ledger.session(row.id).await?;
        let body = detail.and_then(|detail| detail.last_body).unwrap_or_default();
        if body.windows(needle.len()).any(|part| part == needle.as_bytes()) {
            found.push((row.id, row.started_at, row.user));
        }
    }
    Ok(Found::Sessions(found))
}
