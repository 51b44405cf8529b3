//! What a service manager is notified of, where there is one that listens (`NOTIFY_SOCKET`): that the program is ready,
//! reads its configuration again, stops, and still moves; and what it is to keep for the next start.

use std::{
    io,
    os::fd::{AsFd, BorrowedFd},
    time::Duration,
};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use sd_notify::NotifyState;
use tracing::debug;

use super::{deadline::Stop, supervisor::Ended};

/// What kept descriptors are called: sockets, and what is to be known of them.
const SOCKETS: &str = "turnhook";
pub(crate) const STATE: &str = "turnhook-state";

/// The most descriptors that the kernel takes in one message.
const AT_ONCE: usize = 253;

/// How long a service manager may take to say that it has what it was given: one that never says so may have it all the
/// same.
const KEPT: Duration = Duration::from_secs(1);

/// All parts have begun, or the configuration has been read again.
pub(crate) fn ready() {
    say(&[NotifyState::Ready]);
}

/// The configuration is being read again.
pub(crate) fn reloading() {
    match NotifyState::monotonic_usec_now() {
        Ok(now) => say(&[NotifyState::Reloading, now]),
        Err(error) => debug!(%error, "the service manager is not notified of the reload"),
    }
}

/// The program stops.
pub(crate) fn stopping() {
    say(&[NotifyState::Stopping]);
}

/// Says that the program still moves, as often as is asked for (`WatchdogSec=`): one that is frozen is started anew.
/// That matters beyond what is not heard meanwhile: a coturn that starts and gets no answer serves nobody.
pub(crate) async fn watchdog(stop: Stop) -> Ended {
    let Some(limit) = sd_notify::watchdog_enabled() else {
        stop.begun().await;
        return Ok(());
    };
    loop {
        say(&[NotifyState::Watchdog]);
        tokio::select! {
            () = tokio::time::sleep(limit / 3) => {}
            () = stop.begun() => return Ok(()),
        }
    }
}

/// Whether there is somebody who may keep descriptors. Whether he does is not known (`FileDescriptorStoreMax=`).
pub(crate) fn may_keep() -> bool {
    std::env::var_os("NOTIFY_SOCKET").is_some() && std::env::var_os("FDSTORE").is_none_or(|most| most != "0")
}

/// Gives sockets to be kept.
pub(crate) fn keep(sockets: &[BorrowedFd<'_>]) -> io::Result<()> {
    sockets.chunks(AT_ONCE).try_for_each(|some| store(SOCKETS, some))
}

/// Gives what is to be known of them.
pub(crate) fn keep_state(state: BorrowedFd<'_>) -> io::Result<()> {
    store(STATE, &[state])
}

fn store(name: &str, descriptors: &[BorrowedFd<'_>]) -> io::Result<()> {
    // Unpolled: one whose other end is gone may still hold what that has said last.
    let state = [
        NotifyState::FdStore,
        NotifyState::FdName(name),
        NotifyState::Custom("FDPOLL=0"),
    ];
    sd_notify::notify_with_fds(&state, descriptors)
}

/// Waits until the service manager has read all that it was sent: it closes what comes with the last message then.
pub(crate) fn wait_until_kept() {
    let barrier = || -> io::Result<()> {
        let (reader, writer) = io::pipe()?;
        sd_notify::notify_with_fds(&[NotifyState::Custom("BARRIER=1")], &[writer.as_fd()])?;
        drop(writer);
        let limit = Timespec::try_from(KEPT).unwrap_or_default();
        poll(&mut [PollFd::new(&reader, PollFlags::IN)], Some(&limit))?;
        Ok(())
    };
    if let Err(error) = barrier() {
        debug!(%error, "the service manager does not say what it has kept");
    }
}

/// Has what was kept forgotten.
pub(crate) fn forget() {
    for name in [STATE, SOCKETS] {
        say(&[NotifyState::FdStoreRemove, NotifyState::FdName(name)]);
    }
}

fn say(state: &[NotifyState<'_>]) {
    if let Err(error) = sd_notify::notify(state) {
        debug!(%error, "the service manager cannot be notified");
    }
}
