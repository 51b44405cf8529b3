//! The store, and where it is.

use std::path::{Path, PathBuf};

use serde_json::Value;
use turnhook_reducer::time::Timestamp;
use turnhook_store::{Error, Mode, Store};

use super::{
    super::error::CliError,
    clocks::Clocks,
    report::{Report, disk},
};
use crate::{
    config::{Config, StoreKind},
    engine::unconfigured::{self, Unconfigured},
    store,
};

pub(super) async fn look(
    config: &Config,
    running: Option<&Value>,
    clocks: &mut Clocks,
    report: &mut Report,
) -> Result<(), CliError> {
    if let StoreKind::Sqlite(path) = &config.store.kind {
        let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty());
        let folder = folder.map_or_else(|| PathBuf::from("."), Path::to_path_buf);
        if folder.is_dir() {
            disk(&folder, report)?;
        } else {
            let shown = folder.display();
            report.fail(
                "store",
                format!("there is no directory {shown}"),
                format!("make it: install -d -m 0750 -o USER {shown} (USER being whom turnhook runs as)"),
            )?;
            return Ok(());
        }
    }
    match store::open(&config.store.kind, Mode::Shared).await {
        Ok(store) => opened(config, &store, clocks, report).await?,
        Err(Error::NotFound { path }) if running.is_none() => {
            report.ok("store", format!("{}: is made at the first start", path.display()))?;
        }
        // It says itself what to do.
        Err(error) => report.fail("store", error.to_string(), "")?,
    }
    if let Some(status) = running
        && (status["store"]["writable"] == false || status["store"]["reachable"] == false)
    {
        let error = status["store"]["last_error"]
            .as_str()
            .unwrap_or("no reason known");
        report.fail("store", format!("the running turnhook cannot write: {error}"), "")?;
    }
    Ok(())
}

async fn opened(
    config: &Config,
    store: &Store,
    clocks: &mut Clocks,
    report: &mut Report,
) -> Result<(), CliError> {
    match store.server().await {
        Ok(None) => report.ok("store", format!("{}: SQLite, can be read", store.describe()))?,
        Ok(Some((version, clock))) => {
            clocks.add("PostgreSQL".to_owned(), Timestamp(clock), false);
            report.ok("store", format!("{}: PostgreSQL {version}", store.describe()))?;
        }
        Err(error) => return report.fail("store", error.to_string(), ""),
    }
    match unconfigured::find(config, store).await {
        Ok(found) => {
            for source in found.iter().map(Unconfigured::warning) {
                report.warn("store", source, "")?;
            }
        }
        Err(error) => report.fail("store", error.to_string(), "")?,
    }
    Ok(())
}
