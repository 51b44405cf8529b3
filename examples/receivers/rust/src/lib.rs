//! A receiver of turnhook's webhooks: verifies, counts every event once, adds up what to bill.
//!
//! The signature is left to `standardwebhooks`, the library of the specification itself.

use std::sync::{Arc, Mutex, PoisonError};

use axum::{
    Json, Router,
    body::Bytes,
    extract::{DefaultBodyLimit, State},
    http::{HeaderMap, StatusCode},
    response::{IntoResponse, Response},
    routing::get,
};
use rusqlite::{Connection, TransactionBehavior, params};
use serde::{Deserialize, Serialize};
use standardwebhooks::Webhook;

const BODY_LIMIT: usize = 4 << 20;

/// What this receiver wants to know of an event. Unknown fields and types are passed over, since new ones
/// may come.
#[derive(Debug, Deserialize)]
#[serde(tag = "type", content = "data")]
enum Event {
    #[serde(rename = "session.end")]
    End(End),
    #[serde(other, deserialize_with = "anything")]
    Other,
}

/// Content that is not looked at.
fn anything<'de, D: serde::Deserializer<'de>>(deserializer: D) -> Result<(), D::Error> {
    serde::de::IgnoredAny::deserialize(deserializer).map(|_| ())
}

/// Whether it is a trial, by which an endpoint is tried: nobody is billed for it.
#[derive(Debug, Deserialize)]
struct Mark {
    #[serde(default)]
    test: bool,
}

#[derive(Debug, Deserialize)]
struct End {
    /// Null where it is empty.
    realm: Option<String>,
    /// The exact realm, where it is not UTF-8.
    realm_base64: Option<String>,
    /// Null where the username does not match turnhook's `user_pattern`.
    user: Option<String>,
    /// The exact user, where that is not UTF-8: such names look alike as text.
    user_base64: Option<String>,
    /// The session that this one corrects.
    continues: Option<String>,
    accuracy: String,
    usage: Usage,
}

#[derive(Debug, Deserialize)]
struct Usage {
    billable_bytes: u64,
}

/// Who is billed: a user of a realm, since `alice` of two realms is two customers. Nobody, where there is no user: a null, and
/// no word that somebody could be called.
#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Customer {
    /// The realm.
    pub realm: Option<String>,
    /// The exact realm, where it is not UTF-8.
    pub realm_base64: Option<String>,
    /// Who.
    pub user: Option<String>,
    /// Who exactly, where that is not UTF-8.
    pub user_base64: Option<String>,
}

/// What is to be billed to a user.
#[derive(Debug, PartialEq, Eq, Serialize)]
pub struct Account {
    /// Who.
    #[serde(flatten)]
    pub customer: Customer,
    /// How many sessions.
    pub sessions: u64,
    /// How many bytes.
    pub billable_bytes: u64,
    /// How many sessions carried perhaps more than what is billed.
    pub lower_bound_sessions: u64,
}

/// What was received, in SQLite.
pub struct Books(Connection);

impl Books {
    /// Opens the file, and makes it if it is not there.
    ///
    /// # Errors
    /// SQLite's.
    pub fn open(path: &str) -> rusqlite::Result<Books> {
        let db = Connection::open(path)?;
        db.execute_batch(
            "PRAGMA journal_mode = WAL;
             PRAGMA synchronous = FULL;
             CREATE TABLE IF NOT EXISTS seen (webhook_id TEXT PRIMARY KEY);
             CREATE TABLE IF NOT EXISTS usage (
                 account TEXT PRIMARY KEY, sessions INTEGER NOT NULL, billable_bytes INTEGER NOT NULL,
                 lower_bound_sessions INTEGER NOT NULL
             );",
        )?;
        Ok(Books(db))
    }

    /// The event and what it adds are written in one transaction. False if the event was entered before:
    /// turnhook sends again what it saw no answer to.
    fn enter(&mut self, id: &str, event: &Event) -> rusqlite::Result<bool> {
        let transaction = self.0.transaction_with_behavior(TransactionBehavior::Immediate)?;
        let new = transaction.execute("INSERT OR IGNORE INTO seen VALUES (?)", [id])? == 1;
        if let (true, Event::End(end)) = (new, event) {
            let customer = serde_json::json!({
                "realm": end.realm, "realm_base64": end.realm_base64,
                "user": end.user, "user_base64": end.user_base64,
            });
            transaction.execute(
                "INSERT INTO usage VALUES (?, ?, ?, ?) ON CONFLICT (account) DO UPDATE SET
                     sessions = sessions + excluded.sessions,
                     billable_bytes = billable_bytes + excluded.billable_bytes,
                     lower_bound_sessions = lower_bound_sessions + excluded.lower_bound_sessions",
                params![
                    customer.to_string(),
                    // A session that continues another one corrects it: it is not a session more.
                    u32::from(end.continues.is_none()),
                    i64::try_from(end.usage.billable_bytes).unwrap_or(i64::MAX),
                    u32::from(end.accuracy == "lower_bound"),
                ],
            )?;
        }
        transaction.commit()?;
        Ok(new)
    }

    fn usage(&self) -> rusqlite::Result<Vec<Account>> {
        let mut statement = self.0.prepare("SELECT * FROM usage ORDER BY account")?;
        let rows = statement.query_map([], |row| {
            let number = |index| row.get::<_, i64>(index).map(i64::unsigned_abs);
            let account: String = row.get(0)?;
            let customer = serde_json::from_str(&account).map_err(|error| {
                rusqlite::Error::FromSqlConversionFailure(0, rusqlite::types::Type::Text, error.into())
            })?;
            Ok(Account {
                customer,
                sessions: number(1)?,
                billable_bytes: number(2)?,
                lower_bound_sessions: number(3)?,
            })
        })?;
        rows.collect()
    }
}

struct Receiver {
    /// One for each secret: during a rotation there are two.
    secrets: Vec<Webhook>,
    books: Mutex<Books>,
}

/// POST takes webhooks, `GET /usage` shows the accounts.
pub fn router(secrets: Vec<Webhook>, books: Books) -> Router {
    Router::new()
        .route("/turn", axum::routing::post(receive))
        .route("/usage", get(usage))
        .layer(DefaultBodyLimit::max(BODY_LIMIT))
        .with_state(Arc::new(Receiver {
            secrets,
            books: Mutex::new(books),
        }))
}

async fn receive(State(receiver): State<Arc<Receiver>>, headers: HeaderMap, body: Bytes) -> Response {
    // Verified first, and over the bytes as they came: parsed and printed again they would be others.
    if !receiver
        .secrets
        .iter()
        .any(|secret| secret.verify(&body, &headers).is_ok())
    {
        // 401 is tried again: right while a secret is being rotated, harmless for a stranger.
        return StatusCode::UNAUTHORIZED.into_response();
    }
    let id = headers
        .get("webhook-id")
        .and_then(|value| value.to_str().ok())
        .unwrap_or_default()
        .to_owned();
    let Ok(event) = serde_json::from_slice::<Event>(&body) else {
        // 422 says "never": turnhook puts the event to the dead letters, for a person to look at.
        return StatusCode::UNPROCESSABLE_ENTITY.into_response();
    };
    // What `turnhook endpoints test` sends is billed to nobody.
    let is_test = serde_json::from_slice(&body).is_ok_and(|mark: Mark| mark.test);
    let event = if is_test || id.starts_with("evt_test_") {
        Event::Other
    } else {
        event
    };
    match with_books(receiver, move |books| books.enter(&id, &event)).await {
        Some(new) => Json(serde_json::json!({ "new": new })).into_response(),
        // A full disk, say: turnhook comes again.
        None => StatusCode::SERVICE_UNAVAILABLE.into_response(),
    }
}

async fn usage(State(receiver): State<Arc<Receiver>>) -> Response {
    match with_books(receiver, |books| books.usage()).await {
        Some(accounts) => Json(accounts).into_response(),
        None => StatusCode::SERVICE_UNAVAILABLE.into_response(),
    }
}

/// SQLite waits for the disk, so it does it on a thread of its own.
async fn with_books<T: Send + 'static>(
    receiver: Arc<Receiver>,
    act: impl FnOnce(&mut Books) -> rusqlite::Result<T> + Send + 'static,
) -> Option<T> {
    let done = tokio::task::spawn_blocking(move || {
        act(&mut receiver.books.lock().unwrap_or_else(PoisonError::into_inner))
    });
    match done.await {
        Ok(Ok(done)) => Some(done),
        Ok(Err(error)) => {
            eprintln!("not entered: {error}");
            None
        }
        Err(_) => None,
    }
}
