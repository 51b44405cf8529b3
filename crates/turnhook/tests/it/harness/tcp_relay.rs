//! TCP relay (RFC 6062): connections to peers, and the client's data connections that they are bound to.

use std::{net::SocketAddrV4, time::Instant};

use super::{
    DEADLINE,
    coturn::Coturn,
    stun::{self, Credential, Received},
    turn::TurnClient,
    wire::Wire,
};

/// A client's connection that carries what one peer sends and receives, without any framing.
pub(crate) struct DataConnection {
    wire: Wire,
    pub(crate) sent: u64,
    pub(crate) received: u64,
}

impl TurnClient {
    /// Lets the server connect to a peer; the connection waits to be bound.
    #[track_caller]
    pub(crate) fn connect(&mut self, peer: SocketAddrV4) -> [u8; 4] {
        let attributes = [(stun::XOR_PEER_ADDRESS, stun::address(peer))];
        let answer = self.request(stun::CONNECT, &attributes);
        assert_eq!(answer.code, 0, "CONNECT");
        answer.get(stun::CONNECTION_ID).unwrap().try_into().unwrap()
    }

    /// Binds a data connection to a peer's.
    #[track_caller]
    pub(crate) fn bind(&mut self, coturn: &Coturn, id: [u8; 4]) -> DataConnection {
        let credential = self.credential().clone();
        let (answer, connection) = self.try_bind(coturn, id, &credential);
        assert_eq!(answer, Some(0), "CONNECTION-BIND");
        connection
    }

    /// Asks for it under a realm of its own choice, with what is no signature: the server reads the realm before it
    /// looks at the signature, and closes the connection.
    #[track_caller]
    pub(crate) fn switch_realm(&mut self, coturn: &Coturn, id: [u8; 4], realm: &str) {
        let mut claimed = self.credential().clone();
        claimed.realm = realm.as_bytes().to_vec();
        claimed.junk = true;
        let (answer, _) = self.try_bind(coturn, id, &claimed);
        assert_ne!(answer, Some(0), "it was let in");
        // It is in that realm from now on, and its key stays as it was.
        self.credential().claimed_realm = Some(realm.as_bytes().to_vec());
    }

    /// What the server answers, if it does.
    fn try_bind(
        &self,
        coturn: &Coturn,
        id: [u8; 4],
        credential: &Credential,
    ) -> (Option<u16>, DataConnection) {
        let mut wire = Wire::open(coturn, self.transport());
        let attributes = [(stun::CONNECTION_ID, id.to_vec())];
        wire.write(&stun::message(
            stun::CONNECTION_BIND,
            [7; 12],
            &attributes,
            Some(credential),
        ));
        let answer = wire.message().and_then(|message| match stun::parse(&message) {
            Received::Answer(_, answer) => Some(answer.code),
            _ => None,
        });
        let connection = DataConnection {
            wire,
            sent: 0,
            received: 0,
        };
        (answer, connection)
    }
}

impl DataConnection {
    pub(crate) fn send(&mut self, bytes: &[u8]) {
        self.wire.write(bytes);
        self.sent += bytes.len() as u64;
    }

    /// Reads until so many bytes have come in all.
    #[track_caller]
    pub(crate) fn receive_until(&mut self, bytes: u64) {
        let deadline = Instant::now() + DEADLINE;
        while self.received < bytes {
            let (so_far, late) = (self.received, Instant::now() > deadline);
            assert!(!late, "{so_far} of {bytes} bytes have come");
            if let Some(more) = self.wire.bytes() {
                self.received += more.len() as u64;
            }
        }
    }

    pub(crate) fn close(self) {
        self.wire.close();
    }
}
