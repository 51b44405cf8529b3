//! The configured store, opened.

use turnhook_store::{Mode, PostgresOptions, Result, Store};

use crate::config::{Postgres, StoreKind};

/// Opens the store: the file, or a connection to the database.
///
/// # Errors
/// As [`Store::open`] and [`Store::connect`].
pub async fn open(kind: &StoreKind, mode: Mode) -> Result<Store> {
    match kind {
        StoreKind::Sqlite(path) => Store::open(path, mode).await,
        StoreKind::Postgres(postgres) => Store::connect(options(postgres), mode).await,
    }
}

/// As the store takes them.
#[must_use]
pub fn options(postgres: &Postgres) -> PostgresOptions {
    let mut options = PostgresOptions::new(postgres.url.expose());
    if let Some(node) = &postgres.node {
        options.node.clone_from(node);
    }
    options.lease = postgres.lease;
    options.ca_file.clone_from(&postgres.ca_file);
    options
}
