//! The schema, and how it is brought up to date while other nodes may be doing the same.

use std::time::Duration;

use deadpool_postgres::Client;
use tokio_postgres::error::SqlState;

use super::connection::{Db, Fault};
use super::rows::{Read as _, id32, one};
use crate::{
    Mode,
    error::{Error, Result},
};

/// Each brings the schema from the version before it to its own; the first makes it. Never change one that was
/// released.
const MIGRATIONS: &[&str] = &[
    include_str!("migrations/0001.sql"),
    include_str!("migrations/0002.sql"),
    include_str!("migrations/0003.sql"),
    include_str!("migrations/0004.sql"),
    include_str!("migrations/0005.sql"),
    include_str!("migrations/0006.sql"),
    include_str!("migrations/0007.sql"),
    include_str!("migrations/0008.sql"),
];

/// The schema that this program reads and writes.
#[allow(clippy::cast_possible_truncation)]
pub(crate) const SCHEMA: u32 = MIGRATIONS.len() as u32;

/// A migration may rewrite a large table.
const LIMIT: Duration = Duration::from_secs(24 * 3600);

/// What [`crate::Store::migrate`] did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Migrated {
    /// The schema that was there; 0: none.
    pub from: u32,
    /// The schema that is there now.
    pub to: u32,
}

/// Sees to it that the schema is the one we know.
pub(super) async fn check(db: &Db, mode: Mode) -> Result<()> {
    let found = version(db).await?;
    if found == SCHEMA {
        return Ok(());
    }
    if found > SCHEMA {
        return Err(newer(db, found));
    }
    let unmigrated = || Error::Unmigrated {
        store: db.describe().to_owned(),
        found,
        known: SCHEMA,
    };
    if mode == Mode::Shared {
        return Err(unmigrated());
    }
    match migrate(db).await {
        Ok(_) => Ok(()),
        Err(Error::Refused { .. }) => Err(unmigrated()),
        Err(e) => Err(e),
    }
}

/// Brings it up to date.
pub(super) async fn migrate(db: &Db) -> Result<Migrated> {
    let mut tries = db.tries();
    loop {
        let result = match db.conn().await {
            Ok(mut conn) => {
                let result = db.limited_to(LIMIT, async { apply(conn.client()?).await }).await;
                conn.finish(result)
            }
            Err(fault) => Err(fault),
        };
        // `IF NOT EXISTS` does not keep two that come at once from making the same table: the later one gets that answer in
        // one of these ways, and finds it made when it looks again.
        let raced = |fault: &Fault| {
            [
                SqlState::UNIQUE_VIOLATION,
                SqlState::DUPLICATE_OBJECT,
                SqlState::DUPLICATE_TABLE,
                SqlState::INTERNAL_ERROR,
            ]
            .iter()
            .any(|state| fault.is(state))
        };
        let result = match result {
            Err(fault) if raced(&fault) => Err(Fault::Lost("another process is making the schema".into())),
            other => other,
        };
        match tries.over(result).await {
            Some(Ok(done)) if done.from > SCHEMA => return Err(newer(db, done.from)),
            Some(over) => return over,
            None => {}
        }
    }
}

fn newer(db: &Db, found: u32) -> Error {
    Error::Newer {
        path: db.describe().into(),
        found,
        known: SCHEMA,
    }
}

pub(super) async fn version(db: &Db) -> Result<u32> {
    super::connection::attempt!(db, client => {
        let made: bool = one(client, "SELECT to_regclass('schema_version') IS NOT NULL", &[]).await?.read(0)?;
        if !made {
            Ok(0)
        } else {
            let row = client.query_opt("SELECT version FROM schema_version WHERE id = 1", &[]).await?;
            row.map_or(Ok(0), |row| number(row.read(0)?))
        }
    })
}

fn number(version: i32) -> Result<u32, Fault> {
    u32::try_from(version).map_err(|_| Fault::damaged("schema version"))
}

async fn apply(client: &mut Client) -> Result<Migrated, Fault> {
    client
        .batch_execute(
            "CREATE TABLE IF NOT EXISTS schema_version \
             (id integer PRIMARY KEY CHECK (id = 1), version integer NOT NULL, migrated_at bigint); \
             INSERT INTO schema_version (id, version) VALUES (1, 0) ON CONFLICT (id) DO NOTHING",
        )
        .await?;
    let tx = client.transaction().await?;
    // Whoever comes second waits for the row, and finds everything done.
    tx.batch_execute("SET LOCAL statement_timeout = 0").await?;
    let row = one(
        &tx,
        "SELECT version FROM schema_version WHERE id = 1 FOR UPDATE",
        &[],
    )
    .await?;
    let from = number(row.read(0)?)?;
    if from >= SCHEMA {
        return Ok(Migrated { from, to: from });
    }
    for (i, sql) in MIGRATIONS.iter().enumerate().skip(from as usize) {
        match tx.batch_execute(sql).await {
            Ok(()) => {}
            Err(e) if i == 0 && e.code() == Some(&SqlState::DUPLICATE_TABLE) => {
                let said = e
                    .as_db_error()
                    .map(|e| e.message().to_owned())
                    .unwrap_or_default();
                return Err(Error::BadUrl {
                    problem: format!(
                        "another program's tables are in that database ({said}): give turnhook one of its own"
                    ),
                }
                .into());
            }
            Err(e) => return Err(e.into()),
        }
        if i == 0 {
            first(&tx).await?;
        }
    }
    tx.execute(
        "UPDATE schema_version SET version = $1, migrated_at = (extract(epoch FROM clock_timestamp()) * 1000)::bigint WHERE id = 1",
        &[&id32(SCHEMA)?],
    )
    .await?;
    tx.commit().await?;
    Ok(Migrated { from, to: SCHEMA })
}

/// What a new store begins with, besides its tables.
async fn first(tx: &deadpool_postgres::Transaction<'_>) -> Result<(), Fault> {
    let mut id = [0u8; 16];
    getrandom::fill(&mut id).map_err(|e| Fault::Lost(e.to_string()))?;
    tx.execute("INSERT INTO store (id, store_id) VALUES (1, $1)", &[&&id[..]])
        .await?;
    let lanes: Vec<String> = (0..crate::cluster::Lanes::COUNT)
        .map(|lane| crate::cluster::LeaseName::Lane(lane).to_string())
        .collect();
    tx.execute(
        "INSERT INTO lease (name, holder, epoch, expires_at) SELECT l.name, NULL, 0, 0 FROM unnest($1::text[]) AS l (name)",
        &[&lanes],
    )
    .await?;
    Ok(())
}
