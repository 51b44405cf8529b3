//! `[admin]`.

use turnhook_admin::{Kind, check_file};

use super::{Check, key_path};
use crate::{
    config::{Admin, file, locate::Step},
    http::tls,
};

impl Check<'_> {
    pub(super) fn admin(&mut self, admin: &file::Admin) -> Option<Admin> {
        let listen = self.address(&key_path!["admin", "listen"], &admin.listen);
        self.hosts("admin", &admin.hosts);
        if admin.users_file.is_none() && admin.tokens_file.is_none() {
            self.wrong::<()>(
                &key_path!["admin", "users_file"],
                "missing, and `tokens_file` too: nobody could come in; `turnhook admin user NAME --role viewer` makes a line \
                 for it",
            );
        }
        for (key, file, kind) in [
            ("users_file", &admin.users_file, Kind::Users),
            ("tokens_file", &admin.tokens_file, Kind::Tokens),
        ] {
            if let Some(file) = file
                && let Err(error) = check_file(file, kind)
            {
                self.wrong::<()>(&key_path!["admin", key], error.to_string());
            }
        }
        let files = [admin.tls_cert.as_deref(), admin.tls_key.as_deref()];
        let tls = self.pair(&key_path!["admin"], ["tls_cert", "tls_key"], files)?;
        if let Some((cert, key)) = &tls
            && let Err(problem) = tls::acceptor(cert, key)
        {
            self.wrong::<()>(&key_path!["admin", "tls_cert"], problem);
        }
        let listen = listen?;
        if !listen.ip().is_loopback() && tls.is_none() && !admin.behind_proxy {
            return self.wrong(
                &key_path!["admin", "listen"],
                "is beyond loopback, where passwords would be sent in the clear: set `tls_cert` and `tls_key`, or \
                 `behind_proxy = true` if a proxy of yours does TLS and nobody else can reach this address",
            );
        }
        Some(Admin {
            listen,
            users_file: admin.users_file.clone(),
            tokens_file: admin.tokens_file.clone(),
            hosts: admin.hosts.clone(),
            tls,
            behind_proxy: admin.behind_proxy,
        })
    }
}
