//! The relations between settings: everything that types alone do not say.

use std::{
    collections::HashSet,
    fs,
    net::SocketAddr,
    path::{Path, PathBuf},
};

use turnhook_reducer::rules::UserPattern;

use super::{
    Config, ConfigError, Origin, Problem, Secret, SecretUrl, Span, StoreKind,
    file::{self, File},
    layers::Layers,
    locate::Step,
};

mod admin;
mod control;
mod endpoint;
mod gate;
mod listeners;
mod place;
mod provider;
mod quota;
mod readable;
mod source;
mod store;
mod twice;

/// Everything that is wrong, or the configuration.
pub(super) fn check(file: File, layers: &Layers) -> Result<Config, ConfigError> {
    let mut check = Check {
        layers,
        problems: Vec::new(),
        warnings: layers.warnings.clone(),
    };
    let config = check.file(file);
    match config {
        Some(config) if check.problems.is_empty() => Ok(Config {
            warnings: check.warnings,
            kept_from_group: readable::kept_from_group(&config.effective, layers),
            ..config
        }),
        _ => {
            check.problems.sort_by_key(|problem| match problem.origin {
                Origin::File { line, .. } => line,
                _ => None,
            });
            Err(ConfigError::Wrong(check.problems))
        }
    }
}

/// Collects problems. A method that returns `None` has put down why.
struct Check<'a> {
    layers: &'a Layers,
    problems: Vec<Problem>,
    warnings: Vec<Problem>,
}

/// A path into the file.
macro_rules! key_path {
    ($($step:expr),*) => { [$(Step::from($step)),*] };
}
use key_path;

impl From<&str> for Step {
    fn from(key: &str) -> Step {
        Step::Key(key.to_owned())
    }
}

impl From<usize> for Step {
    fn from(index: usize) -> Step {
        Step::Index(index)
    }
}

impl Check<'_> {
    /// Puts down a problem; `None`, for the caller to return.
    fn wrong<T>(&mut self, path: &[Step], message: impl Into<String>) -> Option<T> {
        let problem = self.layers.problem(path, message.into());
        self.problems.push(problem);
        None
    }

    /// Puts down what is right and can still be a mistake.
    fn doubtful(&mut self, path: &[Step], message: impl Into<String>) {
        let warning = self.layers.problem(path, message.into());
        self.warnings.push(warning);
    }

    fn file(&mut self, mut file: File) -> Option<Config> {
        if file.source.is_empty() {
            let why = if self.layers.has_file() {
                "missing"
            } else {
                "missing: there is no turnhook.toml here or in /etc/turnhook, and no --config FILE"
            };
            let advice =
                "turnhook needs at least one [[source]] to listen to (examples/turnhook.toml shows them)";
            self.wrong::<()>(&key_path!["source"], format!("{why}; {advice}"));
        }
        let http = self.address(&key_path!["http", "listen"], &file.http.listen);
        self.hosts("http", &file.http.hosts);
        let admin = file.admin.as_ref().map(|admin| self.admin(admin));
        self.session(&file.session);
        let store = self.store(&file.store);
        self.limits(&file);
        self.log(&file.log);
        let sources: Vec<_> = file
            .source
            .iter()
            .enumerate()
            .filter_map(|(index, source)| Some((index, self.source(index, source)?)))
            .collect();
        let mut others = vec![(key_path!["http", "listen"].to_vec(), http)];
        others.extend(
            file.admin
                .iter()
                .map(|admin| (key_path!["admin", "listen"].to_vec(), admin.listen.parse().ok())),
        );
        others.extend(file.gate.iter().enumerate().map(|(index, gate)| {
            (
                key_path!["gate", index, "listen"].to_vec(),
                gate.listen.parse().ok(),
            )
        }));
        self.listeners(sources.iter().map(|(index, source)| (*index, source)), others);
        let endpoints: Vec<_> = file
            .endpoint
            .iter()
            .enumerate()
            .filter_map(|(index, endpoint)| self.endpoint(index, endpoint))
            .collect();
        self.unique("source", file.source.iter().map(|source| source.name.as_str()));
        self.nothing_billed_twice(&endpoints, &file.endpoint);
        self.asked_for_in_vain(&file);
        self.billed_by_an_end_that_may_never_come(&file);
        self.unique(
            "endpoint",
            file.endpoint.iter().map(|endpoint| endpoint.name.as_str()),
        );
        let controls = self.controls(&file);
        let gates = self.gates(&file);
        let enforce = self.enforce(&file);
        let quotas = self.quotas(&file);
        let store = store?;
        if matches!(store.kind, StoreKind::Postgres(_)) {
            // Its default is of no meaning then.
            file.store.path = PathBuf::new();
        }
        Some(Config {
            shutdown_grace: file.shutdown_grace.0,
            sources: sources.into_iter().map(|(_, source)| source).collect(),
            session: file.session.clone(),
            store,
            http: http?,
            admin: match admin {
                Some(admin) => Some(admin?),
                None => None,
            },
            http_hosts: file.http.hosts.clone(),
            endpoints,
            controls,
            gates,
            enforce,
            quotas: quotas.into(),
            limits: file.limits,
            log: file.log.clone(),
            warnings: Vec::new(),
            kept_from_group: Vec::new(),
            effective: file,
        })
    }

    fn session(&mut self, session: &file::Session) {
        let at = key_path!["session", "user_pattern"];
        if let Err(why) = UserPattern::new(&session.user_pattern) {
            self.wrong::<()>(&at, why.to_string());
        }
        let interval = session.usage_interval;
        if interval > Span::seconds(0) && interval < Span::seconds(1) {
            self.wrong::<()>(
                &key_path!["session", "usage_interval"],
                format!("{interval} is too short; it is at least 1s, or 0s for no session.usage"),
            );
        }
        let most = session.max_session;
        if most > Span::seconds(0) && most < Span::seconds(1) {
            self.wrong::<()>(
                &key_path!["session", "max_session"],
                format!("{most} is too short; it is at least 1s, or 0s for sessions of any length"),
            );
        }
    }

    fn limits(&mut self, file: &File) {
        for (name, value) in [
            ("allocations", file.limits.allocations),
            ("unconfirmed", file.limits.unconfirmed),
            ("tombstones", file.limits.tombstones),
        ] {
            if value == 0 {
                self.wrong::<()>(&key_path!["limits", name], "is 0; it is at least 1");
            }
        }
    }

    fn log(&mut self, log: &file::Log) {
        const LEVELS: [&str; 6] = ["error", "warn", "info", "debug", "trace", "off"];
        for directive in log.level.split(',') {
            let level = directive.rsplit('=').next().unwrap_or_default().trim();
            if !LEVELS.contains(&level) {
                self.wrong::<()>(
                    &key_path!["log", "level"],
                    format!("`{level}` is no level; choose error, warn, info, debug or trace, or levels by module: \"info,turnhook_dispatcher=debug\""),
                );
            }
        }
    }

    /// Names are labels in metrics, payloads and commands.
    fn name(&mut self, path: &[Step], name: &str) {
        if name.trim().is_empty() || name.chars().count() > 64 || name.chars().any(char::is_control) {
            self.wrong::<()>(
                path,
                "is a label: 1 to 64 characters, none of them control characters",
            );
        }
    }

    fn unique<'n>(&mut self, table: &str, names: impl Iterator<Item = &'n str>) {
        let mut seen = HashSet::new();
        for (index, name) in names.enumerate() {
            if !seen.insert(name) {
                self.wrong::<()>(
                    &key_path![table, index, "name"],
                    format!("`{name}` is the name of another {table}; each needs its own"),
                );
            }
        }
    }

    fn address(&mut self, path: &[Step], text: &str) -> Option<SocketAddr> {
        match text.parse() {
            Ok(address) => Some(address),
            Err(_) => self.wrong(
                path,
                format!("`{text}` is no address to listen on; write IP:PORT, like \"127.0.0.1:6380\", \"0.0.0.0:6380\" or \"[::]:6380\""),
            ),
        }
    }

    fn hosts(&mut self, table: &str, hosts: &[String]) {
        for (index, host) in hosts.iter().enumerate() {
            let is_name = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
            if host.is_empty() || !host.chars().all(is_name) {
                self.wrong::<()>(
                    &key_path![table, "hosts", index],
                    format!("`{host}` is no host's name; write it without scheme and port, like \"turnhook.example.com\""),
                );
            }
        }
    }

    /// A file that must be there later: better said now.
    fn readable(&mut self, path: &[Step], file: &Path) -> Option<PathBuf> {
        match fs::File::open(file).and_then(|open| open.metadata()) {
            Ok(metadata) if metadata.is_dir() => {
                self.wrong(path, format!("{} is a directory, not a file", file.display()))
            }
            Ok(_) => Some(file.to_owned()),
            Err(error) => self.wrong(path, unreadable(file, &error)),
        }
    }

    /// Both of a pair of files, or none.
    fn pair(
        &mut self,
        at: &[Step],
        names: [&str; 2],
        files: [Option<&Path>; 2],
    ) -> Option<Option<(PathBuf, PathBuf)>> {
        let key = |name: &str| [at, &[Step::from(name)]].concat();
        match files {
            [None, None] => Some(None),
            [Some(_), None] => self.wrong(&key(names[0]), format!("needs `{}` beside it", names[1])),
            [None, Some(_)] => self.wrong(&key(names[1]), format!("needs `{}` beside it", names[0])),
            [Some(first), Some(second)] => {
                let first = self.readable(&key(names[0]), first);
                let second = self.readable(&key(names[1]), second);
                Some(Some((first?, second?)))
            }
        }
    }

    /// The content of a secret's file, without the newline that editors put at its end.
    fn secret_file(&mut self, path: &[Step], file: &Path) -> Option<String> {
        match fs::read_to_string(file) {
            Ok(text) => {
                let text = text.trim_end_matches(['\n', '\r']);
                if text.is_empty() {
                    return self.wrong(path, format!("{} is empty", file.display()));
                }
                Some(text.to_owned())
            }
            Err(error) => self.wrong(path, unreadable(file, &error)),
        }
    }

    /// A secret given directly or by a file; an inner `None` where neither is.
    fn either(
        &mut self,
        at: &[Step],
        name: &str,
        given: Option<&Secret>,
        file: Option<&Path>,
    ) -> Option<Option<Secret>> {
        let by_file = format!("{name}_file");
        let file_key = [at, &[Step::from(by_file.as_str())]].concat();
        match (given, file) {
            (Some(_), Some(_)) => {
                self.wrong(&file_key, format!("`{name}` is given too; keep one of the two"))
            }
            (Some(given), None) if given.expose().is_empty() => self.wrong(
                &[at, &[Step::from(name)]].concat(),
                "is empty; leave it out if there is none",
            ),
            (Some(given), None) => Some(Some(given.clone())),
            (None, Some(file)) => self
                .secret_file(&file_key, file)
                .map(|text| Some(Secret::from(text))),
            (None, None) => Some(None),
        }
    }

    fn either_url(
        &mut self,
        at: &[Step],
        name: &str,
        given: Option<&SecretUrl>,
        file: Option<&Path>,
    ) -> Option<Option<SecretUrl>> {
        let given = given.map(|url| Secret(url.0.clone()));
        let found = self.either(at, name, given.as_ref(), file)?;
        Some(found.map(|secret| SecretUrl(secret.0)))
    }
}

/// Of a file that must be there.
fn unreadable(file: &Path, error: &std::io::Error) -> String {
    let cure = match error.kind() {
        std::io::ErrorKind::NotFound => "; make it, or correct its path",
        std::io::ErrorKind::PermissionDenied => {
            "; let the user that turnhook runs as read it and enter its directory"
        }
        _ => "",
    };
    format!("cannot read {}: {error}{cure}", file.display())
}
