//! `turnhook endpoints test`.

use bytes::Bytes;
use clap::{Args, ValueEnum};
use turnhook_dispatcher::{
    body::ping_body,
    client::{Answer, Client},
    config::EndpointConfig,
    include::included,
    provider::{
        account::{Account, Prepared},
        batch::Heard,
    },
    samples::{self, Case},
    verdict::{Verdict, verdict},
};
use turnhook_reducer::{
    event::{EventId, EventType},
    time::Timestamp,
};

use super::{
    super::{CliError, ConfigArgs, output, print, store},
    find, shown_url,
};

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
    #[arg(long, value_enum, value_name = "TYPE")]
    r#type: Option<Type>,
    /// What is special about the sample
    #[arg(long, value_enum, default_value_t)]
    case: CaseArg,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum Type {
    #[value(name = "session.start")]
    Start,
    #[value(name = "session.usage")]
    Usage,
    #[value(name = "session.end")]
    End,
    #[value(name = "quota.reached")]
    QuotaReached,
    #[value(name = "user.blocked")]
    UserBlocked,
    #[value(name = "user.unblocked")]
    UserUnblocked,
}

#[derive(Clone, Copy, Debug, Default, ValueEnum)]
enum CaseArg {
    /// All that coturn said was heard
    #[default]
    Exact,
    /// Something may have been missed
    LowerBound,
    /// Its session corrects another
    Continues,
    /// No user, no realm
    NoUser,
    /// More allocations than are listed
    Many,
}

impl From<Type> for EventType {
    fn from(of: Type) -> EventType {
        match of {
            Type::Start => EventType::Start,
            Type::Usage => EventType::Usage,
            Type::End => EventType::End,
            Type::QuotaReached => EventType::QuotaReached,
            Type::UserBlocked => EventType::UserBlocked,
            Type::UserUnblocked => EventType::UserUnblocked,
        }
    }
}

impl From<CaseArg> for Case {
    fn from(of: CaseArg) -> Case {
        match of {
            CaseArg::Exact => Case::Exact,
            CaseArg::LowerBound => Case::LowerBound,
            CaseArg::Continues => Case::Continues,
            CaseArg::NoUser => Case::NoUser,
            CaseArg::Many => Case::Many,
        }
    }
}

impl Test {
    pub(super) async fn run(self) -> Result<(), CliError> {
        let config = self.config.load()?;
        let endpoint = find(&config.endpoints, &self.name)?;
        let client = Client::new(endpoint).map_err(|error| CliError::Unusable(error.to_string()))?;
        let at = store::now();
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
        let (id, body) = match self.r#type {
            Some(event_type) => {
                let sample = samples::payload(event_type.into(), self.case.into(), at);
                (test_id(at), marked(&included(&sample, endpoint.include)))
            }
            None => (test_id(at), marked(&ping_body(at, &endpoint.name))),
        };
        let answer = client.send(&id, body, at).await;
        let status = answer.status.map(|status| status.to_string());
        say(status.as_deref(), answer.latency.as_millis(), &answer.body)?;
        match verdict(answer.status) {
            Verdict::Delivered => Ok(()),
            _ => Err(not_delivered(answer, status)),
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
        let event_type = self.r#type.map_or(EventType::Usage, EventType::from);
        let sample = samples::payload(event_type, self.case.into(), at);
        let body = included(&sample, endpoint.include);
        let what = format!("a sample of {}", event_type.as_str());
        show(
            account,
            endpoint,
            client,
            &what,
            &account.prepare(&test_id(at), &body, None, true, at),
        )?;
        let Some(probe) = account.product.probe() else {
            return print(
                "\nnothing was sent: it has no call that changes nothing, so its credentials are not tried\n",
            );
        };
        let (heard, latency) = client.perform(&probe).await;
        match heard {
            Heard::Nothing { error, .. } => Err(CliError::failed(format!("it does not answer: {error}"))),
            Heard::Answer { status, body, .. } => {
                print(&format!("\n{} {}: ", probe.method, probe.path))?;
                let is_well = (200..300).contains(&status);
                // What it has is of no interest.
                let body = if is_well { Bytes::new() } else { body };
                say(Some(&status.to_string()), latency.as_millis(), &body)?;
                if is_well {
                    Ok(())
                } else {
                    Err(CliError::failed(format!(
                        "it answered {status} to the credentials"
                    )))
                }
            }
        }
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
    let sent = match prepared {
        Prepared::Send(sent) => sent,
        Prepared::Nothing => return print(&format!("{what} comes to nothing: nothing is sent\n")),
        Prepared::Dead(why) => {
            return print(&format!(
                "{what} is a dead letter ({}): {}\n",
                why.as_str(),
                why.words()
            ));
        }
        Prepared::Waits => return print(&format!("{what} waits: its customer is not in the map\n")),
        Prepared::Early(ms) => return print(&format!("{what} waits for {ms} ms: its time has not come\n")),
    };
    let items: Vec<_> = sent.open().cloned().collect();
    for some in items.chunks(account.terms.batch.max(1)) {
        let request = account.product.request(some, 1);
        match client.rendered(&request, &shown_url(&endpoint.url)) {
            Some(text) => print(&format!("{text}\n"))?,
            None => {
                return Err(CliError::failed(
                    "the request cannot be made: it has characters that none can hold",
                ));
            }
        }
    }
    Ok(())
}

fn say(status: Option<&str>, took: u128, body: &Bytes) -> Result<(), CliError> {
    print(&format!("{} in {took} ms\n", status.unwrap_or("no answer")))?;
    let body = String::from_utf8_lossy(body.get(..1024).unwrap_or(body));
    if body.trim().is_empty() {
        return Ok(());
    }
    print(&format!("{}\n", output::name(body.replace('\n', " ").as_bytes())))
}

fn not_delivered(answer: Answer, status: Option<String>) -> CliError {
    let status = status.unwrap_or_else(|| "nothing".to_owned());
    let why = answer.error;
    CliError::failed(format!(
        "not delivered: {}",
        why.unwrap_or_else(|| format!("the endpoint answered {status}"))
    ))
}

fn id_at(at: Timestamp) -> EventId {
    let mut id = EventId([0; 16]);
    id.0[..8].copy_from_slice(&at.0.to_be_bytes());
    id
}

/// Of an event that nobody is billed for.
fn test_id(at: Timestamp) -> String {
    id_at(at).to_string().replacen("evt_", "evt_test_", 1)
}

/// The payload with `"test": true` in front of its data.
fn marked(body: &Bytes) -> Bytes {
    let text = String::from_utf8_lossy(body);
    Bytes::from(text.replacen("\"data\":", "\"test\":true,\"data\":", 1))
}
