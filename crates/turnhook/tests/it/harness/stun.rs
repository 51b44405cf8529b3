//! STUN messages as a TURN client writes and reads them (RFC 8489, RFC 8656, RFC 6062).

use std::net::{SocketAddr, SocketAddrV4};

use base64::{Engine as _, engine::general_purpose::STANDARD as BASE64};
use hmac::{Hmac, KeyInit as _, Mac as _};
use md5::{Digest as _, Md5};
use sha1::Sha1;

use super::coturn::AUTH_SECRET;

const COOKIE: [u8; 4] = [0x21, 0x12, 0xa4, 0x42];

pub(crate) const BINDING: u16 = 0x001;
pub(crate) const ALLOCATE: u16 = 0x003;
pub(crate) const REFRESH: u16 = 0x004;
pub(crate) const SEND: u16 = 0x006;
pub(crate) const DATA: u16 = 0x007;
pub(crate) const CREATE_PERMISSION: u16 = 0x008;
pub(crate) const CHANNEL_BIND: u16 = 0x009;
pub(crate) const CONNECT: u16 = 0x00a;
pub(crate) const CONNECTION_BIND: u16 = 0x00b;
pub(crate) const CONNECTION_ATTEMPT: u16 = 0x00c;
/// Added to a method.
pub(crate) const INDICATION: u16 = 0x010;

const USERNAME: u16 = 0x0006;
const MESSAGE_INTEGRITY: u16 = 0x0008;
const ERROR_CODE: u16 = 0x0009;
pub(crate) const CHANNEL_NUMBER: u16 = 0x000c;
pub(crate) const LIFETIME: u16 = 0x000d;
pub(crate) const XOR_PEER_ADDRESS: u16 = 0x0012;
pub(crate) const PAYLOAD: u16 = 0x0013;
pub(crate) const REALM: u16 = 0x0014;
pub(crate) const NONCE: u16 = 0x0015;
pub(crate) const XOR_RELAYED_ADDRESS: u16 = 0x0016;
pub(crate) const REQUESTED_TRANSPORT: u16 = 0x0019;
pub(crate) const CONNECTION_ID: u16 = 0x002a;

pub(crate) type Transaction = [u8; 12];

/// Who a client says it is, and what it proves it with.
#[derive(Clone)]
pub(crate) struct Credential {
    pub(crate) username: String,
    pub(crate) password: String,
    /// As the server said them.
    pub(crate) realm: Vec<u8>,
    pub(crate) nonce: Vec<u8>,
    /// A realm that is said instead of the server's; the key stays the one of the server's.
    pub(crate) claimed_realm: Option<Vec<u8>>,
    /// Whether it signs with what is no signature.
    pub(crate) junk: bool,
}

impl Credential {
    pub(crate) fn new(username: &str, password: &str) -> Credential {
        Credential {
            username: username.to_owned(),
            password: password.to_owned(),
            realm: Vec::new(),
            nonce: Vec::new(),
            claimed_realm: None,
            junk: false,
        }
    }

    /// Of the TURN REST API.
    pub(crate) fn rest(user: &str) -> Credential {
        let username = format!("1999999999:{user}");
        let mut mac = Hmac::<Sha1>::new_from_slice(AUTH_SECRET.as_bytes()).unwrap();
        mac.update(username.as_bytes());
        let password = BASE64.encode(mac.finalize().into_bytes());
        Credential::new(&username, &password)
    }

    fn sign(&self, message: &mut Vec<u8>) {
        put(message, USERNAME, self.username.as_bytes());
        put(
            message,
            REALM,
            self.claimed_realm.as_deref().unwrap_or(&self.realm),
        );
        put(message, NONCE, &self.nonce);
        let mut md5 = Md5::new();
        md5.update(self.username.as_bytes());
        md5.update(b":");
        md5.update(&self.realm);
        md5.update(b":");
        md5.update(self.password.as_bytes());
        // The length covers the attribute that is computed.
        set_length(message, 24);
        let mut mac = Hmac::<Sha1>::new_from_slice(&md5.finalize()).unwrap();
        mac.update(message);
        if self.junk {
            put(message, MESSAGE_INTEGRITY, &[0xee; 20]);
        } else {
            put(message, MESSAGE_INTEGRITY, &mac.finalize().into_bytes());
        }
    }
}

/// A message, signed where there is somebody to sign it.
pub(crate) fn message(
    kind: u16,
    id: Transaction,
    attributes: &[(u16, Vec<u8>)],
    signed: Option<&Credential>,
) -> Vec<u8> {
    let mut message = kind.to_be_bytes().to_vec();
    message.extend_from_slice(&[0, 0]);
    message.extend_from_slice(&COOKIE);
    message.extend_from_slice(&id);
    for (kind, value) in attributes {
        put(&mut message, *kind, value);
    }
    if let Some(credential) = signed {
        credential.sign(&mut message);
    }
    set_length(&mut message, 0);
    message
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

/// A message that came.
#[derive(Debug)]
pub(crate) enum Received {
    /// Payload of a peer, in ChannelData or a Data indication.
    Payload(Vec<u8>),
    /// A peer has connected to the relay address (RFC 6062).
    Attempt([u8; 4]),
    Answer(Transaction, Answer),
    Other,
}

/// What a server answered.
#[derive(Debug)]
pub(crate) struct Answer {
    /// 0 for success, or the error's code.
    pub(crate) code: u16,
    attributes: Vec<(u16, Vec<u8>)>,
}

impl Answer {
    pub(crate) fn get(&self, kind: u16) -> Option<&[u8]> {
        self.attributes
            .iter()
            .find(|(k, _)| *k == kind)
            .map(|(_, v)| v.as_slice())
    }
}

/// How long the message is that begins with these bytes, once its length can be read. `stream`: where ChannelData is
/// padded.
pub(crate) fn whole(bytes: &[u8], stream: bool) -> Option<usize> {
    let length = usize::from(u16::from_be_bytes([*bytes.get(2)?, *bytes.get(3)?]));
    Some(if is_channel_data(bytes) && stream {
        (4 + length).next_multiple_of(4)
    } else if is_channel_data(bytes) {
        4 + length
    } else {
        20 + length
    })
}

fn is_channel_data(bytes: &[u8]) -> bool {
    bytes[0] & 0xc0 == 0x40
}

pub(crate) fn parse(message: &[u8]) -> Received {
    if is_channel_data(message) {
        let length = usize::from(u16::from_be_bytes([message[2], message[3]]));
        return Received::Payload(message[4..4 + length].to_vec());
    }
    let kind = u16::from_be_bytes([message[0], message[1]]);
    let answer = attributes(message);
    if kind == DATA | INDICATION {
        Received::Payload(answer.get(PAYLOAD).unwrap_or_default().to_vec())
    } else if kind == CONNECTION_ATTEMPT | INDICATION {
        Received::Attempt(answer.get(CONNECTION_ID).unwrap().try_into().unwrap())
    } else if kind & 0x0110 >= 0x0100 {
        Received::Answer(message[8..20].try_into().unwrap(), answer)
    } else {
        Received::Other
    }
}

fn attributes(message: &[u8]) -> Answer {
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

pub(crate) fn address(peer: SocketAddrV4) -> Vec<u8> {
    let mut value = vec![0, 1];
    let (port, octets) = (peer.port().to_be_bytes(), peer.ip().octets());
    value.extend(port.iter().zip(COOKIE).map(|(byte, cookie)| byte ^ cookie));
    value.extend(octets.iter().zip(COOKIE).map(|(byte, cookie)| byte ^ cookie));
    value
}

pub(crate) fn xor_address(value: &[u8]) -> SocketAddr {
    let port = u16::from_be_bytes([value[2] ^ COOKIE[0], value[3] ^ COOKIE[1]]);
    let mut octets = [0; 4];
    for (octet, (byte, cookie)) in octets.iter_mut().zip(value[4..8].iter().zip(COOKIE)) {
        *octet = byte ^ cookie;
    }
    SocketAddr::from((octets, port))
}
