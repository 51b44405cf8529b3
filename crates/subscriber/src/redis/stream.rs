//! The connection beneath a subscription: TCP, TLS or a unix socket.

use std::{io, sync::Arc, time::Duration};

use socket2::{SockRef, TcpKeepalive};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::{TcpStream, UnixStream},
    time::timeout,
};
use tokio_rustls::{
    TlsConnector,
    rustls::{ClientConfig, pki_types::ServerName},
};

use super::config::Node;

pub(super) trait Stream: AsyncRead + AsyncWrite + Send + Unpin {}
impl<S: AsyncRead + AsyncWrite + Send + Unpin> Stream for S {}

/// Connects to a node. The caller sets a bound to the time it takes, `patience`.
pub(super) async fn connect(
    node: &Node,
    tls: Option<&Arc<ClientConfig>>,
    patience: Duration,
) -> io::Result<Box<dyn Stream>> {
    let server = match node {
        Node::Unix(path) => return Ok(Box::new(UnixStream::connect(path).await?)),
        Node::Tcp(server) => server,
    };
    // An IPv6 address stands in brackets in a URL.
    let host = server.host.trim_start_matches('[').trim_end_matches(']');
    let stream = TcpStream::connect((host, server.port)).await?;
    stream.set_nodelay(true)?;
    // PINGs notice a dead peer; this lets the kernel forget it when nobody reads any more.
    let keepalive = TcpKeepalive::new().with_time(Duration::from_secs(60));
    SockRef::from(&stream).set_tcp_keepalive(&keepalive)?;
    let Some(tls) = tls else {
        return Ok(Box::new(stream));
    };
    let name = ServerName::try_from(host.to_owned()).map_err(io::Error::other)?;
    let shaken = TlsConnector::from(Arc::clone(tls)).connect(name, stream);
    // A Redis without TLS waits for the rest of a command: half of the time, so that it is this error that is given.
    match timeout(patience / 2, shaken).await {
        Ok(shaken) => Ok(Box::new(shaken?)),
        Err(_) => Err(io::Error::new(
            io::ErrorKind::TimedOut,
            "nobody speaks TLS there; a Redis without TLS has a URL that begins with redis://",
        )),
    }
}
