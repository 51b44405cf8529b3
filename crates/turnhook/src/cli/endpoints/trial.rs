//! `turnhook endpoints test`.

use axum::http::StatusCode;
use clap::{
    Args,
    builder::{PossibleValue, PossibleValuesParser, TypedValueParser},
};
use turnhook_admin::CASES;
use turnhook_dispatcher::{
    client::Client,
    clock::wall_clock,
    config::EndpointConfig,
    provider::account::{Account, Prepared},
    samples::Case,
};
use turnhook_reducer::{event::EventType, time::Timestamp};

use super::{
    super::{
        args::{ConfigArgs, event_type},
        error::CliError,
        output::{self, print},
    },
    find::find,
};
use crate::trial::{self, Tried};

/// Try an endpoint: a webhook is sent a signed `endpoint.ping` or a sample; of a billing product it is shown what would be
/// sent, and nothing is billed
#[derive(Debug, Args)]
#[command(after_help = "\
Example:
  $ turnhook endpoints test billing
  $ turnhook endpoints test billing --type session.end --case lower-bound

  It goes straight to the endpoint, needs neither a store nor a running turnhook, and is not tried again.
  What it sends has an id that begins with evt_test_, and \"test\": true: receivers bill nobody for it.
  A billing product is asked something that changes nothing, where it has such a call.")]
pub(super) struct Test {
    #[command(flatten)]
    config: ConfigArgs,
    /// The endpoint's name
    name: String,
    /// Send a sample of this type
    #[arg(long, value_parser = event_type(), value_name = "TYPE")]
    r#type: Option<EventType>,
    /// What is special about the sample
    #[arg(long, value_parser = case(), default_value = CASES[0].0)]
    case: Case,
}

fn case() -> impl TypedValueParser<Value = Case> {
    let names = CASES.map(|(name, about)| PossibleValue::new(name).help(about));
    PossibleValuesParser::new(names).try_map(|name| {
        let known = Case::ALL.into_iter().find(|(known, _)| *known == name);
        known.map(|(_, case)| case).ok_or("no such sample")
    })
}

impl Test {
    pub(super) async fn run(self) -> Result<(), CliError> {
        let config = self.config.load()?;
        let endpoint = find(&config.endpoints, &self.name)?;
        let client = Client::new(endpoint).map_err(|error| CliError::Unusable(error.to_string()))?;
        let at = wall_clock();
        match &endpoint.account {
            Some(account) => self.product(account, endpoint, &client, at).await,
            None => self.webhook(endpoint, &client, at).await,
        }
    }

    async fn webhook(
        &self,
        endpoint: &EndpointConfig,
        client: &Client,
        at: Timestamp,
    ) -> Result<(), CliError> {
        let sample = self.r#type.map(|of| (of, self.case));
        let tried = trial::webhook(endpoint, client, sample, at).await;
        say(&tried)?;
        match tried.error {
            None => Ok(()),
            Some(error) => Err(CliError::failed(format!("not delivered: {error}"))),
        }
    }

    /// Shows what would be sent, and asks whether the credentials are good.
    async fn product(
        &self,
        account: &Account,
        endpoint: &EndpointConfig,
        client: &Client,
        at: Timestamp,
    ) -> Result<(), CliError> {
        let event_type = self.r#type.unwrap_or(EventType::Usage);
        let what = format!("a sample of {}", event_type.as_str());
        let prepared = trial::prepared(account, endpoint, (event_type, self.case), at);
        show(account, endpoint, client, &what, &prepared)?;
        let Some(tried) = trial::probe(account, client).await else {
            return print(
                "\nnothing was sent: it has no call that changes nothing, so its credentials are not tried\n",
            );
        };
        if tried.status.is_some() {
            print(&format!("\n{}: ", tried.sent))?;
            say(&tried)?;
        }
        tried.error.map_or(Ok(()), |error| Err(CliError::failed(error)))
    }
}

/// Prints the request that a delivery makes, or why it makes none.
pub(super) fn show(
    account: &Account,
    endpoint: &EndpointConfig,
    client: &Client,
    what: &str,
    prepared: &Prepared,
) -> Result<(), CliError> {
    let requests = trial::requests(account, endpoint, client, what, prepared).map_err(CliError::failed)?;
    requests
        .iter()
        .try_for_each(|request| print(&format!("{request}\n")))
}

fn say(tried: &Tried) -> Result<(), CliError> {
    // With its name, where it has one: `401 Unauthorized`.
    let status = tried.status.and_then(|status| StatusCode::from_u16(status).ok());
    let status = status.map_or_else(|| "no answer".to_owned(), |status| status.to_string());
    print(&format!("{status} in {} ms\n", tried.latency.as_millis()))?;
    let body = String::from_utf8_lossy(tried.answer.get(..1024).unwrap_or(&tried.answer));
    if body.trim().is_empty() {
        return Ok(());
    }
    print(&format!("{}\n", output::name(body.replace('\n', " ").as_bytes())))
}
