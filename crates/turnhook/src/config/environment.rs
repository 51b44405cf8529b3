//! What of the environment is configuration: `TURNHOOK_SOURCE__0__PASSWORD` is `source[0].password`.

use std::collections::BTreeMap;

use super::{
    Origin, Problem,
    locate::{self, Step},
};

pub(super) struct EnvValue {
    pub(super) variable: String,
    pub(super) path: Vec<Step>,
    pub(super) raw: String,
}

impl EnvValue {
    pub(super) fn is_in_a_list(&self) -> bool {
        self.path.iter().any(|step| matches!(step, Step::Index(_)))
    }
}

/// The variables that set something, by the path of what they set; and a warning for each that looks as if it should.
///
/// Other programs have variables that begin with `TURNHOOK_`, too (a receiver's `TURNHOOK_SECRET`): what names no table
/// and no key of the top is not ours. Two underscores make it ours, so that a mistake in a table's name is found.
pub(super) fn variables(env: &[(String, String)]) -> (BTreeMap<String, EnvValue>, Vec<Problem>) {
    let (mut found, mut warnings) = (BTreeMap::new(), Vec::new());
    for (variable, raw) in env {
        let Some(name) = variable.strip_prefix("TURNHOOK_") else {
            continue;
        };
        // The first two are options of the command line.
        if matches!(name, "CONFIG" | "LISTEN_SECRET") || is_service_link(name) {
            continue;
        }
        let lower = name.to_ascii_lowercase();
        if !lower.contains("__") && !is_top(&lower) {
            if let Some(meant) = meant(&lower) {
                warnings.push(Problem {
                    origin: Origin::Env(variable.clone()),
                    key: String::new(),
                    message: format!(
                        "is no key of the configuration, and does nothing; did you mean {meant}?"
                    ),
                });
            }
            continue;
        }
        let path: Vec<Step> = lower
            .split("__")
            .map(|part| {
                part.parse()
                    .map_or_else(|_| Step::Key(part.to_owned()), Step::Index)
            })
            .collect();
        let value = EnvValue {
            variable: variable.clone(),
            path,
            raw: raw.clone(),
        };
        found.insert(locate::display(&value.path), value);
    }
    (found, warnings)
}

/// Whether it is a table, or a key that stands before the first one.
fn is_top(name: &str) -> bool {
    locate::tables().contains(&name)
        || locate::known_keys()
            .iter()
            .any(|key| key.table.is_empty() && key.name == name)
}

/// The variable that was probably meant: with two underscores after a table's name, or a slip of the pen.
fn meant(name: &str) -> Option<String> {
    let keys = locate::known_keys();
    for table in locate::tables() {
        if let Some(rest) = name.strip_prefix(table).and_then(|rest| rest.strip_prefix('_'))
            && keys.iter().any(|key| key.table == table && key.name == rest)
        {
            let number = if locate::is_list(table) { "0__" } else { "" };
            return Some(format!("TURNHOOK_{table}__{number}{rest}").to_ascii_uppercase());
        }
    }
    let tops = keys.iter().filter(|key| key.table.is_empty()).map(|key| key.name);
    let near = tops
        .map(|top| (strsim::damerau_levenshtein(top, name), top))
        .min()?;
    (near.0 <= 2).then(|| format!("TURNHOOK_{}", near.1.to_ascii_uppercase()))
}

/// Kubernetes puts `TURNHOOK_PORT=tcp://…`, `TURNHOOK_SERVICE_HOST=…` and more of the kind into every
/// container beside a Service named `turnhook`: nobody means them as configuration.
fn is_service_link(name: &str) -> bool {
    ["SERVICE_HOST", "SERVICE_PORT", "PORT"].iter().any(|link| {
        name.strip_prefix(link)
            .is_some_and(|rest| rest.is_empty() || (rest.starts_with('_') && !rest.starts_with("__")))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_ours_and_what_only_looks_so() {
        let read = |name: &str| {
            let (found, warnings) = variables(&[(name.to_owned(), "x".to_owned())]);
            (
                found.into_keys().next(),
                warnings.into_iter().next().map(|warning| warning.to_string()),
            )
        };
        assert_eq!(
            read("TURNHOOK_STORE__PATH"),
            (Some("store.path".to_owned()), None)
        );
        assert_eq!(
            read("TURNHOOK_SHUTDOWN_GRACE").0.as_deref(),
            Some("shutdown_grace")
        );
        assert_eq!(
            read("TURNHOOK_SOURCE__0__NAME").0.as_deref(),
            Some("source[0].name")
        );
        assert_eq!(
            read("TURNHOOK_SESION__LINGER").0.as_deref(),
            Some("sesion.linger")
        );
        for other in [
            "TURNHOOK_SECRET",
            "TURNHOOK_HOME",
            "TURNHOOK_PORT_80_TCP_ADDR",
            "TURNHOOK_CONFIG",
            "PATH",
        ] {
            assert_eq!(read(other), (None, None), "{other}");
        }
        for (wrong, right) in [
            ("TURNHOOK_STORE_PATH", "TURNHOOK_STORE__PATH"),
            ("TURNHOOK_SOURCE_PASSWORD", "TURNHOOK_SOURCE__0__PASSWORD"),
            ("TURNHOOK_SHUTDOWN_GRASE", "TURNHOOK_SHUTDOWN_GRACE"),
        ] {
            let (found, warning) = read(wrong);
            assert_eq!(found, None);
            let expected = format!(
                "environment: {wrong}: is no key of the configuration, and does nothing; did you mean {right}?"
            );
            assert_eq!(warning, Some(expected));
        }
    }
}
