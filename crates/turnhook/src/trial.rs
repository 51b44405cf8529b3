//! An endpoint is tried, by a command or from the page: a webhook is sent a ping or a sample, a billing product is asked
//! something that changes nothing. Nobody is billed for it.

use std::time::Duration;

use bytes::Bytes;
use turnhook_dispatcher::{
    body::ping_body,
    client::Client,
    config::EndpointConfig,
    include::included,
    provider::{
        account::{Account, Prepared},
        batch::Heard,
    },
    samples::{self, Case},
    verdict::{Verdict, verdict},
};
use turnhook_reducer::{
    event::{EventId, EventType},
    time::Timestamp,
};
use url::Url;

use crate::config::{HIDDEN, hide_path};

/// What came of it.
#[derive(Debug, Default)]
pub(crate) struct Tried {
    /// What was sent: an id, or a request's first line.
    pub(crate) sent: String,
    /// Of the answer; `None` where none came.
    pub(crate) status: Option<u16>,
    /// Until the answer came, or until it was clear that none comes.
    pub(crate) latency: Duration,
    /// How the answer begins.
    pub(crate) answer: Bytes,
    /// Why it is not well; no secrets.
    pub(crate) error: Option<String>,
    /// What an event comes to that is answered so.
    pub(crate) means: &'static str,
}

/// Sends a ping, or a sample.
pub(crate) async fn webhook(
    endpoint: &EndpointConfig,
    client: &Client,
    sample: Option<(EventType, Case)>,
    at: Timestamp,
) -> Tried {
    let body = match sample {
        Some((event_type, case)) => included(&samples::payload(event_type, case, at), endpoint.include),
        None => ping_body(at, &endpoint.name),
    };
    let id = test_id(at);
    let answer = client.send(&id, body, at).await;
    let verdict = verdict(answer.status);
    let error = (verdict != Verdict::Delivered).then(|| {
        answer
            .error
            .unwrap_or_else(|| "the endpoint answered nothing".to_owned())
    });
    Tried {
        sent: id,
        status: answer.status.map(|status| status.as_u16()),
        latency: answer.latency,
        answer: answer.body,
        error,
        means: meaning(verdict),
    }
}

fn meaning(verdict: Verdict) -> &'static str {
    match verdict {
        Verdict::Delivered => "An event that is answered so is delivered.",
        Verdict::Retry => "An event to which this happens is tried again.",
        Verdict::Doubted => {
            "An event that is answered so is tried again for an hour, and is then a dead letter."
        }
        Verdict::Rejected => "An event that is answered so is a dead letter at once.",
        Verdict::Gone => "An event that is answered so pauses the endpoint.",
    }
}

/// Asks whether the credentials are good; `None` where the product has no call that changes nothing.
pub(crate) async fn probe(account: &Account, client: &Client) -> Option<Tried> {
    let probe = account.product.probe()?;
    let (heard, latency) = client.perform(&probe).await;
    let sent = format!("{} {}", probe.method, probe.path);
    Some(match heard {
        Heard::Nothing { error, .. } => Tried {
            sent,
            latency,
            error: Some(format!("it does not answer: {error}")),
            ..Tried::default()
        },
        Heard::Answer { status, body, .. } => {
            let is_well = (200..300).contains(&status);
            Tried {
                sent,
                status: Some(status),
                latency,
                // What the product keeps is of no interest.
                answer: if is_well { Bytes::new() } else { body },
                error: (!is_well).then(|| format!("it answered {status} to the credentials")),
                means: "",
            }
        }
    })
}

/// What a sample comes to at a billing product.
pub(crate) fn prepared(
    account: &Account,
    endpoint: &EndpointConfig,
    (event_type, case): (EventType, Case),
    at: Timestamp,
) -> Prepared {
    let body = included(&samples::payload(event_type, case, at), endpoint.include);
    account.prepare(&test_id(at), &body, None, true, at)
}

/// The requests that a delivery makes, for people: credentials are hidden. Where it makes none, a sentence that says why.
///
/// # Errors
/// A request that cannot be made.
pub(crate) fn requests(
    account: &Account,
    endpoint: &EndpointConfig,
    client: &Client,
    what: &str,
    prepared: &Prepared,
) -> Result<Vec<String>, &'static str> {
    let sent = match prepared {
        Prepared::Send(sent) => sent,
        Prepared::Nothing => return Ok(vec![format!("{what} comes to nothing: nothing is sent")]),
        Prepared::Dead(why) => {
            return Ok(vec![format!(
                "{what} is a dead letter ({}): {}",
                why.as_str(),
                why.words()
            )]);
        }
        Prepared::Waits => {
            return Ok(vec![format!("{what} waits: its customer is not in the map")]);
        }
        Prepared::Early(ms) => {
            return Ok(vec![format!("{what} waits for {ms} ms: its time has not come")]);
        }
    };
    let items: Vec<_> = sent.open().cloned().collect();
    let base = shown_url(&endpoint.url);
    let rendered = items.chunks(account.terms.batch.max(1)).map(|some| {
        client
            .rendered(&account.product.request(some, 1), &base)
            .ok_or("the request cannot be made: it has characters that none can hold")
    });
    rendered.collect()
}

/// An endpoint's URL without what may be a token in it.
pub(crate) fn shown_url(url: &Url) -> Url {
    let mut shown = url.clone();
    let names: Vec<String> = url.query_pairs().map(|(name, _)| name.into_owned()).collect();
    if !names.is_empty() {
        let hidden = names.iter().map(|name| (name, HIDDEN));
        shown.query_pairs_mut().clear().extend_pairs(hidden);
    }
    hide_path(&mut shown);
    shown
}

/// The id of an event that nobody is billed for.
fn test_id(at: Timestamp) -> String {
    let mut id = EventId([0; 16]);
    id.0[..8].copy_from_slice(&at.0.to_be_bytes());
    id.to_string().replacen("evt_", "evt_test_", 1)
}
