//! Which deliveries a command is about.

use clap::Args;
use turnhook_admin::Zone;
use turnhook_dispatcher::body::rfc3339;
use turnhook_reducer::event::{EventId, EventType, SessionId};
use turnhook_store::{DeliveryFilter, DeliveryState};

use crate::cli::{
    args::event_type,
    zone::{When, ZoneArgs},
};

/// Which deliveries: all that is given must hold.
#[derive(Clone, Debug, Default, Args)]
pub(in super::super) struct FilterArgs {
    /// Only of this event; any number of them
    #[arg(long, value_name = "EVENT")]
    id: Vec<EventId>,
    /// Only to this endpoint
    #[arg(long, value_name = "NAME")]
    endpoint: Option<String>,
    /// Only of this session
    #[arg(long, value_name = "SESSION")]
    session: Option<SessionId>,
    /// Only of this user
    #[arg(long)]
    user: Option<String>,
    /// Only of this type; any number of them
    #[arg(long = "type", value_name = "TYPE", value_parser = event_type())]
    event_type: Vec<EventType>,
    /// Only of events at this time or later: 2026-11-22T06:00:00Z, 2026-11-22, or 2h ago
    #[arg(long, value_name = "TIME", value_parser = When::parse)]
    since: Option<When>,
    /// Only of events before this time
    #[arg(long, value_name = "TIME", value_parser = When::parse)]
    until: Option<When>,
    #[command(flatten)]
    zone: ZoneArgs,
}

impl FilterArgs {
    /// Only to the endpoint of this name.
    pub(in super::super) fn endpoint(&self) -> Option<&str> {
        self.endpoint.as_deref()
    }

    pub(in super::super) fn zone(&self) -> &Zone {
        &self.zone
    }

    /// For the store.
    pub(in super::super) fn to_filter(&self, states: &[DeliveryState]) -> DeliveryFilter {
        DeliveryFilter {
            ids: self.id.clone(),
            endpoint: self.endpoint.clone(),
            states: states.to_vec(),
            session: self.session,
            user: self.user.clone().map(String::into_bytes),
            event_types: self.event_type.clone(),
            since: self.since.map(|when| when.of(&self.zone)),
            until: self.until.map(|when| when.of(&self.zone)),
        }
    }

    /// Whether nothing is asked for in particular.
    pub(in super::super) fn is_empty(&self) -> bool {
        self.to_filter(&[]) == DeliveryFilter::default()
    }

    /// As it stood on the command line, for the record.
    pub(in super::super) fn to_words(&self) -> String {
        let filter = self.to_filter(&[]);
        let mut words: Vec<String> = filter.ids.iter().map(|id| format!("--id {id}")).collect();
        words.extend(filter.endpoint.map(|name| format!("--endpoint {name}")));
        words.extend(filter.session.map(|id| format!("--session {id}")));
        words.extend(self.user.as_ref().map(|user| format!("--user {user}")));
        words.extend(
            filter
                .event_types
                .iter()
                .map(|one| format!("--type {}", one.as_str())),
        );
        words.extend(filter.since.map(|at| format!("--since {}", rfc3339(at))));
        words.extend(filter.until.map(|at| format!("--until {}", rfc3339(at))));
        words.join(" ")
    }
}
