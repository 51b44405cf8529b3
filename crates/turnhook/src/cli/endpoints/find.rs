//! An endpoint by its name.

use turnhook_dispatcher::config::EndpointConfig;

use crate::cli::error::CliError;

/// The endpoint of this name.
pub(super) fn find<'a>(endpoints: &'a [EndpointConfig], name: &str) -> Result<&'a EndpointConfig, CliError> {
    endpoints.iter().find(|one| one.name == name).ok_or_else(|| {
        let known: Vec<&str> = endpoints.iter().map(|one| one.name.as_str()).collect();
        CliError::failed(format!(
            "no endpoint named {name:?} is configured; known: {}",
            known.join(", ")
        ))
    })
}
