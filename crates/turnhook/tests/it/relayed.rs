//! What was relayed is billed, whichever way it went and by whichever relay; what strangers send and what clients send
//! for nothing is not. On a real coturn: the truth is what the test's own clients and peers got.

use std::{
    io::{ErrorKind, Write as _},
    net::TcpStream,
};

use crate::harness::{
    billing::{Session, logged_of, sum},
    coturn::Transport,
    line::{LENGTH, Line, TcpLine, UdpLine, Way},
    peer::{BATCH, UdpPeer},
    turn::TurnClient,
    world::World,
};

const PACKETS: u64 = 208;
const BYTES: u64 = PACKETS * LENGTH as u64;

/// More than a Data indication can add to a payload: addresses of IPv6, padding, SOFTWARE and FINGERPRINT (measured:
/// up to 87).
const LARGEST_FRAMING: u64 = 88;
/// More than any answer to a request is long (measured: up to 364).
const LARGEST_ANSWER: u64 = 500;

const OVER_ALL: [Transport; 3] = [Transport::Udp, Transport::Tcp, Transport::Tls];

type User = (String, Box<dyn Line>);

impl World {
    /// One user of a UDP relay for each way to reach the server and a peer.
    fn udp(&self) -> Vec<(String, UdpLine)> {
        let mut users = Vec::new();
        for way in [Way::Permission, Way::Channel] {
            for transport in OVER_ALL {
                let user = format!("{way:?}-{transport:?}");
                let line = UdpLine::new(&self.coturn, transport, &user, way);
                users.push((user, line));
            }
        }
        users
    }

    /// The same of a TCP relay.
    fn tcp(&self) -> Vec<(String, TcpLine)> {
        let one = |transport| {
            let user = format!("TcpRelay-{transport:?}");
            let line = TcpLine::new(&self.coturn, transport, &user);
            (user, line)
        };
        [Transport::Tcp, Transport::Tls].map(one).into()
    }

    /// All of them.
    fn users(&self) -> Vec<User> {
        let boxed = |(user, line)| -> User { (user, Box::new(line)) };
        let tcp = self.tcp().into_iter();
        let tcp = tcp.map(|(user, line)| -> User { (user, Box::new(line)) });
        self.udp().into_iter().map(boxed).chain(tcp).collect()
    }

    /// The one session of a user who has hung up; each leg is told as coturn logged it.
    fn logged_session(&self, user: &str) -> Session {
        let session = self.session(user);
        assert_eq!(session.usage(), sum(logged_of(&self.coturn, user)), "{user}");
        session
    }

    /// Whether all that was relayed is billed, and no more.
    fn billed_to_the_byte(&self, (user, line): &User) {
        let ([up, down], session) = (line.relayed(), self.logged_session(user));
        // From 4.11 on coturn counts the header of ChannelData as sent to the peer.
        let packets = session.usage().peer[2];
        let header = if user.starts_with("Channel") {
            packets * self.coturn.channel_header()
        } else {
            0
        };
        let billed = session.billable();
        assert!(
            (up + down..=up + down + header).contains(&billed),
            "{user}: {billed} billed, {up} up, {down} down; {:?}",
            session.usage()
        );
        assert_eq!(
            (session.is_exact(), session.end_reason()),
            (true, "closed"),
            "{user}"
        );
    }

    /// Whether no more is billed than was relayed, and little less.
    fn billed_but_for(&self, less: u64, user: &str, [up, down]: [u64; 2]) {
        let session = self.logged_session(user);
        let (billed, truth) = (session.billable(), up + down);
        assert!(
            billed <= truth && billed + less >= truth,
            "{user}: {billed} billed, {up} up, {down} down; {:?}",
            session.usage()
        );
    }
}

/// All at once, since coturn takes a second for each.
fn hang_up<'a>(lines: impl IntoIterator<Item = &'a mut TurnClient>) {
    for client in lines {
        assert_eq!(client.refresh(0), 0);
    }
}

fn clients(users: &mut [User]) -> impl Iterator<Item = &mut TurnClient> {
    users.iter_mut().map(|(_, line)| line.client())
}

#[test]
fn up_only() {
    let world = World::start("");
    let mut users = world.users();
    for (_, line) in &mut users {
        line.up(PACKETS);
    }
    hang_up(clients(&mut users));
    for user in &users {
        assert_eq!(user.1.relayed(), [BYTES, 0]);
        world.billed_to_the_byte(user);
    }
}

/// The client never sends anything to its peer, so that coturn counts nothing as sent to a peer.
#[test]
fn down_only() {
    let world = World::start("");
    let mut users = world.users();
    for (_, line) in &mut users {
        line.down(PACKETS);
    }
    hang_up(clients(&mut users));
    for user in &users {
        assert_eq!(user.1.relayed(), [0, BYTES]);
        world.billed_to_the_byte(user);
    }
}

#[test]
fn both_ways() {
    let world = World::start("");
    let mut users = world.users();
    for (_, line) in &mut users {
        line.up(PACKETS);
        line.down(2 * PACKETS);
    }
    hang_up(clients(&mut users));
    for user in &users {
        assert_eq!(user.1.relayed(), [BYTES, 2 * BYTES]);
        world.billed_to_the_byte(user);
    }
}

/// TRAPS.md, trap 20: coturn counts strangers' packets as received from peers. None of them goes on to anybody.
#[test]
fn a_stranger_alone() {
    let world = World::start("");
    let stranger = UdpPeer::stranger();
    let (mut udp, mut tcp) = (world.udp(), world.tcp());
    for (_, line) in &mut udp {
        line.flood(&stranger, PACKETS);
    }
    let mut connections = Vec::new();
    for (_, line) in &tcp {
        connections.extend(connect_from_afar(&line.client));
    }
    hang_up(udp.iter_mut().map(|(_, line)| line.client()));
    hang_up(tcp.iter_mut().map(|(_, line)| line.client()));
    for (user, _) in &udp {
        world.billed_but_for(0, user, [0, 0]);
        let counted = world.logged_session(user).usage().peer[1];
        assert!(counted > BYTES / 2, "coturn counts it: {counted}");
    }
    for (user, _) in &tcp {
        world.billed_but_for(0, user, [0, 0]);
    }
}

/// A stranger's connections to the relay address of a TCP relay, with something to say.
fn connect_from_afar(client: &TurnClient) -> Vec<TcpStream> {
    let connect = || {
        // coturn resets it once it has accepted it, which may be before this side knows of either.
        let mut stream = match TcpStream::connect(client.relay_address()) {
            Err(error) if error.kind() == ErrorKind::ConnectionReset => return None,
            connected => connected.unwrap(),
        };
        let _ = stream.write_all(&[0x66; LENGTH]);
        Some(stream)
    };
    (0..BATCH).filter_map(|_| connect()).collect()
}

#[test]
fn a_stranger_beside_a_flow_up() {
    a_stranger_beside(PACKETS, 0);
}

#[test]
fn a_stranger_beside_a_flow_down() {
    a_stranger_beside(0, PACKETS);
}

#[test]
fn a_stranger_beside_flows_both_ways() {
    a_stranger_beside(PACKETS, PACKETS);
}

/// What strangers sent can hide how much of what the client was sent were framing and answers, but no more than that.
fn a_stranger_beside(up: u64, down: u64) {
    let world = World::start("");
    let stranger = UdpPeer::stranger();
    let (mut udp, mut tcp) = (world.udp(), world.tcp());
    for (_, line) in &mut udp {
        line.flood(&stranger, PACKETS);
        line.up(up);
        line.down(down);
        line.flood(&stranger, PACKETS);
    }
    let mut connections = Vec::new();
    for (_, line) in &mut tcp {
        connections.extend(connect_from_afar(&line.client));
        line.up(up);
        line.down(down);
        connections.extend(connect_from_afar(&line.client));
    }
    hang_up(udp.iter_mut().map(|(_, line)| line.client()));
    hang_up(tcp.iter_mut().map(|(_, line)| line.client()));
    // Each flood's refreshes, two to allocate, one to permit, one to hang up.
    let requests = 2 * PACKETS / BATCH + 4;
    let less = down * LARGEST_FRAMING + requests * LARGEST_ANSWER;
    for (user, line) in &udp {
        let [to_peer, to_client] = line.relayed();
        // From 4.11 on coturn counts the header of ChannelData as sent to the peer.
        let header = if user.starts_with("Channel") {
            up * world.coturn.channel_header()
        } else {
            0
        };
        world.billed_but_for(less + header, user, [to_peer + header, to_client]);
    }
    for (user, line) in tcp {
        world.billed_to_the_byte(&(user, Box::new(line)));
    }
}

/// A download is not hidden by sending upwards what goes nowhere: fewer packets of it than come down, and more.
#[test]
fn junk_upwards() {
    for rounds in [2, 8] {
        let world = World::start("");
        let nobody = UdpPeer::stranger().address();
        let mut users = world.users();
        for (_, line) in &mut users {
            for _ in 0..PACKETS / BATCH {
                for _ in 0..rounds {
                    line.client().junk(nobody);
                }
                line.down(BATCH);
            }
        }
        hang_up(clients(&mut users));
        // Three packets each time; two requests to allocate, one to permit or connect, one to hang up.
        let received = 3 * rounds * PACKETS / BATCH + 4;
        for (user, line) in &users {
            let truth = line.relayed();
            assert_eq!(truth, [0, BYTES]);
            world.billed_but_for(received * LARGEST_ANSWER, user, truth);
            let counted = world.logged_session(user).usage();
            // From 4.17 on the first request over UDP is answered and not counted.
            assert!(counted.client[0] + 1 >= received, "coturn counts it: {counted:?}");
        }
    }
}

/// With `start_on = "relay"` what a client receives starts a session, too.
#[test]
fn a_download_starts_a_session() {
    let world = World::start("start_on = \"relay\"");
    let mut users = world.users();
    for (_, line) in &mut users {
        line.down(PACKETS);
    }
    let mut idle = TurnClient::tcp(&world.coturn, "idle");
    idle.allocate().unwrap();
    hang_up(clients(&mut users).chain([&mut idle]));
    world.program.until("the end of all", |status| {
        status["sources"]["eu-1"]["open_allocations"] == 0
    });
    for user in &users {
        world.billed_to_the_byte(user);
    }
    assert_eq!(
        world.billing.sessions().len(),
        users.len(),
        "the idle one has none"
    );
}

/// A session lasts until the allocation that only received has closed, whatever dangles; what another one of the same
/// user sent belongs to it.
#[test]
fn a_download_keeps_its_session_alive() {
    let world = World::start("residue = \"1KiB\"");
    let open = |count: u64| {
        world.program.until("so many open allocations", |status| {
            status["sources"]["eu-1"]["open_allocations"] == count
        });
    };
    let mut dangling = TurnClient::udp(&world.coturn, "ann");
    dangling.allocate().unwrap();
    let of_ann = || UdpLine::new(&world.coturn, Transport::Tcp, "ann", Way::Permission);
    let (mut up, mut down) = (of_ann(), of_ann());
    up.up(PACKETS);
    down.down(PACKETS);
    hang_up([up.client()]);
    open(2);
    down.down(PACKETS);
    hang_up([down.client()]);
    let sessions = world.billing.ended("ann", 1);
    assert_eq!(sessions.len(), 1, "{sessions:#?}");
    assert_eq!(sessions[0].billable(), 3 * BYTES);
    // What dangles is open still.
    open(1);
}
