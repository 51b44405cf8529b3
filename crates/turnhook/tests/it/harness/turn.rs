//! A TURN client that does exactly what a scenario needs, and knows to the byte what it did (RFC 8656). What is of
//! TCP relay alone (RFC 6062) is in `tcp_relay.rs`.

use std::{
    net::{SocketAddr, SocketAddrV4},
    time::Instant,
};

use super::{
    DEADLINE,
    coturn::{Coturn, Transport},
    stun::{self, Answer, Credential, Received},
    wire::Wire,
};

/// The channel that every client binds.
const CHANNEL: u16 = 0x4000;

/// Packets that may be on their way at once, and bytes of them: few enough that no buffer on the way is full.
const WINDOW: u32 = 32;
const WINDOW_BYTES: usize = 24_000;

/// UDP and TCP, as REQUESTED-TRANSPORT says them.
const UDP_RELAY: u8 = 17;
const TCP_RELAY: u8 = 6;

pub(crate) struct TurnClient {
    wire: Wire,
    transport: Transport,
    credential: Credential,
    transactions: u64,
    relay: Option<SocketAddr>,
    /// Of peers that connected to the relay address and are not bound yet.
    attempts: Vec<[u8; 4]>,
    /// Bytes of payload that it sent to its peer, whether or not they arrived.
    pub(crate) sent: u64,
    /// Bytes of payload that came back.
    pub(crate) received: u64,
    /// Packets of payload that came back.
    pub(crate) received_packets: u64,
}

impl TurnClient {
    /// A client with a good password, over UDP. Nothing is sent yet.
    pub(crate) fn udp(coturn: &Coturn, user: &str) -> TurnClient {
        TurnClient::over(Transport::Udp, coturn, user)
    }

    /// The same over TCP: when it is dropped, coturn notices at once.
    pub(crate) fn tcp(coturn: &Coturn, user: &str) -> TurnClient {
        TurnClient::over(Transport::Tcp, coturn, user)
    }

    pub(crate) fn over(transport: Transport, coturn: &Coturn, user: &str) -> TurnClient {
        TurnClient::with(transport, coturn, Credential::rest(user))
    }

    /// Somebody who claims a name and does not know its password, over TCP.
    pub(crate) fn impostor(coturn: &Coturn, user: &str) -> TurnClient {
        let mut credential = Credential::rest(user);
        "wrong".clone_into(&mut credential.password);
        TurnClient::with(Transport::Tcp, coturn, credential)
    }

    pub(crate) fn with(transport: Transport, coturn: &Coturn, credential: Credential) -> TurnClient {
        TurnClient {
            wire: Wire::open(coturn, transport),
            transport,
            credential,
            transactions: 0,
            relay: None,
            attempts: Vec::new(),
            sent: 0,
            received: 0,
            received_packets: 0,
        }
    }

    pub(crate) fn transport(&self) -> Transport {
        self.transport
    }

    pub(crate) fn credential(&mut self) -> &mut Credential {
        &mut self.credential
    }

    /// Makes its allocation, and gives back the relay address.
    ///
    /// # Errors
    /// With the code that the server refuses it with.
    pub(crate) fn allocate(&mut self) -> Result<SocketAddr, u16> {
        self.allocate_for(UDP_RELAY)
    }

    /// The same, to relay TCP (RFC 6062).
    ///
    /// # Errors
    /// With the code that the server refuses it with.
    pub(crate) fn allocate_tcp(&mut self) -> Result<SocketAddr, u16> {
        self.allocate_for(TCP_RELAY)
    }

    fn allocate_for(&mut self, transport: u8) -> Result<SocketAddr, u16> {
        // Without a lifetime asked for, coturn's --max-allocate-lifetime is not applied.
        let attributes = [
            (stun::REQUESTED_TRANSPORT, vec![transport, 0, 0, 0]),
            (stun::LIFETIME, 600u32.to_be_bytes().to_vec()),
        ];
        let first = self.credential.nonce.is_empty();
        let mut answer = self.request(stun::ALLOCATE, &attributes);
        // The first answer tells realm and nonce.
        if answer.code == 401 && first {
            answer = self.request(stun::ALLOCATE, &attributes);
        }
        if answer.code != 0 {
            return Err(answer.code);
        }
        let relay = stun::xor_address(answer.get(stun::XOR_RELAYED_ADDRESS).unwrap());
        self.relay = Some(relay);
        Ok(relay)
    }

    /// Where its peers send to.
    pub(crate) fn relay_address(&self) -> SocketAddr {
        self.relay.unwrap()
    }

    /// An allocation with a channel to the server's echo peer.
    #[track_caller]
    pub(crate) fn call(mut self, coturn: &Coturn) -> TurnClient {
        self.allocate().unwrap();
        self.bind_channel(coturn.peer_address());
        self
    }

    /// Binds its channel to a peer, which gives permission too.
    #[track_caller]
    pub(crate) fn bind_channel(&mut self, peer: SocketAddrV4) {
        let channel = CHANNEL.to_be_bytes();
        let bind = [
            (stun::CHANNEL_NUMBER, vec![channel[0], channel[1], 0, 0]),
            (stun::XOR_PEER_ADDRESS, stun::address(peer)),
        ];
        assert_eq!(self.request(stun::CHANNEL_BIND, &bind).code, 0);
    }

    /// Lets an address send to the relay address.
    #[track_caller]
    pub(crate) fn permit(&mut self, peer: SocketAddrV4) {
        let attributes = [(stun::XOR_PEER_ADDRESS, stun::address(peer))];
        assert_eq!(self.request(stun::CREATE_PERMISSION, &attributes).code, 0);
    }

    /// Refreshes the allocation; 0 deletes it. Gives back the code.
    pub(crate) fn refresh(&mut self, lifetime: u32) -> u16 {
        let attributes = [(stun::LIFETIME, lifetime.to_be_bytes().to_vec())];
        self.request(stun::REFRESH, &attributes).code
    }

    /// Sends packets to the peer and waits for the echoes.
    pub(crate) fn relay(&mut self, packets: u32, length: usize) {
        let payload = vec![0x55; length];
        let window = WINDOW.min((WINDOW_BYTES / length.max(1)) as u32).max(1);
        let (mut sent, mut back) = (0, 0);
        while back < packets {
            while sent < packets && sent - back < window {
                self.send_payload(&payload);
                sent += 1;
            }
            match self.receive() {
                Some(Received::Payload(_)) => back += 1,
                Some(_) => {}
                // Lost on the way: what is on its way now will not come.
                None => back = sent,
            }
        }
    }

    /// Reads until `packets` packets of payload have come in all.
    #[track_caller]
    pub(crate) fn receive_until(&mut self, packets: u64) {
        let deadline = Instant::now() + DEADLINE;
        while self.received_packets < packets {
            let (so_far, late) = (self.received_packets, Instant::now() > deadline);
            assert!(!late, "{so_far} of {packets} packets have come");
            self.receive();
        }
    }

    /// Sends to the peer of its channel.
    pub(crate) fn send_payload(&mut self, payload: &[u8]) {
        self.channel_data(CHANNEL, payload);
        self.sent += payload.len() as u64;
    }

    /// Sends to a peer by a Send indication.
    pub(crate) fn send_to(&mut self, peer: SocketAddrV4, payload: &[u8]) {
        let attributes = [
            (stun::XOR_PEER_ADDRESS, stun::address(peer)),
            (stun::PAYLOAD, payload.to_vec()),
        ];
        self.indication(stun::SEND, &attributes);
        self.sent += payload.len() as u64;
    }

    /// What a server reads and throws away: ChannelData on a channel that is not bound, a Send indication to a peer
    /// without permission, and a keepalive.
    pub(crate) fn junk(&mut self, nobody: SocketAddrV4) {
        self.channel_data(CHANNEL + 1, b"");
        let attributes = [
            (stun::XOR_PEER_ADDRESS, stun::address(nobody)),
            (stun::PAYLOAD, b"junk".to_vec()),
        ];
        self.indication(stun::SEND, &attributes);
        self.indication(stun::BINDING, &[]);
    }

    fn channel_data(&mut self, channel: u16, payload: &[u8]) {
        let mut packet = channel.to_be_bytes().to_vec();
        packet.extend_from_slice(&(payload.len() as u16).to_be_bytes());
        packet.extend_from_slice(payload);
        if self.wire.is_stream() {
            packet.resize(packet.len().next_multiple_of(4), 0);
        }
        self.wire.write(&packet);
    }

    /// Indications are neither signed nor answered.
    pub(crate) fn indication(&mut self, method: u16, attributes: &[(u16, Vec<u8>)]) {
        let id = self.transaction();
        let message = stun::message(method | stun::INDICATION, id, attributes, None);
        self.wire.write(&message);
    }

    fn transaction(&mut self) -> stun::Transaction {
        self.transactions += 1;
        let mut id = [0; 12];
        id[4..].copy_from_slice(&self.transactions.to_be_bytes());
        id
    }

    /// A request, signed once the server has said its realm and nonce.
    #[track_caller]
    pub(crate) fn request(&mut self, method: u16, attributes: &[(u16, Vec<u8>)]) -> Answer {
        let deadline = Instant::now() + DEADLINE;
        loop {
            assert!(
                Instant::now() < deadline,
                "no answer of coturn's to request {method:#x}"
            );
            let id = self.transaction();
            let signed = Some(&self.credential).filter(|credential| !credential.nonce.is_empty());
            let message = stun::message(method, id, attributes, signed);
            self.wire.write(&message);
            while let Some(received) = self.receive() {
                let Received::Answer(of, answer) = received else {
                    continue;
                };
                if of != id {
                    continue;
                }
                if let (Some(realm), Some(nonce)) = (answer.get(stun::REALM), answer.get(stun::NONCE)) {
                    self.credential.realm = realm.to_vec();
                    self.credential.nonce = nonce.to_vec();
                }
                if answer.code == 438 {
                    // A stale nonce: again, with the new one.
                    break;
                }
                return answer;
            }
        }
    }

    /// The next message, or `None` if none comes for a while.
    fn receive(&mut self) -> Option<Received> {
        let received = stun::parse(&self.wire.message()?);
        match &received {
            Received::Payload(payload) => {
                self.received += payload.len() as u64;
                self.received_packets += 1;
            }
            Received::Attempt(id) => self.attempts.push(*id),
            _ => {}
        }
        Some(received)
    }

    /// The next connection that a peer has made to the relay address.
    #[track_caller]
    pub(crate) fn attempt(&mut self) -> [u8; 4] {
        let deadline = Instant::now() + DEADLINE;
        while self.attempts.is_empty() {
            assert!(Instant::now() < deadline, "no peer has connected");
            self.receive();
        }
        self.attempts.remove(0)
    }
}
