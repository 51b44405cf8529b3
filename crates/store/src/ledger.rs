//! The ledger: sessions, usage by day, gaps, deliveries and replays. More of it is in `reads.rs` and `usage.rs`.

use std::collections::BTreeMap;

use turnhook_reducer::{
    event::{EventId, SessionId},
    time::Timestamp,
};

use crate::{
    Backend, DeliveryCursor, DeliveryDetail, DeliveryFilter, DeliveryRow, DeliveryState, Error, GapRow,
    Ledger, RecordFilter, Replay, ReplayId, Result, SessionDetail, SessionFilter, SessionRow, SourceId,
    UsageDay,
    codes::USAGE,
    details::{self, details},
    on,
    query::{Deliveries, values},
    session::{self, Part},
};

impl Ledger {
    /// All sources that ever were configured, by name.
    ///
    /// # Errors
    /// The store cannot be read or written.
    pub async fn sources(&self) -> Result<BTreeMap<String, SourceId>> {
        let found = self.0.ask("SELECT name, id FROM source", values![]).await?;
        Ok(found.into_iter().collect())
    }

    /// Sessions, newest first; the next page is `after` the last one of this.
    ///
    /// # Errors
    /// The store cannot be read or written.
    pub async fn sessions(
        &self,
        filter: SessionFilter,
        after: Option<SessionId>,
        limit: usize,
    ) -> Result<Vec<SessionRow>> {
        // Only for the first page: a listing should neither change nor slow down under way.
        if after.is_none() {
            self.0.catch_up().await?;
        }
        let mut found: Vec<SessionRow> = Vec::new();
        for part in Part::of(&filter) {
            let left = limit.saturating_sub(found.len());
            if left == 0 {
                break;
            }
            let query = session::page(self.0.dialect(), &filter, after, left, *part);
            found.extend(self.0.list::<SessionRow>(query).await?);
        }
        Ok(found)
    }

    /// A session with its events, what became of them, and the gaps of its source in its time.
    ///
    /// # Errors
    /// The store cannot be read or written.
    pub async fn session(&self, id: SessionId) -> Result<Option<SessionDetail>> {
        self.0.catch_up().await?;
        let queries = session::shown(self.0.dialect(), id);
        Ok(session::detail(on!(self, db => db.session(queries).await)?))
    }

    /// What each user used on each UTC day from `from` to `to` (days since 1970-01-01, both included), in order;
    /// the next page is `after` the last row of this. The sum of its `usage` is the sum of all `usage_delta` emitted.
    ///
    /// # Errors
    /// The store cannot be read or written.
    pub async fn usage_by_day(
        &self,
        from: u32,
        to: u32,
        after: Option<UsageDay>,
        limit: usize,
    ) -> Result<Vec<UsageDay>> {
        if after.is_none() {
            self.0.catch_up().await?;
        }
        let (day, source, realm, user) = match after {
            Some(after) => {
                let source = self.source_number(&after.source).await?;
                let user = after.user.unwrap_or_default();
                (i64::from(after.day), source, after.realm, user)
            }
            None => (-1, -1, Vec::new(), Vec::new()),
        };
        let (column, join) = (self.0.dialect().user, self.0.dialect().join);
        // Cast, or one database takes the values for as narrow as their columns.
        let sql = format!(
            "SELECT u.day, c.name, u.realm, u.{column}, u.started, u.ended, u.lower_bound, u.duration_ms, {USAGE} \
             FROM usage_day u {join} source c ON c.id = u.source \
             WHERE u.day BETWEEN CAST(?1 AS bigint) AND CAST(?2 AS bigint) AND (u.day, u.source, u.realm, u.{column}) > \
             (CAST(?3 AS bigint), CAST(?4 AS bigint), ?5, ?6) \
             ORDER BY u.day, u.source, u.realm, u.{column} LIMIT ?7"
        );
        let (first, last) = (i64::from(from).max(day), i64::from(to));
        let values = values![first, last, day, source, realm, user, limit as u64];
        self.0.ask(&sql, values).await
    }

    /// Gaps of all sources that were not over before `since`, newest first.
    ///
    /// # Errors
    /// The store cannot be read or written.
    pub async fn gaps(&self, since: Option<Timestamp>, limit: usize) -> Result<Vec<GapRow>> {
        let filter = RecordFilter {
            since,
            ..RecordFilter::default()
        };
        let found = self.gaps_on_record(&filter, None, limit).await?;
        Ok(found.into_iter().map(|(_, gap)| gap).collect())
    }

    /// Deliveries, newest event first; the next page is `after` the last one of this.
    ///
    /// # Errors
    /// [`Error::UnknownEndpoint`], or the disk's.
    pub async fn deliveries(
        &self,
        filter: DeliveryFilter,
        after: Option<DeliveryCursor>,
        limit: usize,
    ) -> Result<Vec<DeliveryRow>> {
        self.0.catch_up().await?;
        self.0.check_endpoint(&filter).await?;
        let few = self.are_few(&filter.states).await?;
        let mut q = Deliveries::new(self.0.dialect(), &filter, few);
        if let Some(after) = after {
            q.after(after);
        }
        self.0.list(q.page(limit)).await
    }

    /// An event's deliveries with all that is known of each; empty if there is no such event, or nobody wanted it.
    ///
    /// # Errors
    /// The store cannot be read or written.
    pub async fn delivery(&self, event: EventId) -> Result<Vec<DeliveryDetail>> {
        self.0.catch_up().await?;
        let queries = details::queries(self.0.dialect(), event);
        Ok(details(on!(self, db => db.delivery(queries).await)?))
    }

    /// How many deliveries match: for `--dry-run`.
    ///
    /// # Errors
    /// [`Error::UnknownEndpoint`], or the disk's.
    pub async fn count_deliveries(&self, filter: DeliveryFilter) -> Result<u64> {
        self.0.catch_up().await?;
        self.0.check_endpoint(&filter).await?;
        let query = Deliveries::new(self.0.dialect(), &filter, true).query("count(*)", "");
        Ok(self.0.list(query).await?.first().map_or(0, |(count,)| *count))
    }

    /// Replays on record, newest first, with what is still pending of each.
    ///
    /// # Errors
    /// The store cannot be read or written.
    pub async fn replays(&self, only: Option<ReplayId>, limit: usize) -> Result<Vec<Replay>> {
        let sql = format!(
            "SELECT id, at, who, what, total, (SELECT count(*) FROM {} \
             WHERE d.replay = r.id AND d.replay IS NOT NULL AND d.state = 0) \
             FROM replay r WHERE CAST(?1 AS bigint) IS NULL OR id = ?1 ORDER BY id DESC LIMIT ?2",
            self.0.dialect().replayed
        );
        let values = values![only.map(|r| r.0), limit as u64];
        self.0.ask(&sql, values).await
    }

    /// A source's number; one that no row has, if there is none of that name.
    pub(crate) async fn source_number(&self, name: &str) -> Result<i64> {
        Ok(self.sources().await?.get(name).map_or(-1, |id| i64::from(id.0)))
    }

    /// Whether there are only a few deliveries in these states: pending or dead ones are looked up and sorted then;
    /// among more, the newest are found sooner by walking back from the newest event.
    async fn are_few(&self, states: &[DeliveryState]) -> Result<bool> {
        const FEW: i64 = 10_000;
        let dialect = self.0.dialect();
        let of = match states {
            [DeliveryState::Pending] => format!("{} WHERE d.state = 0", dialect.pending),
            [DeliveryState::Dead] => format!("{} WHERE d.state = 2", dialect.dead),
            _ => return Ok(true),
        };
        let sql = format!("SELECT count(*) FROM (SELECT 1 FROM {of} LIMIT ?1) few");
        let found: Vec<(i64,)> = self.0.ask(&sql, values![FEW + 1]).await?;
        Ok(found.first().is_none_or(|(found,)| *found <= FEW))
    }
}

impl Backend {
    /// That there is the endpoint that is asked for.
    pub(crate) async fn check_endpoint(&self, filter: &DeliveryFilter) -> Result<()> {
        let Some(name) = &filter.endpoint else {
            return Ok(());
        };
        let found: Vec<(String,)> = self.ask("SELECT name FROM endpoint", values![]).await?;
        let known: Vec<String> = found.into_iter().map(|(name,)| name).collect();
        if known.contains(name) {
            return Ok(());
        }
        Err(Error::unknown_endpoint(name, known))
    }

    /// The deliveries that are asked for, oldest first.
    pub(crate) async fn matching(&self, filter: &DeliveryFilter) -> Result<Vec<i64>> {
        self.catch_up().await?;
        self.check_endpoint(filter).await?;
        let q = Deliveries::new(self.dialect(), filter, true);
        let tail = format!("ORDER BY {}, d.id", q.order());
        let found: Vec<(i64,)> = self.list(q.query("d.id", &tail)).await?;
        Ok(found.into_iter().map(|(id,)| id).collect())
    }
}
