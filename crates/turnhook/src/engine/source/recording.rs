//! Beginning a recording of what the source hears.

use super::{LoopState, SourceTask};
use crate::engine::{
    committing::{Made, ready},
    deadline::Stop,
    recording::{Reason, Sink},
    role::{Role, Sharing},
    settings::History,
    slices::Slice,
    supervisor::Ended,
    tap::Tap,
};

impl SourceTask {
    /// Begins a recording: with the state, during which nothing is applied, so that it is that of one moment.
    pub(super) async fn record(
        &mut self,
        current: &mut LoopState,
        sink: Sink,
        history: History,
        stop: &Stop,
    ) -> Ended {
        let tap = Tap::new(sink);
        let (mut made, mut complete) = (None, false);
        let mut unwatched = Vec::new();
        {
            let mut rows = Tap::rows(history, &self.reducer, &current.heard);
            let mut slice = Slice::begin();
            loop {
                let chunk = match rows.step() {
                    None => {
                        complete = true;
                        break;
                    }
                    Some(None) if !slice.is_over() => continue,
                    Some(chunk) => chunk,
                };
                self.telemetry.slice(self.watch.worked());
                unwatched.extend(self.watch.rest());
                // Commits and leases are looked after meanwhile.
                let sending = async {
                    match chunk {
                        Some(chunk) => tap.sink().send(chunk).await,
                        None => {
                            tokio::task::yield_now().await;
                            true
                        }
                    }
                };
                tokio::pin!(sending);
                let sent = loop {
                    tokio::select! {
                        sent = &mut sending => break sent,
                        done = committed(&mut self.role) => made = Some(done),
                    }
                };
                unwatched.extend(self.watch.look().1);
                let changing = self.sharing.as_ref().is_some_and(Sharing::is_changing);
                if changing {
                    tap.sink().end(Reason::RoleChanged);
                }
                if !sent || changing || stop.has_begun() {
                    break;
                }
                slice = Slice::begin();
            }
        }
        if complete {
            current.tap = Some(tap);
        }
        for gap in unwatched {
            self.unwatched(current, gap);
        }
        match made {
            Some(made) => self.committed(current, made).await,
            None => Ok(()),
        }
    }
}

/// What came of the commit that is under way; never, if there is none.
async fn committed(role: &mut Role) -> Made {
    match role.committing_mut() {
        Some(committing) => ready(committing).await,
        None => std::future::pending().await,
    }
}
