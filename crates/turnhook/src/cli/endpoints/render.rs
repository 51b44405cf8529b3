//! `turnhook endpoints render`.

use clap::Args;
use turnhook_dispatcher::{client::Client, clock::wall_clock, provider::sent::Sent};
use turnhook_reducer::event::EventId;

use super::{
    super::{args::ConfigArgs, error::CliError, output::print, store},
    find::find,
    trial,
};
use crate::{engine::sent_body, trial::shown_url};

/// Print the request that an event makes at an endpoint, to the byte; nothing is sent
#[derive(Debug, Args)]
#[command(after_help = "\
Example:
  $ turnhook endpoints render openmeter evt_06epcj2hhm0000000000000001

  What was sent is shown as it was sent. What was not, is shown as it would be sent now. Credentials are hidden.")]
pub(super) struct Render {
    #[command(flatten)]
    config: ConfigArgs,
    /// The endpoint's name
    name: String,
    /// The event
    event: EventId,
}

impl Render {
    pub(super) async fn run(self) -> Result<(), CliError> {
        let (config, store) = store::open(&self.config).await?;
        let endpoint = find(&config.endpoints, &self.name)?;
        let client = Client::new(endpoint).map_err(|error| CliError::Unusable(error.to_string()))?;
        let details = store.ledger().delivery(self.event).await?;
        let Some(delivery) = details.iter().find(|detail| detail.row.endpoint == endpoint.name) else {
            return Err(CliError::failed(format!(
                "{} has no delivery to {}: it is not known, or the endpoint does not hear of it",
                self.event, endpoint.name
            )));
        };
        let body = sent_body(
            &delivery.body,
            store.outbox().included().await?.of(delivery.row.id),
        );
        let Some(account) = &endpoint.account else {
            return print(&format!(
                "POST {}\ncontent-type: application/json\nwebhook-id: {}\nwebhook-timestamp: (of the attempt)\n\
                 webhook-signature: (of the attempt)\n\n{}\n",
                shown_url(&endpoint.url),
                self.event,
                String::from_utf8_lossy(&body)
            ));
        };
        let sent = delivery.sent.as_deref().and_then(Sent::from_bytes);
        let prepared = match sent {
            Some(sent) => turnhook_dispatcher::provider::account::Prepared::Send(sent.all_open()),
            None => account.prepare(&self.event.to_string(), &body, None, true, wall_clock()),
        };
        trial::show(account, endpoint, &client, &self.event.to_string(), &prepared)
    }
}
