//! What the ledger says a user, or a session, has used.

use turnhook_reducer::{event::SessionId, time::Timestamp};
use turnhook_store::{Ledger, QUARTER_MS, Result, SessionFilter, SessionRow, UsageFilter};

use super::tally::{Key, Period, Question, Used, relayed_bytes};
use crate::config::quota::{Most, Quota};

/// Rows that are read at once.
const PAGE: usize = 1000;

/// Sessions that continue each other are a day long by default: more than a year of them is not looked through.
const LONGEST_CHAIN: usize = 400;

pub(super) async fn ask(store: &Ledger, quota: &Quota, question: &Question, relayed: bool) -> Result<Used> {
    match (question, quota.most) {
        (Question::User(key, period), Most::Bytes(_)) => bytes(store, quota, key, *period, relayed).await,
        (Question::User(key, period), Most::Millis(_)) => millis(store, quota, key, *period).await,
        (Question::Before(_, _, before), most) => chain(store, *before, most, relayed).await,
    }
}

/// Whether a realm's use counts. A realm of nobody is one as well.
fn counts(quota: &Quota, realm: &[u8]) -> bool {
    let realms = &quota.filter.realms;
    realms.is_empty() || realms.iter().any(|pattern| pattern.matches(realm))
}

async fn bytes(store: &Ledger, quota: &Quota, key: &Key, period: Period, relayed: bool) -> Result<Used> {
    let filter = UsageFilter {
        user: Some(key.user.to_vec()),
        source: None,
        realm: key.realm.as_deref().map(<[u8]>::to_vec),
    };
    let (from, to) = (period.start / QUARTER_MS, period.end / QUARTER_MS);
    let (mut sum, mut after) = (0u64, None);
    loop {
        let rows = store
            .usage_by_quarter(filter.clone(), from, to, after, PAGE)
            .await?;
        for row in rows.iter().filter(|row| counts(quota, &row.realm)) {
            sum = sum.saturating_add(relayed_bytes(&row.sums.usage, relayed));
        }
        if rows.len() < PAGE {
            return Ok(Used { sum, open: 0 });
        }
        after = rows.into_iter().next_back();
    }
}

/// How long sessions lasted within the period, up to their last event.
async fn millis(store: &Ledger, quota: &Quota, key: &Key, period: Period) -> Result<Used> {
    let filter = SessionFilter {
        user: Some(key.user.to_vec()),
        realm: key.realm.as_deref().map(<[u8]>::to_vec),
        since: Some(Timestamp(period.start)),
        until: Some(Timestamp(period.end)),
        ..SessionFilter::default()
    };
    let (mut used, mut after) = (Used::default(), None);
    loop {
        let rows = store.sessions(filter.clone(), after, PAGE).await?;
        for row in rows.iter().filter(|row| counts(quota, &row.realm)) {
            used.sum = used.sum.saturating_add(within(row, period));
            used.open += u64::from(row.end.is_none());
        }
        if rows.len() < PAGE {
            return Ok(used);
        }
        after = rows.last().map(|row| row.id);
    }
}

fn within(row: &SessionRow, period: Period) -> u64 {
    let until = row.end.map_or(row.updated_at, |(at, ..)| at).0.min(period.end);
    until.saturating_sub(row.started_at.0.max(period.start))
}

/// What a session had used, with all that it continues.
async fn chain(store: &Ledger, first: SessionId, most: Most, relayed: bool) -> Result<Used> {
    let (mut used, mut next) = (Used::default(), Some(first));
    for _ in 0..LONGEST_CHAIN {
        let Some(id) = next else { break };
        let Some(session) = store.session(id).await? else {
            break;
        };
        let row = session.row;
        let own = match most {
            Most::Bytes(_) => relayed_bytes(&row.usage, relayed),
            Most::Millis(_) => {
                let until = row.end.map_or(row.updated_at, |(at, ..)| at);
                until.since(row.started_at)
            }
        };
        used.sum = used.sum.saturating_add(own);
        next = row.continues;
    }
    Ok(used)
}
