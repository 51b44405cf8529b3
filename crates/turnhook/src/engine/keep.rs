//! A restart is no gap where a service manager keeps sockets (systemd's `FDSTORE=1`): what a stop leaves to the next
//! start, and what a start finds.
//!
//! State goes with the sockets it belongs to, in a memory file among them: whatever becomes of one becomes of the other.
//! Whoever goes on empties that file first, for all who may ever see it: after that the sockets can be gone on with by
//! nobody else, since nobody else knows what was read of them.

use std::{
    collections::{BTreeMap, HashMap},
    fs::File,
    io::{self, Read, Write},
    net::{Shutdown, SocketAddr, TcpListener, TcpStream},
    os::fd::{AsFd, BorrowedFd, OwnedFd},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use listenfd::ListenFd;
use rustix::{
    fs::{MemfdFlags, memfd_create},
    net::sockopt::socket_acceptconn,
};
use serde::{Deserialize, Serialize};
use tokio::task::spawn_blocking;
use tracing::{debug, info, warn};
use turnhook_reducer::{HearsSince, time::Timestamp};
use turnhook_subscriber::direct::handover::{Left, State, Suspended, identity};

use super::{deadline::Deadline, supervisor::words_of_join, systemd};

/// Of what is handed over. Another one is not understood: the sockets are closed, as by any other stop.
const FORMAT: u32 = 1;

/// A coturn whose messages nobody has read for longer than this, in milliseconds, may write no more (TRAPS.md, trap 11):
/// its connections are closed, for it to open new ones.
const AWAY: u64 = 20_000;

/// The first descriptor that a service manager hands over.
const FIRST: usize = 3;

#[derive(Serialize, Deserialize)]
struct Handover {
    format: u32,
    /// State in one store says nothing about sessions in another.
    store: [u8; 16],
    sources: Vec<SourceLeft>,
}

#[derive(Serialize, Deserialize)]
struct SourceLeft {
    name: String,
    /// The last commit: where it is another one's, somebody has been there meanwhile, or an older state was put back.
    committed: Timestamp,
    hears_since: Timestamp,
    servers: Vec<(Box<[u8]>, Timestamp)>,
    state: State,
}

/// What a service manager has handed to this process.
#[derive(Debug, Default)]
pub struct Given {
    listeners: Vec<TcpListener>,
    sockets: HashMap<u64, OwnedFd>,
    /// Opened anew: its descriptor comes as a number, and stays open as that.
    state: Option<File>,
}

impl Given {
    /// Takes it out of the environment. To be called before there are threads.
    #[must_use]
    pub fn take() -> Given {
        let names = std::env::var("LISTEN_FDNAMES").unwrap_or_default();
        let mut names = names.split(':');
        let mut handed = ListenFd::from_env();
        let mut given = Given::default();
        for place in 0..handed.len() {
            if names.next() == Some(systemd::STATE) {
                let path = format!("/proc/self/fd/{}", FIRST + place);
                given.state = File::options().read(true).write(true).open(path).ok();
            } else if let Ok(Some(socket)) = handed.take_tcp_listener(place) {
                given.sort(socket);
            }
        }
        given
    }

    fn sort(&mut self, socket: TcpListener) {
        if socket_acceptconn(&socket).unwrap_or(false) {
            self.listeners.push(socket);
        } else if let Some(identity) = identity(&socket) {
            self.sockets.insert(identity, OwnedFd::from(socket));
        }
    }

    /// Uses up what was handed over, for this store. From now on nobody else can go on with it.
    pub(crate) fn use_up(self, store: [u8; 16]) -> Found {
        let mut found = Found {
            listeners: self.listeners,
            sockets: self.sockets,
            sources: Vec::new(),
        };
        if let Some(state) = self.state {
            match used_up(state, store) {
                Ok(sources) => found.sources = sources,
                Err(error) => {
                    warn!(%error, "connections that were kept over the restart cannot be gone on with, and are closed")
                }
            }
            systemd::forget();
        }
        found
    }
}

fn used_up(mut file: File, store: [u8; 16]) -> io::Result<Vec<SourceLeft>> {
    let mut bytes = Vec::new();
    file.read_to_end(&mut bytes)?;
    file.set_len(0)?;
    if bytes.is_empty() {
        return Err(io::Error::other(
            "an earlier start has used them, and ended before its time",
        ));
    }
    #[derive(Deserialize)]
    struct Format {
        format: u32,
    }
    let Format { format } = serde_json::from_slice(&bytes)?;
    if format != FORMAT {
        return Err(io::Error::other("another version of turnhook has left them"));
    }
    let handover: Handover = serde_json::from_slice(&bytes)?;
    if handover.store != store {
        return Err(io::Error::other("they belong to another store"));
    }
    Ok(handover.sources)
}

/// What this start has found. What no source takes is closed.
#[derive(Default)]
pub(crate) struct Found {
    listeners: Vec<TcpListener>,
    sockets: HashMap<u64, OwnedFd>,
    sources: Vec<SourceLeft>,
}

impl Drop for Found {
    fn drop(&mut self) {
        for (_, socket) in self.sockets.drain() {
            // Not just closed: whoever still has it would keep the connection, and coturn would talk to nobody.
            let _ = TcpStream::from(socket).shutdown(Shutdown::Both);
        }
    }
}

impl Found {
    /// What there is for a source that listens there; with its connections, since when nothing was missed.
    pub(crate) fn of(
        &mut self,
        name: &str,
        listen: SocketAddr,
        last_commit: Option<Timestamp>,
        now: Timestamp,
    ) -> (Left, Option<HearsSince>) {
        let here = |l: &TcpListener| l.local_addr().is_ok_and(|address| address == listen);
        let place = self.listeners.iter().position(here);
        let listener = place.map(|place| self.listeners.swap_remove(place));
        let place = self.sources.iter().position(|source| source.name == name);
        let source = place.map(|place| self.sources.swap_remove(place));
        // Without its listener it is not the same source.
        let source = source.filter(|_| listener.is_some());
        let Some(mut source) = source.filter(|source| {
            let (again, late) = (
                source.committed != last_commit.unwrap_or_default(),
                now.since(source.state.at) > AWAY,
            );
            if again || late {
                let why = if late {
                    "it took too long"
                } else {
                    "its state is not the one that was left"
                };
                warn!(
                    source = name,
                    why, "its connections were kept over the restart, and are closed"
                );
            }
            !again && !late
        }) else {
            let connections = None;
            return (
                Left {
                    listener,
                    connections,
                },
                None,
            );
        };
        // Time goes on from the last commit, whatever the wall clock was set to.
        source.state.at = source.state.at.min(now).max(source.committed);
        let sockets = std::mem::take(&mut self.sockets);
        let (own, others) = sockets
            .into_iter()
            .partition(|(identity, _)| source.state.has(*identity));
        self.sockets = others;
        let left = Left {
            listener,
            connections: Some((source.state, own)),
        };
        let hears_since = HearsSince {
            all: source.hears_since,
            servers: source.servers,
        };
        (left, Some(hears_since))
    }
}

/// What a stop leaves, as it comes together.
#[derive(Clone, Default)]
pub(crate) struct Keeper(Arc<Mutex<Leaving>>);

#[derive(Default)]
struct Leaving {
    begun: bool,
    suspended: BTreeMap<String, Suspended>,
    committed: BTreeMap<String, (Timestamp, HearsSince)>,
}

impl Keeper {
    /// Nothing in here panics while it holds the lock; were it so, it would still be whole.
    fn leaving(&self) -> MutexGuard<'_, Leaving> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// From now on sources leave their connections open.
    pub(crate) fn begin(&self) {
        self.leaving().begun = true;
    }

    pub(crate) fn has_begun(&self) -> bool {
        self.leaving().begun
    }

    /// A source has stopped reading.
    pub(crate) fn suspended(&self, name: &str, suspended: Suspended) {
        self.leaving().suspended.insert(name.to_owned(), suspended);
    }

    /// All that it had read is committed.
    pub(crate) fn committed(&self, name: &str, committed: Timestamp, hears_since: HearsSince) {
        self.leaving()
            .committed
            .insert(name.to_owned(), (committed, hears_since));
    }

    /// Gives the sockets to the service manager.
    pub(crate) async fn hand_over(&self, store: [u8; 16], deadline: Deadline) {
        let leaving = std::mem::take(&mut *self.leaving());
        if leaving.suspended.is_empty() {
            return;
        }
        let handed = deadline
            .within(spawn_blocking(move || hand_over(store, leaving)))
            .await;
        let error = match handed {
            Some(Ok(Ok((listeners, connections)))) => {
                return info!(
                    listeners,
                    connections, "left to the service manager, for the next start"
                );
            }
            Some(Ok(Err(error))) => error.to_string(),
            Some(Err(error)) => words_of_join(error),
            None => "it does not take them".to_owned(),
        };
        warn!(
            error,
            "connections cannot be left to the service manager, and are closed"
        );
    }
}

fn hand_over(store: [u8; 16], mut leaving: Leaving) -> io::Result<(usize, usize)> {
    let (mut sources, mut listeners, mut streams) = (Vec::new(), Vec::new(), Vec::new());
    for (name, suspended) in leaving.suspended {
        listeners.push(suspended.listener);
        let committed = leaving.committed.remove(&name);
        let (Some((committed, hears_since)), Some(state)) = (committed, suspended.state) else {
            debug!(source = name, "its connections are closed");
            continue;
        };
        streams.extend(suspended.streams);
        sources.push(SourceLeft {
            name,
            committed,
            hears_since: hears_since.all,
            servers: hears_since.servers,
            state,
        });
    }
    let handover = Handover {
        format: FORMAT,
        store,
        sources,
    };
    let mut state = File::from(memfd_create("turnhook", MemfdFlags::CLOEXEC)?);
    state.write_all(&serde_json::to_vec(&handover)?)?;
    systemd::keep_state(state.as_fd())?;
    let sockets: Vec<BorrowedFd<'_>> = listeners
        .iter()
        .map(AsFd::as_fd)
        .chain(streams.iter().map(AsFd::as_fd))
        .collect();
    systemd::keep(&sockets)?;
    systemd::wait_until_kept();
    Ok((listeners.len(), streams.len()))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    fn file(bytes: &[u8]) -> File {
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(bytes).unwrap();
        io::Seek::rewind(&mut file).unwrap();
        file
    }

    /// Whatever comes of it, the next one finds nothing.
    #[test]
    fn state_is_used_once() {
        let handover = serde_json::to_vec(&Handover {
            format: FORMAT,
            store: [1; 16],
            sources: Vec::new(),
        });
        let other = br#"{"format": 0, "sources": "in another way"}"#;
        for (bytes, store, taken) in [
            (&handover.unwrap()[..], [1; 16], true),
            (&other[..], [1; 16], false),
            (b"{", [1; 16], false),
        ] {
            let file = file(bytes);
            let mut again = file.try_clone().unwrap();
            assert_eq!(used_up(file, store).is_ok(), taken);
            io::Seek::rewind(&mut again).unwrap();
            let error = used_up(again, store).err().unwrap().to_string();
            assert!(error.contains("an earlier start"), "{error}");
        }
    }

    #[test]
    fn state_of_another_store_is_none() {
        let handover = serde_json::to_vec(&Handover {
            format: FORMAT,
            store: [1; 16],
            sources: Vec::new(),
        });
        assert!(used_up(file(&handover.unwrap()), [2; 16]).is_err());
    }
}
