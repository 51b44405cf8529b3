//! What the ledger has of each allocation, over all sessions that counted it.

use std::collections::BTreeMap;

use base64::{Engine as _, engine::general_purpose::STANDARD};
use serde::Deserialize;
use turnhook_reducer::{
    event::{Accuracy, CloseReason, SessionId},
    message::AllocationId,
    time::Timestamp,
    usage::{Counters, Legs},
};
use turnhook_store::{RecordFilter, SessionFilter};

/// A row names so many usernames at most.
const USERNAMES: usize = 50;
/// Rows read at once.
const PAGE: usize = 500;

/// Whose allocation one is, and its number: the same in each life.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Key {
    /// The realm of its `new`.
    pub realm: Vec<u8>,
    /// As coturn has it.
    pub username: Vec<u8>,
    /// From 1 on in each life of a coturn.
    pub id: AllocationId,
}

/// A life of an allocation, as it was billed.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Billed {
    /// When it was first heard of.
    pub opened_at: Timestamp,
    /// The sessions that counted it, the newest first.
    pub sessions: Vec<String>,
    /// The coturn that had it: its name on a `direct` source, else the address that it listens on.
    pub server: Option<String>,
    /// What sessions bill of it.
    pub usage: Legs,
    /// What is on record as billed in no session.
    pub unattributed: Legs,
    /// Nobody knows a peer leg of it.
    pub no_peer_leg: bool,
    /// When it closed, and why.
    pub closed: Option<(Timestamp, CloseReason)>,
    /// A session that is not over counts it.
    pub open: bool,
    /// A session that counted it says that it may lack something.
    pub lower_bound: bool,
    /// Those sessions, in no order.
    pub counted: Vec<Counting>,
    /// Its `new` was heard.
    pub opened_seen: bool,
    /// As they were sent.
    pub direct_server: Option<String>,
    /// The same.
    pub transport: Option<String>,
    /// The same.
    pub server_address: Option<String>,
    /// The same.
    pub client_address: Option<String>,
    /// Version and cipher.
    pub tls: Option<(String, String)>,
}

/// A session that counted an allocation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Counting {
    /// Which.
    pub session: SessionId,
    /// The one that it continues.
    pub continues: Option<SessionId>,
    /// When it began.
    pub started_at: Timestamp,
    /// `None` while it is open.
    pub ended_at: Option<Timestamp>,
}

impl Billed {
    /// All that is on record of it.
    #[must_use]
    pub fn all(&self) -> Legs {
        self.usage.plus(self.unattributed)
    }
}

/// As coturn names them: raw bytes.
type RealmAndUsername = (Vec<u8>, Vec<u8>);

/// What the ledger has of a source.
#[derive(Debug, Default)]
pub struct Ledger {
    /// Each allocation's lives, in their order.
    pub billed: BTreeMap<Key, Vec<Billed>>,
    /// Sessions of which it is not known any more what allocations they had: what was delivered is trimmed after
    /// `retention`.
    pub trimmed: u64,
    /// From when to when there are such sessions of a realm and username, and such as list only a part.
    pub partial: BTreeMap<RealmAndUsername, Vec<(Timestamp, Timestamp)>>,
    /// The same of a realm, where it is not even known of which usernames.
    pub crowded: BTreeMap<Vec<u8>, Vec<(Timestamp, Timestamp)>>,
    /// Allocations that sessions counted and do not list, since they have more than a body lists.
    pub unlisted: u64,
}

#[derive(Deserialize)]
struct Body {
    data: Data,
}

#[derive(Deserialize)]
struct Data {
    #[serde(default)]
    allocations: Vec<Allocation>,
    #[serde(default)]
    allocations_omitted: u64,
}

#[derive(Deserialize)]
struct Allocation {
    id: String,
    username: String,
    username_base64: Option<String>,
    opened_at: String,
    closed_at: Option<String>,
    close_reason: Option<String>,
    #[serde(default)]
    opened_seen: bool,
    server: Option<String>,
    transport: Option<String>,
    server_address: Option<String>,
    client_address: Option<String>,
    tls: Option<Tls>,
    usage: Counted,
}

#[derive(Deserialize)]
struct Tls {
    version: Option<String>,
    cipher: Option<String>,
}

#[derive(Deserialize)]
struct Counted {
    client: Counters,
    peer: Option<Counters>,
}

/// Reads what is billed of a source from `since` on. What is billed late is billed later, so there is no other end.
///
/// # Errors
/// The store's.
pub async fn read(
    store: &turnhook_store::Ledger,
    source: &str,
    since: Option<Timestamp>,
) -> turnhook_store::Result<Ledger> {
    let mut ledger = Ledger::default();
    let filter = SessionFilter {
        source: Some(source.to_owned()),
        since,
        ..SessionFilter::default()
    };
    let mut after = None;
    loop {
        let page = store.sessions(filter.clone(), after, PAGE).await?;
        for row in &page {
            after = Some(row.id);
            let body = store.session(row.id).await?.and_then(|detail| detail.last_body);
            let body: Option<Body> = body.and_then(|body| serde_json::from_slice(&body).ok());
            let omitted = body.as_ref().map(|body| body.data.allocations_omitted);
            ledger.trimmed += u64::from(omitted.is_none());
            ledger.unlisted += omitted.unwrap_or_default();
            if omitted != Some(0) {
                let until = row.end.map_or(Timestamp(u64::MAX), |(at, ..)| at);
                if row.usernames.len() >= USERNAMES {
                    let of = ledger.crowded.entry(row.realm.clone()).or_default();
                    of.push((row.started_at, until));
                }
                for username in &row.usernames {
                    let of = (row.realm.clone(), username.clone());
                    ledger
                        .partial
                        .entry(of)
                        .or_default()
                        .push((row.started_at, until));
                }
            }
            let Some(body) = body else { continue };
            let accuracy = row.end.map(|(.., accuracy)| accuracy);
            let counting = Counting {
                session: row.id,
                continues: row.continues,
                started_at: row.started_at,
                ended_at: row.end.map(|(at, ..)| at),
            };
            for allocation in body.data.allocations {
                ledger.count(&row.realm, &counting, accuracy, allocation);
            }
        }
        if page.len() < PAGE {
            break;
        }
    }
    let filter = RecordFilter {
        source: Some(source.to_owned()),
        since,
        until: None,
    };
    let mut before = None;
    loop {
        let page = store.unattributed(&filter, before, PAGE).await?;
        for row in &page {
            before = Some(row.number);
            let key = Key {
                realm: row.realm.clone(),
                username: row.username.clone(),
                id: row.allocation,
            };
            let billed = ledger.life(key, row.opened_at);
            billed.unattributed = billed.unattributed.plus(row.usage.legs);
            if billed.server.is_none() {
                billed.server = row
                    .server
                    .as_deref()
                    .map(|name| String::from_utf8_lossy(name).into_owned());
            }
        }
        if page.len() < PAGE {
            break;
        }
    }
    for lives in ledger.billed.values_mut() {
        lives.sort_by_key(|billed| billed.opened_at);
    }
    Ok(ledger)
}

impl Ledger {
    /// Whether a session that is not known whole may have counted what this user had at this time, or ever if there is
    /// no date.
    pub(super) fn may_have_counted(&self, key: &Key, since: Option<Timestamp>) -> bool {
        let times = self.partial.get(&(key.realm.clone(), key.username.clone()));
        is_within(times, since)
    }

    /// The same of sessions of which it is not known whose they were.
    pub(super) fn may_be_in_a_crowd(&self, key: &Key, since: Option<Timestamp>) -> bool {
        is_within(self.crowded.get(&key.realm), since)
    }

    fn life(&mut self, key: Key, opened_at: Timestamp) -> &mut Billed {
        let lives = self.billed.entry(key).or_default();
        let place = lives.iter().position(|billed| billed.opened_at == opened_at);
        let place = place.unwrap_or_else(|| {
            lives.push(Billed {
                opened_at,
                ..Billed::default()
            });
            lives.len() - 1
        });
        &mut lives[place]
    }

    fn count(&mut self, realm: &[u8], counting: &Counting, accuracy: Option<Accuracy>, a: Allocation) {
        let exact = a.username_base64.and_then(|text| STANDARD.decode(text).ok());
        let opened_at = time(&a.opened_at);
        // What we wrote ourselves can be read.
        let (Ok(id), Some(opened_at)) = (a.id.parse(), opened_at) else {
            return;
        };
        let key = Key {
            realm: realm.to_vec(),
            username: exact.unwrap_or_else(|| a.username.into_bytes()),
            id: AllocationId(id),
        };
        let billed = self.life(key, opened_at);
        billed.sessions.push(counting.session.to_string());
        billed.counted.push(counting.clone());
        billed.usage = billed.usage.plus(Legs {
            client: a.usage.client,
            peer: a.usage.peer.unwrap_or_default(),
        });
        billed.no_peer_leg |= a.usage.peer.is_none();
        let reason = CloseReason::ALL
            .iter()
            .find(|r| Some(r.as_str()) == a.close_reason.as_deref());
        let closed = a.closed_at.as_deref().and_then(time).zip(reason.copied());
        billed.closed = billed.closed.or(closed);
        billed.opened_seen |= a.opened_seen;
        billed.open |= accuracy.is_none();
        billed.lower_bound |= accuracy == Some(Accuracy::LowerBound);
        billed.server = billed
            .server
            .take()
            .or(a.server.clone())
            .or(a.server_address.clone());
        billed.direct_server = billed.direct_server.take().or(a.server);
        billed.transport = billed.transport.take().or(a.transport);
        billed.server_address = billed.server_address.take().or(a.server_address);
        billed.client_address = billed.client_address.take().or(a.client_address);
        let tls = a.tls.and_then(|tls| tls.version.zip(tls.cipher));
        billed.tls = billed.tls.take().or(tls);
    }
}

fn is_within(times: Option<&Vec<(Timestamp, Timestamp)>>, since: Option<Timestamp>) -> bool {
    let holds = |(from, to): &(Timestamp, Timestamp)| {
        since.is_none_or(|at| at.0.saturating_add(super::TOLERANCE) >= from.0 && at <= *to)
    };
    times.is_some_and(|times| times.iter().any(holds))
}

/// As bodies have it.
fn time(text: &str) -> Option<Timestamp> {
    let at: jiff::Timestamp = text.parse().ok()?;
    u64::try_from(at.as_millisecond()).ok().map(Timestamp)
}
