//! Closing the connection of a relay thread that has fallen silent (TRAPS.md, trap 11): nothing else revives it.
//!
//! Nothing in Redis says which connection is which thread's. It is known by two things, both measured on a thread
//! wedged by a Redis that stood still: the connection has been idle since the thread was last heard, and half a command
//! is stuck in Redis's buffer for it (`qbuf`), which no connection in good order leaves there for seconds.

use std::{
    net::{IpAddr, SocketAddr},
    time::Duration,
};

use fred::types::Value;
use tokio::time::Instant;

use super::snapshot::Commands;

/// A relay thread that should have said something long ago.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SilentThread {
    /// `local=` of its allocations, where known: connections from that address are looked at first.
    pub server_address: Option<Vec<u8>>,
    /// How long ago it was last heard.
    pub silent: Duration,
}

/// What came of an attempt to heal.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Healing {
    /// This connection was closed; its coturn opens another.
    Closed {
        /// As in `CLIENT LIST`: address, idle time, last command.
        connection: String,
    },
    /// No connection has been idle for that long.
    NoneFits {
        /// How many of coturn's connections were looked at.
        looked_at: usize,
    },
    /// Several have, of several machines, and none is at the server's address.
    Ambiguous {
        /// How many.
        candidates: usize,
    },
    /// Another one was closed a short while ago.
    TooSoon,
    /// Redis could not be asked, or refused.
    Unavailable {
        /// Why, for people.
        error: String,
    },
}

/// How far the idle time may be from the silence: what was heard last was sent, queued and counted in whole
/// seconds. coturn's own pings (`__XXX__`) keep a live connection from getting that old.
const TOLERANCE: Duration = Duration::from_secs(15);

/// Half a command this old will never be whole.
const STUCK: Duration = Duration::from_secs(3);

/// Each command of healing that its user may need a right for, and whether it has it. Closes nothing.
pub(super) async fn rights(commands: &Commands) -> [(&'static str, Result<Value, String>); 2] {
    // A number that no connection has.
    let no_one = i64::MAX.to_string();
    let list = vec!["LIST".into(), "TYPE".into(), "normal".into()];
    let kill = vec!["KILL".into(), "ID".into(), no_one.into()];
    [
        ("client|list", commands.call("CLIENT", list).await),
        ("client|kill", commands.call("CLIENT", kill).await),
    ]
}

/// One connection closed in so long a time, at most.
pub(super) struct Limiter {
    every: Duration,
    last: Option<Instant>,
}

impl Limiter {
    pub(super) fn new(every: Duration) -> Limiter {
        Limiter { every, last: None }
    }

    fn ready(&self) -> bool {
        self.last.is_none_or(|last| last.elapsed() >= self.every)
    }
}

pub(super) async fn heal(commands: &Commands, thread: &SilentThread, limiter: &mut Limiter) -> Healing {
    if !limiter.ready() {
        return Healing::TooSoon;
    }
    let list = match commands
        .call("CLIENT", vec!["LIST".into(), "TYPE".into(), "normal".into()])
        .await
    {
        Ok(list) => list,
        Err(error) => return Healing::Unavailable { error },
    };
    let list = list
        .as_bytes()
        .map(|b| String::from_utf8_lossy(b).into_owned())
        .unwrap_or_default();
    let connections: Vec<Connection> = list
        .lines()
        .filter_map(Connection::parse)
        .filter(|c| c.may_be_coturns())
        .collect();
    let chosen = match choose(&connections, thread) {
        Ok(chosen) => chosen,
        Err(healing) => return healing,
    };
    limiter.last = Some(Instant::now());
    match commands
        .call(
            "CLIENT",
            vec!["KILL".into(), "ID".into(), chosen.id.to_string().into()],
        )
        .await
    {
        Ok(Value::Integer(0)) => Healing::NoneFits {
            looked_at: connections.len(),
        },
        Ok(_) => Healing::Closed {
            connection: format!(
                "id={} addr={} idle={}s last command {}",
                chosen.id, chosen.address, chosen.idle, chosen.command
            ),
        },
        Err(error) => Healing::Unavailable { error },
    }
}

/// A line of `CLIENT LIST`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Connection {
    id: u64,
    address: String,
    name: String,
    flags: String,
    /// In seconds.
    idle: u64,
    /// Bytes of a command that has yet to come whole.
    unfinished: u64,
    subscriptions: u64,
    command: String,
}

impl Connection {
    fn parse(line: &str) -> Option<Connection> {
        let mut connection = Connection::default();
        for (key, value) in line.split(' ').filter_map(|pair| pair.split_once('=')) {
            match key {
                "id" => connection.id = value.parse().ok()?,
                "addr" => value.clone_into(&mut connection.address),
                "name" => value.clone_into(&mut connection.name),
                "flags" => value.clone_into(&mut connection.flags),
                "idle" => connection.idle = value.parse().ok()?,
                "qbuf" => connection.unfinished = value.parse().ok()?,
                "sub" | "psub" | "ssub" => connection.subscriptions += value.parse::<u64>().ok()?,
                "cmd" => value.clone_into(&mut connection.command),
                _ => {}
            }
        }
        (connection.id != 0).then_some(connection)
    }

    /// coturn names no connection, subscribes to nothing, and last sent one of the few commands that it knows. Our
    /// own connections and those of other subscribers are never among these. (Threads of coturn that relay nothing
    /// have connections whose last command is `select`, for ever.)
    fn may_be_coturns(&self) -> bool {
        matches!(self.command.as_str(), "publish" | "set" | "del")
            && self.name.is_empty()
            && self.subscriptions == 0
            && self.flags == "N"
    }

    fn ip(&self) -> Option<IpAddr> {
        // Not on a unix socket.
        self.address
            .parse::<SocketAddr>()
            .ok()
            .map(|a| a.ip().to_canonical())
    }
}

fn choose<'c>(connections: &'c [Connection], thread: &SilentThread) -> Result<&'c Connection, Healing> {
    let silent = thread.silent.as_secs();
    let off = |c: &Connection| c.idle.abs_diff(silent);
    let none = Healing::NoneFits {
        looked_at: connections.len(),
    };
    let mut fit: Vec<&Connection> = connections
        .iter()
        .filter(|c| off(c) <= TOLERANCE.as_secs())
        .collect();
    let server = thread
        .server_address
        .as_deref()
        .and_then(|a| std::str::from_utf8(a).ok());
    let server = server
        .and_then(|a| a.parse::<SocketAddr>().ok())
        .map(|a| a.ip().to_canonical());
    if server.is_some() && fit.iter().any(|c| c.ip() == server) {
        fit.retain(|c| c.ip() == server);
    }
    let stuck = |c: &Connection| c.unfinished > 0 && c.idle >= STUCK.as_secs();
    if let Some(stuck) = fit.iter().filter(|c| stuck(c)).min_by_key(|c| (off(c), c.id)) {
        // It will never be of use again, whosever it is.
        return Ok(stuck);
    }
    let first = fit.iter().min_by_key(|c| (off(c), c.id)).copied().ok_or(none)?;
    // coturn may reach Redis from another address than it serves from: no matter, if there is one machine only.
    if first.ip() != server && fit.iter().any(|c| c.ip() != first.ip()) {
        return Err(Healing::Ambiguous {
            candidates: fit.len(),
        });
    }
    Ok(first)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

    use super::*;

    fn line(id: u64, addr: &str, idle: u64, rest: &str) -> String {
        format!(
            "id={id} addr={addr} laddr=127.0.0.1:6379 fd=8 age=99 idle={idle} db=0 ssub=0 multi=-1 qbuf=0 user=default {rest}"
        )
    }

    fn coturn(id: u64, addr: &str, idle: u64) -> Connection {
        Connection::parse(&line(id, addr, idle, "name= flags=N sub=0 psub=0 cmd=publish")).unwrap()
    }

    fn silent(seconds: u64, server: &str) -> SilentThread {
        SilentThread {
            server_address: Some(server.into()),
            silent: Duration::from_secs(seconds),
        }
    }

    #[test]
    fn only_coturns_connections_are_looked_at() {
        for (rest, may) in [
            ("name= flags=N sub=0 psub=0 cmd=publish", true),
            ("name= flags=N sub=0 psub=0 cmd=set", true),
            ("name= flags=N sub=0 psub=0 cmd=select", false),
            ("name=turnhook flags=N sub=0 psub=0 cmd=publish", false),
            ("name= flags=P sub=0 psub=2 cmd=publish", false),
            ("name= flags=N sub=1 psub=0 cmd=publish", false),
            ("name= flags=N sub=0 psub=0 cmd=get", false),
            ("name= flags=N sub=0 psub=0 cmd=client|list", false),
            ("name= flags=S sub=0 psub=0 cmd=replconf", false),
        ] {
            assert_eq!(
                Connection::parse(&line(1, "1.2.3.4:5", 1, rest))
                    .unwrap()
                    .may_be_coturns(),
                may,
                "{rest}"
            );
        }
        assert_eq!(Connection::parse(""), None);
        assert_eq!(Connection::parse("id=x addr=y"), None);
    }

    #[test]
    fn the_one_that_has_been_idle_for_as_long_as_the_thread_was_silent() {
        let list = [
            coturn(1, "10.0.0.1:1", 2),
            coturn(2, "10.0.0.1:2", 601),
            coturn(3, "10.0.0.1:3", 598),
        ];
        assert_eq!(choose(&list, &silent(600, "10.0.0.1:3478")).unwrap().id, 2);
        assert_eq!(choose(&list, &silent(597, "10.0.0.1:3478")).unwrap().id, 3);
        assert_eq!(
            choose(&list, &silent(300, "10.0.0.1:3478")),
            Err(Healing::NoneFits { looked_at: 3 })
        );
    }

    #[test]
    fn the_servers_address_decides_among_machines() {
        let list = [coturn(1, "10.0.0.1:1", 600), coturn(2, "10.0.0.2:2", 603)];
        assert_eq!(choose(&list, &silent(600, "10.0.0.2:3478")).unwrap().id, 2);
        assert_eq!(
            choose(&list, &silent(600, "192.0.2.1:3478")),
            Err(Healing::Ambiguous { candidates: 2 })
        );
        // One machine, by another address.
        assert_eq!(choose(&list[..1], &silent(600, "192.0.2.1:3478")).unwrap().id, 1);
    }

    #[test]
    fn half_a_command_says_more_than_the_time() {
        let mut stuck = coturn(2, "10.0.0.1:2", 590);
        stuck.unfinished = 53;
        let list = [
            coturn(1, "10.0.0.1:1", 600),
            stuck.clone(),
            coturn(3, "10.0.0.2:3", 600),
        ];
        assert_eq!(choose(&list, &silent(600, "10.0.0.1:3478")).unwrap().id, 2);
        // Even where nobody knows which machine it is.
        assert_eq!(choose(&list, &silent(600, "192.0.2.1:3478")).unwrap().id, 2);
        // On its way just now.
        stuck.idle = 0;
        assert_eq!(
            choose(&[stuck, coturn(1, "10.0.0.1:1", 5)], &silent(5, "10.0.0.1:3478"))
                .unwrap()
                .id,
            1
        );
    }

    #[test]
    fn not_too_often() {
        let mut limiter = Limiter::new(Duration::from_secs(3600));
        assert!(limiter.ready());
        limiter.last = Some(Instant::now());
        assert!(!limiter.ready());
    }
}
