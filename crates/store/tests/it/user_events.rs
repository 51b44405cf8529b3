//! Events of users: made of the changes of the blocks, each exactly once, whichever process comes to it.

use std::sync::Arc;

use bytes::Bytes;
use turnhook_reducer::{
    event::{EventType, SessionId},
    time::Timestamp,
    user_event::{QuotaPeriod, QuotaReached, QuotaUnit, UserEvent},
};
use turnhook_store::{
    BlockChange, Delivery, DeliveryFilter, DeliveryId, DeliveryState, EndpointId, NewUserEvent,
    PendingChanges, RecordFilter, ReplayRequest, SessionFilter, Store, UserEventBatch,
};

use crate::support::{Backend, Fixture, at, delivered, event, on_both};

on_both!(
    changes_are_told_once_and_in_order,
    of_two_that_come_to_it_one_tells,
    what_came_before_a_change_is_known,
    events_of_users_are_listed_replayed_and_trimmed,
    the_ledger_knows_nothing_of_them
);

/// Of which nothing but its realm and user matters.
pub(crate) fn quota_of(realm: &[u8], user: &[u8]) -> QuotaReached {
    QuotaReached {
        name: "1B a session".to_owned(),
        period: QuotaPeriod::Session,
        unit: QuotaUnit::Bytes,
        limit: 1,
        used: 2,
        span: None,
        session: Some(SessionId([7; 16])),
        realm: realm.into(),
        user: user.into(),
    }
}

/// As if no endpoint wanted to hear of any change.
pub(crate) async fn tell_nobody(store: &Store) {
    let pending = store.outbox().pending_changes(1000).await.unwrap();
    let batch = UserEventBatch {
        from: pending.from,
        upto: pending.upto,
        ..UserEventBatch::default()
    };
    store.outbox().record_user_events(batch).await.unwrap().unwrap();
}

type Realm<'a> = Option<&'a [u8]>;

pub(crate) fn block(realm: Realm<'_>, user: &[u8], until: Option<Timestamp>) -> BlockChange {
    BlockChange::Block {
        realm: realm.map(Into::into),
        user: user.into(),
        until,
    }
}

pub(crate) fn unblock(realm: Realm<'_>, user: &[u8]) -> BlockChange {
    BlockChange::Unblock {
        realm: realm.map(Into::into),
        user: user.into(),
    }
}

async fn change(store: &Store, ms: u64, change: BlockChange) -> u64 {
    store
        .admin()
        .change_block(at(ms), change, "balance", "ops")
        .await
        .unwrap()
}

/// Of each change of a user one event, to everybody.
fn batch(store: &Store, pending: &PendingChanges, endpoints: &[EndpointId]) -> UserEventBatch {
    let mut batch = UserEventBatch {
        from: pending.from,
        upto: pending.upto,
        ..UserEventBatch::default()
    };
    for change in &pending.changes {
        let row = &change.row;
        let Some((realm, user)) = row.change.whom() else {
            continue;
        };
        let event_type = match row.change {
            BlockChange::Block { .. } => EventType::UserBlocked,
            _ => EventType::UserUnblocked,
        };
        let event = UserEvent {
            id: UserEvent::id_of(store.store_id(), row.id, event_type, row.at),
            event_type,
            timestamp: row.at,
            realm: realm.map(Into::into),
            user: user.into(),
            until: None,
            reason: String::new(),
            by: None,
            quota: None,
        };
        batch.notified.push((row.id, endpoints.to_vec()));
        batch.events.push(NewUserEvent {
            body: Bytes::from(format!("{} {}", event_type.as_str(), row.id)),
            event,
            change: row.id,
            endpoints: endpoints.into(),
        });
    }
    batch
}

pub(crate) async fn tell(f: &Fixture) -> Vec<Delivery> {
    let pending = f.store.outbox().pending_changes(1000).await.unwrap();
    let batch = batch(&f.store, &pending, &f.endpoints);
    f.store.outbox().record_user_events(batch).await.unwrap().unwrap()
}

async fn changes_are_told_once_and_in_order(on: &Backend) {
    let f = Fixture::new(on, &["billing", "audit"]).await;
    assert_eq!(
        f.store.outbox().pending_changes(10).await.unwrap(),
        PendingChanges::default()
    );
    let long = vec![0xfe; 512];
    change(&f.store, 10, block(Some(b"r"), b"ann", None)).await;
    change(&f.store, 10, unblock(Some(b"r"), b"ann")).await;
    change(&f.store, 5, block(Some(b"r"), b"ann", None)).await;
    change(&f.store, 20, block(None, &long, None)).await;
    let some = f.store.outbox().pending_changes(2).await.unwrap();
    assert_eq!((some.from, some.changes.len()), (0, 2));
    assert_eq!(some.upto, some.changes[1].row.id);

    let first = f
        .store
        .outbox()
        .record_user_events(batch(&f.store, &some, &f.endpoints))
        .await
        .unwrap();
    assert_eq!(first.unwrap().len(), 4);
    let rest = tell(&f).await;
    assert_eq!(rest.len(), 4);
    assert!(
        f.store
            .outbox()
            .pending_changes(10)
            .await
            .unwrap()
            .changes
            .is_empty()
    );
    assert!(
        f.store
            .outbox()
            .record_user_events(batch(&f.store, &some, &f.endpoints))
            .await
            .unwrap()
            .is_none()
    );

    // As they are read again, by another process.
    let f = f.reopen().await;
    let pending = f
        .store
        .outbox()
        .pending_after(f.endpoints[0], DeliveryId::MIN, 100)
        .await
        .unwrap();
    assert_eq!(pending.len(), 4);
    assert_eq!(
        pending[2..],
        rest.iter()
            .filter(|d| d.endpoint == f.endpoints[0])
            .cloned()
            .collect::<Vec<_>>()
    );
    for pair in pending[..3].windows(2) {
        // One after the other, whatever the clocks said.
        assert_eq!(pair[0].session_id, pair[1].session_id);
        assert!(pair[0].timestamp < pair[1].timestamp && pair[0].sequence < pair[1].sequence);
        assert!(pair[0].id < pair[1].id && pair[0].event_id < pair[1].event_id);
    }
    assert_ne!(pending[3].session_id, pending[0].session_id);
    assert_eq!(
        pending[0].body,
        Bytes::from(format!("user.blocked {}", some.changes[0].row.id))
    );
    let backlog = f.store.outbox().backlog().await.unwrap();
    assert_eq!(backlog[&f.endpoints[1]].pending, 4);
}

async fn of_two_that_come_to_it_one_tells(on: &Backend) {
    let f = Fixture::new(on, &["billing"]).await;
    let other = f.shared().await;
    for n in 0..20 {
        change(&f.store, n, block(None, &[b'a', u8::try_from(n).unwrap()], None)).await;
    }
    let pending = f.store.outbox().pending_changes(1000).await.unwrap();
    assert_eq!(other.outbox().pending_changes(1000).await.unwrap(), pending);
    let made = || batch(&f.store, &pending, &f.endpoints);
    // On SQLite another process tells nothing while one runs: there this is the same process twice.
    let second = if f.is_sqlite() { &f.store } else { &other };
    let (one, two) = tokio::join!(
        f.store.outbox().record_user_events(made()),
        second.outbox().record_user_events(made())
    );
    let told = [one.unwrap(), two.unwrap()];
    assert_eq!(told.iter().flatten().count(), 1);
    assert_eq!(f.count("event"), 20);
    assert_eq!(f.count("delivery"), 20);
    assert_eq!(f.count("user_event"), 20);
}

async fn what_came_before_a_change_is_known(on: &Backend) {
    let f = Fixture::new(on, &["billing", "audit"]).await;
    let session = SessionId([7; 16]);
    let quota = quota_of(b"r", b"\xff ann");
    change(&f.store, 1, unblock(None, b"ann")).await;
    change(&f.store, 2, block(None, b"ann", Some(at(500)))).await;
    tell(&f).await;
    change(&f.store, 3, block(None, b"ann", Some(at(600)))).await;
    change(&f.store, 4, unblock(None, b"ann")).await;
    change(&f.store, 5, unblock(Some(b"r"), b"ann")).await;
    for ms in [6, 7] {
        let ended = f
            .store
            .admin()
            .end_by_quota(at(ms), session, &quota, "1B a session", "quota");
        ended.await.unwrap();
    }
    change(&f.store, 8, BlockChange::EndSession(session)).await;
    let made = f
        .store
        .admin()
        .block_once(at(9), at(700), &quota, "1B a session", "quota");
    assert!(made.await.unwrap());

    let f = f.reopen().await;
    let pending = f.store.outbox().pending_changes(100).await.unwrap().changes;
    let before: Vec<_> = pending
        .iter()
        .map(|change| {
            change
                .before
                .as_ref()
                .map(|before| (before.until, before.notified.len()))
        })
        .collect();
    assert_eq!(
        before,
        [
            Some((Some(at(500)), 2)),
            Some((Some(at(600)), 0)),
            None,
            None,
            None,
            None,
            None
        ]
    );
    let again: Vec<bool> = pending.iter().map(|change| change.again).collect();
    assert_eq!(again, [false, false, false, false, true, true, false]);
    let quotas: Vec<_> = pending.iter().map(|change| change.quota.as_ref()).collect();
    let some = Some(&quota);
    assert_eq!(quotas, [None, None, None, some, some, None, some]);
    assert_eq!(
        pending[6].row.change,
        block(Some(b"r"), b"\xff ann", Some(at(700)))
    );
}

fn of(user: &[u8]) -> DeliveryFilter {
    DeliveryFilter {
        user: Some(user.to_vec()),
        ..DeliveryFilter::default()
    }
}

async fn events_of_users_are_listed_replayed_and_trimmed(on: &Backend) {
    let f = Fixture::new(on, &["billing"]).await;
    let session = event(1, 0, 0, 15, "ann", false);
    f.store
        .state()
        .commit(f.commit(1, vec![session.clone()]))
        .await
        .unwrap();
    change(&f.store, 20, block(None, b"ann", None)).await;
    change(&f.store, 30, block(None, b"\xff<b>", None)).await;
    let made = tell(&f).await;

    let rows = f.store.ledger().deliveries(of(b"ann"), None, 100).await.unwrap();
    assert_eq!(rows.len(), 2, "{rows:?}");
    assert_eq!(
        (rows[0].event_type, rows[0].session(), rows[0].user.as_deref()),
        (EventType::UserBlocked, None, Some(&b"ann"[..]))
    );
    assert_eq!(rows[1].session(), Some(session.session_id));
    let odd = f
        .store
        .ledger()
        .deliveries(of(b"\xff<b>"), None, 100)
        .await
        .unwrap();
    assert_eq!(odd.len(), 1);
    assert_eq!(odd[0].user.as_deref(), Some(&b"\xff<b>"[..]));
    for filter in [
        DeliveryFilter {
            event_types: vec![EventType::UserBlocked],
            ..DeliveryFilter::default()
        },
        DeliveryFilter {
            states: vec![DeliveryState::Pending],
            event_types: EventType::OF_USERS.to_vec(),
            endpoint: Some("billing".to_owned()),
            ..DeliveryFilter::default()
        },
        DeliveryFilter {
            since: Some(at(20)),
            ..DeliveryFilter::default()
        },
    ] {
        assert_eq!(
            f.store
                .ledger()
                .deliveries(filter, None, 100)
                .await
                .unwrap()
                .len(),
            2
        );
    }
    let detail = &f.store.ledger().delivery(made[1].event_id).await.unwrap()[0];
    assert_eq!(detail.body, made[1].body);
    assert_eq!(detail.row, odd[0]);

    // Delivered, and asked for once more: the same bytes under the same id.
    let done: Vec<_> = made.iter().map(|delivery| delivered(delivery.id, 40)).collect();
    f.store.outbox().record(done.clone()).await.unwrap();
    let request = ReplayRequest {
        filter: DeliveryFilter {
            event_types: vec![EventType::UserBlocked],
            ..of(b"ann")
        },
        at: at(50),
        who: String::new(),
        what: String::new(),
        rate: None,
        may_repeat: false,
    };
    assert_eq!(f.store.admin().replay(request).await.unwrap().total, 1);
    let again = f.store.outbox().pending_rows(vec![made[0].id]).await.unwrap();
    assert_eq!(
        (&again[0].body, again[0].event_id),
        (&made[0].body, made[0].event_id)
    );

    // What is pending stays, whatever its age.
    let trim = async || while f.store.admin().trim(at(10_000), 10).await.unwrap().more {};
    trim().await;
    assert_eq!(f.count("user_event"), 1);
    f.store.outbox().record(done).await.unwrap();
    trim().await;
    assert_eq!(
        (
            f.count("user_event"),
            f.store
                .ledger()
                .deliveries(of(b"\xff<b>"), None, 1)
                .await
                .unwrap()
                .len()
        ),
        (0, 0)
    );
    // Its block holds all the same.
    assert_eq!(f.store.admin().blocks(at(20_000)).await.unwrap().len(), 2);
}

async fn the_ledger_knows_nothing_of_them(on: &Backend) {
    let f = Fixture::new(on, &["billing"]).await;
    let endpoints: Arc<[EndpointId]> = f.endpoints.clone().into();
    assert_eq!(endpoints.len(), 1);
    f.store
        .state()
        .commit(f.commit(1, vec![event(1, 0, 0, 10, "ann", false)]))
        .await
        .unwrap();
    change(&f.store, 20, block(None, b"ann", None)).await;
    tell(&f).await;
    f.store
        .state()
        .commit(f.commit(2, vec![event(1, 0, 1, 30, "ann", true)]))
        .await
        .unwrap();
    change(&f.store, 40, block(None, b"bob", None)).await;
    tell(&f).await;
    let f = f.reopen().await;
    let sessions = f
        .store
        .ledger()
        .sessions(SessionFilter::default(), None, 10)
        .await
        .unwrap();
    assert_eq!(sessions.len(), 1);
    assert_eq!((sessions[0].sequence, sessions[0].end.is_some()), (1, true));
    let told = f
        .store
        .ledger()
        .emitted_events(&RecordFilter::default(), 0, 10)
        .await
        .unwrap();
    assert_eq!(told.len(), 2);
    assert_eq!(f.count("session"), 1);
    assert_eq!(f.count("usage_day"), 1);
    // Numbers go on behind them.
    assert_eq!(f.store.ledger().newest_event().await.unwrap(), 4);
}
