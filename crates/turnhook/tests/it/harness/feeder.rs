//! What coturn would say, without coturn: messages of made-up allocations over coturn's own protocol, much
//! faster than calls can be made.

use std::{
    io::{self, Read, Write},
    net::{Shutdown, TcpStream},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

use super::eventually;

/// The four counters of a leg: received packets and bytes, sent packets and bytes.
pub(crate) type Counters = [u64; 4];

/// An allocation and what was relayed over it.
#[derive(Clone, Debug)]
pub(crate) struct Allocation {
    pub(crate) user: String,
    pub(crate) id: u64,
    pub(crate) client: Counters,
    pub(crate) peer: Counters,
}

impl Allocation {
    pub(crate) fn new(user: &str, id: u64) -> Allocation {
        Allocation {
            user: user.to_owned(),
            id,
            client: [0; 4],
            peer: [0; 4],
        }
    }

    /// As in payloads.
    pub(crate) fn name(&self) -> String {
        format!("{:018}", self.id)
    }
}

/// A connection to a `direct` source, as one relay thread of coturn has it.
pub(crate) struct Feeder {
    stream: TcpStream,
    /// Bytes of replies.
    replied: Arc<AtomicU64>,
}

impl Feeder {
    /// Connects, as soon as somebody listens.
    #[track_caller]
    pub(crate) fn connect(port: u16) -> Feeder {
        eventually("the source to listen", || Feeder::try_connect(port).ok())
    }

    /// The same, with the source's password.
    #[track_caller]
    pub(crate) fn login(port: u16, password: &str) -> Feeder {
        let mut feeder = Feeder::connect(port);
        feeder.command(&["AUTH", password]).unwrap();
        feeder
    }

    pub(crate) fn try_connect(port: u16) -> io::Result<Feeder> {
        let stream = TcpStream::connect(("127.0.0.1", port))?;
        stream.set_nodelay(true)?;
        let mut replies = stream.try_clone()?;
        let replied = Arc::new(AtomicU64::new(0));
        let counted = Arc::clone(&replied);
        std::thread::spawn(move || {
            // coturn never looks at them.
            let mut buffer = [0; 4096];
            while let Ok(count @ 1..) = replies.read(&mut buffer) {
                counted.fetch_add(count as u64, Ordering::Relaxed);
            }
        });
        let mut feeder = Feeder { stream, replied };
        feeder.command(&["SELECT", "0"])?;
        Ok(feeder)
    }

    fn command(&mut self, words: &[&str]) -> io::Result<()> {
        let mut bytes = Vec::new();
        encode(&mut bytes, words);
        self.stream.write_all(&bytes)
    }

    fn publish(&mut self, allocation: &Allocation, messages: &[(&str, String)]) -> io::Result<()> {
        let mut bytes = Vec::new();
        for (kind, payload) in messages {
            let channel = format!(
                "turn/realm/example.org/user/{}/allocation/{}/{kind}",
                allocation.user,
                allocation.name()
            );
            encode(&mut bytes, &["PUBLISH", &channel, payload]);
        }
        self.stream.write_all(&bytes)
    }

    /// It was made, for so many seconds.
    pub(crate) fn open(&mut self, allocation: &Allocation, lifetime: u32) -> io::Result<()> {
        self.publish(allocation, &[("status", status("new", allocation, lifetime))])
    }

    /// Its lifetime was renewed.
    pub(crate) fn refresh(&mut self, allocation: &Allocation, lifetime: u32) -> io::Result<()> {
        self.publish(
            allocation,
            &[("status", status("refreshed", allocation, lifetime))],
        )
    }

    /// It relayed so many packets each way, of a hundred bytes.
    pub(crate) fn relay(&mut self, allocation: &mut Allocation, up: u64, down: u64) -> io::Result<()> {
        let client = [up, up * 104, down, down * 104];
        let peer = [down, down * 100, up, up * 100];
        for (sum, delta) in allocation.client.iter_mut().zip(client) {
            *sum += delta;
        }
        for (sum, delta) in allocation.peer.iter_mut().zip(peer) {
            *sum += delta;
        }
        self.publish(
            allocation,
            &[("traffic", counters(&client)), ("traffic/peer", counters(&peer))],
        )
    }

    /// It is gone; the totals follow.
    pub(crate) fn close(&mut self, allocation: &Allocation) -> io::Result<()> {
        let messages = [
            ("status", "deleted".to_owned()),
            ("total_traffic", counters(&allocation.client)),
            ("total_traffic/peer", counters(&allocation.peer)),
        ];
        self.publish(allocation, &messages)
    }

    /// It is gone; nothing yet of its totals.
    pub(crate) fn delete(&mut self, allocation: &Allocation) -> io::Result<()> {
        self.publish(allocation, &[("status", "deleted".to_owned())])
    }

    /// Its totals, which come last.
    pub(crate) fn totals(&mut self, allocation: &Allocation) -> io::Result<()> {
        let messages = [
            ("total_traffic", counters(&allocation.client)),
            ("total_traffic/peer", counters(&allocation.peer)),
        ];
        self.publish(allocation, &messages)
    }

    /// The total of its client's leg: an old coturn knows no other.
    pub(crate) fn client_total(&mut self, allocation: &Allocation) -> io::Result<()> {
        self.publish(allocation, &[("total_traffic", counters(&allocation.client))])
    }

    /// As coturn says at its start, from a connection of its own: a server that never said so is not known to have stopped.
    pub(crate) fn started(port: u16) -> Feeder {
        let mut authenticates = Feeder::connect(port);
        authenticates
            .command(&["KEYS", "turn/*/allocation/*/status"])
            .unwrap();
        authenticates
    }

    /// How many of its messages were read: each is replied to by `:1`, and the `SELECT` before them by `+OK`.
    pub(crate) fn read(&self) -> u64 {
        self.replied.load(Ordering::Relaxed).saturating_sub(5) / 4
    }

    /// Ends the connection. One that is merely dropped stays open, for somebody reads its replies.
    pub(crate) fn hang_up(self) {
        let _ = self.stream.shutdown(Shutdown::Both);
    }

    /// A whole call: a session with a start and an end.
    #[track_caller]
    pub(crate) fn call(&mut self, user: &str, id: u64) -> Allocation {
        let mut allocation = Allocation::new(user, id);
        self.open(&allocation, 600).unwrap();
        self.relay(&mut allocation, id % 1000 + 10, id % 100 + 5).unwrap();
        self.close(&allocation).unwrap();
        allocation
    }
}

fn status(what: &str, allocation: &Allocation, lifetime: u32) -> String {
    let port = 20_000 + allocation.id % 40_000;
    format!(
        "{what} lifetime={lifetime}, type=UDP, local=127.0.0.1:3478, remote=192.0.2.7:{port}, ssl=NONE, cipher=NONE"
    )
}

fn counters(counters: &Counters) -> String {
    let [received_packets, received_bytes, sent_packets, sent_bytes] = counters;
    format!("rcvp={received_packets}, rcvb={received_bytes}, sentp={sent_packets}, sentb={sent_bytes}")
}

fn encode(bytes: &mut Vec<u8>, words: &[&str]) {
    bytes.extend_from_slice(format!("*{}\r\n", words.len()).as_bytes());
    for word in words {
        bytes.extend_from_slice(format!("${}\r\n{word}\r\n", word.len()).as_bytes());
    }
}
