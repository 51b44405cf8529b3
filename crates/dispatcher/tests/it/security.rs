//! Who is talked to, and what nobody is told.

use std::sync::Arc;

use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
use tempfile::TempDir;
use tokio_rustls::rustls::{
    RootCertStore, ServerConfig,
    crypto::ring,
    pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject as _},
    server::WebPkiClientVerifier,
};
use turnhook_dispatcher::config::ClientCertificate;
use turnhook_reducer::outbox::Next;

use crate::{
    harness::{Harness, SECRET, config, deliveries, delivery},
    receiver::{Receiver, Reply},
};

/// A certificate authority, a server's and a client's certificate, as files.
pub(crate) struct Pki {
    folder: TempDir,
    authority: CertificateDer<'static>,
    server: (CertificateDer<'static>, PrivateKeyDer<'static>),
}

impl Pki {
    pub(crate) fn new() -> Pki {
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let authority = CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap();
        let folder = TempDir::new().unwrap();
        let write = |name: &str, text: String| std::fs::write(folder.path().join(name), text).unwrap();
        write("ca.pem", authority.pem());
        let key = KeyPair::generate().unwrap();
        let params = CertificateParams::new(vec!["turnhook".to_owned()]).unwrap();
        write("client.pem", params.signed_by(&key, &authority).unwrap().pem());
        write("client.key", key.serialize_pem());
        let key = KeyPair::generate().unwrap();
        let params = CertificateParams::new(vec!["localhost".to_owned()]).unwrap();
        let certificate = params.signed_by(&key, &authority).unwrap();
        let private = PrivateKeyDer::from_pem_slice(key.serialize_pem().as_bytes()).unwrap();
        let server = (certificate.der().clone(), private);
        Pki {
            authority: authority.der().clone(),
            folder,
            server,
        }
    }

    pub(crate) fn ca_file(&self) -> std::path::PathBuf {
        self.folder.path().join("ca.pem")
    }

    pub(crate) fn server(&self, ask_for_client: bool) -> ServerConfig {
        let provider = Arc::new(ring::default_provider());
        let builder = ServerConfig::builder_with_provider(Arc::clone(&provider))
            .with_safe_default_protocol_versions()
            .unwrap();
        let builder = if ask_for_client {
            let mut roots = RootCertStore::empty();
            roots.add(self.authority.clone()).unwrap();
            builder.with_client_cert_verifier(
                WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider)
                    .build()
                    .unwrap(),
            )
        } else {
            builder.with_no_client_auth()
        };
        let (certificate, key) = &self.server;
        builder
            .with_single_cert(vec![certificate.clone()], key.clone_key())
            .unwrap()
    }

    fn client(&self) -> ClientCertificate {
        ClientCertificate {
            certificate_file: self.folder.path().join("client.pem"),
            key_file: self.folder.path().join("client.key"),
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_is_believed_only_with_a_known_authority() {
    let pki = Pki::new();
    let receiver = Receiver::start_tls(pki.server(false), |_| Reply::Status(200)).await;
    let stranger = config("stranger", &receiver.url());
    let mut known = config("known", &receiver.url());
    known.ca_file = Some(pki.folder.path().join("ca.pem"));
    let mut misnamed = known.clone();
    misnamed.name = "misnamed".into();
    misnamed.url.set_host(Some("127.0.0.1")).unwrap();
    let harness = Harness::start(vec![stranger, known, misnamed]);
    for name in ["stranger", "known", "misnamed"] {
        harness.commit(name, vec![delivery(1, 1, 0)]);
    }
    harness.drained("known").await;
    for name in ["stranger", "misnamed"] {
        let outcome = harness.outcome(|o| &*o.endpoint == name).await;
        let error = outcome.error.unwrap();
        assert!(
            error.contains("could not connect") && error.contains("certificate"),
            "{name}: {error}"
        );
        assert!(matches!(outcome.next, Next::Retry(_)));
    }
    assert_eq!(receiver.received().len(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_certificate_is_shown_where_one_is_asked_for() {
    let pki = Pki::new();
    let receiver = Receiver::start_tls(pki.server(true), |_| Reply::Status(200)).await;
    let mut without = config("without", &receiver.url());
    without.ca_file = Some(pki.folder.path().join("ca.pem"));
    let mut with = without.clone();
    with.name = "with".into();
    with.client_certificate = Some(pki.client());
    let harness = Harness::start(vec![with, without]);
    harness.commit("with", vec![delivery(1, 1, 0)]);
    harness.commit("without", vec![delivery(1, 1, 0)]);
    harness.drained("with").await;
    let outcome = harness.outcome(|o| &*o.endpoint == "without").await;
    assert!(matches!(outcome.next, Next::Retry(_)), "{outcome:?}");
    assert_eq!(receiver.received().len(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn http_2_where_the_server_offers_it() {
    use http::{Request, Response, Version};
    use http_body_util::{BodyExt as _, Empty};
    use hyper::{body::Incoming, server::conn::http2, service::service_fn};
    use hyper_util::rt::{TokioExecutor, TokioIo};

    let pki = Pki::new();
    let mut tls = pki.server(false);
    tls.alpn_protocols = vec![b"h2".to_vec()];
    let acceptor = tokio_rustls::TlsAcceptor::from(Arc::new(tls));
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let server = tokio::spawn(async move {
        loop {
            let stream = acceptor.accept(listener.accept().await.unwrap().0).await.unwrap();
            let answer = service_fn(|request: Request<Incoming>| async {
                let http2 = request.version() == Version::HTTP_2
                    && !request.headers()["webhook-signature"].is_empty();
                let body = request.into_body().collect().await?.to_bytes();
                let status = if http2 && body.starts_with(b"{") { 202 } else { 500 };
                let answer = Response::builder()
                    .status(status)
                    .body(Empty::<bytes::Bytes>::new())
                    .unwrap();
                Ok::<_, hyper::Error>(answer)
            });
            tokio::spawn(
                http2::Builder::new(TokioExecutor::new()).serve_connection(TokioIo::new(stream), answer),
            );
        }
    });
    let mut config = config("billing", &format!("https://localhost:{port}/"));
    config.ca_file = Some(pki.folder.path().join("ca.pem"));
    let harness = Harness::start(vec![config]);
    harness.commit("billing", deliveries(20, 5));
    harness.drained("billing").await;
    assert!(
        harness
            .outcomes()
            .iter()
            .all(|outcome| outcome.status == Some(202))
    );
    server.abort();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_does_not_speak_tls() {
    let receiver = Receiver::start(|_| Reply::Status(200)).await;
    let url = receiver.url().replace("http://", "https://");
    let harness = Harness::start(vec![config("billing", &url)]);
    harness.commit("billing", vec![delivery(1, 1, 0)]);
    let error = harness.outcome(|_| true).await.error.unwrap();
    assert!(error.contains("could not connect"), "{error}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_proxy_is_asked_and_resolves_the_name_itself() {
    let proxy = Receiver::start(|_| Reply::Status(200)).await;
    let mut config = config("billing", "http://turnhook.invalid/turn");
    config.allow_http = true;
    let address = proxy
        .url()
        .replace("http://", "http://user:s3cr3t-proxy@")
        .replace("/turn", "");
    config.proxy = Some(address.into());
    let harness = Harness::start(vec![config]);
    harness.commit("billing", vec![delivery(1, 1, 0)]);
    harness.drained("billing").await;
    let request = proxy.received()[0].clone();
    assert_eq!(request.line, "POST http://turnhook.invalid/turn HTTP/1.1");
    assert!(request.header("proxy-authorization").starts_with("Basic "));
}

#[tokio::test(flavor = "multi_thread")]
async fn redirects_lead_nowhere() {
    let elsewhere = Receiver::start(|_| Reply::Status(200)).await;
    let location = format!("location: {}\r\n", elsewhere.url());
    let receiver = Receiver::start(move |_| Reply::Headers(308, location.clone())).await;
    let harness = Harness::start(vec![config("billing", &receiver.url())]);
    harness.commit("billing", vec![delivery(1, 1, 0)]);
    harness.outcome(|o| o.attempt == 3).await;
    assert_eq!(elsewhere.connections(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn secrets_are_in_no_output() {
    let receiver = Receiver::start(|_| Reply::Reset).await;
    receiver.go_down();
    let mut config = config("billing", &format!("{}?token=s3cr3t-query", receiver.url()));
    config
        .headers
        .push(("authorization".into(), "Bearer s3cr3t-header".into()));
    config.headers.push(("x-key".into(), "s3cr3t-key".into()));
    let mut proxied = config.clone();
    proxied.name = "proxied".into();
    proxied.proxy = Some(
        receiver
            .url()
            .replace("http://", "http://user:s3cr3t-proxy@")
            .into(),
    );
    let shown = format!("{:?}", (&config.headers, &config.secrets, &proxied.proxy));
    let harness = Harness::start(vec![config, proxied]);
    for name in ["billing", "proxied"] {
        harness.commit(name, vec![delivery(1, 1, 0)]);
        harness.outcome(|o| &*o.endpoint == name).await;
    }
    receiver.come_back().await;
    for name in ["billing", "proxied"] {
        harness
            .outcome(|o| &*o.endpoint == name && !o.error.as_deref().unwrap().contains("refused"))
            .await;
    }
    let shown = format!(
        "{shown} {:?} {:?}",
        harness.outcomes(),
        harness.dispatcher.status()
    );
    assert!(
        !shown.contains("s3cr3t") && !shown.contains(SECRET.trim_start_matches("whsec_")),
        "{shown}"
    );
}
