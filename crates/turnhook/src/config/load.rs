//! From the layers to a configuration that is checked.

use super::{
    Config, ConfigError, check,
    layers::{Input, Layers},
    withheld,
};

/// Merges the layers and checks the result.
///
/// # Errors
/// [`ConfigError::Wrong`] with everything that was found wrong: all relations between settings, but only
/// the first value of a wrong type or unknown name, since the rest cannot be read then.
pub fn load(input: &Input) -> Result<Config, ConfigError> {
    loaded(Layers::merge(input)?)
}

/// The same for whoever only looks into the store: no file that a source or an endpoint names is read, and what it would
/// have held is not what the configuration has in its place.
///
/// # Errors
/// As [`load`].
pub fn load_for_store(input: &Input) -> Result<Config, ConfigError> {
    let mut layers = Layers::merge(input)?;
    withheld::withhold(&mut layers.merged);
    loaded(layers)
}

fn loaded(layers: Layers) -> Result<Config, ConfigError> {
    let file = layers.read()?;
    check::check(file, &layers)
}
