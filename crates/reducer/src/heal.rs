//! What coturn's own log shows of an allocation beyond all that is on record of it: to be billed in a session that
//! continues the last one. Whoever makes one has seen that the stream cannot say it any more.

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::{
    event::{Accuracy, AllocationReport, CloseReason, EventType, SessionEnd, SessionEvent, SessionId},
    identity::{AllocationIdentity, Identity, event_id},
    message::AllocationId,
    relayed::{Carried, has_relayed, largest_framing, sent_on},
    rules::Rules,
    time::Timestamp,
    usage::{Legs, Usage},
};

/// An allocation that is to be set right.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Heal {
    /// When that was asked for, by the wall clock.
    pub at: Timestamp,
    /// The last session that counted it.
    pub continues: SessionId,
    /// Its realm, as it was emitted.
    pub realm: Box<[u8]>,
    /// Its whole username.
    pub username: Box<[u8]>,
    /// coturn's number.
    pub allocation: AllocationId,
    /// When it opened, as it was emitted.
    pub opened_at: Timestamp,
    /// When it closed, as it was emitted, and why.
    pub closed: (Timestamp, CloseReason),
    /// As they were emitted.
    pub server: Option<String>,
    /// `type=`.
    pub transport: Option<String>,
    /// `local=`.
    pub server_address: Option<String>,
    /// `remote=`.
    pub client_address: Option<String>,
    /// `ssl=` and `cipher=`.
    pub tls: Option<(String, String)>,
    /// What the log has more than all that is on record.
    pub missed: Legs,
}

impl Heal {
    /// The session that bills it: the same whoever asks, and whenever, as long as nothing more is billed of the
    /// allocation. So it is billed once.
    #[must_use]
    pub fn session(&self, identity: &Identity) -> SessionId {
        let server = self.server.as_deref().unwrap_or_default();
        let allocation = AllocationIdentity {
            server: server.as_bytes(),
            realm: &self.realm,
            username: &self.username,
            id: self.allocation,
            opened_at: self.opened_at,
            twin: 0,
        };
        identity.healed(&allocation, self.continues, self.closed.0)
    }

    /// What is to be billed of it, at least: what is certain of what was missed, as of one report.
    #[must_use]
    pub fn usage(&self, rules: &Rules) -> Usage {
        let legs = self.missed;
        // The largest there is: it is not known whether the peers were IPv4 ones.
        let carried = Carried {
            legs,
            sent_on: sent_on(&legs, largest_framing(false, true), 0),
        };
        let relayed = if has_relayed(&legs) {
            carried.relayed(true)
        } else {
            0
        };
        Usage {
            legs,
            billable_bytes: rules.billable.bytes(&legs, relayed),
        }
    }

    /// Its start and its end. It lasts no time, since the session that it continues has said how long that was.
    pub(crate) fn events(&self, identity: &Identity, rules: &Rules) -> [SessionEvent; 2] {
        let session_id = self.session(identity);
        let usage = self.usage(rules);
        // Of the close, and not of the asking: whoever asks twice makes the same ids.
        let id = |sequence| event_id(session_id, sequence, self.closed.0);
        let start = SessionEvent {
            id: id(0),
            event_type: EventType::Start,
            timestamp: self.at,
            session_id,
            sequence: 0,
            continues: Some(self.continues),
            source: Arc::clone(&identity.source),
            realm: self.realm.clone(),
            user: rules.user(&self.username).map(Into::into),
            usernames: vec![self.username.clone()],
            labels: rules.user_pattern.labels(&self.username),
            started_at: self.at,
            end: None,
            block_reason: None,
            duration_ms: None,
            peer_leg: true,
            billable: rules.billable,
            usage: Usage::ZERO,
            usage_delta: Usage::ZERO,
            allocations: Vec::new(),
            allocations_omitted: 0,
        };
        let end = SessionEvent {
            id: id(1),
            event_type: EventType::End,
            sequence: 1,
            end: Some(SessionEnd {
                ended_at: self.at,
                reason: self.closed.1,
                // The totals were not heard; a log is a second witness, and no more.
                accuracy: Accuracy::LowerBound,
            }),
            duration_ms: Some(0),
            usage,
            usage_delta: usage,
            allocations: vec![self.report()],
            ..start.clone()
        };
        [start, end]
    }

    fn report(&self) -> AllocationReport {
        let text = |text: &Option<String>| text.as_ref().map(|text| text.as_bytes().into());
        let tls =
            |part: fn(&(String, String)) -> &String| self.tls.as_ref().map(|tls| part(tls).as_bytes().into());
        AllocationReport {
            id: self.allocation,
            username: self.username.clone(),
            opened_at: self.opened_at,
            opened_seen: true,
            closed: Some(self.closed),
            totals_seen: false,
            server: text(&self.server),
            transport: text(&self.transport),
            server_address: text(&self.server_address),
            client_address: text(&self.client_address),
            tls_version: tls(|(version, _)| version),
            tls_cipher: tls(|(_, cipher)| cipher),
            usage: self.missed,
        }
    }
}
