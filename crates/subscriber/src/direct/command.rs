//! What a client of the listener may say, and what it is answered: what coturn says, and `PING` and `QUIT` for people.
//! Whatever else a Redis can do is refused, since strangers reach this. Pure: no I/O, no clock.

use std::{net::IpAddr, sync::Arc};

use secrecy::{ExposeSecret, SecretString};
use serde::{Deserialize, Serialize};
use subtle::ConstantTimeEq;

use crate::{resp::Args, signal::TurnAwayReason};

/// Who may publish. Without a password everybody may, whatever they say.
#[derive(Debug, Default)]
pub struct Credentials {
    /// `None`: any name, or none.
    pub user: Option<String>,
    /// `None`: no password is asked for.
    pub password: Option<SecretString>,
}

impl Credentials {
    /// Compared in constant time, both always.
    fn admit(&self, user: Option<&[u8]>, password: &[u8]) -> bool {
        let Some(expected) = &self.password else {
            return true;
        };
        let password = expected.expose_secret().as_bytes().ct_eq(password);
        let user = match &self.user {
            // `AUTH password` speaks for Redis's user `default`.
            Some(expected) => expected.as_bytes().ct_eq(user.unwrap_or(b"default")),
            None => 1.into(),
        };
        (user & password).into()
    }
}

/// What a command asks of the listener, besides its answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Effect<'a> {
    /// Nothing.
    None,
    /// The connection now names its server.
    Identified,
    /// A message of coturn.
    Message {
        /// The channel, as coturn sent it.
        channel: &'a [u8],
        /// The payload, as coturn sent it.
        payload: &'a [u8],
    },
    /// A coturn has just started.
    Keys,
    /// A command that no relay thread of coturn sends.
    Tool,
    /// The client was not let in.
    Refused(TurnAwayReason),
    /// The connection is to be closed.
    Close,
}

/// Answers that wait to be written. Past the bound they are dropped, for a coturn that has reconnected once may
/// never read an answer again, and must be listened to all the same.
#[derive(Debug)]
pub struct Replies {
    buf: Vec<u8>,
    written: usize,
    bound: usize,
}

impl Replies {
    /// Holds up to `bound` bytes.
    #[must_use]
    pub fn new(bound: usize) -> Replies {
        Replies {
            buf: Vec::new(),
            written: 0,
            bound,
        }
    }

    /// Adds an answer, or drops it whole.
    pub fn push(&mut self, reply: &[u8]) {
        if self.buf.len() - self.written + reply.len() > self.bound {
            return;
        }
        if self.written > 0 && self.buf.len() + reply.len() > self.bound {
            self.buf.drain(..self.written);
            self.written = 0;
        }
        self.buf.extend_from_slice(reply);
    }

    fn bulk(&mut self, text: &[u8]) {
        self.push(&[format!("${}\r\n", text.len()).as_bytes(), text, b"\r\n"].concat());
    }

    /// What is still to be written.
    #[must_use]
    pub fn pending(&self) -> &[u8] {
        self.buf.get(self.written..).unwrap_or_default()
    }

    /// Takes note that `n` more bytes were written.
    pub fn written(&mut self, n: usize) {
        self.written = (self.written + n).min(self.buf.len());
        if self.written == self.buf.len() {
            self.buf.clear();
            self.written = 0;
        }
    }
}

/// One client.
#[derive(Debug)]
pub struct Session {
    peer: IpAddr,
    credentials: Arc<Credentials>,
    authenticated: bool,
    /// Wrong passwords that it gave.
    refused: u8,
    /// Commands that it gave before it was let in.
    early: u8,
    user: Option<Box<[u8]>>,
    database: u32,
    /// Fixed once something was published.
    server: Option<Arc<[u8]>>,
}

/// What there is to know of a client, for whoever goes on with its connection.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Paused {
    authenticated: bool,
    refused: u8,
    early: u8,
    user: Option<Vec<u8>>,
    database: u32,
    server: Option<Vec<u8>>,
}

/// Wrong passwords after which a connection is closed.
const REFUSALS: u8 = 3;
/// Commands without a password after which it is.
const EARLY: u8 = 8;
/// The longest name of a user, in bytes: it is part of the server's name, which is kept.
const LONGEST_USER: usize = 128;

const OK: &[u8] = b"+OK\r\n";
const EMPTY: &[u8] = b"*0\r\n";

impl Session {
    /// A client that has just connected.
    #[must_use]
    pub fn new(peer: IpAddr, credentials: Arc<Credentials>) -> Session {
        let authenticated = credentials.password.is_none();
        Session {
            peer: peer.to_canonical(),
            credentials,
            authenticated,
            refused: 0,
            early: 0,
            user: None,
            database: 0,
            server: None,
        }
    }

    /// What another program needs to go on with this client.
    #[must_use]
    pub fn pause(&self) -> Paused {
        Paused {
            authenticated: self.authenticated,
            refused: self.refused,
            early: self.early,
            user: self.user.as_deref().map(Vec::from),
            database: self.database,
            server: self.server.as_deref().map(Vec::from),
        }
    }

    /// A client that has connected to an earlier program. Whether it was let in was decided then.
    #[must_use]
    pub fn resume(peer: IpAddr, credentials: Arc<Credentials>, paused: Paused) -> Session {
        Session {
            authenticated: paused.authenticated,
            refused: paused.refused,
            early: paused.early,
            user: paused.user.map(Box::from),
            database: paused.database,
            server: paused.server.map(Arc::from),
            ..Session::new(peer, credentials)
        }
    }

    /// Whether the client may publish.
    #[must_use]
    pub fn authenticated(&self) -> bool {
        self.authenticated
    }

    /// The server behind this connection: `{peer ip}/{AUTH user or -}/{SELECT number}`. Does not change once
    /// it has published.
    #[must_use]
    pub fn server(&self) -> Arc<[u8]> {
        if let Some(server) = &self.server {
            return Arc::clone(server);
        }
        let user = self.user.as_deref().unwrap_or(b"-");
        [
            format!("{}/", self.peer).as_bytes(),
            user,
            format!("/{}", self.database).as_bytes(),
        ]
        .concat()
        .into()
    }

    /// Whether this command gives a password that is to be looked at.
    #[must_use]
    pub fn is_login(&self, args: &Args<'_>) -> bool {
        let mut name = [0u8; 16];
        !self.authenticated && upper(args.get(0), &mut name) == b"AUTH"
    }

    /// Carries out one command.
    pub fn handle<'a>(&mut self, args: &Args<'a>, replies: &mut Replies) -> Effect<'a> {
        if args.is_empty() {
            return Effect::None;
        }
        let mut name = [0u8; 16];
        let command = upper(args.get(0), &mut name);
        if !self.authenticated && !matches!(command, b"AUTH" | b"QUIT") {
            replies.push(b"-NOAUTH Authentication required.\r\n");
            return self.too_early(command);
        }
        // coturn's own commands first: one message is a SET or DEL, and a PUBLISH.
        match (command, args.len()) {
            (b"PUBLISH", 3) => {
                if self.server.is_none() {
                    self.server = Some(self.server());
                }
                replies.push(b":1\r\n");
                Effect::Message {
                    channel: args.get(1),
                    payload: args.get(2),
                }
            }
            // They say nothing that the PUBLISH beside them does not.
            (b"SET", 3..) => reply(replies, OK),
            (b"DEL", 2..) => {
                replies.push(format!(":{}\r\n", args.len() - 1).as_bytes());
                Effect::None
            }
            (b"AUTH", 2) => self.auth(None, args.get(1), replies),
            (b"AUTH", 3) => self.auth(Some(args.get(1)), args.get(2), replies),
            (b"SELECT", 2) => self.select(args.get(1), replies),
            (b"KEYS", 2) => {
                replies.push(EMPTY);
                Effect::Keys
            }
            (b"PING", 1) => reply(replies, b"+PONG\r\n"),
            (b"PING", 2) => {
                replies.bulk(args.get(1));
                Effect::None
            }
            (b"QUIT", _) => {
                replies.push(OK);
                Effect::Close
            }
            (b"PUBLISH" | b"SET" | b"DEL" | b"AUTH" | b"SELECT" | b"KEYS" | b"PING", _) => {
                let name = String::from_utf8_lossy(command).to_lowercase();
                let error = format!("-ERR wrong number of arguments for '{name}' command\r\n");
                reply(replies, error.as_bytes())
            }
            _ => {
                // As Redis words it; cut and escaped, for it comes from a stranger and may end up in a log.
                let shown = |arg: &[u8]| {
                    arg.get(..arg.len().min(64))
                        .unwrap_or_default()
                        .escape_ascii()
                        .to_string()
                };
                let name = shown(args.get(0));
                let rest: String = args
                    .iter()
                    .skip(1)
                    .take(3)
                    .map(|a| format!("'{}' ", shown(a)))
                    .collect();
                let error = format!("-ERR unknown command '{name}', with args beginning with: {rest}\r\n");
                replies.push(error.as_bytes());
                Effect::Tool
            }
        }
    }

    /// A command from somebody who has yet to log in. A coturn that has no password goes on with its own commands, and
    /// is known by them at once; others, until they have given too many.
    fn too_early<'a>(&mut self, command: &[u8]) -> Effect<'a> {
        let before = self.early;
        self.early = before.saturating_add(1);
        let of_coturn = matches!(command, b"SELECT" | b"PUBLISH" | b"SET" | b"DEL" | b"KEYS");
        if of_coturn && before == 0 && self.refused == 0 {
            return Effect::Refused(TurnAwayReason::NoPassword);
        }
        Effect::None
    }

    fn auth<'a>(&mut self, user: Option<&[u8]>, password: &[u8], replies: &mut Replies) -> Effect<'a> {
        if !self.admit(user, password) {
            return self.refuse(password, replies);
        }
        replies.push(OK);
        Effect::None
    }

    fn refuse<'a>(&self, password: &[u8], replies: &mut Replies) -> Effect<'a> {
        replies.push(b"-WRONGPASS invalid username-password pair or user is disabled.\r\n");
        // coturn 4.6.1 sends an empty AUTH where it has no password.
        Effect::Refused(if password.is_empty() {
            TurnAwayReason::NoPassword
        } else {
            TurnAwayReason::WrongPassword
        })
    }

    /// Whether it has given so many wrong passwords, or other commands, that the connection is to be closed.
    #[must_use]
    pub fn is_hopeless(&self) -> bool {
        !self.authenticated && (self.refused >= REFUSALS || self.early >= EARLY)
    }

    fn admit(&mut self, user: Option<&[u8]>, password: &[u8]) -> bool {
        let too_long = user.is_some_and(|u| u.len() > LONGEST_USER);
        if too_long || !self.credentials.admit(user, password) {
            self.refused = self.refused.saturating_add(1);
            return false;
        }
        self.authenticated = true;
        // coturn 4.6.1 sends an empty AUTH where it has no password.
        self.user = user.filter(|u| !u.is_empty()).map(Box::from);
        true
    }

    fn select<'a>(&mut self, number: &[u8], replies: &mut Replies) -> Effect<'a> {
        let number = std::str::from_utf8(number)
            .ok()
            .and_then(|n| n.parse::<u32>().ok());
        let Some(number) = number.filter(|n| *n <= i32::MAX as u32) else {
            return reply(replies, b"-ERR invalid DB index\r\n");
        };
        self.database = number;
        replies.push(OK);
        Effect::Identified
    }
}

fn reply<'a>(replies: &mut Replies, text: &[u8]) -> Effect<'a> {
    replies.push(text);
    Effect::None
}

/// The name of a command in capitals; what is too long to be one stays as it is, and is unknown.
fn upper<'b>(name: &'b [u8], buf: &'b mut [u8; 16]) -> &'b [u8] {
    match buf.get_mut(..name.len()) {
        Some(buf) => {
            buf.copy_from_slice(name);
            buf.make_ascii_uppercase();
            buf
        }
        None => name,
    }
}

#[cfg(test)]
#[path = "command_tests.rs"]
mod tests;
