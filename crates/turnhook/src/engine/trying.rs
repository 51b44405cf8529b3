//! The endpoints as they are configured now, to be shown on the page and to be tried from it.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use serde_json::Value;
use tokio::time::timeout;
use turnhook_admin::{Sample, Trial};
use turnhook_dispatcher::{client::Client, clock::Clocks, config::EndpointConfig, samples::Case};
use turnhook_reducer::event::EventType;

use crate::{
    config::Config,
    trial::{self, Tried},
};

/// How much of an answer is shown.
const ANSWER: usize = 1024;
/// The page has to answer sooner than its own time is over, whatever the endpoint's `timeout` is.
const PATIENCE: Duration = Duration::from_secs(20);

/// Endpoints, and how they are shown.
pub(crate) struct Configured {
    pub(crate) endpoints: Vec<EndpointConfig>,
    /// By name, as `check` prints them: secrets are hidden.
    settings: BTreeMap<String, Value>,
}

impl Configured {
    pub(crate) fn of(config: &Config) -> Arc<Configured> {
        let effective = config.to_json();
        let tables = effective["endpoint"].as_array().cloned().unwrap_or_default();
        let named = |table: Value| Some((table["name"].as_str()?.to_owned(), table));
        Arc::new(Configured {
            endpoints: config.endpoints.clone(),
            settings: tables.into_iter().filter_map(named).collect(),
        })
    }

    pub(crate) fn settings(&self, name: &str) -> Value {
        self.settings.get(name).cloned().unwrap_or_default()
    }

    /// `None`: there is no such endpoint.
    pub(crate) async fn try_one(&self, name: &str, sample: Sample) -> Option<Trial> {
        let endpoint = self.endpoints.iter().find(|endpoint| endpoint.name == name)?;
        let tried = timeout(PATIENCE, tried(endpoint, &sample)).await;
        Some(tried.unwrap_or_else(|_| Trial {
            error: Some(format!(
                "no answer within {PATIENCE:?}: the page waits no longer, a delivery waits as long as `timeout` says"
            )),
            latency_ms: millis(PATIENCE),
            ..Trial::default()
        }))
    }
}

async fn tried(endpoint: &EndpointConfig, sample: &Sample) -> Trial {
    let client = match Client::new(endpoint) {
        Ok(client) => client,
        Err(error) => {
            return Trial {
                error: Some(error.to_string()),
                ..Trial::default()
            };
        }
    };
    let at = Clocks::system().wall();
    let case = Case::ALL.into_iter().find(|(name, _)| *name == sample.case);
    let case = case.map_or(Case::Exact, |(_, case)| case);
    let Some(account) = &endpoint.account else {
        let of = sample.event_type.map(|event_type| (event_type, case));
        return answer(trial::webhook(endpoint, &client, of, at).await, Vec::new());
    };
    let event_type = sample.event_type.unwrap_or(EventType::Usage);
    let what = format!("a sample of {}", event_type.as_str());
    let prepared = trial::prepared(account, endpoint, (event_type, case), at);
    match trial::requests(account, endpoint, &client, &what, &prepared) {
        Err(error) => Trial {
            error: Some(error.to_owned()),
            ..Trial::default()
        },
        Ok(requests) => match trial::probe(account, &client).await {
            Some(tried) => answer(tried, requests),
            None => Trial {
                requests,
                ..Trial::default()
            },
        },
    }
}

fn answer(tried: Tried, requests: Vec<String>) -> Trial {
    Trial {
        sent: tried.sent,
        status: tried.status,
        latency_ms: millis(tried.latency),
        answer: tried.answer.get(..ANSWER).unwrap_or(&tried.answer).to_vec(),
        error: tried.error,
        means: tried.means.to_owned(),
        requests,
    }
}

fn millis(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The page offers what there is.
    #[test]
    fn all_cases_are_known() {
        let known = Case::ALL.map(|(name, _)| name);
        assert_eq!(turnhook_admin::CASES.map(|(name, _)| name), known);
    }
}
