//! `turnhook deliveries tail`.

use std::collections::BTreeMap;

use clap::Args;
use turnhook_dispatcher::clock::wall_clock;
use turnhook_reducer::event::EventId;
use turnhook_store::{DeliveryFilter, DeliveryId, DeliveryRow, DeliveryState, RecordFilter, Store};

use super::{
    super::{
        args::{ConfigArgs, Format},
        error::CliError,
        output::print,
    },
    filter::FilterArgs,
    list,
    row::to_json,
};
use crate::{
    cli::{follow, output::print_json, pages::PAGE, running::Running, store},
    shutdown,
};

/// Print deliveries as they are made: what was queued, taken, refused and given up
#[derive(Debug, Args)]
#[command(after_help = "\
Example:
  $ turnhook deliveries tail
  $ turnhook deliveries tail --endpoint billing --user cust_42 --format json

  Until interrupted. A delivery is printed when its event is decided, and again after each attempt that
  changed something. Times are UTC, or those of --tz.")]
pub(super) struct Tail {
    #[command(flatten)]
    config: ConfigArgs,
    #[command(flatten)]
    filter: FilterArgs,
    /// How to print them; json: one object a line
    #[arg(long, value_enum, default_value_t)]
    format: Format,
}

/// Events asked about in one go.
const ASKED: usize = 100;
/// Deliveries that are watched until they are over. Beyond, the oldest are forgotten.
const WATCHED: usize = 10_000;

/// What is known of those that are not over.
type Watched = BTreeMap<DeliveryId, (EventId, u32)>;

impl Tail {
    pub(super) async fn run(self) -> Result<(), CliError> {
        let (_, store) = store::open(&self.config).await?;
        let stop = shutdown::on_signals().map_err(CliError::failed)?;
        let mut after = store.ledger().newest_event().await?;
        let mut watched = Watched::new();
        eprintln!("waiting for deliveries; Ctrl-C ends it");
        loop {
            let page = store
                .ledger()
                .emitted_events(&RecordFilter::default(), after, PAGE)
                .await?;
            after = page.last().map_or(after, |last| last.number);
            let new: Vec<EventId> = page.iter().map(|event| event.id).collect();
            let mut open: Vec<EventId> = watched.values().map(|(event, _)| *event).collect();
            open.dedup();
            for ids in new.chunks(ASKED).chain(open.chunks(ASKED)) {
                for row in self.of(&store, ids).await? {
                    if is_news(&mut watched, &row) {
                        self.show(&row)?;
                    }
                }
            }
            while watched.len() > WATCHED {
                watched.pop_first();
            }
            if page.len() < PAGE && !follow::next(&stop).await {
                return Ok(());
            }
        }
    }

    /// In the order in which they were queued.
    async fn of(&self, store: &Store, ids: &[EventId]) -> Result<Vec<DeliveryRow>, CliError> {
        let asked = self.filter.to_filter(&[]);
        let ids: Vec<EventId> = ids
            .iter()
            .copied()
            .filter(|id| asked.ids.is_empty() || asked.ids.contains(id))
            .collect();
        if ids.is_empty() {
            return Ok(Vec::new());
        }
        let mut rows = store
            .ledger()
            .deliveries(DeliveryFilter { ids, ..asked }, None, usize::MAX)
            .await?;
        rows.sort_unstable_by_key(|row| row.id);
        Ok(rows)
    }

    fn show(&self, row: &DeliveryRow) -> Result<(), CliError> {
        if self.format == Format::Json {
            return print_json(&to_json(row, &Running::default()));
        }
        let next = match row.next_attempt_at {
            Some(at) if row.attempts > 0 => format!(", next attempt {}", self.filter.zone().show(at)),
            _ => String::new(),
        };
        print(&format!(
            "{}  {:<13}  {}  {}: {} after {} attempts{next}\n",
            self.filter.zone().show(wall_clock()),
            row.event_type.as_str(),
            row.event_id,
            row.endpoint,
            list::state(row),
            row.attempts,
        ))
    }
}

/// Whether it was not known so.
fn is_news(watched: &mut Watched, row: &DeliveryRow) -> bool {
    if row.state == DeliveryState::Pending {
        let known = watched.insert(row.id, (row.event_id, row.attempts));
        known.is_none_or(|(_, attempts)| attempts != row.attempts)
    } else {
        watched.remove(&row.id);
        true
    }
}
