//! A TURN client that does exactly what a scenario needs, and knows to the byte what it did (RFC 8656).

use std::{
    io::{ErrorKind, Read, Write},
    net::{Ipv4Addr, SocketAddr, SocketAddrV4, TcpStream, UdpSocket},
    time::{Duration, Instant},
};

use base64::{Engine as _, engine::general_purpose::STANDARD as BASE64};
use hmac::{Hmac, KeyInit as _, Mac as _};
use md5::{Digest as _, Md5};
use sha1::Sha1;

use super::{
    DEADLINE,
    coturn::{AUTH_SECRET, Coturn},
};

const COOKIE: [u8; 4] = [0x21, 0x12, 0xa4, 0x42];

const ALLOCATE: u16 = 0x003;
const REFRESH: u16 = 0x004;
const CREATE_PERMISSION: u16 = 0x008;
const CHANNEL_BIND: u16 = 0x009;

const USERNAME: u16 = 0x0006;
const MESSAGE_INTEGRITY: u16 = 0x0008;
const ERROR_CODE: u16 = 0x0009;
const CHANNEL_NUMBER: u16 = 0x000c;
const LIFETIME: u16 = 0x000d;
const XOR_PEER_ADDRESS: u16 = 0x0012;
const REALM: u16 = 0x0014;
const NONCE: u16 = 0x0015;
const XOR_RELAYED_ADDRESS: u16 = 0x0016;
const REQUESTED_TRANSPORT: u16 = 0x0019;

/// The channel that every client binds.
const CHANNEL: u16 = 0x4000;

/// Packets that may be on their way at once, and bytes of them: few enough that no buffer on the way is full.
const WINDOW: u32 = 32;
const WINDOW_BYTES: usize = 24_000;

/// How long a packet may take before it counts as lost, or a request before it is repeated.
const PATIENCE: Duration = Duration::from_secs(2);

enum Wire {
    Udp(UdpSocket),
    /// With what was read and belongs to the next message.
    Tcp(TcpStream, Vec<u8>),
}

pub(crate) struct TurnClient {
    wire: Wire,
    username: String,
    password: String,
    realm: Vec<u8>,
    nonce: Vec<u8>,
    transactions: u64,
    relay: Option<SocketAddr>,
    /// Bytes of payload that it sent to its peer, whether or not they arrived.
    pub(crate) sent: u64,
    /// Bytes of payload that came back.
    pub(crate) received: u64,
}

/// What a server answered.
struct Answer {
    /// 0 for success, or the error's code.
    code: u16,
    attributes: Vec<(u16, Vec<u8>)>,
}

impl Answer {
    fn get(&self, kind: u16) -> Option<&[u8]> {
        self.attributes
            .iter()
            .find(|(k, _)| *k == kind)
            .map(|(_, v)| v.as_slice())
    }
}

/// A username of the TURN REST API, and its password.
fn credential(user: &str) -> (String, String) {
    let username = format!("1999999999:{user}");
    let mut mac = Hmac::<Sha1>::new_from_slice(AUTH_SECRET.as_bytes()).unwrap();
    mac.update(username.as_bytes());
    let password = BASE64.encode(mac.finalize().into_bytes());
    (username, password)
}

impl TurnClient {
    /// A client with a good password, over UDP. Nothing is sent yet.
    pub(crate) fn udp(coturn: &Coturn, user: &str) -> TurnClient {
        let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        socket.connect((Ipv4Addr::LOCALHOST, coturn.port)).unwrap();
        socket.set_read_timeout(Some(PATIENCE)).unwrap();
        TurnClient::new(Wire::Udp(socket), credential(user))
    }

    /// The same over TCP: when it is dropped, coturn notices at once.
    pub(crate) fn tcp(coturn: &Coturn, user: &str) -> TurnClient {
        let stream = TcpStream::connect((Ipv4Addr::LOCALHOST, coturn.port)).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        stream.set_nodelay(true).unwrap();
        TurnClient::new(Wire::Tcp(stream, Vec::new()), credential(user))
    }

    /// Somebody who claims a name and does not know its password, over TCP.
    pub(crate) fn impostor(coturn: &Coturn, user: &str) -> TurnClient {
        let mut client = TurnClient::tcp(coturn, user);
        "wrong".clone_into(&mut client.password);
        client
    }

    fn new(wire: Wire, (username, password): (String, String)) -> TurnClient {
        TurnClient {
            wire,
            username,
            password,
            realm: Vec::new(),
            nonce: Vec::new(),
            transactions: 0,
            relay: None,
            sent: 0,
            received: 0,
        }
    }

    /// Makes its allocation, and gives back the relay address.
    ///
    /// # Errors
    /// With the code that the server refuses it with.
    pub(crate) fn allocate(&mut self) -> Result<SocketAddr, u16> {
        // Without a lifetime asked for, coturn's --max-allocate-lifetime is not applied.
        let attributes = [
            (REQUESTED_TRANSPORT, vec![17, 0, 0, 0]),
            (LIFETIME, 600u32.to_be_bytes().to_vec()),
        ];
        let first = self.nonce.is_empty();
        let mut answer = self.request(ALLOCATE, &attributes);
        // The first answer tells realm and nonce.
        if answer.code == 401 && first {
            answer = self.request(ALLOCATE, &attributes);
        }
        if answer.code != 0 {
            return Err(answer.code);
        }
        let relay = xor_address(answer.get(XOR_RELAYED_ADDRESS).unwrap());
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
        let peer = address(coturn.peer_address());
        let channel = CHANNEL.to_be_bytes();
        let bind = [
            (CHANNEL_NUMBER, vec![channel[0], channel[1], 0, 0]),
            (XOR_PEER_ADDRESS, peer),
        ];
        assert_eq!(self.request(CHANNEL_BIND, &bind).code, 0);
        self
    }

    /// Lets an address send to the relay address.
    pub(crate) fn permit(&mut self, peer: SocketAddrV4) {
        assert_eq!(
            self.request(CREATE_PERMISSION, &[(XOR_PEER_ADDRESS, address(peer))])
                .code,
            0
        );
    }

    /// Refreshes the allocation; 0 deletes it. Gives back the code.
    pub(crate) fn refresh(&mut self, lifetime: u32) -> u16 {
        self.request(REFRESH, &[(LIFETIME, lifetime.to_be_bytes().to_vec())])
            .code
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
                Some(message) if message[0] & 0xc0 == 0x40 => {
                    self.received += u64::from(u16::from_be_bytes([message[2], message[3]]));
                    back += 1;
                }
                Some(_) => {}
                // Lost on the way: what is on its way now will not come.
                None => back = sent,
            }
        }
    }

    fn send_payload(&mut self, payload: &[u8]) {
        let mut packet = CHANNEL.to_be_bytes().to_vec();
        packet.extend_from_slice(&(payload.len() as u16).to_be_bytes());
        packet.extend_from_slice(payload);
        if matches!(self.wire, Wire::Tcp(..)) {
            packet.resize(packet.len().next_multiple_of(4), 0);
        }
        self.sent += payload.len() as u64;
        self.write(&packet);
    }

    fn request(&mut self, method: u16, attributes: &[(u16, Vec<u8>)]) -> Answer {
        let deadline = Instant::now() + DEADLINE;
        loop {
            assert!(
                Instant::now() < deadline,
                "no answer of coturn's to request {method:#x}"
            );
            self.transactions += 1;
            let mut id = [0; 12];
            id[4..].copy_from_slice(&self.transactions.to_be_bytes());
            let message = self.message(method, id, attributes);
            self.write(&message);
            while let Some(answer) = self.receive() {
                if answer[0] & 0xc0 == 0x40 {
                    self.received += u64::from(u16::from_be_bytes([answer[2], answer[3]]));
                    continue;
                }
                if answer[8..20] != id {
                    continue;
                }
                let answer = parse(&answer);
                if let (Some(realm), Some(nonce)) = (answer.get(REALM), answer.get(NONCE)) {
                    self.realm = realm.to_vec();
                    self.nonce = nonce.to_vec();
                }
                if answer.code == 438 {
                    // A stale nonce: again, with the new one.
                    break;
                }
                return answer;
            }
        }
    }

    fn message(&self, method: u16, id: [u8; 12], attributes: &[(u16, Vec<u8>)]) -> Vec<u8> {
        let mut message = method.to_be_bytes().to_vec();
        message.extend_from_slice(&[0, 0]);
        message.extend_from_slice(&COOKIE);
        message.extend_from_slice(&id);
        for (kind, value) in attributes {
            put(&mut message, *kind, value);
        }
        if !self.nonce.is_empty() {
            put(&mut message, USERNAME, self.username.as_bytes());
            put(&mut message, REALM, &self.realm);
            put(&mut message, NONCE, &self.nonce);
            let mut md5 = Md5::new();
            md5.update(self.username.as_bytes());
            md5.update(b":");
            md5.update(&self.realm);
            md5.update(b":");
            md5.update(self.password.as_bytes());
            // The length covers the attribute that is computed.
            set_length(&mut message, 24);
            let mut mac = Hmac::<Sha1>::new_from_slice(&md5.finalize()).unwrap();
            mac.update(&message);
            put(&mut message, MESSAGE_INTEGRITY, &mac.finalize().into_bytes());
        }
        set_length(&mut message, 0);
        message
    }

    fn write(&mut self, bytes: &[u8]) {
        match &mut self.wire {
            // A server that is gone is noticed by what does not come back.
            Wire::Udp(socket) => drop(socket.send(bytes)),
            Wire::Tcp(stream, _) => drop(stream.write_all(bytes)),
        }
    }

    /// The next message, or `None` if none comes for a while.
    fn receive(&mut self) -> Option<Vec<u8>> {
        let mut buffer = vec![0; 65_536];
        match &mut self.wire {
            Wire::Udp(socket) => {
                let length = socket.recv(&mut buffer).ok()?;
                buffer.truncate(length);
                (length >= 4).then_some(buffer)
            }
            Wire::Tcp(stream, rest) => loop {
                if rest.len() >= 4 {
                    let length = usize::from(u16::from_be_bytes([rest[2], rest[3]]));
                    let whole = if rest[0] & 0xc0 == 0x40 {
                        (4 + length).next_multiple_of(4)
                    } else {
                        20 + length
                    };
                    if rest.len() >= whole {
                        return Some(rest.drain(..whole).collect());
                    }
                }
                match stream.read(&mut buffer) {
                    Ok(0) => return None,
                    Ok(length) => rest.extend_from_slice(&buffer[..length]),
                    Err(error) if error.kind() == ErrorKind::Interrupted => {}
                    Err(_) => return None,
                }
            },
        }
    }
}

fn put(message: &mut Vec<u8>, kind: u16, value: &[u8]) {
    message.extend_from_slice(&kind.to_be_bytes());
    message.extend_from_slice(&(value.len() as u16).to_be_bytes());
    message.extend_from_slice(value);
    message.resize(message.len().next_multiple_of(4), 0);
}

fn set_length(message: &mut [u8], more: usize) {
    let length = (message.len() - 20 + more) as u16;
    message[2..4].copy_from_slice(&length.to_be_bytes());
}

fn parse(message: &[u8]) -> Answer {
    let mut attributes = Vec::new();
    let mut rest = &message[20..];
    while rest.len() >= 4 {
        let kind = u16::from_be_bytes([rest[0], rest[1]]);
        let length = usize::from(u16::from_be_bytes([rest[2], rest[3]]));
        attributes.push((kind, rest[4..4 + length].to_vec()));
        rest = &rest[(4 + length.next_multiple_of(4)).min(rest.len())..];
    }
    let answer = Answer { code: 0, attributes };
    let code = answer
        .get(ERROR_CODE)
        .map_or(0, |e| u16::from(e[2] & 7) * 100 + u16::from(e[3]));
    Answer { code, ..answer }
}

fn address(peer: SocketAddrV4) -> Vec<u8> {
    let mut value = vec![0, 1];
    value.extend(
        peer.port()
            .to_be_bytes()
            .iter()
            .zip(COOKIE)
            .map(|(byte, cookie)| byte ^ cookie),
    );
    value.extend(
        peer.ip()
            .octets()
            .iter()
            .zip(COOKIE)
            .map(|(byte, cookie)| byte ^ cookie),
    );
    value
}

fn xor_address(value: &[u8]) -> SocketAddr {
    let port = u16::from_be_bytes([value[2] ^ COOKIE[0], value[3] ^ COOKIE[1]]);
    let mut octets = [0; 4];
    for (octet, (byte, cookie)) in octets.iter_mut().zip(value[4..8].iter().zip(COOKIE)) {
        *octet = byte ^ cookie;
    }
    SocketAddr::from((octets, port))
}
