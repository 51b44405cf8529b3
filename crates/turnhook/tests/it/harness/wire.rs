//! How a TURN client talks to its server: UDP, TCP or TLS.

use std::{
    collections::HashSet,
    io::{ErrorKind, Read, Write},
    net::{Ipv4Addr, Shutdown, TcpStream, UdpSocket},
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use rustls::{
    ClientConfig, ClientConnection, RootCertStore, StreamOwned,
    pki_types::{CertificateDer, ServerName, pem::PemObject as _},
};

use super::{
    coturn::{Coturn, Transport},
    stun,
};

/// How long a packet may take before it counts as lost, or a request before it is repeated.
pub(crate) const PATIENCE: Duration = Duration::from_secs(2);

/// A socket with a port that no client before it had: over UDP coturn does not notice that a client is gone, and
/// answers whoever comes from its address with 437 as long as the allocation lasts.
fn of_its_own_port() -> UdpSocket {
    static HAD: Mutex<Option<HashSet<u16>>> = Mutex::new(None);
    let mut had = HAD.lock().unwrap_or_else(PoisonError::into_inner);
    let had = had.get_or_insert_default();
    loop {
        let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        if had.insert(socket.local_addr().unwrap().port()) {
            return socket;
        }
    }
}

trait Stream: Read + Write + Send {
    /// The TCP connection below.
    fn tcp(&self) -> &TcpStream;
}

impl Stream for TcpStream {
    fn tcp(&self) -> &TcpStream {
        self
    }
}

impl Stream for StreamOwned<ClientConnection, TcpStream> {
    fn tcp(&self) -> &TcpStream {
        &self.sock
    }
}

enum Way {
    Udp(UdpSocket),
    /// With what was read and belongs to the next message.
    Stream(Box<dyn Stream>, Vec<u8>),
}

pub(crate) struct Wire {
    way: Way,
}

impl Wire {
    #[track_caller]
    pub(crate) fn open(coturn: &Coturn, transport: Transport) -> Wire {
        let tcp = |port| {
            let stream = TcpStream::connect((Ipv4Addr::LOCALHOST, port)).unwrap();
            stream.set_read_timeout(Some(PATIENCE)).unwrap();
            stream.set_nodelay(true).unwrap();
            stream
        };
        let way = match transport {
            Transport::Udp => {
                let socket = of_its_own_port();
                socket.connect((Ipv4Addr::LOCALHOST, coturn.port)).unwrap();
                socket.set_read_timeout(Some(PATIENCE)).unwrap();
                Way::Udp(socket)
            }
            Transport::Tcp => Way::Stream(Box::new(tcp(coturn.port)), Vec::new()),
            Transport::Tls => {
                let name = ServerName::try_from("localhost").unwrap();
                let connection = ClientConnection::new(Arc::new(tls(coturn)), name).unwrap();
                let stream = StreamOwned::new(connection, tcp(coturn.tls_port));
                Way::Stream(Box::new(stream), Vec::new())
            }
        };
        Wire { way }
    }

    /// Whether ChannelData is padded on it.
    pub(crate) fn is_stream(&self) -> bool {
        matches!(self.way, Way::Stream(..))
    }

    pub(crate) fn write(&mut self, bytes: &[u8]) {
        match &mut self.way {
            // A server that is gone is noticed by what does not come back.
            Way::Udp(socket) => drop(socket.send(bytes)),
            Way::Stream(stream, _) => drop(stream.write_all(bytes).and_then(|()| stream.flush())),
        }
    }

    /// The next message, or `None` if none comes for a while.
    pub(crate) fn message(&mut self) -> Option<Vec<u8>> {
        match &mut self.way {
            Way::Udp(socket) => {
                let mut buffer = vec![0; 65_536];
                let length = socket.recv(&mut buffer).ok()?;
                buffer.truncate(length);
                (length >= 4).then_some(buffer)
            }
            Way::Stream(..) => loop {
                let Way::Stream(_, rest) = &mut self.way else {
                    return None;
                };
                let length = stun::whole(rest, true).filter(|length| rest.len() >= *length);
                if let Some(length) = length {
                    return Some(rest.drain(..length).collect());
                }
                let more = self.read()?;
                if let Way::Stream(_, rest) = &mut self.way {
                    rest.extend_from_slice(&more);
                }
            },
        }
    }

    /// The next bytes of a stream, whatever they are; `None` if none come for a while, or none will.
    fn read(&mut self) -> Option<Vec<u8>> {
        let Way::Stream(stream, _) = &mut self.way else {
            return None;
        };
        let mut buffer = vec![0; 65_536];
        loop {
            match stream.read(&mut buffer) {
                Ok(0) => return None,
                Ok(length) => {
                    buffer.truncate(length);
                    return Some(buffer);
                }
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(_) => return None,
            }
        }
    }

    /// The bytes of a stream that were read with its last message, or come next.
    pub(crate) fn bytes(&mut self) -> Option<Vec<u8>> {
        match &mut self.way {
            Way::Stream(_, rest) if !rest.is_empty() => Some(std::mem::take(rest)),
            _ => self.read(),
        }
    }

    /// Ends a stream.
    pub(crate) fn close(&self) {
        if let Way::Stream(stream, _) = &self.way {
            let _ = stream.tcp().shutdown(Shutdown::Both);
        }
    }
}

/// Trusts the certificate that this coturn was given.
fn tls(coturn: &Coturn) -> ClientConfig {
    let mut roots = RootCertStore::empty();
    roots
        .add(CertificateDer::from_pem_file(&coturn.certificate).unwrap())
        .unwrap();
    ClientConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth()
}
