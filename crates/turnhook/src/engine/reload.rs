//! The configuration, read again while the program runs (SIGHUP). What can be changed without closing a socket is:
//! endpoints, passwords and certificates of `direct` sources, the page's certificate, secrets of gates, limits, quotas,
//! the log's level. What needs a restart is said, and left as it was. A wrong configuration changes nothing.

use std::{collections::BTreeSet, sync::Arc};

use futures_util::future::join_all;
use secrecy::ExposeSecret as _;
use serde_json::Value;
use tokio::{signal::unix::Signal, sync::watch};
use tokio_rustls::TlsAcceptor;
use tracing::{error, info, warn};
use turnhook_control::gate;
use turnhook_dispatcher::{config::EndpointConfig, dispatcher::Dispatcher};
use turnhook_subscriber::{
    direct::{DirectConfig, Keys},
    source::SourceConfig,
};

use super::{
    clock::Clock,
    deadline::Stop,
    fan_out::{FanOut, includes},
    outbox, settings,
    supervisor::Ended,
    systemd,
    trying::Configured,
};
use crate::{
    config::{self, Config, Limits, Source, SourceKind, StoreKind, quota::Quota},
    http::tls,
    logging::LevelSwitch,
    metrics::Metrics,
};

/// Reads the configuration as at the start; what is wrong with it, if anything is.
pub type Load = Arc<dyn Fn() -> Result<Config, String> + Send + Sync>;

/// What a reload is asked by, and what it needs that the program has.
pub struct Reload {
    /// SIGHUP.
    pub asked: Signal,
    /// The configuration as it is now.
    pub load: Load,
    /// Of the log.
    pub level: LevelSwitch,
}

pub(crate) struct Reloader {
    pub(crate) reload: Reload,
    /// What the program was started with: of what needs a restart, it still holds.
    pub(crate) started: Config,
    /// What holds of the rest.
    pub(crate) endpoints: watch::Sender<Arc<Configured>>,
    pub(crate) keys: Vec<(String, Keys)>,
    /// As they stood in the configuration at the start.
    pub(crate) gates: Vec<gate::Keys>,
    /// That of the page.
    pub(crate) certificate: watch::Sender<Option<TlsAcceptor>>,
    pub(crate) limits: watch::Sender<Limits>,
    pub(crate) quotas: watch::Sender<Arc<[Quota]>>,
    pub(crate) outbox: turnhook_store::Outbox,
    pub(crate) fan_out: Arc<FanOut>,
    pub(crate) clock: Arc<Clock>,
    pub(crate) metrics: Arc<Metrics>,
}

impl Reloader {
    pub(crate) async fn run(mut self, stop: Stop) -> Ended {
        loop {
            tokio::select! {
                asked = self.reload.asked.recv() => if asked.is_none() {
                    return Err("no signal can come any more".to_owned());
                },
                () = stop.begun() => return Ok(()),
            }
            systemd::reloading();
            tokio::select! {
                changed = self.reload() => match changed {
                    Ok(()) => {}
                    Err(error) => error!(error, "the configuration was read again, and nothing was changed"),
                },
                // What was not done is done at the next start.
                () = stop.begun() => return Ok(()),
            }
            systemd::ready();
        }
    }

    async fn reload(&mut self) -> Result<(), String> {
        let load = Arc::clone(&self.reload.load);
        let loaded = tokio::task::spawn_blocking(move || load()).await;
        let config = loaded.map_err(|error| error.to_string())??;
        // All that can go wrong is tried first.
        Dispatcher::check(&config.endpoints).map_err(|error| error.to_string())?;
        let keys = self.new_keys(&config)?;
        for (_, listener) in &keys {
            listener.validate().map_err(|error| error.to_string())?;
        }
        let certificate = self.new_certificate(&config)?;
        let changed = self
            .change_endpoints(&config)
            .await
            .map_err(|error| error.to_string())?;
        for (name, listener) in &keys {
            for (_, known) in self.keys.iter().filter(|(known, _)| known == name) {
                known.change(listener).map_err(|error| error.to_string())?;
            }
        }
        if let Some(certificate) = certificate {
            self.certificate.send_replace(Some(certificate));
        }
        for (was, keys) in self.started.gates.iter().zip(&self.gates) {
            let same = |gate: &&config::Gate| (gate.listen, &gate.realm) == (was.listen, &was.realm);
            if let Some(gate) = config.gates.iter().find(same) {
                keys.change(gate.secrets.clone(), gate.password.clone());
            }
        }
        let level = &config.log.level;
        if let Err(error) = self.reload.level.set(level) {
            warn!(%error, "the log keeps its level");
        }
        self.limits.send_replace(config.limits);
        if **self.quotas.borrow() != *config.quotas {
            self.quotas.send_replace(Arc::clone(&config.quotas));
        }
        for warning in &config.warnings {
            warn!("{warning}");
        }
        for what in needs_restart(&self.started, &config) {
            warn!(what, "needs a restart, and was left as it was");
        }
        info!(
            endpoints = changed.join(", "),
            level, "the configuration was read again"
        );
        Ok(())
    }

    /// That of the page, where it had one and has one: it may have been renewed.
    fn new_certificate(&self, config: &Config) -> Result<Option<TlsAcceptor>, String> {
        let tls = |config: &Config| config.admin.as_ref().and_then(|admin| admin.tls.clone());
        match (tls(&self.started), tls(config)) {
            (Some(_), Some((cert, key))) => tls::acceptor(&cert, &key).map(Some),
            _ => Ok(None),
        }
    }

    /// The listeners that are there, with the passwords and certificates of now.
    fn new_keys(&self, config: &Config) -> Result<Vec<(String, DirectConfig)>, String> {
        let mut keys = Vec::new();
        for source in &config.sources {
            let was = self.started.sources.iter().find(|was| was.name == source.name);
            if was.is_some_and(|was| is_opened_alike(was, source))
                && let SourceConfig::Direct(listener) = settings::source(source)
            {
                keys.push((source.name.clone(), listener));
            }
        }
        Ok(keys)
    }

    /// Has endpoints end, begin, and begin anew. Which.
    async fn change_endpoints(&mut self, config: &Config) -> turnhook_store::Result<Vec<String>> {
        let known = Arc::clone(&self.endpoints.borrow());
        let known = &known.endpoints;
        let is_new = |one: &&EndpointConfig| !known.iter().any(|was| was.is_same(one));
        let changed: Vec<EndpointConfig> = config.endpoints.iter().filter(is_new).cloned().collect();
        let named = |all: &[EndpointConfig], name: &str| all.iter().any(|one| one.name == name);
        let removed: Vec<String> = known
            .iter()
            .filter(|was| !named(&config.endpoints, &was.name))
            .map(|was| was.name.clone())
            .collect();
        if changed.is_empty() && removed.is_empty() {
            return Ok(Vec::new());
        }
        for endpoint in &changed {
            self.metrics.endpoints.make(&endpoint.name);
        }
        let names: Vec<&str> = config.endpoints.iter().map(|e| e.name.as_str()).collect();
        let ids = self.outbox.set_endpoints(&names, self.clock.now()).await?;
        // From here on events are for those that are configured now; what is for one that has yet to begin waits.
        let includes = includes(&config.endpoints, &ids);
        let included = Arc::new(self.outbox.set_included(includes).await?);
        self.fan_out.reroute(&config.endpoints, &ids, included);
        let dispatcher = self.fan_out.dispatcher();
        let retiring = changed.iter().map(|e| &e.name).chain(&removed);
        join_all(retiring.map(|name| dispatcher.retire(name))).await;
        for name in &removed {
            dispatcher.forget(name);
        }
        let pauses = outbox::pauses(&self.outbox).await?;
        let mut words: Vec<String> = removed.iter().map(|name| format!("{name} (removed)")).collect();
        for endpoint in changed {
            let paused = pauses.get(&endpoint.name).cloned().unwrap_or_default();
            if let Err(error) = dispatcher.begin(&endpoint, paused) {
                // It was tried before: a file has changed since.
                error!(%error, "the endpoint stands still until the configuration is read again");
            }
            let what = if named(known, &endpoint.name) {
                "changed"
            } else {
                "added"
            };
            words.push(format!("{} ({what})", endpoint.name));
        }
        self.endpoints.send_replace(Configured::of(config));
        Ok(words)
    }
}

/// Whether a listener that was opened for one does for the other: with a password or without, with TLS or without.
fn is_opened_alike(was: &Source, now: &Source) -> bool {
    match (&was.kind, &now.kind) {
        (SourceKind::Direct(was), SourceKind::Direct(now)) => {
            was.listen == now.listen
                && was.password.is_some() == now.password.is_some()
                && was.tls.is_some() == now.tls.is_some()
        }
        _ => false,
    }
}

/// What differs and is read at a start alone.
fn needs_restart(started: &Config, now: &Config) -> Vec<String> {
    let mut found = Vec::new();
    let (was, is) = (started.to_json(), now.to_json());
    for key in keys(&was, &is) {
        match (key, &was[key], &is[key]) {
            ("endpoint" | "limits" | "quota", ..) => {}
            ("gate", was, is) if without_keys(was) == without_keys(is) => {}
            ("source", ..) => sources(started, now, &was[key], &is[key], &mut found),
            (_, Value::Object(_), Value::Object(_)) => {
                let within = keys(&was[key], &is[key]);
                let renewed = |inner: &str| {
                    let given = [&was[key][inner], &is[key][inner]];
                    key == "admin"
                        && ["tls_cert", "tls_key"].contains(&inner)
                        && given.iter().all(|file| file.is_string())
                };
                let differs = |inner: &&str| {
                    was[key][*inner] != is[key][*inner]
                        && (key, *inner) != ("log", "level")
                        && !renewed(inner)
                };
                found.extend(
                    within
                        .into_iter()
                        .filter(differs)
                        .map(|inner| format!("[{key}] {inner}")),
                );
            }
            (_, before, after) if before != after => found.push(key.to_owned()),
            _ => {}
        }
    }
    // Of what is hidden, and of what stands in files, the text says nothing.
    let logins = |config: &Config| -> Vec<_> {
        let controls = config.controls.iter();
        controls
            .map(|control| control.password.expose_secret().to_owned())
            .collect()
    };
    if was["control"] == is["control"] && logins(started) != logins(now) {
        found.push("control".to_owned());
    }
    let url = |config: &Config| match &config.store.kind {
        StoreKind::Postgres(postgres) => Some(postgres.url.expose().to_owned()),
        StoreKind::Sqlite(_) => None,
    };
    if was["store"] == is["store"] && url(started) != url(now) {
        found.push("[store] url".to_owned());
    }
    found
}

/// Gates without what may change, and what is hidden.
fn without_keys(gates: &Value) -> Value {
    let mut gates = gates.clone();
    for gate in gates
        .as_array_mut()
        .into_iter()
        .flatten()
        .filter_map(Value::as_object_mut)
    {
        for key in ["secrets", "secrets_file", "password", "password_file"] {
            gate.remove(key);
        }
    }
    gates
}

fn sources(started: &Config, now: &Config, was: &Value, is: &Value, found: &mut Vec<String>) {
    let all = |value: &Value| -> Vec<Value> {
        let mut all = value.as_array().cloned().unwrap_or_default();
        for source in all.iter_mut().filter_map(Value::as_object_mut) {
            // What may change, and what is hidden.
            for key in ["user", "password", "password_file", "tls_cert", "tls_key"] {
                source.remove(key);
            }
        }
        all
    };
    let (before, after) = (all(was), all(is));
    let names: BTreeSet<&str> = before
        .iter()
        .chain(&after)
        .filter_map(|source| source["name"].as_str())
        .collect();
    for name in names {
        let one = |all: &[Value]| all.iter().find(|source| source["name"] == name).cloned();
        let source = |config: &Config| config.sources.iter().find(|source| source.name == name).cloned();
        let differs = one(&before) != one(&after)
            || match (source(started), source(now)) {
                (Some(was), Some(is)) => {
                    let direct = matches!(was.kind, SourceKind::Direct(_));
                    direct && !is_opened_alike(&was, &is) || login(&was) != login(&is)
                }
                _ => true,
            };
        if differs {
            found.push(format!("source {name:?}"));
        }
    }
}

/// What a subscription to a Redis was made with.
fn login(source: &Source) -> Option<(String, Option<String>, Option<String>)> {
    match &source.kind {
        SourceKind::Direct(_) => None,
        SourceKind::Redis(redis) => Some((
            redis.url.expose().to_owned(),
            redis.user.clone(),
            redis.password.as_ref().map(|p| p.expose_secret().to_owned()),
        )),
    }
}

fn keys<'a>(one: &'a Value, other: &'a Value) -> BTreeSet<&'a str> {
    let of = |value: &'a Value| {
        value
            .as_object()
            .into_iter()
            .flatten()
            .map(|(key, _)| key.as_str())
    };
    of(one).chain(of(other)).collect()
}
