//! One subscription: from connecting to its loss.

use std::io;

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    time::{Instant, MissedTickBehavior, interval},
};
use turnhook_reducer::{
    source::{Gap, GapReason},
    time::Timestamp,
};

use super::{
    config::{Node, Patience, Target},
    rights,
    stream::{self, Stream},
};
use crate::{
    decode::Refusal,
    queue::SignalSender,
    resp::{Args, Frame, Limits, ProtocolError, Reader},
    signal::{Batch, Clock, Signal},
};

/// Both grammars. No channel matches both, so no message comes twice; and a prefix is what Redis matches
/// fastest. What else is published there is counted and passed over.
pub(super) const PATTERNS: [&str; 2] = ["turn/realm/*", "turn/user/*"];

/// The name that our connections have in `CLIENT LIST`.
pub(super) const CLIENT_NAME: &str = "turnhook";

/// Far above what coturn sends. What is larger is passed over without being kept. INFO fits, too.
const LIMITS: Limits = Limits {
    frame: 64 * 1024,
    args: 16,
};

/// The most that is read at once.
const READ: usize = 256 * 1024;

/// Received while a PING was not answered for several times as long as is usual: a backlog.
const BACKLOG: usize = 128 * 1024;

/// What is known of the server that was subscribed to: shows what has become of it when it is found again.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct ServerState {
    /// Changes whenever Redis starts.
    run_id: Option<Vec<u8>>,
    /// Clients that Redis has closed for their output buffers. Newer versions count them.
    thrown_out: Option<u64>,
}

/// How a subscription was lost.
#[derive(Debug)]
pub(super) struct Loss {
    /// For people.
    pub(super) error: String,
    /// The other end closed it while much was still to be read.
    backlog: bool,
}

pub(super) struct Subscription {
    stream: Box<dyn Stream>,
    reader: Reader,
    clock: Clock,
    signals: SignalSender,
    patience: Patience,
    /// The server, as it was when subscribing.
    pub(super) server: ServerState,
    /// Until then everything was surely heard: Redis sends in order, so the answer to a PING proves that all
    /// that was published before the PING was processed has come.
    pub(super) heard: Timestamp,
    /// The same, for measuring, and the bytes that have come since.
    proven: (Instant, usize),
    refused: u64,
}

/// Why a gap came about: known by what the server says of itself, before and after.
///
/// Redis closes a subscriber whose output buffer is full without a word. Where it counts such clients
/// (`client_output_buffer_limit_disconnections`), that decides. Where it does not, the subscription was thrown
/// out if the same process is still there and closed it with a backlog before it: 128 KiB and more had come,
/// over two PING intervals and more, without an answer to the PING behind them.
pub(super) fn reason(before: &ServerState, loss: &Loss, after: &ServerState) -> GapReason {
    let same = before.run_id.is_some() && before.run_id == after.run_id;
    let thrown_out = match (before.thrown_out, after.thrown_out) {
        (Some(before), Some(after)) if same => after > before,
        _ => loss.backlog && (same || before.run_id.is_none()),
    };
    if thrown_out {
        GapReason::ThrownOut
    } else {
        GapReason::Reconnect
    }
}

impl Subscription {
    /// Connects, logs in and subscribes. The caller sets a bound to the time it takes.
    pub(super) async fn open(
        target: &Target,
        node: &Node,
        clock: Clock,
        signals: SignalSender,
        patience: Patience,
    ) -> Result<Subscription, String> {
        let stream = stream::connect(node, target.tls.as_ref(), patience.answer)
            .await
            .map_err(|e| format!("cannot connect to {node}: {e}"))?;
        let mut subscription = Subscription {
            stream,
            reader: Reader::replies(LIMITS, READ),
            heard: clock(),
            clock,
            signals,
            patience,
            server: ServerState::default(),
            proven: (Instant::now(), 0),
            refused: 0,
        };
        subscription
            .subscribe(target)
            .await
            .map_err(|e| format!("{node}: {e}"))?;
        Ok(subscription)
    }

    async fn subscribe(&mut self, target: &Target) -> Result<(), String> {
        if let Some(password) = &target.fred.password {
            match &target.fred.username {
                Some(user) => self.send(&["AUTH", user, password]).await,
                None => self.send(&["AUTH", password]).await,
            }
            .map_err(|e| e.to_string())?;
            self.reply().await?.map_err(|e| format!("login refused: {e}"))?;
        }
        self.send(&["CLIENT", "SETNAME", CLIENT_NAME])
            .await
            .map_err(|e| e.to_string())?;
        // A user may be forbidden to name a connection, or to see INFO: neither is needed.
        if let Err(refusal) = self.reply().await?
            && refusal.starts_with("DENIED")
        {
            return Err(rights::denied(&refusal));
        }
        self.send(&["INFO", "server"]).await.map_err(|e| e.to_string())?;
        let server = self.reply().await?.unwrap_or_default();
        self.send(&["INFO", "stats"]).await.map_err(|e| e.to_string())?;
        let stats = self.reply().await?.unwrap_or_default();
        self.server = ServerState {
            run_id: field(&server, b"run_id:").map(<[u8]>::to_vec),
            thrown_out: field(&stats, b"client_output_buffer_limit_disconnections:")
                .and_then(|n| std::str::from_utf8(n).ok()?.parse().ok()),
        };
        let mut command = vec!["PSUBSCRIBE"];
        command.extend(PATTERNS);
        self.send(&command).await.map_err(|e| e.to_string())?;
        // Each pattern is confirmed by itself; messages may come between.
        for _ in PATTERNS {
            self.reply()
                .await?
                .map_err(|e| rights::subscription(&e, PATTERNS))?;
        }
        self.heard = (self.clock)();
        self.proven = (Instant::now(), 0);
        Ok(())
    }

    async fn send(&mut self, words: &[&str]) -> io::Result<()> {
        let mut command = format!("*{}\r\n", words.len()).into_bytes();
        for word in words {
            command.extend_from_slice(format!("${}\r\n", word.len()).as_bytes());
            command.extend_from_slice(word.as_bytes());
            command.extend_from_slice(b"\r\n");
        }
        self.stream.write_all(&command).await?;
        self.stream.flush().await
    }

    /// The next answer; the inner error is Redis's own. Messages that come first are sent on.
    async fn reply(&mut self) -> Result<Result<Vec<u8>, String>, String> {
        loop {
            let mut batch = Batch::new((self.clock)(), None);
            let reply = loop {
                match self.reader.next().map_err(|e| e.to_string())? {
                    None => break None,
                    Some(Frame::Error(e)) => break Some(Err(shown(e))),
                    Some(Frame::Simple(text) | Frame::Integer(text)) => break Some(Ok(text.to_vec())),
                    Some(Frame::Bulk(text)) => break Some(Ok(text.unwrap_or_default().to_vec())),
                    Some(Frame::TooLarge) => break Some(Ok(Vec::new())),
                    Some(Frame::Array(args)) if args.get(0) == b"pmessage" => take(&mut batch, &args),
                    Some(Frame::Array(args)) => break Some(Ok(args.get(0).to_vec())),
                }
            };
            self.signals.messages(batch);
            if let Some(reply) = reply {
                return Ok(reply);
            }
            match self.read().await {
                Ok(0) => return Err("the connection was closed".to_owned()),
                Ok(_) => {}
                Err(e) => return Err(e.to_string()),
            }
        }
    }

    async fn read(&mut self) -> io::Result<usize> {
        let n = self.stream.read(self.reader.space()).await?;
        self.proven.1 += n;
        self.reader.filled(n);
        Ok(n)
    }

    /// Hears until the connection is lost.
    pub(super) async fn hear(&mut self) -> Loss {
        let mut ticks = interval(self.patience.ping);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut ping: Option<(Timestamp, Instant)> = None;
        let mut alive = Instant::now();
        let mut deaf = false;
        loop {
            let waited = Instant::now();
            // Reading first: when this process did not run for a while, what came meanwhile is not silence.
            let read = tokio::select! {
                biased;
                read = self.read() => Some(read),
                _ = ticks.tick() => None,
            };
            let stood_still = waited.elapsed() >= self.patience.ping * 2;
            match read {
                Some(Ok(0)) => return self.lost("the connection was closed by Redis", true),
                Some(Err(e)) => return self.lost(&format!("the connection was lost: {e}"), true),
                Some(Ok(_)) => {
                    alive = Instant::now();
                    if stood_still {
                        // If Redis has thrown us out meanwhile, a PING would make the kernel discard what is still on
                        // its way: it comes later. Not by more than one interval, however much is said: what a node
                        // that slept hears is known to be news from the answer on.
                        ticks.reset();
                    }
                    let at = (self.clock)();
                    match self.take(at) {
                        Err(e) => return self.lost(&e.to_string(), false),
                        Ok(false) => {}
                        Ok(true) => {
                            if std::mem::take(&mut deaf) {
                                self.recovered(at);
                            }
                            if let Some((sent, instant)) = ping.take() {
                                self.heard = sent;
                                self.signals.signal(Signal::Answered { asked: sent });
                                self.proven = (instant, 0);
                            }
                        }
                    }
                }
                // It was due already when this process stood still, and is seen before what has come since.
                None if stood_still => ticks.reset(),
                None if ping.is_none() => {
                    let at = (self.clock)();
                    // Never more than one is under way, so it always fits into the socket's buffer.
                    if let Err(e) = self.send(&["PING"]).await {
                        return self.lost(&format!("the connection was lost: {e}"), true);
                    }
                    ping = Some((at, Instant::now()));
                    // Time without a PING under way is no silence.
                    alive = Instant::now();
                }
                None if alive.elapsed() >= self.patience.dead => {
                    let error = format!("Redis has not answered for {} s", alive.elapsed().as_secs());
                    return self.lost(&error, false);
                }
                None if !deaf && alive.elapsed() >= self.patience.deaf => {
                    deaf = true;
                    let error = format!("Redis has not answered for {} s", alive.elapsed().as_secs());
                    self.signals.signal(Signal::Deaf {
                        at: (self.clock)(),
                        heard: self.heard,
                        error,
                    });
                }
                None => {}
            }
        }
    }

    /// Takes all messages that are there; whether a PING was answered.
    fn take(&mut self, at: Timestamp) -> Result<bool, ProtocolError> {
        let mut batch = Batch::new(at, None).with_room(self.reader.waiting());
        let mut pong = false;
        let end = loop {
            match self.reader.next() {
                Ok(None) => break Ok(pong),
                Ok(Some(Frame::Array(args))) => match args.get(0) {
                    b"pmessage" => take(&mut batch, &args),
                    b"pong" => pong = true,
                    _ => {}
                },
                Ok(Some(Frame::TooLarge)) => self.refused += 1,
                Ok(Some(_)) => {}
                Err(e) => break Err(e),
            }
        };
        if self.refused > 0 {
            let count = std::mem::take(&mut self.refused);
            self.signals.signal(Signal::Refused {
                reason: Refusal::TooLarge,
                count,
            });
        }
        self.signals.messages(batch);
        end
    }

    /// The connection has outlived a silence, so nothing of it is missing; but what coturn could not send while
    /// Redis stood still may be (TRAPS.md, traps 1 and 11).
    fn recovered(&self, at: Timestamp) {
        let detail = "Redis answers again".to_owned();
        self.signals.signal(Signal::Hearing { at, detail });
        let gap = Gap {
            from: self.heard,
            to: at,
            reason: GapReason::Stall,
            server: None,
        };
        self.signals.signal(Signal::Gap(gap));
    }

    fn backlog(&self) -> bool {
        let (since, received) = self.proven;
        received >= BACKLOG && since.elapsed() >= self.patience.ping * 2
    }

    fn lost(&self, error: &str, closed: bool) -> Loss {
        Loss {
            error: error.to_owned(),
            backlog: closed && self.backlog(),
        }
    }
}

/// `pmessage pattern channel payload`
#[inline]
fn take(batch: &mut Batch, args: &Args<'_>) {
    batch.push(args.get(2), args.get(3));
}

/// A line of INFO.
fn field<'t>(text: &'t [u8], name: &[u8]) -> Option<&'t [u8]> {
    text.split(|&b| b == b'\n')
        .find_map(|line| Some(line.strip_prefix(name)?.trim_ascii_end()))
}

/// An error of Redis's, fit for a log.
fn shown(error: &[u8]) -> String {
    error
        .get(..error.len().min(200))
        .unwrap_or_default()
        .escape_ascii()
        .to_string()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

    use super::*;

    fn state(run_id: &str, thrown_out: Option<u64>) -> ServerState {
        ServerState {
            run_id: Some(run_id.into()).filter(|r: &Vec<u8>| !r.is_empty()),
            thrown_out,
        }
    }

    #[test]
    fn the_reason_of_a_gap() {
        let loss = |backlog| Loss {
            error: String::new(),
            backlog,
        };
        use GapReason::{Reconnect, ThrownOut};
        for (before, backlog, after, want) in [
            // Redis counts: that decides.
            (state("a", Some(1)), false, state("a", Some(2)), ThrownOut),
            (state("a", Some(1)), true, state("a", Some(1)), Reconnect),
            // It was restarted: its count says nothing.
            (state("a", Some(1)), false, state("b", Some(2)), Reconnect),
            (state("a", None), true, state("b", None), Reconnect),
            (state("a", None), true, state("a", None), ThrownOut),
            (state("a", None), false, state("a", None), Reconnect),
            // It does not say who it is.
            (state("", None), true, state("", None), ThrownOut),
            (state("", None), false, state("", None), Reconnect),
        ] {
            assert_eq!(
                reason(&before, &loss(backlog), &after),
                want,
                "{before:?} {backlog} {after:?}"
            );
        }
    }

    #[test]
    fn fields_of_info() {
        let info = b"# Server\r\nrun_id:abc\r\nx:1\r\n";
        assert_eq!(field(info, b"run_id:"), Some(&b"abc"[..]));
        assert_eq!(field(info, b"x:"), Some(&b"1"[..]));
        assert_eq!(field(info, b"y:"), None);
    }
}
