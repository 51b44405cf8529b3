//! How a server proves itself to us, and we to it.

use std::{path::Path, sync::Arc};

use rustls::{
    ClientConfig, RootCertStore,
    crypto::ring,
    pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject as _},
};

use crate::config::{ConfigError, EndpointConfig};

/// The TLS side of an endpoint: the system's certificate authorities or its own, its client
/// certificate, HTTP/2 where the server offers it.
pub(crate) fn client_config(config: &EndpointConfig) -> Result<ClientConfig, ConfigError> {
    let error = |key, problem: String| config.error(key, problem);
    let builder = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()
        .map_err(|e| error("url", format!("TLS cannot be set up: {e}")))?;
    let mut roots = RootCertStore::empty();
    match &config.ca_file {
        Some(path) => {
            for certificate in certificates(path).map_err(|problem| error("ca_file", problem))? {
                roots
                    .add(certificate)
                    .map_err(|e| error("ca_file", format!("{}: {e}", path.display())))?;
            }
        }
        None => {
            // One that is broken does not make the others useless.
            roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
            if roots.is_empty() {
                let problem =
                    "the system has no certificate authorities: install ca-certificates, or name your own";
                return Err(error("ca_file", problem.to_owned()));
            }
        }
    }
    let builder = builder.with_root_certificates(roots);
    let mut tls = match &config.client_certificate {
        Some(client) => {
            let key = "client_certificate";
            let chain = certificates(&client.certificate_file).map_err(|problem| error(key, problem))?;
            let private = PrivateKeyDer::from_pem_file(&client.key_file).map_err(|e| {
                error(
                    key,
                    format!("{}: no private key can be read: {e}", client.key_file.display()),
                )
            })?;
            builder
                .with_client_auth_cert(chain, private)
                .map_err(|e| error(key, format!("certificate and key do not fit: {e}")))?
        }
        None => builder.with_no_client_auth(),
    };
    tls.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    Ok(tls)
}

fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, String> {
    let read: Result<Vec<_>, _> = CertificateDer::pem_file_iter(path).and_then(Iterator::collect);
    match read {
        Ok(list) if list.is_empty() => Err(format!("{}: there is no certificate in it", path.display())),
        Ok(list) => Ok(list),
        Err(e) => Err(format!("{}: no certificate can be read: {e}", path.display())),
    }
}

/// What the layers below say of a failed connection, with what to do where that is known.
///
/// Many servers say nothing at all to what they do not understand, and close: what that may mean depends on what was spoken.
pub(crate) fn in_words(cause: &str, spoke_tls: bool) -> String {
    if cause.contains("CaUsedAsEndEntity") {
        // As `openssl req -x509` makes it; some other clients take it.
        return "the server's certificate is that of an authority (CA:TRUE), and no server's: make it with \
                `-addext basicConstraints=critical,CA:FALSE`, or let it sign the server's"
            .to_owned();
    }
    if cause.contains("InvalidContentType") {
        return "what answers there speaks no TLS: is it http://, or another port?".to_owned();
    }
    if cause.contains("invalid HTTP version") {
        return "what answers there speaks no HTTP: if it speaks TLS, write https://".to_owned();
    }
    let was_closed = [
        "closed before message completed",
        "handshake eof",
        "Connection reset by peer",
    ];
    if was_closed.iter().any(|words| cause.contains(words)) {
        let perhaps = if spoke_tls {
            "if this port speaks no TLS, write http://, or name the port that does"
        } else {
            "if this port speaks TLS, write https://"
        };
        return format!("{cause}: {perhaps}");
    }
    cause.to_owned()
}

/// What a server with TLS answers with to a request without it, where it answers in HTTP: nginx, Apache, and those made
/// with Go.
pub(crate) fn wants_tls(status: u16, body: &[u8]) -> bool {
    let body = String::from_utf8_lossy(body);
    let said = [
        "plain HTTP request was sent to HTTPS port",
        "HTTP request to an HTTPS server",
        "plain HTTP to an SSL-enabled server port",
    ];
    status == 400 && said.iter().any(|words| body.contains(words))
}
