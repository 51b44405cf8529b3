//! `[store]`.

use turnhook_store::Error;

use super::{Check, Step, key_path};
use crate::{
    config::{Postgres, SecretUrl, Span, Store, StoreKind, file},
    store,
};

impl Check<'_> {
    pub(super) fn store(&mut self, store: &file::Store) -> Option<Store> {
        if store.retention == Span::seconds(0) {
            self.wrong::<()>(
                &key_path!["store", "retention"],
                "is 0; keep delivered events for a day at least, such as \"30d\"",
            );
        }
        let url = self.either_url(
            &key_path!["store"],
            "url",
            store.url.as_ref(),
            store.url_file.as_deref(),
        )?;
        let kind = match url {
            Some(url) => StoreKind::Postgres(self.postgres(store, url)?),
            None => self.sqlite(store)?,
        };
        Some(Store {
            kind,
            retention: store.retention.0,
        })
    }

    fn sqlite(&mut self, store: &file::Store) -> Option<StoreKind> {
        // Somebody expects something of them.
        for (key, given) in [
            ("node", store.node.is_some()),
            ("ca_file", store.ca_file.is_some()),
        ] {
            if given {
                self.wrong::<()>(
                    &key_path!["store", key],
                    "is for a store in PostgreSQL alone; set `url` (or `url_file`), or leave it out",
                );
            }
        }
        if store.path.as_os_str().is_empty() {
            return self.wrong(&key_path!["store", "path"], "is empty; name the SQLite file");
        }
        self.place(&store.path);
        Some(StoreKind::Sqlite(store.path.clone()))
    }

    fn postgres(&mut self, store: &file::Store, url: SecretUrl) -> Option<Postgres> {
        let url_key = if store.url.is_some() { "url" } else { "url_file" };
        let scheme = url.expose().split("://").next().unwrap_or_default();
        if !matches!(scheme, "postgres" | "postgresql") {
            return self.wrong(
                &key_path!["store", url_key],
                "is no PostgreSQL URL; it begins with postgres:// (for SQLite, set `path` instead)",
            );
        }
        if !(Span::seconds(2)..=Span::seconds(300)).contains(&store.lease) {
            self.wrong::<()>(
                &key_path!["store", "lease"],
                format!("{} is out of bounds; it is 2s to 5m", store.lease),
            );
        }
        if let Some(node) = &store.node {
            self.name(&key_path!["store", "node"], node);
        }
        if let Some(file) = &store.ca_file {
            self.readable(&key_path!["store", "ca_file"], file)?;
        }
        let postgres = Postgres {
            url,
            ca_file: store.ca_file.clone(),
            node: store.node.clone(),
            lease: store.lease.0,
        };
        match store::options(&postgres).describe() {
            Ok(_) => Some(postgres),
            Err(Error::BadUrl { problem }) => self.wrong(&key_path!["store", url_key], problem),
            Err(Error::Refused { message, .. }) if store.ca_file.is_some() => {
                self.wrong(&key_path!["store", "ca_file"], format!("cannot use {message}"))
            }
            Err(Error::Refused { message, .. }) => self.wrong(
                &key_path!["store", url_key],
                format!("sslrootcert: cannot use {message}"),
            ),
            Err(error) => self.wrong(&key_path!["store", url_key], error.to_string()),
        }
    }
}
