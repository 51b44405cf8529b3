//! An endpoint that was named in `[enforce] obey` may block the user of an event by its answer: prepaid without a way in.

use std::{collections::HashSet, sync::Arc, time::Duration};

use serde::Deserialize;
use tracing::{error, warn};
use turnhook_dispatcher::{endpoint::Outcome, queue::Next};
use turnhook_store::{BlockChange, Store};

use super::Blocker;

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
    store: Store,
    blocker: Blocker,
}

impl Obey {
    pub(crate) fn new(endpoints: &[String], store: &Store, blocker: Blocker) -> Obey {
        Obey {
            endpoints: Arc::new(endpoints.iter().cloned().collect()),
            store: store.clone(),
            blocker,
        }
    }

    /// What is to be done about an answer: nothing, for almost all.
    pub(crate) fn look(&self, outcome: &Outcome) -> Option<impl Future<Output = ()> + Send + use<>> {
        if outcome.next != Next::Done || !self.endpoints.contains(&*outcome.endpoint) {
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
        let (this, outcome) = (self.clone(), outcome.clone());
        Some(async move { this.obey(&outcome, wish).await })
    }

    async fn obey(self, outcome: &Outcome, wish: Wish) {
        let endpoint = &outcome.endpoint;
        let session = match self.store.session(outcome.session).await {
            Ok(Some(session)) => session.row,
            Ok(None) => {
                return warn!(%endpoint, session = %outcome.session, "of this session nothing is known: nobody is blocked");
            }
            Err(error) => return error!(%endpoint, %error, "an answer could not be obeyed"),
        };
        let Some(user) = session.user else {
            return warn!(%endpoint, session = %outcome.session, "the session has no user: nobody is blocked");
        };
        let now = self.blocker.now();
        let until = wish
            .span
            .map(|span| now.plus(u64::try_from(span.as_millis()).unwrap_or(u64::MAX)));
        let change = BlockChange::Block {
            realm: Some(session.realm.into()),
            user: user.into(),
            until,
        };
        let who = format!("endpoint {endpoint}");
        if let Err(error) = self.blocker.change(change, &wish.reason, &who).await {
            error!(%endpoint, %error, "an answer could not be obeyed");
        }
    }
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
