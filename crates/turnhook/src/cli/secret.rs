//! `turnhook secret`.

use clap::Args;
use secrecy::ExposeSecret;
use turnhook_dispatcher::signature;

use super::{error::CliError, output::print};

/// Make a secret to sign webhooks with
#[derive(Debug, Args)]
#[command(after_help = "\
Example:
  $ turnhook secret
  whsec_…

  It goes into `secrets` of an [[endpoint]], and to whoever runs the receiver. As a file for `secrets_file`,
  which the service of the package can read and others cannot:
  $ turnhook secret | install -m 0640 -g turnhook /dev/stdin /etc/turnhook/billing.secret")]
pub(super) struct Secret {}

impl Secret {
    pub(super) fn run(self) -> Result<(), CliError> {
        let (_, text) = signature::Secret::generate().map_err(CliError::failed)?;
        print(&format!("{}\n", text.expose_secret()))
    }
}
