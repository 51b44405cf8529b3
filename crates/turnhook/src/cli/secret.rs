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

  It goes into `secrets` of an [[endpoint]], and to whoever runs the receiver.
  $ (umask 077; turnhook secret > /etc/turnhook/billing.secret)     # for `secrets_file`")]
pub(super) struct Secret {}

impl Secret {
    pub(super) fn run(self) -> Result<(), CliError> {
        let (_, text) = signature::Secret::generate().map_err(CliError::failed)?;
        print(&format!("{}\n", text.expose_secret()))
    }
}
