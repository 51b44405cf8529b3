//! One connection of the listener: from bytes to batches and answers.

use std::{
    future::poll_fn,
    io,
    net::IpAddr,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
};

use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    sync::OwnedSemaphorePermit,
    time::{Instant, sleep_until},
};
use turnhook_reducer::time::Timestamp;

use super::{
    Shared,
    command::{Effect, Replies, Session},
    tracker::ClosedBy,
};
use crate::{
    resp::{Frame, Limits, ProtocolError, Reader},
    signal::Batch,
};

/// What coturn and a stranger alike may send before they are known.
const STRANGER: Limits = Limits { frame: 4096, args: 8 };

/// Why a connection ended, and by whom.
pub(super) struct End {
    pub(super) by: ClosedBy,
    /// Until when all that was sent on it has surely been received.
    pub(super) heard: Timestamp,
    /// For the log, where it is worth a line.
    pub(super) reason: Option<String>,
}

/// Serves one connection until it ends. `deadline`: by when the client must have authenticated.
/// `permit`: its place among the handshakes, or among the connections.
pub(super) async fn serve<S>(
    mut stream: S,
    id: u64,
    peer: IpAddr,
    shared: &Shared,
    deadline: Instant,
    permit: OwnedSemaphorePermit,
) -> End
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let mut session = Session::new(id, peer, Arc::clone(&shared.credentials));
    let mut replies = Replies::new(shared.limits.replies);
    let limits = shared.limits.resp();
    let mut known = session.authenticated();
    let mut reader = Reader::requests(if known { limits } else { STRANGER });
    let mut identified = false;
    let mut heard = (shared.clock)();
    let mut permit = Some(permit);
    if known && !shared.seat(&mut permit) {
        return full(&mut stream, &mut replies, heard).await;
    }
    loop {
        let read = exchange(&mut stream, &mut reader, &mut replies);
        let read = if known {
            read.await
        } else {
            tokio::select! {
                read = read => read,
                () = sleep_until(deadline) => {
                    let reason = "it did not authenticate in time".to_owned();
                    return End { by: ClosedBy::Us, heard, reason: Some(reason) };
                }
            }
        };
        let at = (shared.clock)();
        match read {
            Ok(0) => {
                return End {
                    by: ClosedBy::Server,
                    heard: at,
                    reason: None,
                };
            }
            Ok(n) => reader.filled(n),
            Err(e) => {
                let (by, reason) = classify(&e);
                return End { by, heard, reason };
            }
        }
        heard = at;
        let mut batch: Option<Batch> = None;
        let room = reader.waiting();
        let end = loop {
            let args = match reader.next() {
                Ok(Some(Frame::Array(args))) => args,
                Ok(Some(_)) => continue,
                Ok(None) => break None,
                Err(e) => break Some(Err(e)),
            };
            match session.handle(&args, &mut replies) {
                Effect::None => {}
                Effect::Message { channel, payload } => {
                    let batch =
                        batch.get_or_insert_with(|| Batch::new(at, Some(session.server())).with_room(room));
                    batch.push(channel, payload);
                }
                Effect::Identified => shared.track(|t| t.identified(id, &session.server(), at)),
                Effect::Keys => shared.track(|t| t.keys(id, &session.server(), at)),
                Effect::Tool => shared.track(|t| t.tool(id)),
                Effect::Close => break Some(Ok(())),
            }
            if !known && session.authenticated() {
                known = true;
                if !shared.seat(&mut permit) {
                    return full(&mut stream, &mut replies, heard).await;
                }
                reader.set_limits(limits, shared.limits.frame);
            }
        };
        if let Some(batch) = batch {
            if !identified {
                identified = true;
                shared.track(|t| {
                    t.identified(id, &session.server(), at);
                    t.published(id, at);
                });
            }
            shared.signals.messages(batch);
        }
        if let Some(end) = end {
            let reason = end.err().map(|e: ProtocolError| {
                replies.push(format!("-ERR {e}\r\n").as_bytes());
                e.to_string()
            });
            farewell(&mut stream, &mut replies).await;
            return End {
                by: ClosedBy::Us,
                heard,
                reason,
            };
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

async fn full<S: AsyncWrite + Unpin>(stream: &mut S, replies: &mut Replies, heard: Timestamp) -> End {
    replies.push(super::FULL);
    farewell(stream, replies).await;
    let reason = "the listener has as many connections as it allows".to_owned();
    End {
        by: ClosedBy::Us,
        heard,
        reason: Some(reason),
    }
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
fn classify(e: &io::Error) -> (ClosedBy, Option<String>) {
    use io::ErrorKind::{BrokenPipe, ConnectionAborted, ConnectionReset, InvalidData, UnexpectedEof};
    match e.kind() {
        ConnectionReset | ConnectionAborted | BrokenPipe | UnexpectedEof => (ClosedBy::Server, None),
        InvalidData => (ClosedBy::Us, Some(format!("TLS: {e}"))),
        _ => (ClosedBy::Network, Some(e.to_string())),
    }
}
