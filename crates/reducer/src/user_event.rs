//! Events of users: who is blocked, who is no more, and who has used up a quota. They are made of the changes of the list of
//! blocks, and not by a reducer; here are only the words for them, which store and dispatcher share.

use crate::{
    event::{EventId, EventType, SessionId},
    identity,
    time::Timestamp,
};

/// An event of a user, with all that its payload says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UserEvent {
    /// The `webhook-id`.
    pub id: EventId,
    /// One of [`EventType::OF_USERS`].
    pub event_type: EventType,
    /// When it was put on record; later than the user's previous event in the same realm.
    pub timestamp: Timestamp,
    /// Where; `None`: in every realm.
    pub realm: Option<Box<[u8]>>,
    /// Whom.
    pub user: Box<[u8]>,
    /// Until when the block holds, or was to hold; `None`: until somebody ends it.
    pub until: Option<Timestamp>,
    /// Why, in somebody's words.
    pub reason: String,
    /// By whom; `None` where the time of a block was over.
    pub by: Option<String>,
    /// The quota that acted, if one did.
    pub quota: Option<QuotaReached>,
}

impl UserEvent {
    /// The id of the event of a type that a change of the blocks makes: the same on every node, and whenever it is made.
    #[must_use]
    pub fn id_of(store: [u8; 16], change: u64, event_type: EventType, timestamp: Timestamp) -> EventId {
        identity::user_event_id(store, change, event_type.as_str(), timestamp)
    }

    /// What its deliveries wait for each other by, in the place of a session.
    #[must_use]
    pub fn order_key(&self) -> SessionId {
        identity::user_key(self.realm.as_deref(), &self.user)
    }
}

/// What a quota says of whoever has used it up.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct QuotaReached {
    /// As it is configured, in words.
    pub name: String,
    /// The time that it is for.
    pub period: QuotaPeriod,
    /// What it counts.
    pub unit: QuotaUnit,
    /// How much there was.
    pub limit: u64,
    /// How much was on record as used when it acted.
    pub used: u64,
    /// From when until when the period lasts; not of a session's.
    pub span: Option<(Timestamp, Timestamp)>,
    /// The session that was ended, where it is a session's.
    pub session: Option<SessionId>,
    /// The realm in which it acted.
    pub realm: Box<[u8]>,
    /// On whom it acted.
    pub user: Box<[u8]>,
}

/// The time that a quota is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum QuotaPeriod {
    /// A day, UTC.
    Day,
    /// A month, UTC.
    Month,
    /// A session, with what it continues.
    Session,
}

impl QuotaPeriod {
    /// As in payloads and configuration.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            QuotaPeriod::Day => "day",
            QuotaPeriod::Month => "month",
            QuotaPeriod::Session => "session",
        }
    }
}

/// What a quota counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum QuotaUnit {
    /// Bytes that were relayed.
    Bytes,
    /// Seconds that sessions lasted.
    Seconds,
}

impl QuotaUnit {
    /// As in payloads and configuration.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            QuotaUnit::Bytes => "bytes",
            QuotaUnit::Seconds => "seconds",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn event(realm: Option<&[u8]>, user: &[u8]) -> UserEvent {
        UserEvent {
            id: EventId([0; 16]),
            event_type: EventType::UserBlocked,
            timestamp: Timestamp(1),
            realm: realm.map(Into::into),
            user: user.into(),
            until: None,
            reason: String::new(),
            by: None,
            quota: None,
        }
    }

    #[test]
    fn events_of_a_user_in_a_realm_wait_for_each_other_and_for_nobody_elses() {
        let key = |realm: Option<&[u8]>, user: &[u8]| event(realm, user).order_key();
        assert_eq!(key(Some(b"r"), b"ann"), key(Some(b"r"), b"ann"));
        let all = [
            key(None, b"ann"),
            key(Some(b""), b"ann"),
            key(Some(b"r"), b"ann"),
            key(Some(b"ra"), b"nn"),
            key(Some(b"r"), b"\xff"),
        ];
        for (n, one) in all.iter().enumerate() {
            assert!(!all[..n].contains(one), "{n}");
        }
    }

    #[test]
    fn an_id_names_store_change_and_type() {
        let id = |store, change, kind| UserEvent::id_of([store; 16], change, kind, Timestamp(5));
        let blocked = EventType::UserBlocked;
        assert_eq!(id(1, 7, blocked), id(1, 7, blocked));
        for other in [
            id(2, 7, blocked),
            id(1, 8, blocked),
            id(1, 7, EventType::QuotaReached),
        ] {
            assert_ne!(id(1, 7, blocked), other);
        }
    }
}
