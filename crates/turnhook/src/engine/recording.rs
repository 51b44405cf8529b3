//! The way from a source to whoever records it: bounded in bytes, and never in the source's way. Who reads too slowly
//! ends its own recording, and is given the reason.

use std::{sync::Arc, time::Duration};

use tokio::{
    sync::{Semaphore, mpsc, watch},
    time::timeout,
};

/// Bytes that may wait for whoever records.
const BOUND: usize = 32 * 1024 * 1024;

/// How long room is waited for while the state is written down at the start: so long the source may be held up.
const PATIENCE: Duration = Duration::from_secs(1);

/// Why a recording ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Reason {
    /// It was not read as fast as the source hears.
    TooSlow,
    /// Another node leads the source from now on, or this one does.
    RoleChanged,
    /// Its limits have changed: the rules that stand at the beginning of the history hold no longer.
    LimitsChanged,
    /// The source stops.
    Stopped,
}

impl Reason {
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Reason::TooSlow => "it was read too slowly to follow the source",
            Reason::RoleChanged => "another node leads the source from now on, or this one does",
            Reason::LimitsChanged => "[limits] has changed",
            Reason::Stopped => "turnhook stops",
        }
    }
}

/// The source's end.
pub(crate) struct Sink {
    chunks: mpsc::UnboundedSender<String>,
    room: Arc<Semaphore>,
    ended: watch::Sender<Option<Reason>>,
}

/// The end of whoever records.
pub(crate) struct Stream {
    chunks: mpsc::UnboundedReceiver<String>,
    room: Arc<Semaphore>,
    ended: watch::Receiver<Option<Reason>>,
}

pub(crate) fn channel() -> (Sink, Stream) {
    with_room(BOUND)
}

fn with_room(bytes: usize) -> (Sink, Stream) {
    let (sender, chunks) = mpsc::unbounded_channel();
    let room = Arc::new(Semaphore::new(bytes));
    let (ended, when_ended) = watch::channel(None);
    let sink = Sink {
        chunks: sender,
        room: Arc::clone(&room),
        ended,
    };
    let stream = Stream {
        chunks,
        room,
        ended: when_ended,
    };
    (sink, stream)
}

impl Sink {
    /// Whether there was room, and somebody who still reads.
    pub(crate) fn try_send(&self, chunk: String) -> bool {
        let room = u32::try_from(chunk.len())
            .ok()
            .and_then(|bytes| self.room.try_acquire_many(bytes).ok());
        match room {
            Some(room) => {
                room.forget();
                self.chunks.send(chunk).is_ok()
            }
            None => {
                self.end(Reason::TooSlow);
                false
            }
        }
    }

    /// The same, but waits a little for room.
    pub(crate) async fn send(&self, chunk: String) -> bool {
        let Ok(bytes) = u32::try_from(chunk.len()) else {
            self.end(Reason::TooSlow);
            return false;
        };
        let room = tokio::select! {
            room = timeout(PATIENCE, self.room.acquire_many(bytes)) => room,
            () = self.chunks.closed() => return false,
        };
        match room {
            Ok(Ok(room)) => {
                room.forget();
                self.chunks.send(chunk).is_ok()
            }
            Ok(Err(_)) | Err(_) => {
                self.end(Reason::TooSlow);
                false
            }
        }
    }

    /// Why nothing more comes. The first reason counts.
    pub(crate) fn end(&self, reason: Reason) {
        self.ended.send_if_modified(|ended| {
            let first = ended.is_none();
            if first {
                *ended = Some(reason);
            }
            first
        });
    }
}

impl Stream {
    /// The next chunk of whole lines; `None` when the recording has ended.
    pub(crate) async fn recv(&mut self) -> Option<String> {
        self.chunks.recv().await
    }

    /// So many bytes need not be kept any more.
    pub(crate) fn written(&self, bytes: usize) {
        self.room.add_permits(bytes);
    }

    /// Resolves when nothing more will come, but for what waits.
    pub(crate) fn ended(&self) -> impl Future<Output = Reason> + Send + use<> {
        let mut ended = self.ended.clone();
        async move {
            match ended.wait_for(Option::is_some).await {
                Ok(reason) => reason.unwrap_or(Reason::Stopped),
                // The source has gone without a word.
                Err(_) => Reason::Stopped,
            }
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    #[tokio::test]
    async fn who_does_not_read_is_cut_off_at_the_bound_with_the_reason() {
        let (sink, mut stream) = with_room(1000);
        let chunk = || "x".repeat(300);
        for _ in 0..3 {
            assert!(sink.try_send(chunk()));
        }
        // What is read makes room.
        let read = stream.recv().await.unwrap();
        stream.written(read.len());
        assert!(sink.send(chunk()).await);
        assert!(!sink.send(chunk()).await);
        assert_eq!(stream.ended().await, Reason::TooSlow);
        drop(sink);
        let mut rest = 0;
        while stream.recv().await.is_some() {
            rest += 1;
        }
        assert_eq!(rest, 3, "what was taken is not lost");
    }

    /// However much there is: a state is as large as it is, and who reads it gets all of it.
    #[tokio::test]
    async fn while_somebody_reads_room_is_waited_for() {
        let (sink, mut stream) = with_room(1000);
        let chunks = 20;
        let writer = tokio::spawn(async move {
            for _ in 0..chunks {
                assert!(sink.send("x".repeat(300)).await);
            }
        });
        let mut read = 0;
        while let Some(chunk) = stream.recv().await {
            stream.written(chunk.len());
            read += 1;
        }
        writer.await.unwrap();
        assert_eq!(read, chunks);
    }

    #[tokio::test]
    async fn a_reader_that_has_gone_ends_it() {
        let (sink, stream) = with_room(1000);
        assert!(sink.try_send("line\n".into()));
        drop(stream);
        assert!(!sink.try_send("line\n".into()));
        assert!(!sink.send("line\n".into()).await);
    }
}
