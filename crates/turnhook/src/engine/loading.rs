//! What is committed, as a node reads it: at the start, as a follower from time to time, and to take over from the node that
//! led before.

use tokio::task::{JoinError, JoinHandle};
use turnhook_reducer::{
    Identity, Reducer, RestoreError, Restoring, rules::Rules, state::Table, time::Timestamp,
};
use turnhook_store::{Epoch, SourceId, State};

use super::fault;

/// A reducer as it was committed, and the time of its last commit.
pub(crate) type Restored = (Reducer, Option<Timestamp>);

/// Makes the source's reducer of what is committed.
pub(crate) struct Loader {
    pub(crate) state: State,
    pub(crate) id: SourceId,
    pub(crate) identity: Identity,
    pub(crate) rules: Rules,
}

/// Rows in one block: many of them would take as many allocations.
#[derive(Default)]
pub(crate) struct Rows {
    bytes: Vec<u8>,
    /// Each row's table, key, and where it ends.
    index: Vec<(Table, u64, usize)>,
}

impl Rows {
    fn push(&mut self, table: Table, key: u64, row: &[u8]) {
        self.bytes.extend_from_slice(row);
        self.index.push((table, key, self.bytes.len()));
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = (Table, u64, &[u8])> {
        let mut from = 0;
        self.index.iter().map(move |(table, key, to)| {
            let row = self.bytes.get(from..*to).unwrap_or_default();
            from = *to;
            (*table, *key, row)
        })
    }
}

/// The state could not be had.
#[derive(Debug, thiserror::Error)]
pub(crate) enum LoadError {
    #[error(transparent)]
    Store(#[from] turnhook_store::Error),
    #[error(transparent)]
    State(#[from] RestoreError),
}

impl Loader {
    /// The committed rows of these tables, and the time of the last commit.
    pub(crate) async fn rows(
        &self,
        only: &'static [Table],
    ) -> turnhook_store::Result<(Rows, Option<Timestamp>)> {
        let keep = move |rows: &mut Rows, table, key, row: &[u8]| {
            if only.contains(&table) {
                rows.push(table, key, row);
            }
        };
        self.state.load(self.id, Rows::default(), keep).await
    }

    /// The source's reducer as it was committed, and the time of the last commit. It is made as the rows are read: a
    /// million of them need not be in memory as well.
    pub(crate) async fn reducer(&self) -> Result<Restored, LoadError> {
        fault::step("loading");
        let restoring = Restoring::new(self.identity.clone(), self.rules.clone());
        let add = |restored: &mut Result<Restoring, RestoreError>, table, key, row: &[u8]| {
            if let Ok(restoring) = restored
                && let Err(error) = restoring.row(table, key, row)
            {
                *restored = Err(error);
            }
        };
        let (restored, clock) = self.state.load(self.id, Ok(restoring), add).await?;
        Ok((restored?.finish(clock.unwrap_or_default()), clock))
    }
}

/// The committed ends, and the time of the last commit, as they were read for a follower.
pub(crate) type EndsRead = turnhook_store::Result<(Rows, Option<Timestamp>)>;

/// Rows that are being read for a follower.
pub(crate) type Confirming = JoinHandle<EndsRead>;

/// A takeover that has not come to its end.
pub(crate) struct TakingOver {
    pub(super) epoch: Epoch,
    pub(super) stage: Stage,
}

pub(super) enum Stage {
    /// What is committed is read; the source is followed meanwhile.
    Reads(JoinHandle<Result<Restored, LoadError>>),
    /// What is committed, and what was heard here, become one; what is heard meanwhile waits in its queue.
    Joins(JoinHandle<Reducer>, Option<Timestamp>),
}

impl TakingOver {
    /// Whether the state is another thread's.
    pub(crate) fn has_begun(&self) -> bool {
        matches!(self.stage, Stage::Joins(..))
    }
}

/// A stage of a takeover that is done.
pub(crate) enum Taken {
    Read(Result<Result<Restored, LoadError>, JoinError>),
    Joined(Result<Reducer, JoinError>, Option<Timestamp>),
}

/// The end of the takeover's stage; never, if there is none.
pub(crate) async fn taken_over(taking_over: &mut Option<TakingOver>) -> (Epoch, Taken) {
    match taking_over {
        Some(TakingOver { epoch, stage }) => match stage {
            Stage::Reads(read) => (*epoch, Taken::Read(read.await)),
            Stage::Joins(joined, clock) => (*epoch, Taken::Joined(joined.await, *clock)),
        },
        None => std::future::pending().await,
    }
}

/// What is being read; never ready if nothing is.
pub(crate) async fn confirmed(confirming: &mut Option<Confirming>) -> Result<EndsRead, JoinError> {
    match confirming {
        Some(rows) => rows.await,
        None => std::future::pending().await,
    }
}
