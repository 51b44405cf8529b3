//! `kill -9` at any instant: nothing that was committed is lost, and nothing is half there.
//!
//! The child is this test binary again. It commits and says on its output what has been answered.
//! On SQLite only, where the process that dies is also the one that writes the file.

use std::{
    collections::BTreeMap,
    io::{BufRead, BufReader},
    path::Path,
    process::{Command, Stdio},
    time::Duration,
};

use turnhook_reducer::state::Table;
use turnhook_store::{
    Commit, DeliveryFilter, DeliveryId, DeliveryState, Mode, NewEvent, Options, SessionFilter, Store,
};

use crate::support::{at, body, delivered, event, put};

const CHILD: &str = "TURNHOOK_STORE_CRASH_CHILD";

/// Small batches, so that folding is under way most of the time.
fn options() -> Options {
    Options {
        ledger_batch: 50,
        state_log_bytes: 2000,
        ..Options::default()
    }
}

async fn open(path: &Path) -> Store {
    Store::open_with(path, Mode::Run, options()).await.unwrap()
}

/// Commit `n` writes `n` into row `n % 7` and as the last one, and tells event `n / 3` of session `n % 3`.
fn commit(source: turnhook_store::SourceId, endpoint: turnhook_store::EndpointId, n: u64) -> Commit {
    let event = event(n % 3, 0, u32::try_from(n / 3).unwrap(), n, "a", false);
    let changes = vec![
        put(
            Table::Allocation,
            n % 7,
            &[n.to_be_bytes().as_slice(), &[1; 200]].concat(),
        ),
        put(Table::Source, 0, &n.to_be_bytes()),
    ];
    let events = vec![NewEvent {
        body: body(&event),
        event,
        endpoints: [endpoint].into(),
    }];
    Commit {
        changes,
        events,
        ..Commit::new(source, at(n))
    }
}

async fn state(store: &Store) -> (BTreeMap<u64, u64>, Option<u64>) {
    let source = store.state().source("eu-1").await.unwrap();
    let (rows, clock) = store
        .state()
        .load(source, BTreeMap::new(), |rows, table, key, value| {
            let n = u64::from_be_bytes(value[..8].try_into().unwrap());
            rows.insert(if table == Table::Source { 100 } else { key }, n);
        })
        .await
        .unwrap();
    (rows, clock.map(|c| c.since(at(0))))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn child() {
    let Ok(path) = std::env::var(CHILD) else { return };
    let store = open(Path::new(&path)).await;
    let source = store.state().source("eu-1").await.unwrap();
    let endpoint = store.outbox().set_endpoints(&["billing"], at(0)).await.unwrap()[0];
    let next = state(&store).await.1.map_or(0, |n| n + 1);
    for n in next..next + 100_000 {
        let done = store.state().commit(commit(source, endpoint, n)).await.unwrap();
        println!("committed {n}");
        let store = store.clone();
        tokio::spawn(async move {
            let id = done.deliveries[0].id;
            store.outbox().record(vec![delivered(id, n)]).await.unwrap();
            println!("delivered {}", id.0);
        });
    }
}

#[test]
fn nothing_is_lost_and_nothing_half_there() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("turnhook.db");
    let mut seed = 5u64;
    let (mut committed, mut done) = (None, Vec::new());
    for round in 0..25 {
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["crash::child", "--exact", "--nocapture", "--test-threads", "1"])
            .env(CHILD, &path)
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        seed = seed
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        let (commits, delay) = (1 + seed % 150, Duration::from_micros((seed >> 20) % 9000));
        let mut seen = 0;
        let mut lines = BufReader::new(child.stdout.take().unwrap())
            .lines()
            .map(Result::unwrap);
        let mut take = |line: String, committed: &mut Option<u64>, done: &mut Vec<i64>| {
            match line.split_once(' ') {
                Some(("committed", n)) => {
                    *committed = Some(n.parse::<u64>().unwrap());
                    seen += 1;
                }
                Some(("delivered", id)) => done.push(id.parse::<i64>().unwrap()),
                _ => {}
            }
            seen
        };
        for line in lines.by_ref() {
            if take(line, &mut committed, &mut done) >= commits {
                break;
            }
        }
        std::thread::sleep(delay);
        child.kill().unwrap();
        child.wait().unwrap();
        for line in lines {
            // The last one may be cut.
            if line.len() > "committed ".len() && !line.ends_with(' ') && line.split(' ').count() == 2 {
                take(line, &mut committed, &mut done);
            }
        }
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .enable_all()
            .build()
            .unwrap();
        runtime.block_on(check(&path, committed, &done, round % 5 == 4));
    }
    assert!(committed.unwrap() > 200 && done.len() > 100);
}

async fn check(path: &Path, committed: Option<u64>, done: &[i64], ledger: bool) {
    let store = open(path).await;
    let endpoint = store.outbox().set_endpoints(&["billing"], at(0)).await.unwrap()[0];
    let (rows, clock) = state(&store).await;
    let last = clock.unwrap();
    assert!(
        committed.is_none_or(|n| n <= last),
        "committed {committed:?}, found {last}"
    );
    let expected: BTreeMap<u64, u64> = (0..=last)
        .rev()
        .take(7)
        .map(|n| (n % 7, n))
        .chain([(100, last)])
        .collect();
    assert_eq!(rows, expected, "the state is that of commit {last}, wholly");
    let pending: Vec<_> = store
        .outbox()
        .pending_after(endpoint, DeliveryId(0), 100_000)
        .await
        .unwrap()
        .iter()
        .map(|d| d.id.0)
        .collect();
    assert!(
        done.iter().all(|id| !pending.contains(id)),
        "what was recorded as delivered stays delivered"
    );
    let backlog = store
        .outbox()
        .backlog()
        .await
        .unwrap()
        .get(&endpoint)
        .copied()
        .unwrap_or_default();
    assert_eq!(backlog.pending, pending.len() as u64);
    if ledger {
        let all = store
            .ledger()
            .deliveries(DeliveryFilter::default(), None, 1_000_000)
            .await
            .unwrap();
        assert_eq!(all.len() as u64, last + 1, "each event once");
        let delivered = all.iter().filter(|d| d.state == DeliveryState::Delivered).count();
        assert_eq!(delivered + pending.len(), all.len());
        let sessions = store
            .ledger()
            .sessions(SessionFilter::default(), None, 10)
            .await
            .unwrap();
        assert_eq!(
            sessions.iter().map(|s| u64::from(s.sequence) + 1).sum::<u64>(),
            last + 1
        );
        let usage = store.ledger().usage_by_day(0, u32::MAX, None, 10).await.unwrap();
        assert_eq!(
            usage.iter().map(|d| d.usage.billable_bytes).sum::<u64>(),
            (last + 1 - 3.min(last + 1)) * 2000
        );
    }
    store.close().await;
}
