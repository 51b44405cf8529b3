//! Stores in temporary folders, and sessions to put into them.

use std::{
    path::{Path, PathBuf},
    pin::Pin,
    sync::Arc,
    time::{Duration, Instant},
};

use bytes::Bytes;
use turnhook_reducer::{
    event::{
        Accuracy, AllocationReport, CloseReason, EventId, EventType, SessionEnd, SessionEvent, SessionId,
    },
    message::AllocationId,
    state::{Change, Table},
    time::Timestamp,
    usage::{Counters, Legs, Usage},
};
use turnhook_store::{
    Commit, DeliveryId, EndpointId, Mode, NewEvent, Next, Options, Outcome, PostgresOptions, SourceId, Store,
};

use crate::postgres::Postgres;

pub(crate) const T0: u64 = 1_795_413_657_000;

pub(crate) fn at(ms: u64) -> Timestamp {
    Timestamp(T0 + ms)
}

/// Where a store can be.
#[derive(Clone)]
pub(crate) enum Backend {
    Sqlite,
    Postgres(Arc<Postgres>),
}

/// Where a store is.
pub(crate) enum Place {
    File(tempfile::TempDir, Options),
    /// Removed with the value.
    Database(Arc<Postgres>, String),
}

impl Place {
    fn new(on: &Backend, options: Options) -> Place {
        match on {
            Backend::Sqlite => Place::File(tempfile::tempdir().unwrap(), options),
            Backend::Postgres(server) => Place::Database(Arc::clone(server), server.database()),
        }
    }

    pub(crate) async fn open(&self, mode: Mode) -> turnhook_store::Result<Store> {
        match self {
            Place::File(dir, options) => {
                Store::open_with(dir.path().join("turnhook.db"), mode, options.clone()).await
            }
            Place::Database(server, name) => Store::connect(patient_options(&server.url(name)), mode).await,
        }
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        if let Place::Database(server, name) = self
            && !std::thread::panicking()
        {
            server.drop_database(name);
        }
    }
}

pub(crate) fn postgres_options(url: &str) -> PostgresOptions {
    PostgresOptions {
        node: "test".into(),
        ..PostgresOptions::new(url)
    }
}

/// With time limits, which follow from the lease, that no machine is too slow for.
pub(crate) fn patient_options(url: &str) -> PostgresOptions {
    PostgresOptions {
        lease: Duration::from_secs(600),
        ..postgres_options(url)
    }
}

/// A store with one source and some endpoints.
pub(crate) struct Fixture {
    pub(crate) store: Store,
    pub(crate) source: SourceId,
    pub(crate) endpoints: Vec<EndpointId>,
    // Dropped last: nobody is connected to it then.
    pub(crate) place: Place,
}

impl Fixture {
    pub(crate) async fn new(on: &Backend, endpoints: &[&str]) -> Fixture {
        Fixture::with(on, endpoints, Options::default()).await
    }

    /// The options are SQLite's alone.
    pub(crate) async fn with(on: &Backend, endpoints: &[&str], options: Options) -> Fixture {
        Fixture::at(Place::new(on, options), endpoints).await
    }

    pub(crate) async fn at(place: Place, endpoints: &[&str]) -> Fixture {
        let store = place.open(Mode::Run).await.unwrap();
        let source = store.state().source("eu-1").await.unwrap();
        let endpoints = store.outbox().set_endpoints(endpoints, at(0)).await.unwrap();
        Fixture {
            store,
            source,
            endpoints,
            place,
        }
    }

    /// On SQLite.
    pub(crate) fn dir(&self) -> &Path {
        match &self.place {
            Place::File(dir, _) => dir.path(),
            Place::Database(..) => panic!("not in a file"),
        }
    }

    /// On SQLite.
    pub(crate) fn path(&self) -> PathBuf {
        self.dir().join("turnhook.db")
    }

    pub(crate) fn is_sqlite(&self) -> bool {
        matches!(self.place, Place::File(..))
    }

    /// On PostgreSQL.
    pub(crate) fn server(&self) -> Arc<Postgres> {
        match &self.place {
            Place::File(..) => panic!("not on PostgreSQL"),
            Place::Database(server, _) => Arc::clone(server),
        }
    }

    /// On PostgreSQL.
    pub(crate) fn database(&self) -> &str {
        match &self.place {
            Place::File(..) => panic!("not on PostgreSQL"),
            Place::Database(_, name) => name,
        }
    }

    /// Another process's view.
    pub(crate) async fn shared(&self) -> Store {
        self.place.open(Mode::Shared).await.unwrap()
    }

    pub(crate) async fn reopen(mut self) -> Fixture {
        self.store.close().await;
        self.store = self.place.open(Mode::Run).await.unwrap();
        self
    }

    /// Rows of a table, past the store.
    pub(crate) fn count(&self, table: &str) -> i64 {
        let sql = format!("SELECT count(*) FROM {table}");
        match &self.place {
            Place::File(..) => {
                let db = rusqlite::Connection::open(self.path()).unwrap();
                db.query_row(&sql, [], |r| r.get(0)).unwrap()
            }
            Place::Database(server, name) => server.sql(name, &sql).parse().unwrap(),
        }
    }

    /// To all endpoints.
    pub(crate) fn events(&self, events: Vec<SessionEvent>) -> Vec<NewEvent> {
        let endpoints: Arc<[EndpointId]> = self.endpoints.clone().into();
        events
            .into_iter()
            .map(|event| NewEvent {
                body: body(&event),
                event,
                endpoints: endpoints.clone(),
            })
            .collect()
    }

    pub(crate) fn commit(&self, clock: u64, events: Vec<SessionEvent>) -> Commit {
        Commit {
            events: self.events(events),
            ..Commit::new(self.source, at(clock))
        }
    }
}

/// Makes tests of cases, which are functions of a [`Backend`]: on SQLite each is a test of its own. To start a
/// PostgreSQL takes longer than most of them, so on it one test runs all the cases of a module, each on a database of
/// its own, and says at the end which have failed.
macro_rules! on_both {
    ($($case:ident),+ $(,)?) => {
        mod on_sqlite {
            $(
                #[test]
                fn $case() {
                    $crate::support::run(Box::pin(super::$case(&$crate::support::Backend::Sqlite)));
                }
            )+
        }

        #[test]
        fn on_postgres() {
            $crate::support::run_on_postgres(&[$((stringify!($case), |on| Box::pin($case(on)))),+]);
        }
    };
}
pub(crate) use on_both;

pub(crate) type Case<'a> = Pin<Box<dyn Future<Output = ()> + 'a>>;
pub(crate) type NamedCase = (&'static str, fn(&Backend) -> Case<'_>);

pub(crate) fn run(case: Case<'_>) {
    tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .unwrap()
        .block_on(case);
}

/// Set to a part of a case's name, `CASE` has only those run.
pub(crate) fn run_on_postgres(cases: &[NamedCase]) {
    let only = std::env::var("CASE").unwrap_or_default();
    let server = Arc::new(Postgres::start());
    let on = Backend::Postgres(Arc::clone(&server));
    let mut failed = Vec::new();
    for (name, case) in cases.iter().filter(|(name, _)| name.contains(&only)) {
        let began = Instant::now();
        let result = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| run(case(&on))));
        let outcome = if result.is_ok() { "ok" } else { "FAILED" };
        println!(
            "on PostgreSQL: {name}: {outcome}, {} ms",
            began.elapsed().as_millis()
        );
        if result.is_err() {
            failed.push(*name);
        }
    }
    assert!(
        failed.is_empty(),
        "on PostgreSQL failed: {failed:?}; the server's log ends with:\n{}",
        server.log()
    );
}

/// The `n`th session, started at `ms`.
pub(crate) fn session(n: u64, ms: u64) -> SessionId {
    SessionId(id(T0 + ms, n, 0))
}

/// Like the reducer's: the timestamp, then what tells them apart.
fn id(ms: u64, n: u64, sequence: u16) -> [u8; 16] {
    let mixed = n.wrapping_mul(0x9e37_79b9_7f4a_7c15);
    let mut id = [0; 16];
    id[..6].copy_from_slice(&ms.to_be_bytes()[2..]);
    id[6..14].copy_from_slice(&mixed.to_be_bytes());
    id[14..].copy_from_slice(&sequence.to_be_bytes());
    id
}

pub(crate) fn usage(bytes: u64) -> Usage {
    let leg = |bytes: u64| Counters {
        received_packets: bytes / 900,
        received_bytes: bytes,
        sent_packets: bytes / 900,
        sent_bytes: bytes,
    };
    Usage {
        legs: Legs {
            client: leg(bytes + bytes / 50),
            peer: leg(bytes),
        },
        billable_bytes: 2 * bytes,
    }
}

/// An event of the `n`th session, which belongs to user `user`; each event adds 1000 bytes each way, and
/// the last one is the end.
pub(crate) fn event(n: u64, started: u64, sequence: u32, ms: u64, user: &str, end: bool) -> SessionEvent {
    let event_type = match (sequence, end) {
        (_, true) => EventType::End,
        (0, _) => EventType::Start,
        _ => EventType::Usage,
    };
    let username = format!("1795413634:{user}").into_bytes().into_boxed_slice();
    SessionEvent {
        id: EventId(id(T0 + ms, n, u16::try_from(sequence).unwrap())),
        event_type,
        timestamp: at(ms),
        session_id: session(n, started),
        sequence,
        continues: None,
        source: "eu-1".into(),
        realm: b"example.org".to_vec().into(),
        user: (!user.is_empty()).then(|| user.as_bytes().into()),
        usernames: vec![username.clone()],
        labels: vec![("team".into(), b"red".to_vec().into())],
        started_at: at(started),
        end: end.then_some(SessionEnd {
            ended_at: at(ms),
            reason: CloseReason::Closed,
            accuracy: Accuracy::Exact,
        }),
        block_reason: None,
        duration_ms: None,
        peer_leg: true,
        billable: turnhook_reducer::usage::Billable::Relayed,
        usage: usage(u64::from(sequence) * 1000),
        usage_delta: usage(if sequence == 0 { 0 } else { 1000 }),
        allocations: vec![AllocationReport {
            id: AllocationId(4 + n),
            username,
            opened_at: at(started),
            opened_seen: true,
            closed: end.then_some((at(ms), CloseReason::Closed)),
            totals_seen: end,
            server: Some(b"10.0.0.7/-/0".to_vec().into()),
            transport: Some(b"UDP".to_vec().into()),
            server_address: Some(b"127.0.0.1:3478".to_vec().into()),
            client_address: Some(format!("127.0.0.1:{}", 30000 + n % 30000).into_bytes().into()),
            tls_version: None,
            tls_cipher: None,
            usage: usage(u64::from(sequence) * 1000).legs,
        }],
        allocations_omitted: 0,
    }
}

/// About what a webhook's body is.
pub(crate) fn body(event: &SessionEvent) -> Bytes {
    let counters = |c: &Counters| {
        format!(
            r#"{{"received_packets":{},"received_bytes":{},"sent_packets":{},"sent_bytes":{}}}"#,
            c.received_packets, c.received_bytes, c.sent_packets, c.sent_bytes
        )
    };
    let legs = |l: &Legs| format!(r#""client":{},"peer":{}"#, counters(&l.client), counters(&l.peer));
    let text = |b: &[u8]| String::from_utf8_lossy(b).into_owned();
    let a = &event.allocations[0];
    let time = |t: Timestamp| {
        let ms = t.0 - T0;
        format!(
            "2026-11-22T{:02}:{:02}:{:02}.{:03}Z",
            ms / 3_600_000 % 24,
            ms / 60_000 % 60,
            ms / 1000 % 60,
            ms % 1000
        )
    };
    let end = event.end.map_or(String::new(), |e| {
        format!(
            r#""ended_at":"{}","duration_ms":{},"end_reason":"closed","accuracy":"exact","#,
            time(e.ended_at),
            e.ended_at.since(event.started_at)
        )
    });
    Bytes::from(format!(
        concat!(
            r#"{{"type":"{}","timestamp":"{}","data":{{"session_id":"{}","sequence":{},"continues":null,"source":"eu-1","realm":"example.org","#,
            r#""user":"{}","usernames":["{}"],"labels":{{"team":"red"}},"started_at":"{}",{}"usage":{{{},"billable_bytes":{}}},"usage_delta":{{{},"billable_bytes":{}}},"#,
            r#""allocations":[{{"id":"{}","username":"{}","opened_at":"{}","opened_seen":true,"closed_at":null,"close_reason":null,"totals_seen":false,"#,
            r#""server":"10.0.0.7/-/0","transport":"UDP","server_address":"127.0.0.1:3478","client_address":"{}","tls":null,"usage":{{{}}}}}],"allocations_omitted":0}}}}"#
        ),
        event.event_type.as_str(),
        time(event.timestamp),
        event.session_id,
        event.sequence,
        text(event.user.as_deref().unwrap_or_default()),
        text(&event.usernames[0]),
        time(event.started_at),
        end,
        legs(&event.usage.legs),
        event.usage.billable_bytes,
        legs(&event.usage_delta.legs),
        event.usage_delta.billable_bytes,
        a.id,
        text(&a.username),
        time(a.opened_at),
        text(a.client_address.as_deref().unwrap_or_default()),
        legs(&a.usage)
    ))
}

pub(crate) fn put(table: Table, key: u64, value: &[u8]) -> Change {
    Change {
        table,
        key,
        value: Some(value.to_vec()),
    }
}

pub(crate) fn remove(table: Table, key: u64) -> Change {
    Change {
        table,
        key,
        value: None,
    }
}

/// Of it the store keeps what the attempt came to; the rest is for whoever counts and acts on it.
fn outcome(id: DeliveryId, ms: u64, status: u16, next: Next) -> Outcome {
    Outcome {
        endpoint: "billing".into(),
        delivery: id,
        event_id: EventId([0; 16]),
        session: SessionId([0; 16]),
        event_type: EventType::Usage,
        decided_at: at(0),
        at: at(ms),
        attempt: 1,
        tried_for: Duration::ZERO,
        status: Some(status),
        latency: Duration::from_millis(7),
        error: None,
        answer: Bytes::new(),
        next,
        label: next.as_str(),
        sent: turnhook_store::Sent::Keep,
    }
}

pub(crate) fn delivered(id: DeliveryId, ms: u64) -> Outcome {
    outcome(id, ms, 200, Next::Done)
}

pub(crate) fn retry(id: DeliveryId, ms: u64, next: u64) -> Outcome {
    Outcome {
        error: Some("503 Service Unavailable".into()),
        answer: Bytes::from(vec![b'x'; 5000]),
        ..outcome(id, ms, 503, Next::Retry(at(next)))
    }
}

pub(crate) fn dead(id: DeliveryId, ms: u64) -> Outcome {
    Outcome {
        error: Some("422".into()),
        ..outcome(id, ms, 422, Next::Dead("the receiver will never take it (422)"))
    }
}
