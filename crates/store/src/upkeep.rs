//! Upkeep: removing what is old, how far time has come, backups.

use std::path::PathBuf;

use turnhook_reducer::time::Timestamp;

use crate::{Admin, Backend, Error, Result, Trimmed, on, options::Pace};

impl Admin {
    /// Removes some of what is older than `before`, looking at no more than `limit` rows: events all of whose
    /// deliveries are delivered or discarded, sessions ended before then that have no events left, gaps, pauses,
    /// replays, and changes of blocks but for the last one of each user and realm. Dead letters and what is pending stay. Usage by day stays for 400 days more.
    /// Call it until there is no `more`; 500 is a good limit.
    ///
    /// # Errors
    /// The store cannot be read or written.
    pub async fn trim(&self, before: Timestamp, limit: usize) -> Result<Trimmed> {
        on!(self, db => db.trim(before, limit.max(1)).await)
    }

    /// Removes all that is older than `before`, as [`Admin::trim`] does, in slices that others hardly notice: each is as large
    /// as what can be done in a few milliseconds, and as long again is left to them. Ends early where `go_on` says no.
    ///
    /// # Errors
    /// The store cannot be read or written.
    pub async fn trim_all(&self, before: Timestamp, go_on: impl Fn() -> bool) -> Result<Trimmed> {
        if let Backend::Sqlite(db) = &self.0 {
            db.bring_in_old(before).await?;
        }
        let mut pace = Pace::new();
        let mut all = Trimmed::default();
        loop {
            let step = self.trim(before, pace.limit()).await?;
            all.events += step.events;
            all.sessions += step.sessions;
            all.more = step.more;
            if !step.more || !go_on() {
                return Ok(all);
            }
            tokio::time::sleep(pace.pause(step.took)).await;
        }
    }

    /// Moves the horizon by the time that has passed: to the wall clock where that is right, and no faster than twice the
    /// monotonic clock where it is ahead, whatever it says, also over restarts. What is removed or given up for its age is to
    /// be older than this says. Call it every second or so.
    ///
    /// # Errors
    /// The disk's, once a minute, when it is written down.
    pub async fn advance_horizon(&self, wall: Timestamp) -> Result<Timestamp> {
        let horizon = on!(self, db => db.horizon());
        let (now, write) = horizon.advance(wall);
        if let Some((at, back)) = write {
            horizon.kept(on!(self, db => db.keep_horizon(at, back).await)?);
        }
        Ok(now)
    }

    /// The horizon as [`Admin::advance_horizon`] moved it last; 0 before that.
    #[must_use]
    pub fn horizon(&self) -> Timestamp {
        on!(self, db => db.horizon().get())
    }

    /// Copies the store as it is at one moment into a new file that only its owner may read, while it is in use.
    ///
    /// # Errors
    /// [`Error::Exists`], or the disk's; then no file is left behind. [`Error::Unsupported`] on PostgreSQL, which has
    /// tools of its own (`pg_dump`).
    pub async fn backup(&self, to: impl Into<PathBuf>) -> Result<()> {
        match &self.0 {
            Backend::Sqlite(db) => db.backup(to.into()).await,
            Backend::Postgres(db) => Err(Error::Unsupported {
                store: db.describe(),
                advice: "use pg_dump, or your database's own backups".into(),
            }),
        }
    }
}
