//! What `--heal` asks a running turnhook to bill.

use std::{collections::BTreeMap, time::Duration};

use serde_json::{Value, json};
use turnhook_reducer::{Identity, event::SessionId, heal::Heal, usage::Usage};
use turnhook_store::{HealRow, SourceId, Store};

use super::{
    super::{error::CliError, output, store, units::bytes},
    Compared, Finding, Verdict,
};
use crate::{config::Config, engine::settings, reconcile::heal::Not};

/// How long is waited for a running turnhook to have billed it. It looks twice a second.
const PATIENCE: Duration = Duration::from_secs(10);
/// Between looks at how far it is.
const LOOK: Duration = Duration::from_millis(100);

/// What is missing of one, and what of it is billed.
struct Planned {
    session: SessionId,
    heal: Heal,
    usage: Usage,
}

/// What can be set right, and what came of it.
pub(super) struct Healing {
    planned: Vec<Planned>,
    /// Asked for, now or before.
    pub(super) asked: usize,
    /// Billed while this waited.
    billed: usize,
    /// The running turnhook would not.
    refused: usize,
    identity: Identity,
}

impl Healing {
    /// Of what was found.
    pub(super) fn of(
        config: &Config,
        store: &Store,
        source: &str,
        compared: &Compared,
    ) -> Result<Healing, CliError> {
        let identity = Identity {
            store: store.store_id(),
            source: source.into(),
        };
        let mut planned = Vec::new();
        // How it is billed is the source's matter; one that is not configured any more has nobody to emit it.
        if let Some(source) = config.sources.iter().find(|s| s.name == source) {
            let rules = settings::rules(&config.session, &config.limits, source)
                .map_err(|error| CliError::Unusable(error.to_string()))?;
            let may = compared
                .findings
                .iter()
                .filter_map(|f| f.heal.as_ref()?.as_ref().ok());
            planned.extend(may.map(|heal| Planned {
                session: heal.session(&identity),
                usage: heal.usage(&rules),
                heal: (**heal).clone(),
            }));
        }
        Ok(Healing {
            planned,
            asked: 0,
            billed: 0,
            refused: 0,
            identity,
        })
    }

    /// Asks for all of it, and puts that on record. Waits for a moment where turnhook runs.
    pub(super) async fn ask(&mut self, store: &Store, source: SourceId, name: &str) -> Result<(), CliError> {
        if self.planned.is_empty() {
            return Ok(());
        }
        let mut rows = Vec::new();
        for planned in &self.planned {
            rows.push(HealRow {
                session: planned.session,
                source,
                data: serde_json::to_vec(&planned.heal).map_err(CliError::failed)?,
            });
        }
        let new = store.admin().ask_to_heal(rows).await?;
        self.asked = self.planned.len();
        if new > 0 {
            let billed = bytes(self.billed());
            let detail = format!(
                "by coturn's log: {} sessions, {billed} to bill",
                self.planned.len()
            );
            store::note(store, "heal", name.to_owned(), &detail, new as u64).await?;
        }
        if !store.is_run_on().await? {
            return Ok(());
        }
        let deadline = tokio::time::Instant::now() + PATIENCE;
        loop {
            self.billed = 0;
            for planned in &self.planned {
                self.billed += usize::from(store.ledger().session(planned.session).await?.is_some());
            }
            let waiting = store.admin().to_heal(usize::MAX).await?;
            let waits = |planned: &&Planned| waiting.iter().any(|row| row.session == planned.session);
            let over = self.planned.len() - self.planned.iter().filter(waits).count();
            self.refused = over.saturating_sub(self.billed);
            if over == self.planned.len() || tokio::time::Instant::now() > deadline {
                // Billed and crossed out between the two looks.
                if self.refused == 0 {
                    return Ok(());
                }
                self.billed = 0;
                for planned in &self.planned {
                    self.billed += usize::from(store.ledger().session(planned.session).await?.is_some());
                }
                self.refused = over.saturating_sub(self.billed);
                self.asked -= self.refused;
                return Ok(());
            }
            tokio::time::sleep(LOOK).await;
        }
    }

    fn billed(&self) -> u64 {
        let all = self.planned.iter().map(|planned| planned.usage.billable_bytes);
        all.fold(0, u64::saturating_add)
    }

    /// Of one finding: what is billed, or why nothing is. Null where the log has no more than the ledger.
    pub(super) fn json(&self, finding: &Finding) -> Value {
        match &finding.heal {
            None => Value::Null,
            Some(Err(not)) => json!({ "not": not.as_str() }),
            Some(Ok(heal)) => {
                let session = heal.session(&self.identity);
                match self.planned.iter().find(|planned| planned.session == session) {
                    None => json!({ "not": "source_not_configured" }),
                    Some(planned) => json!({
                        "session": session.to_string(),
                        "continues": planned.heal.continues.to_string(),
                        "billable_bytes": planned.usage.billable_bytes,
                    }),
                }
            }
        }
    }

    pub(super) fn summary(&self) -> Value {
        json!({
            "possible": self.planned.len(),
            "asked": self.asked,
            "told": self.billed,
            "refused": self.refused,
            "billable_bytes": self.billed(),
        })
    }

    pub(super) fn text(&self, compared: &Compared, wanted: bool) -> String {
        let mut text = String::new();
        let (all, billed) = (self.planned.len(), bytes(self.billed()));
        if all > 0 && !wanted {
            text += &format!("--heal would set {all} of them right: {billed} more to bill\n");
        }
        for planned in &self.planned {
            text += &format!(
                "  {} of {} continues {}: {} to bill\n",
                planned.session,
                output::name(&planned.heal.username),
                planned.heal.continues,
                bytes(planned.usage.billable_bytes),
            );
        }
        if self.asked > 0 {
            text += &format!("{} sessions set others right: {billed} to bill; ", self.asked);
            text += &match (self.billed, self.asked.saturating_sub(self.billed)) {
                (_, 0) => "all of them are billed\n".to_owned(),
                (billed, waiting) => format!("{billed} are billed, {waiting} wait for a running turnhook\n"),
            };
        }
        if self.refused > 0 {
            text += &format!(
                "{} are refused: coturn may yet say itself what was missed; ask again in a day\n",
                self.refused
            );
        }
        let mut reasons: BTreeMap<Not, usize> = BTreeMap::new();
        let wrong = compared
            .findings
            .iter()
            .filter(|f| f.verdict == Verdict::StreamLess);
        for not in wrong.filter_map(|f| f.heal.as_ref()?.as_ref().err()) {
            *reasons.entry(*not).or_default() += 1;
        }
        for (not, count) in reasons {
            text += &format!("not set right: {count}: {}\n", not.why());
        }
        text
    }
}
