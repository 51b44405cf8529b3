//! Controls: coturn's CLI, and which version answers there.

use turnhook_control::{Config, Connection, Version};

use super::{
    super::error::CliError,
    report::{PATIENCE, Report},
};
use crate::config::Control;

pub(super) async fn look(control: &Control, report: &mut Report) -> Result<(), CliError> {
    let what = format!("control of {}", control.source);
    let address = control.address;
    let config = Config {
        address,
        password: control.password.clone(),
        timeout: PATIENCE,
    };
    match Connection::open(&config).await {
        Ok(connection) => match connection.coturn().version {
            Some(version) if version < Version::SOUND => report.warn(
                &what,
                format!("coturn {version} answers at {address}, which is older than 4.13"),
                "take 4.13 or newer: with redis-statsdb any stranger can crash this one by a username, and it loses the \
                 messages of long names",
            ),
            Some(version) => report.ok(&what, format!("coturn {version} answers at {address}")),
            None => report.warn(
                &what,
                format!("coturn answers at {address}, and does not say its version"),
                "see that it is 4.13 or newer: with redis-statsdb any stranger can crash an older one by a username",
            ),
        },
        // It says itself what to do.
        Err(error) => report.fail(&what, error.to_string(), ""),
    }
}
