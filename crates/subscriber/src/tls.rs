//! TLS by rustls with the *ring* provider: what the listener shows, and whom the Redis side trusts.

use std::{path::Path, sync::Arc};

use tokio_rustls::{
    TlsAcceptor,
    rustls::{
        ClientConfig, RootCertStore, ServerConfig,
        crypto::ring,
        pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject},
    },
};

use crate::error::SubscriberError;

fn error(path: &Path, reason: impl ToString) -> SubscriberError {
    SubscriberError::Tls {
        path: path.to_owned(),
        reason: reason.to_string(),
    }
}

fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, SubscriberError> {
    let found: Result<Vec<_>, _> = CertificateDer::pem_file_iter(path)
        .map_err(|e| error(path, e))?
        .collect();
    let found = found.map_err(|e| error(path, e))?;
    if found.is_empty() {
        Err(error(path, "there is no PEM certificate in it"))
    } else {
        Ok(found)
    }
}

/// Shows the certificate chain in `cert`, with the private key in `key` (both PEM).
pub(crate) fn acceptor(cert: &Path, key: &Path) -> Result<TlsAcceptor, SubscriberError> {
    let chain = certificates(cert)?;
    let private = PrivateKeyDer::from_pem_file(key).map_err(|e| error(key, e))?;
    let config = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()
        .map_err(|e| error(cert, e))?
        .with_no_client_auth()
        .with_single_cert(chain, private)
        .map_err(|e| error(key, e))?;
    Ok(TlsAcceptor::from(Arc::new(config)))
}

/// Trusts the certificates in `ca` (PEM), or the system's where there is none.
pub(crate) fn client(ca: Option<&Path>) -> Result<Arc<ClientConfig>, SubscriberError> {
    let mut roots = RootCertStore::empty();
    if let Some(ca) = ca {
        for certificate in certificates(ca)? {
            roots.add(certificate).map_err(|e| error(ca, e))?;
        }
    } else {
        let system = Path::new("the system's CA certificates");
        let found = rustls_native_certs::load_native_certs();
        // One that is broken does not make the others useless.
        roots.add_parsable_certificates(found.certs);
        if roots.is_empty() {
            return Err(error(
                system,
                "there are none: install ca-certificates, or set `ca_file`",
            ));
        }
    }
    let config = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()
        .map_err(|e| error(ca.unwrap_or(Path::new("TLS")), e))?
        .with_root_certificates(roots)
        .with_no_client_auth();
    Ok(Arc::new(config))
}
