//! `[[gate]]`.

use std::net::SocketAddr;

use secrecy::ExposeSecret as _;
use turnhook_control::{
    Version,
    gate::{RealmOptions, RestSecret},
};

use super::{Check, key_path};
use crate::config::{
    Gate, Secret,
    file::{self, File},
    locate::Step,
};

/// A password that others can try should not be shorter.
const SHORT: usize = 16;

impl Check<'_> {
    pub(super) fn gates(&mut self, file: &File) -> Vec<Gate> {
        let all = file.gate.iter().enumerate();
        all.filter_map(|(index, gate)| self.gate(index, gate, file))
            .collect()
    }

    fn gate(&mut self, index: usize, gate: &file::Gate, file: &File) -> Option<Gate> {
        let at = key_path!["gate", index];
        self.known_source(&key_path!["gate", index, "source"], &gate.source, file);
        let listen = self.address(&key_path!["gate", index, "listen"], &gate.listen);
        if gate.realm.is_empty() {
            self.wrong::<()>(
                &key_path!["gate", index, "realm"],
                "is empty; it is coturn's `realm`",
            );
        }
        let secrets = self.either(
            &at,
            "secrets",
            gate.secrets.as_ref(),
            gate.secrets_file.as_deref(),
        );
        let password = self.either(
            &at,
            "password",
            gate.password.as_ref(),
            gate.password_file.as_deref(),
        );
        let said = match gate.coturn.as_deref().map(str::parse::<Version>) {
            None => None,
            Some(Ok(version)) => Some(version),
            Some(Err(why)) => self.wrong(&key_path!["gate", index, "coturn"], why),
        };
        if said.is_some_and(|version| version < Version::SOUND) && !gate.allow_old {
            self.wrong::<()>(
                &key_path!["gate", index, "coturn"],
                "is older than 4.13: anybody can crash it by a username as soon as it asks a gate; allow_old = true takes \
                 that risk",
            );
        }
        let banners = file.control.iter().any(|control| control.source == gate.source);
        if said.is_none() && !gate.allow_old && !banners {
            self.wrong::<()>(
                &key_path!["gate", index, "coturn"],
                "missing: it must be known that coturn is 4.13 or newer; say which it is (coturn = \"4.17\"), or give its \
                 source a [[control]], whose banner says it",
            );
        }
        let (listen, password) = (listen?, password?);
        if !listen.ip().is_loopback() && password.is_none() {
            self.wrong::<()>(
                &key_path!["gate", index, "password_file"],
                format!(
                    "missing: {listen} can be reached by others, and a gate hands out the keys of all users"
                ),
            );
        }
        self.gate_password(index, gate, listen, password.as_ref());
        let Some(secrets) = secrets? else {
            return self.wrong(
                &key_path!["gate", index, "secrets_file"],
                "missing; a file with the secret of the TURN REST API, by which credentials are made",
            );
        };
        let key: &[Step] = &key_path![
            "gate",
            index,
            if gate.secrets.is_some() {
                "secrets"
            } else {
                "secrets_file"
            }
        ];
        let secrets = match RestSecret::parse_all(secrets.0.expose_secret()) {
            Ok(secrets) => secrets,
            Err(error) => return self.wrong(key, error.to_string()),
        };
        Some(Gate {
            listen,
            realm: gate.realm.clone(),
            secrets,
            source: gate.source.clone(),
            sound: gate.allow_old || said.is_some_and(|version| version >= Version::SOUND),
            password: password.map(|secret| secret.0),
            options: RealmOptions {
                max_bps: gate.max_bps,
                user_quota: gate.user_quota,
                total_quota: gate.total_quota,
            },
        })
    }

    /// What can be said of a gate's password without showing it.
    fn gate_password(
        &mut self,
        index: usize,
        gate: &file::Gate,
        listen: SocketAddr,
        password: Option<&Secret>,
    ) {
        let Some(password) = password else {
            if listen.ip().is_loopback() {
                self.doubtful(
                    &key_path!["gate", index, "listen"],
                    format!(
                        "without `password` anybody on this machine can ask {listen} for the keys of all users; set \
                         `password`, and the same in coturn's redis-userdb"
                    ),
                );
            }
            return;
        };
        let name = if gate.password_file.is_some() {
            "password_file"
        } else {
            "password"
        };
        let key = key_path!["gate", index, name];
        if password.expose().contains(char::is_whitespace) {
            self.wrong::<()>(
                &key,
                "has a space in it, where coturn's redis-userdb would end it; choose one without",
            );
        }
        if !listen.ip().is_loopback() && password.expose().chars().count() < SHORT {
            self.doubtful(
                &key,
                format!("is shorter than {SHORT} characters, and who can connect can guess; `turnhook secret` makes a long one"),
            );
        }
    }
}
