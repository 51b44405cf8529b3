//! Who clients relay to and from: it counts what it sends and what arrives.

use std::{
    io::{ErrorKind, Read as _, Write as _},
    net::{SocketAddr, SocketAddrV4, TcpListener, TcpStream, UdpSocket},
    time::Instant,
};

use super::{DEADLINE, coturn::PEER_ADDRESS, wire::PATIENCE};

/// Packets that are sent before somebody must have read them: few enough that no buffer on the way is full.
pub(crate) const BATCH: u64 = 16;

/// Somebody with a UDP socket: a peer, or a stranger.
pub(crate) struct UdpPeer {
    socket: UdpSocket,
    pub(crate) received: u64,
    pub(crate) received_packets: u64,
}

impl UdpPeer {
    pub(crate) fn new() -> UdpPeer {
        UdpPeer::at(PEER_ADDRESS)
    }

    /// Nobody has given this one a permission, as it has another address.
    pub(crate) fn stranger() -> UdpPeer {
        UdpPeer::at("127.0.0.3")
    }

    fn at(address: &str) -> UdpPeer {
        let socket = UdpSocket::bind((address, 0)).unwrap();
        socket.set_read_timeout(Some(PATIENCE)).unwrap();
        UdpPeer {
            socket,
            received: 0,
            received_packets: 0,
        }
    }

    pub(crate) fn address(&self) -> SocketAddrV4 {
        v4(self.socket.local_addr().unwrap())
    }

    pub(crate) fn send(&self, relay: SocketAddr, length: usize) {
        self.socket.send_to(&vec![0x77; length], relay).unwrap();
    }

    /// Reads until so many packets have come in all.
    #[track_caller]
    pub(crate) fn receive_until(&mut self, packets: u64) {
        let deadline = Instant::now() + DEADLINE;
        let mut buffer = vec![0; 65_536];
        while self.received_packets < packets {
            let (so_far, late) = (self.received_packets, Instant::now() > deadline);
            assert!(!late, "{so_far} of {packets} packets have come");
            if let Ok(length) = self.socket.recv(&mut buffer) {
                self.received += length as u64;
                self.received_packets += 1;
            }
        }
    }
}

/// A peer that servers connect to.
pub(crate) struct TcpPeer(TcpListener);

/// One connection of it.
pub(crate) struct PeerConnection {
    stream: TcpStream,
    pub(crate) sent: u64,
    pub(crate) received: u64,
}

impl TcpPeer {
    pub(crate) fn new() -> TcpPeer {
        TcpPeer(TcpListener::bind((PEER_ADDRESS, 0)).unwrap())
    }

    pub(crate) fn address(&self) -> SocketAddrV4 {
        v4(self.0.local_addr().unwrap())
    }

    pub(crate) fn accept(&self) -> PeerConnection {
        PeerConnection::of(self.0.accept().unwrap().0)
    }
}

impl PeerConnection {
    /// A peer's connection to a relay address.
    pub(crate) fn to(relay: SocketAddr) -> PeerConnection {
        // The standard library cannot connect from an address of choice.
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_io()
            .build()
            .unwrap();
        let stream = runtime.block_on(async {
            let socket = tokio::net::TcpSocket::new_v4().unwrap();
            let here = SocketAddr::new(PEER_ADDRESS.parse().unwrap(), 0);
            socket.bind(here).unwrap();
            socket.connect(relay).await.unwrap().into_std().unwrap()
        });
        stream.set_nonblocking(false).unwrap();
        PeerConnection::of(stream)
    }

    fn of(stream: TcpStream) -> PeerConnection {
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        stream.set_nodelay(true).unwrap();
        PeerConnection {
            stream,
            sent: 0,
            received: 0,
        }
    }

    #[track_caller]
    pub(crate) fn send(&mut self, bytes: &[u8]) {
        self.stream.write_all(bytes).unwrap();
        self.sent += bytes.len() as u64;
    }

    /// Reads until so many bytes have come in all.
    #[track_caller]
    pub(crate) fn receive_until(&mut self, bytes: u64) {
        let deadline = Instant::now() + DEADLINE;
        let mut buffer = vec![0; 65_536];
        while self.received < bytes {
            let (so_far, late) = (self.received, Instant::now() > deadline);
            assert!(!late, "{so_far} of {bytes} bytes have come");
            match self.stream.read(&mut buffer) {
                Ok(0) => panic!("the connection was closed after {so_far} of {bytes} bytes"),
                Ok(length) => self.received += length as u64,
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) if [ErrorKind::WouldBlock, ErrorKind::TimedOut].contains(&error.kind()) => {}
                Err(error) => panic!("after {so_far} of {bytes} bytes: {error}"),
            }
        }
    }
}

fn v4(address: SocketAddr) -> SocketAddrV4 {
    match address {
        SocketAddr::V4(address) => address,
        SocketAddr::V6(address) => panic!("{address} is not IPv4"),
    }
}
