//! What an operator may do: what the command line does, with who did it on record.

use std::{
    collections::BTreeMap,
    time::{SystemTime, UNIX_EPOCH},
};

use turnhook_reducer::{event::SessionId, time::Timestamp};
use turnhook_store::{
    Admin, AuditEntry, BlockChange, DeliveryFilter, DeliveryState, Ledger, ReplayRequest, SourceId,
};

use crate::{Refused, Who, asked::Asked, text};

/// What the wall clock says.
pub(crate) fn now() -> Timestamp {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    Timestamp(u64::try_from(since.as_millis()).unwrap_or(u64::MAX))
}

/// What is done to deliveries.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Bulk {
    Replay,
    Discard,
}

impl Bulk {
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Bulk::Replay => "replay",
            Bulk::Discard => "discard",
        }
    }

    pub(crate) fn named(name: &str) -> Result<Bulk, Refused> {
        match name {
            "replay" => Ok(Bulk::Replay),
            "discard" => Ok(Bulk::Discard),
            other => Err(Refused::wrong(format!(
                "`action` is replay or discard, not {other:?}"
            ))),
        }
    }

    /// As asked for; without states, the dead letters.
    pub(crate) fn filter(asked: &Asked) -> Result<DeliveryFilter, Refused> {
        let mut filter = asked.deliveries()?;
        if filter.states.is_empty() {
            filter.states.push(DeliveryState::Dead);
        }
        Ok(filter)
    }

    /// How many a second: a replay's.
    pub(crate) fn rate(self, asked: &Asked) -> Result<Option<u64>, Refused> {
        match self {
            Bulk::Replay => asked.between("rate", 1, 1_000_000),
            Bulk::Discard => Ok(None),
        }
    }

    /// How many it was done to.
    pub(crate) async fn run(self, store: &Admin, who: &Who, asked: &Asked) -> Result<u64, Refused> {
        let filter = Bulk::filter(asked)?;
        let (at, what) = (now(), in_words(asked));
        let count = match self {
            Bulk::Replay => {
                let rate = self.rate(asked)?;
                let request = ReplayRequest {
                    filter,
                    at,
                    who: who.name.clone(),
                    what: what.clone(),
                    #[allow(clippy::cast_precision_loss)] // nobody asks for 2^53 a second
                    rate: rate.map(|rate| rate as f64),
                    may_repeat: asked.text("may_repeat").is_some(),
                };
                store.replay(request).await?.total
            }
            Bulk::Discard => store.discard(filter, at).await?,
        };
        note(store, who, self.as_str(), what, asked, count).await?;
        Ok(count)
    }
}

/// Whether it was not so before.
pub(crate) async fn pause(store: &Admin, who: &Who, endpoint: &str, asked: &Asked) -> Result<bool, Refused> {
    let reason = asked
        .text("reason")
        .unwrap_or_else(|| format!("paused by {}", who.name));
    let changed = store.pause(endpoint, now(), &reason).await?;
    note(
        store,
        who,
        "pause",
        endpoint.to_owned(),
        asked,
        u64::from(changed),
    )
    .await?;
    Ok(changed)
}

/// Whether it was paused.
pub(crate) async fn resume(store: &Admin, who: &Who, endpoint: &str, asked: &Asked) -> Result<bool, Refused> {
    let changed = store.resume(endpoint, now()).await?;
    note(
        store,
        who,
        "resume",
        endpoint.to_owned(),
        asked,
        u64::from(changed),
    )
    .await?;
    Ok(changed)
}

async fn note(
    store: &Admin,
    who: &Who,
    action: &str,
    target: String,
    asked: &Asked,
    count: u64,
) -> Result<(), Refused> {
    let reason = asked.text("reason").unwrap_or_default();
    note_in_words(store, who, action, target, reason, count).await
}

pub(crate) async fn note_in_words(
    store: &Admin,
    who: &Who,
    action: &str,
    target: String,
    detail: String,
    count: u64,
) -> Result<(), Refused> {
    let entry = AuditEntry {
        at: now(),
        who: who.name.clone(),
        action: action.to_owned(),
        target,
        detail,
        count,
        ..AuditEntry::default()
    };
    Ok(store.note(entry).await?)
}

/// The names by which deliveries are chosen.
pub(crate) const CHOICE: [&str; 8] = [
    "state", "endpoint", "session", "user", "type", "since", "until", "id",
];

pub(crate) fn in_words(asked: &Asked) -> String {
    let words: Vec<String> = asked
        .only(&CHOICE)
        .into_iter()
        .map(|(name, value)| format!("{name} {value}"))
        .collect();
    if words.is_empty() {
        "all dead letters".to_owned()
    } else {
        words.join(", ")
    }
}

/// How long a block holds, and why, are in the form.
pub(crate) async fn block(store: &Admin, who: &Who, user: &[u8], asked: &Asked) -> Result<(), Refused> {
    let span = asked.text("for").map(|text| humantime::parse_duration(&text));
    let until = match span {
        None => None,
        Some(Ok(span)) if !span.is_zero() => {
            let millis = u64::try_from(span.as_millis()).unwrap_or(u64::MAX);
            Some(now().plus(millis))
        }
        Some(_) => return Err(Refused::wrong("`for` is a time like 30m or 12h")),
    };
    let change = BlockChange::Block {
        realm: asked.bytes("realm").map(Into::into),
        user: user.into(),
        until,
    };
    let reason = asked.text("reason").unwrap_or_else(|| "blocked".to_owned());
    store.change_block(now(), change, &reason, &who.name).await?;
    note(store, who, "block", text::shown(user), asked, 1).await
}

/// As he was blocked: in a realm, or in every one.
pub(crate) async fn unblock(
    store: &Admin,
    who: &Who,
    user: &[u8],
    realm: Option<&[u8]>,
    asked: &Asked,
) -> Result<(), Refused> {
    let held = store.blocks_of(user, now()).await?;
    let is_there = held
        .iter()
        .any(|row| matches!(&row.change, BlockChange::Block { realm: of, .. } if of.as_deref() == realm));
    if !is_there {
        let message = format!("{} is not blocked there; /blocks says who is", text::shown(user));
        return Err(Refused::missing(message));
    }
    let change = BlockChange::Unblock {
        realm: realm.map(Into::into),
        user: user.into(),
    };
    store.change_block(now(), change, "", &who.name).await?;
    note(store, who, "unblock", text::shown(user), asked, 1).await
}

/// Asks for the end of what a session has open.
pub(crate) async fn end(
    (ledger, store): (&Ledger, &Admin),
    who: &Who,
    session: SessionId,
    asked: &Asked,
) -> Result<(), Refused> {
    match ledger.session(session).await? {
        None => {
            return Err(Refused::missing(format!(
                "there is no session {session} in the store"
            )));
        }
        Some(found) if found.row.end.is_some() => {
            return Err(Refused::wrong(format!("{session} has ended already")));
        }
        Some(_) => {}
    }
    let reason = asked.text("reason").unwrap_or_else(|| "ended by hand".to_owned());
    let change = BlockChange::EndSession(session);
    store.change_block(now(), change, &reason, &who.name).await?;
    note(store, who, "end", session.to_string(), asked, 1).await
}

/// The name of a source, or its number where it has none any more.
pub(crate) fn named(sources: &BTreeMap<String, SourceId>, id: SourceId) -> String {
    let found = sources.iter().find(|(_, known)| **known == id);
    found.map_or_else(|| id.0.to_string(), |(name, _)| name.clone())
}
