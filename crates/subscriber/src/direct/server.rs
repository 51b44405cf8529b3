//! What the tracker keeps of one server.

use std::{
    collections::{HashMap, HashSet, VecDeque},
    net::IpAddr,
    sync::Arc,
};

use serde::{Deserialize, Serialize};
use turnhook_reducer::{
    source::{Gap, GapReason},
    time::Timestamp,
};

use super::refusals::PIECE;
use crate::signal::Signal;

/// A live server's originals are back within this, in milliseconds.
pub(super) const BACK: u64 = 5_000;
/// A server's first connections are accepted at most this long before or after its `KEYS`, in milliseconds.
pub(super) const START: u64 = 5_000;
/// Connections that come back together make one gap: so long it waits for more, in milliseconds.
pub(super) const GATHER: u64 = 1_000;
/// A server that is there for so long, in milliseconds, is shown even if it publishes nothing.
pub(super) const SETTLED: u64 = 1_000;
/// For so long, in milliseconds, a connection that came from nowhere may be one of a start: its `KEYS` comes by then.
pub(super) const MOVED: u64 = 1_000;
/// For so long, in milliseconds, it is remembered that a server was reported as stopped, and that an address was turned
/// away.
pub(super) const KEPT: u64 = 3_600_000;

/// What is skipped follows from the connections, or is emitted before a server is handed over.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Server {
    pub(super) peer: IpAddr,
    #[serde(skip)]
    pub(super) open: HashSet<u64>,
    /// How many open connections carry messages of which relay thread.
    #[serde(skip)]
    pub(super) threads: HashMap<u16, usize>,
    pub(super) presence: Presence,
    /// When the first connection came after there had been none.
    pub(super) generation: Timestamp,
    /// None of this generation has closed yet: what comes is no reconnect.
    pub(super) pristine: bool,
    /// The last `KEYS`, if no connection closed since.
    pub(super) keys: Option<Timestamp>,
    pub(super) closing: Option<Closing>,
    /// The closing that left no connection, until a `KEYS` or its absence has said what it was.
    pub(super) emptied: Option<Closing>,
    pub(super) stop_due: Option<Timestamp>,
    /// Connections that closed and are not back: until when each was surely heard.
    pub(super) away: VecDeque<Timestamp>,
    /// Some came back: the gap to emit, and when.
    #[serde(skip)]
    pub(super) back: Option<(Gap, Timestamp)>,
    /// It was reported as stopped.
    pub(super) stopped: Option<Stopped>,
    /// Connections that are neither of a start nor come back here, by when they were accepted: perhaps of a server
    /// whose address has changed.
    pub(super) strays: VecDeque<Timestamp>,
    /// Its address's refusals up to then have been emitted as a gap.
    pub(super) refusals_reported: Timestamp,
    /// Connections of it found no place, though they had the password.
    #[serde(skip)]
    pub(super) unheard: Option<(Timestamp, Timestamp)>,
    /// When it last had a connection, if it has none.
    pub(super) left: Timestamp,
}

#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub(super) struct Closing {
    pub(super) first: Timestamp,
    pub(super) last: Timestamp,
    pub(super) by_server: bool,
    pub(super) original: bool,
}

/// Whether it was logged that it is there.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) enum Presence {
    Absent,
    /// To be logged then, if it is still there: some tools look like a server for a moment.
    Coming {
        due: Timestamp,
    },
    Present,
    /// To be logged as gone then, if it is not back.
    Leaving {
        due: Timestamp,
    },
}

#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub(super) struct Stopped {
    pub(super) at: Timestamp,
    /// It has a connection again since, and has sent no `KEYS`.
    pub(super) back: Option<Timestamp>,
}

impl Server {
    pub(super) fn new(peer: IpAddr, at: Timestamp) -> Server {
        Server {
            peer,
            open: HashSet::new(),
            threads: HashMap::new(),
            presence: Presence::Absent,
            generation: at,
            pristine: true,
            keys: None,
            closing: None,
            emptied: None,
            stop_due: None,
            away: VecDeque::new(),
            back: None,
            stopped: None,
            strays: VecDeque::new(),
            refusals_reported: Timestamp(0),
            unheard: None,
            left: at,
        }
    }

    /// Whether a `KEYS` says that a connection that was accepted then is of a start.
    pub(super) fn started_with(&self, accepted: Timestamp) -> bool {
        self.keys
            .is_some_and(|k| k.since(accepted) <= START && accepted.since(k) <= START)
    }

    /// It has a connection.
    pub(super) fn appeared(&mut self, at: Timestamp) {
        self.presence = match self.presence {
            Presence::Absent => Presence::Coming {
                due: at.plus(SETTLED),
            },
            Presence::Leaving { .. } => Presence::Present,
            other => other,
        };
        if let Some(stopped) = &mut self.stopped {
            stopped.back.get_or_insert(at);
        }
    }

    /// It has none any more.
    pub(super) fn vanished(&mut self, at: Timestamp) {
        self.left = at;
        self.presence = match self.presence {
            Presence::Present => Presence::Leaving { due: at.plus(BACK) },
            Presence::Coming { .. } => Presence::Absent,
            other => other,
        };
    }

    /// What is left of it once it was reported as stopped.
    pub(super) fn stop(&mut self, at: Timestamp) {
        (self.keys, self.closing, self.emptied) = (None, None, None);
        self.away.clear();
        self.strays.clear();
        self.back = None;
        self.stopped = Some(Stopped { at, back: None });
    }

    /// It sent `KEYS`: whatever was before is over, and was no absence.
    pub(super) fn started(&mut self) {
        self.stopped = None;
        self.strays.clear();
    }

    pub(super) fn came_back(&mut self, server: &Arc<[u8]>, heard: Timestamp, at: Timestamp) {
        match &mut self.back {
            Some((gap, _)) => {
                gap.from = gap.from.min(heard);
                gap.to = gap.to.max(at);
            }
            None => {
                let gap = Gap {
                    from: heard,
                    to: at,
                    reason: GapReason::Reconnect,
                    server: Some(Box::from(&server[..])),
                };
                self.back = Some((gap, at.plus(GATHER)));
            }
        }
    }

    /// That it is there is logged, if it was not.
    pub(super) fn show(&mut self, server: &Arc<[u8]>, at: Timestamp, out: &mut VecDeque<Signal>) {
        if matches!(self.presence, Presence::Absent | Presence::Coming { .. }) {
            self.presence = Presence::Present;
            let server = Arc::clone(server);
            out.push_back(Signal::ServerConnected { at, server });
        }
    }

    /// It is back after it was reported as stopped, without a `KEYS`: it had not stopped.
    pub(super) fn returned(&mut self, server: &Arc<[u8]>, out: &mut VecDeque<Signal>) {
        let Some(Stopped {
            at: stopped_at,
            back: Some(at),
        }) = self.stopped
        else {
            return;
        };
        self.stopped = None;
        out.push_back(Signal::ServerReturned {
            at,
            server: Arc::clone(server),
            stopped_at,
        });
        out.push_back(Signal::Gap(Gap {
            from: stopped_at,
            to: at,
            reason: GapReason::Reconnect,
            server: Some(Box::from(&server[..])),
        }));
    }

    /// Emits what is due but for a stop, which others have a say in.
    pub(super) fn emit(&mut self, server: &Arc<[u8]>, now: Timestamp, out: &mut VecDeque<Signal>) {
        match self.presence {
            Presence::Coming { due } if due <= now => self.show(server, self.generation, out),
            Presence::Leaving { due } if due <= now => {
                self.presence = Presence::Absent;
                let (at, server) = (self.left, Arc::clone(server));
                out.push_back(Signal::ServerGone { at, server });
            }
            _ => {}
        }
        if let Some(Stopped { at, back }) = self.stopped {
            if back.is_some_and(|back| back.plus(START) <= now) {
                self.returned(server, out);
            } else if back.is_none() && at.plus(KEPT) <= now {
                self.stopped = None;
            }
        }
        if self.back.as_ref().is_some_and(|(_, due)| *due <= now) {
            self.emit_back(out);
        }
        if self.unheard.is_some_and(|(from, _)| from.plus(PIECE) <= now) {
            self.emit_unheard(server, out);
        }
    }

    /// Emits the gap of those that came back.
    pub(super) fn emit_back(&mut self, out: &mut VecDeque<Signal>) {
        out.extend(self.back.take().map(|(gap, _)| Signal::Gap(gap)));
    }

    /// Emits the gap of the time for which connections of it found no place.
    pub(super) fn emit_unheard(&mut self, server: &Arc<[u8]>, out: &mut VecDeque<Signal>) {
        out.extend(self.unheard.take().map(|(from, to)| {
            Signal::Gap(Gap {
                from,
                to,
                reason: GapReason::TurnedAway,
                server: Some(Box::from(&server[..])),
            })
        }));
    }

    /// Nobody listened until now, and those who came meanwhile are yet to be heard: what waits for them waits a little
    /// longer.
    pub(super) fn resumed(&mut self, now: Timestamp) {
        let later = |due: Timestamp| due.max(now.plus(BACK));
        self.stop_due = self.stop_due.map(later);
        if let Presence::Leaving { due } = self.presence {
            self.presence = Presence::Leaving { due: later(due) };
        }
    }

    /// When something is due next.
    pub(super) fn deadline(&self) -> Option<Timestamp> {
        let presence = match self.presence {
            Presence::Coming { due } | Presence::Leaving { due } => Some(due),
            Presence::Absent | Presence::Present => None,
        };
        let stopped = self.stopped.map(|s| match s.back {
            Some(back) => back.plus(START),
            None => s.at.plus(KEPT),
        });
        let back = self.back.as_ref().map(|(_, due)| *due);
        let stray = self.strays.front().map(|accepted| accepted.plus(MOVED));
        let unheard = self.unheard.map(|(from, _)| from.plus(PIECE));
        [self.stop_due, presence, stopped, back, stray, unheard]
            .into_iter()
            .flatten()
            .min()
    }
}
