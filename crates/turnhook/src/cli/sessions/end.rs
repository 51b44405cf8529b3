//! `turnhook sessions end`.

use clap::Args;
use turnhook_dispatcher::clock::wall_clock;
use turnhook_reducer::event::SessionId;
use turnhook_store::BlockChange;

use super::super::{args::ConfigArgs, error::CliError, output::print, store};

/// End the allocations that a session has now; its user can make new ones
#[derive(Debug, Args)]
#[command(after_help = "\
Example:
  $ turnhook sessions end ses_06epcj2hhm0000000000000001 --reason abuse

  A running turnhook does it, by the [[control]] of the session's source. To keep the user away, block
  him: `turnhook block USER`.")]
pub(super) struct End {
    #[command(flatten)]
    config: ConfigArgs,
    /// The session
    #[arg(value_name = "ID")]
    id: SessionId,
    /// Why, for the log and for `data.block_reason`
    #[arg(long, default_value = "ended by hand")]
    reason: String,
}

impl End {
    pub(super) async fn run(self) -> Result<(), CliError> {
        let End { config, id, reason } = self;
        let (config, store) = store::open(&config).await?;
        let Some(session) = store.ledger().session(id).await? else {
            return Err(CliError::failed(format!("{id}: there is no such session")));
        };
        if session.row.end.is_some() {
            return Err(CliError::failed(format!("{id}: this session has ended already")));
        }
        let source = &session.row.source;
        if !config.controls.iter().any(|control| control.source == *source) {
            return Err(CliError::failed(format!(
                "{id}: its source {source:?} has no [[control]], so nobody can end it"
            )));
        }
        let change = BlockChange::EndSession(id);
        store
            .admin()
            .change_block(wall_clock(), change, &reason, &store::who())
            .await?;
        store::note(&store, "end", id.to_string(), &reason, 1).await?;
        print(&format!("{id}: its end is asked for\n"))
    }
}
