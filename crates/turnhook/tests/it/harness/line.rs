//! A user on the line to a peer, by UDP or TCP relay, who knows what went each way.

use super::{
    coturn::{Coturn, Transport},
    eventually,
    peer::{BATCH, PeerConnection, TcpPeer, UdpPeer},
    tcp_relay::DataConnection,
    turn::TurnClient,
    udp,
};

/// Bytes of payload in a packet.
pub(crate) const LENGTH: usize = 1000;

pub(crate) trait Line {
    fn client(&mut self) -> &mut TurnClient;

    /// Sends packets to the peer, and waits until it has them.
    fn up(&mut self, packets: u64);

    /// The peer sends packets to the client, which waits for them.
    fn down(&mut self, packets: u64);

    /// Bytes that the peer got, and that the client got.
    fn relayed(&self) -> [u64; 2];
}

/// How a client reaches a peer by UDP.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Way {
    /// A permission: Send and Data indications.
    Permission,
    Channel,
}

pub(crate) struct UdpLine {
    client: TurnClient,
    peer: UdpPeer,
    way: Way,
}

impl UdpLine {
    #[track_caller]
    pub(crate) fn new(coturn: &Coturn, transport: Transport, user: &str, way: Way) -> UdpLine {
        let mut client = TurnClient::over(transport, coturn, user);
        client.allocate().unwrap();
        let peer = UdpPeer::new();
        match way {
            Way::Permission => client.permit(peer.address()),
            Way::Channel => client.bind_channel(peer.address()),
        }
        UdpLine { client, peer, way }
    }

    /// Sends to the relay address from where nobody has permission.
    pub(crate) fn flood(&mut self, stranger: &UdpPeer, packets: u64) {
        for _ in 0..packets / BATCH {
            for _ in 0..BATCH {
                stranger.send(self.client.relay_address(), LENGTH);
            }
            assert_eq!(self.client.refresh(600), 0);
            // An answer says nothing of the relay address: on a busy machine its buffer can be full while requests are answered.
            let relay = self.client.relay_address().port();
            eventually("coturn has read what strangers sent", || {
                (udp::waiting(relay) == Some(0)).then_some(())
            });
        }
    }
}

impl Line for UdpLine {
    fn client(&mut self) -> &mut TurnClient {
        &mut self.client
    }

    fn up(&mut self, packets: u64) {
        let goal = self.peer.received_packets + packets;
        while self.peer.received_packets < goal {
            let batch = BATCH.min(goal - self.peer.received_packets);
            for _ in 0..batch {
                match self.way {
                    Way::Permission => self.client.send_to(self.peer.address(), &[0x55; LENGTH]),
                    Way::Channel => self.client.send_payload(&[0x55; LENGTH]),
                }
            }
            self.peer.receive_until(self.peer.received_packets + batch);
        }
    }

    fn down(&mut self, packets: u64) {
        let goal = self.client.received_packets + packets;
        while self.client.received_packets < goal {
            let batch = BATCH.min(goal - self.client.received_packets);
            for _ in 0..batch {
                self.peer.send(self.client.relay_address(), LENGTH);
            }
            self.client.receive_until(self.client.received_packets + batch);
        }
    }

    fn relayed(&self) -> [u64; 2] {
        [self.peer.received, self.client.received]
    }
}

pub(crate) struct TcpLine {
    pub(crate) client: TurnClient,
    pub(crate) data: DataConnection,
    pub(crate) peer: PeerConnection,
}

impl TcpLine {
    #[track_caller]
    pub(crate) fn new(coturn: &Coturn, transport: Transport, user: &str) -> TcpLine {
        let mut client = TurnClient::over(transport, coturn, user);
        client.allocate_tcp().unwrap();
        let listener = TcpPeer::new();
        let connection = client.connect(listener.address());
        let peer = listener.accept();
        let data = client.bind(coturn, connection);
        TcpLine { client, data, peer }
    }
}

impl Line for TcpLine {
    fn client(&mut self) -> &mut TurnClient {
        &mut self.client
    }

    fn up(&mut self, packets: u64) {
        for _ in 0..packets {
            self.data.send(&[0x55; LENGTH]);
        }
        self.peer.receive_until(self.data.sent);
    }

    fn down(&mut self, packets: u64) {
        for _ in 0..packets {
            self.peer.send(&[0x77; LENGTH]);
        }
        self.data.receive_until(self.peer.sent);
    }

    fn relayed(&self) -> [u64; 2] {
        [self.peer.received, self.data.received]
    }
}
