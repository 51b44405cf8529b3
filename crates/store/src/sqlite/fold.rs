//! Housekeeping in small steps, each in the same transaction as whatever else there is to write: the state's
//! log into its table, and new events into the ledger.

use rusqlite::Connection;

use super::{
    Fault,
    helper::{Ask, Found, Helper},
    ledger,
    mem::{Mem, Step},
    state,
};
use crate::error::Result;

/// Whether there is a step to do; has what it takes read by the helper, and takes it over.
pub(super) fn wanted(mem: &mut Mem, helper: &Helper) -> rusqlite::Result<bool> {
    if mem.folding.asked
        && let Some(found) = helper.found()
    {
        mem.folding.asked = false;
        match found? {
            Found::Ledger(done, fold) => {
                // Another process may have done it.
                mem.forget_recent(done);
                mem.folding.ledger = fold;
            }
            Found::State(fold) => mem.folding.state = fold,
        }
    }
    if mem.folding.ledger.is_some() || mem.folding.state.is_some() {
        return Ok(true);
    }
    if !mem.folding.asked {
        let folding = &mut mem.folding;
        if mem.recent.len() >= folding.ledger_batch {
            folding.asked = helper.ask(Ask::Ledger {
                events: folding.ledger_batch,
            });
        } else if state::fold_wanted(mem.log.bytes, folding.state_log_bytes, &folding.state_size) {
            folding.asked = helper.ask(Ask::State);
        }
    }
    Ok(false)
}

/// Does some of it.
pub(super) fn step(conn: &Connection, mem: &mut Mem) -> Result<(), Fault> {
    mem.folding.stepped = None;
    if let Some(fold) = &mut mem.folding.ledger {
        fold.step(conn)?;
        mem.folding.stepped = Some(Step::Ledger);
    } else if let Some(fold) = &mem.folding.state {
        fold.step(conn, &mem.folding.state_size)?;
        mem.folding.stepped = Some(Step::State);
    }
    Ok(())
}

/// The step is on the disk, or was undone.
pub(super) fn finish(mem: &mut Mem, result: Result<()>) {
    match (result, mem.folding.stepped.take()) {
        (Err(error), _) => {
            // Begun again from the file: whatever was done of it is found there.
            mem.folding.ledger = None;
            mem.folding.state = None;
            mem.folding.failed = Some(error);
        }
        (Ok(()), Some(Step::Ledger)) => {
            if let Some(done) = mem.folding.ledger.as_mut().and_then(ledger::Fold::advance) {
                mem.folding.ledger = None;
                mem.forget_recent(done);
            }
        }
        (Ok(()), Some(Step::State)) => {
            if let Some(bytes) = mem.folding.state.as_mut().and_then(state::Fold::advance) {
                mem.folding.state = None;
                mem.log.bytes = mem.log.bytes.saturating_sub(bytes);
            }
        }
        (Ok(()), None) => {}
    }
}
