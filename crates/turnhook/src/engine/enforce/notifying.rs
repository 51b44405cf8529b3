//! `quota.reached`, `user.blocked` and `user.unblocked`: made of the changes of the blocks as they are on record, whichever
//! process made these, and by whichever node comes to them first (see
//! [`turnhook_store::Outbox::record_user_events`]).

use std::{
    collections::{BTreeSet, HashMap},
    sync::Arc,
    time::Duration,
};

use tokio::sync::watch;
use tracing::error;
use turnhook_dispatcher::{body::user_body, filter::Filter};
use turnhook_reducer::{
    event::{EventId, EventType},
    outbox::EndpointId,
    user_event::{QuotaReached, UserEvent},
};
use turnhook_store::{
    BlockChange, BlockRow, NewUserEvent, PendingChange, Result, SessionFilter, SessionRow, Store,
    UserEventBatch, Whom,
};

use super::{
    super::{
        deadline::Stop,
        fan_out::{FanOut, OfUsers},
        store_health::StoreHealth,
        supervisor::Ended,
    },
    Active,
};

/// Changes whose events are written down in one transaction.
const PAGE: usize = 100;

/// What could not be written down is tried again after this time.
const AGAIN: Duration = Duration::from_secs(1);

/// So many of a user's newest sessions say which sources, realms and labels he has.
const SEEN: usize = 100;

pub(crate) struct Notifier {
    pub(crate) store: Store,
    pub(crate) store_health: Arc<StoreHealth>,
    pub(crate) fan_out: Arc<FanOut>,
    /// Changes whenever there may be something to send.
    pub(crate) active: watch::Receiver<Active>,
}

impl Notifier {
    pub(crate) async fn run(mut self, stop: Stop) -> Ended {
        loop {
            self.active.mark_unchanged();
            if let Err(error) = self.notify_all().await {
                self.store_health.failed(
                    "events of the blocks' changes cannot be written down; tried again",
                    &error,
                );
            }
            tokio::select! {
                () = stop.begun() => return Ok(()),
                changed = self.active.changed() => {
                    if changed.is_err() {
                        // The keeper of the blocks ends first only where the process is about to.
                        stop.begun().await;
                        return Ok(());
                    }
                }
                () = tokio::time::sleep(AGAIN) => {}
            }
        }
    }

    async fn notify_all(&self) -> Result<()> {
        loop {
            let pending = self.store.outbox().pending_changes(PAGE).await?;
            if pending.upto == pending.from {
                return Ok(());
            }
            let mut page = Page {
                store: &self.store,
                routes: self.fan_out.of_users(),
                batch: UserEventBatch {
                    from: pending.from,
                    upto: pending.upto,
                    ..UserEventBatch::default()
                },
                notified: HashMap::new(),
            };
            for change in pending.changes {
                page.add(change).await?;
            }
            // Where another node was faster, it has sent these.
            if let Some(deliveries) = self.store.outbox().record_user_events(page.batch).await? {
                self.fan_out.deliver(deliveries);
            }
        }
    }
}

/// The events of some changes.
struct Page<'a> {
    store: &'a Store,
    routes: OfUsers,
    batch: UserEventBatch,
    /// Who is notified of the blocks among them that hold.
    notified: HashMap<Whom, Vec<EndpointId>>,
}

impl Page<'_> {
    async fn add(&mut self, change: PendingChange) -> Result<()> {
        if self.routes.is_nobody() {
            return Ok(());
        }
        let PendingChange {
            row,
            quota,
            before,
            again,
        } = change;
        let event = |event_type| event(&row, event_type);
        match &row.change {
            BlockChange::Block { realm, user, until } => {
                let whom: Whom = (realm.clone(), user.clone());
                let earlier = self.earlier(&whom, before.map(|before| before.notified));
                let blocked = UserEvent {
                    until: *until,
                    quota: quota.clone(),
                    ..event(EventType::UserBlocked)
                };
                if quota.is_some() {
                    let reached = UserEvent {
                        event_type: EventType::QuotaReached,
                        ..blocked.clone()
                    };
                    self.add_event(reached, row.id, &[]).await?;
                }
                let notified = self.add_event(blocked, row.id, &earlier).await?;
                if !notified.is_empty() {
                    self.batch.notified.push((row.id, notified.clone()));
                }
                self.notified.insert(whom, notified);
            }
            BlockChange::Unblock { realm, user } | BlockChange::Expired { realm, user } => {
                let whom: Whom = (realm.clone(), user.clone());
                // Nobody is unblocked who was not blocked.
                let Some(before) = before else { return Ok(()) };
                let earlier = self.earlier(&whom, Some(before.notified));
                self.notified.remove(&whom);
                let unblocked = UserEvent {
                    until: before.until,
                    ..event(EventType::UserUnblocked)
                };
                self.add_event(unblocked, row.id, &earlier).await?;
            }
            BlockChange::EndSession(_) => {
                // A session that goes on all the same is ended again; its quota was reached once.
                let Some(quota) = quota.filter(|_| !again) else {
                    return Ok(());
                };
                let reached = of_session(event(EventType::QuotaReached), quota);
                self.add_event(reached, row.id, &[]).await?;
            }
        }
        Ok(())
    }

    /// Who was notified of the block that is ended or replaced.
    fn earlier(&self, whom: &Whom, on_record: Option<Vec<EndpointId>>) -> Vec<EndpointId> {
        let here = self.notified.get(whom).cloned();
        here.or(on_record).unwrap_or_default()
    }

    /// Adds an event for whoever hears of it, and for those who were notified of what came before it, if they still
    /// want to. Who that is.
    async fn add_event(
        &mut self,
        mut event: UserEvent,
        change: u64,
        earlier: &[EndpointId],
    ) -> Result<Vec<EndpointId>> {
        event.id = UserEvent::id_of(self.store.store_id(), change, event.event_type, event.timestamp);
        let mut hear: BTreeSet<EndpointId> = BTreeSet::new();
        let mut seen = None;
        for endpoint in self.routes.wanting(event.event_type) {
            let hears = match self.routes.filter(*endpoint) {
                None => true,
                Some(_) if earlier.contains(endpoint) => true,
                Some(filter) => match filter.lets_user_through(event.realm.as_deref()) {
                    Some(hears) => hears,
                    None => {
                        if seen.is_none() {
                            seen = Some(self.sessions_of(&event).await?);
                        }
                        seen.iter().flatten().any(|row| lets_through(filter, row))
                    }
                },
            };
            if hears {
                hear.insert(*endpoint);
            }
        }
        let hear: Vec<EndpointId> = hear.into_iter().collect();
        if hear.is_empty() {
            return Ok(hear);
        }
        let body = user_body(&event);
        if body.is_empty() {
            error!(event = %event.id, "an event whose payload could not be written is delivered to nobody");
            return Ok(Vec::new());
        }
        self.batch.events.push(NewUserEvent {
            event,
            change,
            body,
            endpoints: hear.clone().into(),
        });
        Ok(hear)
    }

    /// The user's newest sessions, in the realm of the event.
    async fn sessions_of(&self, event: &UserEvent) -> Result<Vec<SessionRow>> {
        let filter = SessionFilter {
            user: Some(event.user.to_vec()),
            realm: event.realm.as_deref().map(<[u8]>::to_vec),
            ..SessionFilter::default()
        };
        self.store.ledger().sessions(filter, None, SEEN).await
    }
}

/// Whether an endpoint that hears of this session hears of its user.
fn lets_through(filter: &Filter, row: &SessionRow) -> bool {
    filter.lets_session_through(&row.source, &row.realm, |name| {
        let label = row.labels.iter().find(|(label, _)| label == name);
        label.map(|(_, value)| value.as_slice())
    })
}

/// What an event says of its change alone, but for its id.
fn event(row: &BlockRow, event_type: EventType) -> UserEvent {
    let (realm, user) = match row.change.whom() {
        Some((realm, user)) => (realm.map(Into::into), user.into()),
        None => (None, Box::default()),
    };
    let (reason, by) = match &row.change {
        BlockChange::Expired { .. } => ("expired".to_owned(), None),
        BlockChange::Unblock { .. } => ("unblocked".to_owned(), Some(row.who.clone())),
        _ => (row.reason.clone(), Some(row.who.clone())),
    };
    UserEvent {
        id: EventId([0; 16]),
        event_type,
        timestamp: row.at,
        realm,
        user,
        until: None,
        reason,
        by,
        quota: None,
    }
}

/// Of a quota that had a session ended.
fn of_session(event: UserEvent, quota: QuotaReached) -> UserEvent {
    UserEvent {
        realm: Some(quota.realm.clone()),
        user: quota.user.clone(),
        quota: Some(quota),
        ..event
    }
}
