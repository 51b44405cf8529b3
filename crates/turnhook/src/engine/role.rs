//! What a node is to a source, with what belongs to that: alone with it, its leader, or a follower.

use std::time::Duration;

use tokio::{sync::watch, task::JoinError, time::Instant};
use turnhook_reducer::{source::Gap, time::Timestamp};
use turnhook_store::Epoch;
use turnhook_subscriber::{
    queue::SignalSender,
    signal::Clock,
    source::{SourceConfig, SourceHandle},
};

use super::{
    cluster::{GivenBack, Holdings, Validity},
    committing::{Committing, Made, ready},
    fault,
    loading::{Confirming, EndsRead, Taken, TakingOver, confirmed, taken_over},
    supervisor::words_of_join,
};

/// How often a follower reads what ended as committed: a tombstone is kept for 60 s at least.
pub(super) const CONFIRM: Duration = Duration::from_secs(20);

/// Between attempts to read the state that is to be taken over.
pub(super) const AGAIN: Duration = Duration::from_millis(500);

/// Gaps that a follower remembers, for the case that it leads.
const GAPS: usize = 1000;

/// What this node is to the source, with what belongs to that alone.
pub(crate) enum Role {
    /// There is nobody else.
    Alone(Committing),
    /// It commits and emits, while its epoch lasts.
    Leader(Leading),
    /// Another node does.
    Follower(Following),
}

/// What a leader has to do.
pub(crate) struct Leading {
    pub(super) epoch: Epoch,
    pub(super) committing: Committing,
    /// The lease is to go to another node once all is committed.
    pub(super) leaving: bool,
    /// The commit that was started last holds all that was known when the lease was wanted back.
    pub(super) saved_last: bool,
    /// Its listener could not be opened; it is tried again then.
    pub(super) listen_again_at: Option<Instant>,
}

/// What a follower has to do.
pub(crate) struct Following {
    /// What was missed: on record only if it is not what others heard.
    pub(super) gaps: Vec<Gap>,
    /// Up to when whoever committed last had heard what there was, once that was read to take over from it: it may have
    /// been deaf while it committed.
    pub(super) heard_until: Option<Timestamp>,
    pub(super) confirm_at: Instant,
    pub(super) confirming: Option<Confirming>,
    pub(super) taking_over: Option<TakingOver>,
}

/// Something of the role's own has come to its end.
pub(crate) enum Progress {
    Committed(Made),
    EndsRead(Result<EndsRead, JoinError>),
    TakenOver(Epoch, Box<Taken>),
}

impl Following {
    pub(crate) fn new() -> Following {
        Following {
            gaps: Vec::new(),
            heard_until: None,
            confirm_at: Instant::now() + CONFIRM,
            confirming: None,
            taking_over: None,
        }
    }

    /// Whether the state is another thread's.
    pub(super) fn is_joining(&self) -> bool {
        self.taking_over.as_ref().is_some_and(TakingOver::has_begun)
    }

    fn remember(&mut self, gap: Gap) {
        if self.gaps.len() >= GAPS {
            self.gaps.remove(0);
        }
        self.gaps.push(gap);
    }
}

impl Role {
    pub(crate) fn follows(&self) -> bool {
        matches!(self, Role::Follower(_))
    }

    pub(super) fn committing(&self) -> Option<&Committing> {
        match self {
            Role::Alone(committing) => Some(committing),
            Role::Leader(leading) => Some(&leading.committing),
            Role::Follower(_) => None,
        }
    }

    pub(super) fn committing_mut(&mut self) -> Option<&mut Committing> {
        match self {
            Role::Alone(committing) => Some(committing),
            Role::Leader(leading) => Some(&mut leading.committing),
            Role::Follower(_) => None,
        }
    }

    /// A gap goes on record with the next commit; a follower's only if others did not hear that time.
    pub(super) fn take_gap(&mut self, gap: Gap) {
        match self {
            Role::Alone(committing) => committing.gaps.push(gap),
            Role::Leader(leading) => leading.committing.gaps.push(gap),
            Role::Follower(following) => following.remember(gap),
        }
    }

    /// Whether the lease is to go to another node.
    pub(super) fn is_leaving(&self) -> bool {
        matches!(self, Role::Leader(leading) if leading.leaving)
    }

    pub(super) fn listen_again_at(&self) -> Option<Instant> {
        match self {
            Role::Leader(leading) => leading.listen_again_at,
            Role::Alone(_) | Role::Follower(_) => None,
        }
    }

    /// Whether the state is another thread's, for a while.
    pub(super) fn is_joining(&self) -> bool {
        matches!(self, Role::Follower(following) if following.is_joining())
    }

    /// What comes to its end next; never, if nothing is under way.
    pub(crate) async fn progress(&mut self) -> Progress {
        match self {
            Role::Alone(committing) => Progress::Committed(ready(committing).await),
            Role::Leader(leading) => Progress::Committed(ready(&mut leading.committing).await),
            Role::Follower(following) => tokio::select! {
                read = confirmed(&mut following.confirming) => Progress::EndsRead(read),
                (epoch, taken) = taken_over(&mut following.taking_over) => {
                    Progress::TakenOver(epoch, Box::new(taken))
                }
            },
        }
    }
}

/// The listener of a `direct` source: only the leader listens, so that coturn, or the balancer before it, finds it.
pub(crate) struct Listening {
    pub(crate) config: SourceConfig,
    pub(crate) clock: Clock,
    pub(crate) signals: SignalSender,
    pub(crate) handle: Option<SourceHandle>,
}

/// What the task knows of the other nodes.
pub(crate) struct Sharing {
    pub(crate) holdings: watch::Receiver<Holdings>,
    pub(crate) give_back: GivenBack,
    pub(crate) validity: Validity,
    pub(crate) listening: Option<Listening>,
    /// Nothing was asked of this task yet.
    pub(super) anew: bool,
    /// The leases have run out, and that was said.
    pub(super) leaseless: bool,
}

impl Sharing {
    pub(crate) fn new(
        holdings: watch::Receiver<Holdings>,
        give_back: GivenBack,
        validity: Validity,
        listening: Option<Listening>,
    ) -> Sharing {
        Sharing {
            holdings,
            give_back,
            validity,
            listening,
            anew: true,
            leaseless: true,
        }
    }

    /// Whether what this node may do has changed, or is about to.
    pub(crate) fn is_changing(&self) -> bool {
        self.validity.is_over() || self.holdings.has_changed().unwrap_or(true)
    }
}

/// As a fault is asked for it.
const LISTENER: &str = "listener of a leader";

/// What happens to a task that has others beside it.
pub(crate) enum Change {
    /// What this node may do is another, perhaps.
    Role,
    /// The listener that a leader opened has ended, which it should not: how.
    Listener(String),
}

/// The next change; never where the node is alone.
pub(crate) async fn changed(sharing: &mut Option<Sharing>) -> Change {
    let Some(sharing) = sharing else {
        return std::future::pending().await;
    };
    let handle = sharing.listening.as_mut().and_then(|l| l.handle.as_mut());
    let listener = async {
        match handle {
            Some(handle) => {
                let abort = handle.abort_handle();
                let ended = tokio::select! {
                    ended = handle.ended() => ended,
                    () = async {
                        fault::abort(&LISTENER).await;
                        abort.abort();
                        std::future::pending().await
                    } => Ok(()),
                };
                match ended {
                    Ok(()) => "it returned".to_owned(),
                    Err(error) => words_of_join(error),
                }
            }
            None => std::future::pending().await,
        }
    };
    let role = async {
        if sharing.holdings.changed().await.is_err() {
            // The member has ended, and the process will.
            std::future::pending::<()>().await;
        }
    };
    tokio::select! {
        () = role => Change::Role,
        how = listener => Change::Listener(how),
    }
}
