//! What stands in the way of a request is said with what to do.

use std::sync::Arc;

use rcgen::{BasicConstraints, CertificateParams, IsCa, KeyPair};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio_rustls::rustls::{
    ServerConfig,
    crypto::ring,
    pki_types::{PrivateKeyDer, pem::PemObject as _},
};
use turnhook_dispatcher::client::Client;
use turnhook_reducer::time::Timestamp;

use crate::{
    harness::config,
    receiver::{Receiver, Reply},
};

/// A receiver whose certificate is its own authority, as `openssl req -x509` makes it, and that certificate in PEM.
async fn its_own_authority() -> (Receiver, String) {
    let mut params = CertificateParams::new(vec!["localhost".to_owned()]).unwrap();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let key = KeyPair::generate().unwrap();
    let certificate = params.self_signed(&key).unwrap();
    let private = PrivateKeyDer::from_pem_slice(key.serialize_pem().as_bytes()).unwrap();
    let tls = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![certificate.der().clone()], private)
        .unwrap();
    (
        Receiver::start_tls(tls, |_| Reply::Status(200)).await,
        certificate.pem(),
    )
}

async fn error(config: &turnhook_dispatcher::config::EndpointConfig) -> String {
    let client = Client::new(config).unwrap();
    let sent = client
        .send("evt_1", "{}".into(), Timestamp(1_795_327_257_624))
        .await;
    let probed = client.probe().await.unwrap_err();
    let error = sent.error.unwrap();
    assert_eq!(error, probed, "a probe finds the same");
    error
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_in_the_way_is_said_with_what_to_do() {
    let (secure, pem) = its_own_authority().await;
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("ca.pem");
    std::fs::write(&file, pem).unwrap();
    let mut authority = config("billing", &secure.url());
    authority.ca_file = Some(file);
    let said = error(&authority).await;
    assert!(
        said.contains("CA:TRUE") && said.contains("basicConstraints=critical,CA:FALSE"),
        "{said}"
    );

    // What a server without TLS says to a handshake, and one with TLS to a request.
    let plain = answering(b"HTTP/1.1 400 Bad Request\r\ncontent-length: 0\r\n\r\n").await;
    let said = error(&config("billing", &format!("https://{plain}/"))).await;
    assert!(said.contains("speaks no TLS: is it http://"), "{said}");
    let tls = answering(b"\x15\x03\x03\x00\x02\x02\x0a").await;
    let said = error(&config("billing", &format!("http://{tls}/"))).await;
    assert!(said.contains("if it speaks TLS, write https://"), "{said}");
    // Others say nothing, and close.
    let mute = answering(b"").await;
    let said = error(&config("billing", &format!("http://{mute}/"))).await;
    assert!(said.contains("if this port speaks TLS, write https://"), "{said}");
    let said = error(&config("billing", &format!("https://{mute}/"))).await;
    assert!(
        said.contains("if this port speaks no TLS, write http://"),
        "{said}"
    );
    // And others answer in HTTP all the same, which a probe takes for an answer.
    let nginx = answering(
        b"HTTP/1.1 400 Bad Request\r\ncontent-length: 58\r\n\r\n<h1>The plain HTTP request was sent to HTTPS port</h1>....",
    )
    .await;
    let sent = Client::new(&config("billing", &format!("http://{nginx}/"))).unwrap();
    let said = sent
        .send("evt_1", "{}".into(), Timestamp(1_795_327_257_624))
        .await;
    assert_eq!(
        said.error.as_deref(),
        Some("answered 400 Bad Request: this port speaks TLS, write https://")
    );
}

/// Something that listens and answers each connection so, whatever comes.
async fn answering(bytes: &'static [u8]) -> std::net::SocketAddr {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            let mut asked = [0; 4096];
            let _ = stream.read(&mut asked).await;
            let _ = stream.write_all(bytes).await;
            let _ = stream.shutdown().await;
        }
    });
    address
}

/// A probe shows that there is a way, and hands out nothing.
#[tokio::test(flavor = "multi_thread")]
async fn a_probe_tells_the_clock_and_sends_no_secrets() {
    let receiver =
        Receiver::start(|_| Reply::Headers(405, "date: Sun, 22 Nov 2026 06:00:57 GMT\r\n".to_owned())).await;
    let mut endpoint = config("billing", &receiver.url());
    endpoint
        .headers
        .push(("authorization".to_owned(), "Bearer hunter2".into()));
    let probe = Client::new(&endpoint).unwrap().probe().await.unwrap();
    assert_eq!(
        (probe.status.as_u16(), probe.clock),
        (405, Some(Timestamp(1_795_327_257_000)))
    );
    let received = receiver.received();
    assert!(received[0].line.starts_with("HEAD "), "{received:?}");
    assert!(
        received[0]
            .headers
            .iter()
            .all(|(name, value)| !value.contains("hunter2") && !name.starts_with("webhook-")),
        "{received:?}"
    );
}
