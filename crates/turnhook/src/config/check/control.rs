//! `[[control]]` and `[enforce]`.

use super::{Check, key_path};
use crate::config::{
    Control, Enforce, Rate, Span,
    file::{self, File},
    locate::Step,
};

impl Check<'_> {
    pub(super) fn controls(&mut self, file: &File) -> Vec<Control> {
        let all = file.control.iter().enumerate();
        all.filter_map(|(index, control)| self.control(index, control, file))
            .collect()
    }

    fn control(&mut self, index: usize, control: &file::Control, file: &File) -> Option<Control> {
        let at = key_path!["control", index];
        self.known_source(&key_path!["control", index, "source"], &control.source, file);
        let address = self.address(&key_path!["control", index, "address"], &control.address);
        let password = self.either(
            &at,
            "password",
            control.password.as_ref(),
            control.password_file.as_deref(),
        );
        let address = address?;
        if !address.ip().is_loopback() && !control.allow_cleartext {
            self.wrong::<()>(
                &key_path!["control", index, "address"],
                format!(
                    "{address} is another machine, and coturn's CLI takes password and commands in clear; lead it through \
                     SSH or WireGuard, or say that this network may see them: allow_cleartext = true"
                ),
            );
        }
        let Some(password) = password? else {
            return self.wrong(
                &key_path!["control", index, "password_file"],
                "missing; coturn's CLI is off without a `cli-password`, and this is that one (or `password`)",
            );
        };
        Some(Control {
            source: control.source.clone(),
            address,
            password: password.0,
            server: control.server.clone(),
        })
    }

    pub(super) fn known_source(&mut self, at: &[Step], name: &str, file: &File) {
        if !file.source.iter().any(|source| source.name == name) {
            let names: Vec<_> = file.source.iter().map(|source| source.name.as_str()).collect();
            self.wrong::<()>(
                at,
                format!("`{name}` is no source; there are: {}", names.join(", ")),
            );
        }
    }

    pub(super) fn enforce(&mut self, file: &File) -> Enforce {
        let enforce = &file.enforce;
        if enforce.confirm < Span::seconds(1) || enforce.confirm > Span::seconds(60) {
            self.wrong::<()>(
                &key_path!["enforce", "confirm"],
                format!("{} is not between 1s and 60s", enforce.confirm),
            );
        }
        for (index, name) in enforce.obey.iter().enumerate() {
            if !file.endpoint.iter().any(|endpoint| endpoint.name == *name) {
                self.wrong::<()>(
                    &key_path!["enforce", "obey", index],
                    format!("`{name}` is no endpoint"),
                );
            }
        }
        Enforce {
            confirm: enforce.confirm.0,
            max_rate: match enforce.max_rate {
                Rate::Limited { count, per } => Some((count, per)),
                Rate::Unlimited => None,
            },
            obey: enforce.obey.clone(),
        }
    }
}
