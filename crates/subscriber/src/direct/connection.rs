//! One connection of the listener: from bytes to batches and answers.

use std::{
    future::poll_fn,
    io,
    net::IpAddr,
    pin::Pin,
    task::{Context, Poll},
};

use serde::{Deserialize, Serialize};
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    sync::oneshot,
    time::{Instant, sleep_until},
};
use turnhook_reducer::time::Timestamp;

use super::{
    command::{self, Effect, Replies, Session},
    guard::block,
    places::FULL,
    shared::{Shared, Waiting},
    tracker::ClosedBy,
};
use crate::{
    decode::{decode, relay_thread},
    resp::{Frame, Limits, Reader},
    signal::{Batch, TurnAwayReason},
};

/// What coturn and a stranger alike may send before they are known: a command, and all of it.
const STRANGER: Limits = Limits { frame: 4096, args: 8 };
const STRANGERS_BYTES: usize = 8192;

/// Why a connection ended, and by whom.
pub(super) struct End {
    pub(super) by: ClosedBy,
    /// Until when all that was sent on it has surely been received.
    pub(super) heard: Timestamp,
    /// For the log, where there is something to be said.
    pub(super) reason: Option<String>,
    /// It was turned away, which has not been reported yet.
    pub(super) away: Option<TurnAwayReason>,
}

impl End {
    fn by(by: ClosedBy, heard: Timestamp) -> End {
        End {
            by,
            heard,
            reason: None,
            away: None,
        }
    }

    pub(super) fn turned_away(heard: Timestamp, away: TurnAwayReason, reason: String) -> End {
        End {
            reason: Some(reason),
            away: Some(away),
            ..End::by(ClosedBy::Us, heard)
        }
    }
}

/// What became of a connection.
pub(super) enum Served {
    Ended(End),
    /// Reading has stopped: another program may go on with it.
    Paused(Paused),
}

/// A connection between two commands: all that was read of it, but for the beginning of the next one, was handed over.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Paused {
    session: command::Paused,
    refused: bool,
    seated: bool,
    published: bool,
    threads: Vec<u16>,
    allowance: usize,
    unread: Vec<u8>,
    answers: Vec<u8>,
}

impl Paused {
    pub(super) fn is_seated(&self) -> bool {
        self.seated
    }
}

/// Who has come.
pub(super) struct Visitor {
    pub(super) id: u64,
    pub(super) peer: IpAddr,
    /// Fires when its place is needed for another.
    pub(super) leave: oneshot::Receiver<()>,
}

/// One connection that is being served.
struct Service<'s> {
    shared: &'s Shared,
    id: u64,
    peer: IpAddr,
    session: Session,
    replies: Replies,
    /// It has a place of its own, and is not sent away for others.
    seated: bool,
    /// That it was turned away has been reported.
    refused: bool,
    published: bool,
    /// The relay threads whose messages it carries: with coturn, one.
    threads: Vec<u16>,
    batch: Option<Batch>,
}

/// Serves one connection until it ends, or until the listener is suspended. `deadline`: by when the client must have
/// authenticated. `paused`: what was known of it, where another program has served it before; `waiting`: what has
/// waited in it since then.
pub(super) async fn serve<S>(
    stream: &mut S,
    mut visitor: Visitor,
    shared: &Shared,
    deadline: Instant,
    paused: Option<Paused>,
    waiting: &mut Option<Waiting>,
) -> Served
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let Visitor { id, peer, .. } = visitor;
    let suspended = shared.suspended();
    tokio::pin!(suspended);
    let mut service = Service {
        shared,
        id,
        peer,
        session: Session::new(peer, shared.keys.credentials()),
        replies: Replies::new(shared.limits.replies),
        seated: false,
        refused: false,
        published: false,
        threads: Vec::new(),
        batch: None,
    };
    let limits = shared.limits.resp();
    let mut known = service.session.authenticated();
    let mut reader = Reader::requests(if known { limits } else { STRANGER });
    let mut allowance = STRANGERS_BYTES;
    if let Some(paused) = paused {
        service.session = Session::resume(peer, shared.keys.credentials(), paused.session);
        service.replies.push(&paused.answers);
        service.seated = paused.seated;
        service.refused = paused.refused;
        service.published = paused.published;
        service.threads = paused.threads;
        known = service.session.authenticated();
        if known {
            reader.set_limits(limits, shared.limits.frame);
        }
        allowance = paused.allowance;
        reader.go_on_with(&paused.unread);
    }
    let mut heard = shared.now();
    loop {
        let read = exchange(stream, &mut reader, &mut service.replies);
        let seated = service.seated;
        let read = tokio::select! {
            biased;
            () = &mut suspended => return Served::Paused(service.pause(&reader, allowance)),
            read = read => read,
            gone = dismissed(&mut visitor.leave, deadline, known), if !seated => {
                return Served::Ended(service.dismiss(gone, heard));
            }
        };
        let at = shared.now();
        match &read {
            Ok(0) => return Served::Ended(End::by(ClosedBy::Server, at)),
            Ok(n) => {
                reader.filled(*n);
                allowance = allowance.saturating_sub(if known { 0 } else { *n });
            }
            Err(e) => return Served::Ended(classify(e, heard)),
        }
        let n = read.unwrap_or_default();
        heard = at;
        let room = reader.waiting();
        let mut ended = None;
        while ended.is_none() {
            let args = match reader.next() {
                Ok(Some(Frame::Array(args))) => args,
                Ok(Some(_)) => continue,
                Ok(None) => break,
                Err(e) => {
                    service.replies.push(format!("-ERR {e}\r\n").as_bytes());
                    ended = Some((Some(TurnAwayReason::NotRedis), Some(e.to_string())));
                    break;
                }
            };
            if service.session.is_login(&args) {
                // Whoever guesses has to wait for his turn before his next guess is looked at.
                let mut wait = shared.door().guard.wait(block(peer), shared.now());
                while let Some(millis) = wait {
                    let until = Instant::now() + std::time::Duration::from_millis(millis);
                    tokio::select! {
                        () = sleep_until(until) => {}
                        gone = dismissed(&mut visitor.leave, deadline, known) => {
                            return Served::Ended(service.dismiss(gone, heard));
                        }
                        // Its command has been read: it cannot be handed over.
                        () = &mut suspended => return Served::Ended(service.dismiss(TurnAwayReason::NoPlace, heard)),
                    }
                    wait = shared.door().guard.wait(block(peer), shared.now());
                }
            }
            let effect = service.session.handle(&args, &mut service.replies);
            ended = service.carry_out(effect, room, at);
            if !known && service.session.authenticated() {
                known = true;
                reader.set_limits(limits, shared.limits.frame);
            }
        }
        if !known && ended.is_none() && allowance == 0 {
            ended = Some((
                Some(TurnAwayReason::NotRedis),
                Some("it said too much before it logged in".to_owned()),
            ));
        }
        if let Some(batch) = service.batch.take() {
            shared.signals.messages(batch);
        }
        if let Some((away, reason)) = ended {
            farewell(stream, &mut service.replies).await;
            return Served::Ended(End {
                reason,
                away: away.filter(|_| !service.refused),
                ..End::by(ClosedBy::Us, heard)
            });
        }
        if waiting.as_mut().is_some_and(|w| w.is_read(n)) {
            *waiting = None;
        }
    }
}

/// Ends when the connection has to go: because its place is needed, or because it did not log in in time.
async fn dismissed(leave: &mut oneshot::Receiver<()>, deadline: Instant, known: bool) -> TurnAwayReason {
    tokio::select! {
        _ = leave => TurnAwayReason::NoPlace,
        () = sleep_until(deadline), if !known => TurnAwayReason::TooSlow,
    }
}

/// Why a connection ends, where it does: whether it was turned away, and what the log says.
type Ended = Option<(Option<TurnAwayReason>, Option<String>)>;

impl Service<'_> {
    /// Does what a command asked for.
    fn carry_out(&mut self, effect: Effect<'_>, room: usize, at: Timestamp) -> Ended {
        let (shared, id) = (self.shared, self.id);
        let full = |service: &mut Self, away: TurnAwayReason| {
            service.replies.push(FULL);
            Some((Some(away), Some(away.advice().to_owned())))
        };
        if let Effect::Refused(reason) = effect {
            self.refused = true;
            if reason == TurnAwayReason::WrongPassword {
                shared.door().guard.failed(block(self.peer), at);
            }
            shared.track(|t| t.turned_away(reason, self.peer, at));
        }
        if self.session.is_hopeless() {
            return Some((
                Some(TurnAwayReason::NoPassword),
                Some("it did not log in".to_owned()),
            ));
        }
        // Whoever may say something, and says it, is one of those who are known.
        if !self.seated && self.session.authenticated() {
            self.seated = {
                let mut door = shared.door();
                if shared.keys.credentials().password.is_some() {
                    door.guard.passed(block(self.peer), at);
                }
                door.places.known(id)
            };
            if !self.seated {
                let server = self.session.server();
                shared.track(|t| t.no_place(&server, self.peer, at));
                self.refused = true;
                return full(self, TurnAwayReason::NoPlace);
            }
        }
        let kept = match effect {
            Effect::None | Effect::Refused(_) => true,
            Effect::Message { channel, payload } => {
                let decoded = decode(channel, payload);
                let thread = match &decoded {
                    Ok(message) => Some(message.id.relay_thread()),
                    Err(_) => relay_thread(channel),
                };
                self.message(thread, at) && {
                    let new = || Batch::new(at, Some(self.session.server())).with_room(room);
                    let batch = self.batch.get_or_insert_with(new);
                    batch.push_decoded(channel, payload, &decoded);
                    true
                }
            }
            Effect::Identified => shared.track(|t| t.identified(id, &self.session.server(), at)),
            Effect::Keys => shared.track(|t| t.keys(id, &self.session.server(), at)),
            Effect::Tool => {
                shared.track(|t| t.tool(id, at));
                true
            }
            Effect::Close => return Some((None, None)),
        };
        if kept {
            None
        } else {
            full(self, TurnAwayReason::TooManyServers)
        }
    }

    /// A message is about to be handed over: whose it is, and which relay thread's, is said before. False where there
    /// are too many servers.
    fn message(&mut self, thread: Option<u16>, at: Timestamp) -> bool {
        if !self.published {
            let server = self.session.server();
            if !self.shared.track(|t| t.published(self.id, &server, at)) {
                return false;
            }
            self.published = true;
        }
        let Some(thread) = thread.filter(|t| !self.threads.contains(t)) else {
            return true;
        };
        self.threads.push(thread);
        // What came before stands before it.
        if let Some(batch) = self.batch.take() {
            self.shared.signals.messages(batch);
        }
        self.shared.track(|t| t.carries(self.id, thread, at));
        true
    }

    fn pause(self, reader: &Reader, allowance: usize) -> Paused {
        Paused {
            session: self.session.pause(),
            refused: self.refused,
            seated: self.seated,
            published: self.published,
            threads: self.threads,
            allowance,
            unread: reader.unread().to_vec(),
            answers: self.replies.pending().to_vec(),
        }
    }

    fn dismiss(&self, away: TurnAwayReason, heard: Timestamp) -> End {
        let reason = away.advice().to_owned();
        End {
            away: Some(away).filter(|_| !self.refused),
            ..End::turned_away(heard, away, reason)
        }
    }
}

/// Writes what can be written without waiting, and waits for something to read. Reading never waits for
/// answers to be read.
async fn exchange<S>(stream: &mut S, reader: &mut Reader, replies: &mut Replies) -> io::Result<usize>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    // What cannot be written for good shows in reading too: a connection that was reset, or closed.
    let mut writable = true;
    poll_fn(|cx| {
        if writable && poll_replies(stream, replies, cx).is_err() {
            writable = false;
        }
        let mut buf = ReadBuf::new(reader.space());
        match Pin::new(&mut *stream).poll_read(cx, &mut buf) {
            Poll::Ready(Ok(())) => Poll::Ready(Ok(buf.filled().len())),
            Poll::Ready(Err(e)) => Poll::Ready(Err(e)),
            Poll::Pending => Poll::Pending,
        }
    })
    .await
}

fn poll_replies<S>(stream: &mut S, replies: &mut Replies, cx: &mut Context<'_>) -> io::Result<()>
where
    S: AsyncWrite + Unpin,
{
    while !replies.pending().is_empty() {
        match Pin::new(&mut *stream).poll_write(cx, replies.pending())? {
            Poll::Ready(0) => return Err(io::ErrorKind::WriteZero.into()),
            Poll::Ready(n) => replies.written(n),
            Poll::Pending => return Ok(()),
        }
    }
    // TLS keeps back what it has encrypted; flushing nothing costs nothing.
    let _ = Pin::new(stream).poll_flush(cx)?;
    Ok(())
}

/// A last answer, if it goes out at once, and a proper end.
async fn farewell<S: AsyncWrite + Unpin>(stream: &mut S, replies: &mut Replies) {
    poll_fn(|cx| {
        let _ = poll_replies(stream, replies, cx);
        let _ = Pin::new(&mut *stream).poll_shutdown(cx);
        Poll::Ready(())
    })
    .await;
}

/// A process that dies resets connections that hold unread answers, so a reset is its doing too.
fn classify(e: &io::Error, heard: Timestamp) -> End {
    use io::ErrorKind::{BrokenPipe, ConnectionAborted, ConnectionReset, InvalidData, UnexpectedEof};
    match e.kind() {
        ConnectionReset | ConnectionAborted | BrokenPipe | UnexpectedEof => End::by(ClosedBy::Server, heard),
        InvalidData => End::turned_away(heard, TurnAwayReason::Tls, format!("TLS: {e}")),
        _ => End {
            reason: Some(e.to_string()),
            ..End::by(ClosedBy::Network, heard)
        },
    }
}
