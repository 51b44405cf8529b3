//! An endpoint that was named in `[enforce] obey` may block the user of an event by its answer: prepaid without a way
//! in.

use std::{collections::HashSet, sync::Arc, time::Duration};

use base64::{Engine as _, engine::general_purpose::STANDARD};
use serde::Deserialize;
use tracing::{error, warn};
use turnhook_reducer::outbox::{Next, Outcome};
use turnhook_store::{BlockChange, Ledger, Outbox, Store};

use super::{super::store_health::StoreHealth, Blocker};

/// How often a block that the store does not take is tried, and how long after each other.
const TRIES: usize = 60;
const AGAIN: Duration = Duration::from_secs(1);

/// `{"block": {"for": "1h", "reason": "balance"}}`, among whatever else an answer says.
#[derive(Debug, Deserialize)]
struct Answer {
    block: Option<Block>,
}

#[derive(Debug, Deserialize)]
struct Block {
    /// Until unblocked, where there is none.
    #[serde(rename = "for")]
    span: Option<String>,
    reason: Option<String>,
}

/// A block that an answer asks for.
#[derive(Debug, PartialEq, Eq)]
struct Wish {
    span: Option<Duration>,
    reason: String,
}

/// Looks into answers.
#[derive(Clone)]
pub(crate) struct Obey {
    endpoints: Arc<HashSet<String>>,
    ledger: Ledger,
    outbox: Outbox,
    blocker: Blocker,
}

impl Obey {
    pub(crate) fn new(endpoints: &[String], store: &Store, blocker: Blocker) -> Obey {
        Obey {
            endpoints: Arc::new(endpoints.iter().cloned().collect()),
            ledger: store.ledger().clone(),
            outbox: store.outbox().clone(),
            blocker,
        }
    }

    /// What is to be done about an answer: nothing, for almost all.
    pub(crate) fn look(
        &self,
        outcome: &Outcome,
        store_health: &Arc<StoreHealth>,
    ) -> Option<impl Future<Output = ()> + Send + use<>> {
        // What is answered to the news of a block asks for none: it would be sent, and answered, without an end.
        let counts = outcome.next == Next::Done && outcome.event_type.is_of_session();
        if !counts || !self.endpoints.contains(&*outcome.endpoint) {
            return None;
        }
        let wish = match wish(&outcome.answer) {
            Ok(wish) => wish?,
            Err(why) => {
                warn!(endpoint = %outcome.endpoint, event = %outcome.event_id, why,
                    "the answer speaks of a block and cannot be obeyed");
                return None;
            }
        };
        let (this, outcome, store_health) = (self.clone(), outcome.clone(), Arc::clone(store_health));
        Some(async move {
            // The answer is known to this process alone.
            for attempt in 1.. {
                match this.obey(&outcome, &wish).await {
                    Ok(()) => return,
                    Err(error) if error.is_transient() && attempt < TRIES => {
                        store_health.failed(
                            "a block that an answer asks for cannot be made; tried again",
                            &error,
                        );
                        tokio::time::sleep(AGAIN).await;
                    }
                    Err(error) => {
                        return error!(endpoint = %outcome.endpoint, %error, "an answer could not be obeyed");
                    }
                }
            }
        })
    }

    async fn obey(&self, outcome: &Outcome, wish: &Wish) -> turnhook_store::Result<()> {
        let endpoint = &outcome.endpoint;
        let Some(whom) = self.whom(outcome).await? else {
            warn!(%endpoint, session = %outcome.session, "the session has no user: nobody is blocked");
            return Ok(());
        };
        let now = self.blocker.now();
        let until = wish
            .span
            .map(|span| now.plus(u64::try_from(span.as_millis()).unwrap_or(u64::MAX)));
        let change = BlockChange::Block {
            realm: Some(whom.realm.into()),
            user: whom.user.into(),
            until,
        };
        let who = format!("endpoint {endpoint}");
        self.blocker.change(change, &wish.reason, &who).await
    }
}

/// Who is meant by an answer.
#[derive(Debug, PartialEq, Eq)]
struct Whom {
    realm: Vec<u8>,
    user: Vec<u8>,
}

impl Obey {
    /// By the event that was answered, where it can still be read from the outbox; else by the ledger, which has to be
    /// brought up to it first.
    async fn whom(&self, outcome: &Outcome) -> turnhook_store::Result<Option<Whom>> {
        let rows = self.outbox.pending_rows(vec![outcome.delivery]).await?;
        if let Some(whom) = rows.first().and_then(|row| whom_of(&row.body)) {
            return Ok(Some(whom));
        }
        let session = self.ledger.session(outcome.session).await?;
        let row = session.map(|session| session.row);
        Ok(row.and_then(|row| {
            Some(Whom {
                user: row.user?,
                realm: row.realm,
            })
        }))
    }
}

/// An event's payload, as far as it says whose it is. Names that are not UTF-8 stand in it in base64, too.
#[derive(Debug, Deserialize)]
struct Sent {
    data: SentData,
}

#[derive(Debug, Deserialize)]
struct SentData {
    realm: Option<String>,
    realm_base64: Option<String>,
    user: Option<String>,
    user_base64: Option<String>,
}

fn whom_of(body: &[u8]) -> Option<Whom> {
    let Sent { data } = serde_json::from_slice(body).ok()?;
    let name = |text: Option<String>, raw: Option<String>| match raw {
        Some(raw) => STANDARD.decode(raw).ok(),
        None => text.map(String::into_bytes),
    };
    Some(Whom {
        user: name(data.user, data.user_base64)?,
        realm: name(data.realm, data.realm_base64).unwrap_or_default(),
    })
}

/// What an answer asks for. `None` where it asks for nothing, whatever it is.
fn wish(answer: &[u8]) -> Result<Option<Wish>, String> {
    if !answer.windows(7).any(|w| w == b"\"block\"") {
        return Ok(None);
    }
    let answer: Answer = serde_json::from_slice(answer).map_err(|error| {
        format!("it is not {{\"block\": {{\"for\": …, \"reason\": …}}}} within 1 KiB: {error}")
    })?;
    let Some(block) = answer.block else {
        return Ok(None);
    };
    let span = match block.span {
        None => None,
        Some(text) => match humantime::parse_duration(&text) {
            Ok(span) if !span.is_zero() => Some(span),
            _ => return Err("`for` is a time like \"30m\" or \"12h\"".to_owned()),
        },
    };
    let reason = block.reason.unwrap_or_else(|| "blocked".to_owned());
    Ok(Some(Wish { span, reason }))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn an_event_says_whose_it_is() {
        let whom = |realm: &[u8], user: &[u8]| {
            Some(Whom {
                realm: realm.into(),
                user: user.into(),
            })
        };
        let of = |data: &str| whom_of(format!(r#"{{"type":"session.end","data":{data}}}"#).as_bytes());
        assert_eq!(of(r#"{"realm":"r","user":"ann","more":1}"#), whom(b"r", b"ann"));
        assert_eq!(
            of(r#"{"realm":null,"user":"?","user_base64":"/2E="}"#),
            whom(b"", b"\xffa")
        );
        assert_eq!(of(r#"{"realm":"r","user":null}"#), None);
    }

    #[test]
    fn an_answer_blocks_only_where_it_says_so() {
        let asks = |text: &str| wish(text.as_bytes()).unwrap();
        let hour = Duration::from_secs(3600);
        assert_eq!(
            asks(r#"{"ok":true,"block":{"for":"1h","reason":"balance","more":1}}"#),
            Some(Wish {
                span: Some(hour),
                reason: "balance".into()
            })
        );
        assert_eq!(
            asks(r#"{"block":{}}"#),
            Some(Wish {
                span: None,
                reason: "blocked".into()
            })
        );
        for nothing in [
            "",
            "ok",
            "<html>",
            r#"{"ok":true}"#,
            r#"{"block":null}"#,
            r#"{"blocked":{}}"#,
        ] {
            assert_eq!(asks(nothing), None, "{nothing}");
        }
        for wrong in [
            r#"{"block":true}"#,
            r#"{"block":{"for":3600}}"#,
            r#"{"block":{"for":"0s"}}"#,
            r#"{"block":{"for":"#,
        ] {
            wish(wrong.as_bytes()).unwrap_err();
        }
    }
}
