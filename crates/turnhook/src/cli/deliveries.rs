//! `turnhook deliveries`.

use clap::{Args, Subcommand, ValueEnum};
use serde_json::{Value, json};
use turnhook_admin::Zone;
use turnhook_dispatcher::body::rfc3339;
use turnhook_reducer::event::{EventId, EventType, SessionId};
use turnhook_store::{DeliveryFilter, DeliveryRow, DeliveryState};

use super::{
    CliError,
    running::Running,
    store,
    zone::{When, ZoneArgs},
};

mod discard;
mod list;
mod show;
mod tail;

/// Look at deliveries, and give some up
#[derive(Debug, Args)]
pub(super) struct Deliveries {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    List(list::List),
    Show(show::Show),
    Tail(tail::Tail),
    Discard(discard::Discard),
}

impl Deliveries {
    pub(super) async fn run(self) -> Result<(), CliError> {
        match self.command {
            Command::List(command) => command.run().await,
            Command::Show(command) => command.run().await,
            Command::Tail(command) => command.run().await,
            Command::Discard(command) => command.run().await,
        }
    }
}

/// Which deliveries: all that is given must hold.
#[derive(Clone, Debug, Default, Args)]
pub(super) struct FilterArgs {
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
    #[arg(long = "type", value_name = "TYPE", value_enum)]
    event_type: Vec<TypeArg>,
    /// Only of events at this time or later: 2026-11-22T06:00:00Z, 2026-11-22, or 2h ago
    #[arg(long, value_name = "TIME", value_parser = When::parse)]
    since: Option<When>,
    /// Only of events before this time
    #[arg(long, value_name = "TIME", value_parser = When::parse)]
    until: Option<When>,
    #[command(flatten)]
    zone: ZoneArgs,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum TypeArg {
    #[value(name = "session.start")]
    Start,
    #[value(name = "session.usage")]
    Usage,
    #[value(name = "session.end")]
    End,
    #[value(name = "quota.reached")]
    QuotaReached,
    #[value(name = "user.blocked")]
    UserBlocked,
    #[value(name = "user.unblocked")]
    UserUnblocked,
}

impl From<TypeArg> for EventType {
    fn from(arg: TypeArg) -> EventType {
        match arg {
            TypeArg::Start => EventType::Start,
            TypeArg::Usage => EventType::Usage,
            TypeArg::End => EventType::End,
            TypeArg::QuotaReached => EventType::QuotaReached,
            TypeArg::UserBlocked => EventType::UserBlocked,
            TypeArg::UserUnblocked => EventType::UserUnblocked,
        }
    }
}

impl FilterArgs {
    /// Only to the endpoint of this name.
    pub(super) fn endpoint(&self) -> Option<&str> {
        self.endpoint.as_deref()
    }

    pub(super) fn zone(&self) -> &Zone {
        &self.zone
    }

    /// For the store.
    pub(super) fn to_filter(&self, states: &[DeliveryState]) -> DeliveryFilter {
        DeliveryFilter {
            ids: self.id.clone(),
            endpoint: self.endpoint.clone(),
            states: states.to_vec(),
            session: self.session,
            user: self.user.clone().map(String::into_bytes),
            event_types: self.event_type.iter().map(|one| EventType::from(*one)).collect(),
            since: self.since.map(|when| when.of(&self.zone)),
            until: self.until.map(|when| when.of(&self.zone)),
        }
    }

    /// Whether nothing is asked for in particular.
    pub(super) fn is_empty(&self) -> bool {
        self.to_filter(&[]) == DeliveryFilter::default()
    }

    /// As it stood on the command line, for the record.
    pub(super) fn to_words(&self) -> String {
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

fn to_json(row: &DeliveryRow, running: &Running) -> Value {
    json!({
        "webhook_id": row.event_id.to_string(),
        "endpoint": row.endpoint,
        "type": row.event_type.as_str(),
        "session_id": row.session().map(|id| id.to_string()),
        "sequence": row.session().map(|_| row.sequence),
        "user": row.user.as_deref().map(String::from_utf8_lossy),
        "timestamp": rfc3339(row.timestamp),
        "state": row.state.as_str(),
        "attempts": row.attempts,
        "first_attempt_at": row.first_attempt_at.map(rfc3339),
        "next_attempt_at": running.next_attempt(row, store::now()).map(rfc3339),
        "finished_at": row.finished_at.map(rfc3339),
        "reason": row.reason,
        "replay": row.replay.map(|replay| replay.0),
    })
}

/// When a delivery is tried next, for people; empty where it is over.
fn next_attempt(row: &DeliveryRow, running: &Running, zone: &Zone) -> String {
    let now = store::now();
    match (row.next_attempt_at, running.next_attempt(row, now)) {
        (None, _) => String::new(),
        (Some(_), None) => "when resumed".to_owned(),
        (Some(_), Some(at)) if at <= now => "now".to_owned(),
        (Some(_), Some(at)) => zone.show(at),
    }
}
