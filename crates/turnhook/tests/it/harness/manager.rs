//! A service manager that keeps sockets, as systemd does (`sd_notify`'s FDSTORE, `LISTEN_FDS`).

use std::{
    io::IoSliceMut,
    mem::MaybeUninit,
    os::{
        fd::{AsFd, OwnedFd},
        unix::net::UnixDatagram,
    },
    path::{Path, PathBuf},
    process::Command,
    sync::{Arc, Mutex},
};

use command_fds::{CommandFdExt, FdMapping};
use rustix::net::{RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, recvmsg};

/// The most descriptors that come in one message.
const AT_ONCE: usize = 253;

pub(crate) struct Manager {
    socket: PathBuf,
    state: Arc<Mutex<State>>,
}

struct State {
    kept: Vec<(String, OwnedFd)>,
    /// `FileDescriptorStoreMax=`
    most: usize,
    /// Whether it forgets what it is asked to forget.
    forgets: bool,
    said: Vec<String>,
}

impl Manager {
    /// One that keeps so many descriptors.
    pub(crate) fn start(directory: &Path, most: usize) -> Manager {
        let path = directory.join("notify");
        let socket = UnixDatagram::bind(&path).unwrap();
        let state = Arc::new(Mutex::new(State {
            kept: Vec::new(),
            most,
            forgets: true,
            said: Vec::new(),
        }));
        let shared = Arc::clone(&state);
        // Ends with the test's process.
        std::thread::spawn(move || {
            loop {
                let (text, descriptors) = receive(&socket);
                shared.lock().unwrap().told(text, descriptors);
            }
        });
        Manager { socket: path, state }
    }

    /// From now on it keeps what it is asked to forget.
    pub(crate) fn never_forget(&self) {
        self.state.lock().unwrap().forgets = false;
    }

    /// How many descriptors it keeps.
    pub(crate) fn kept(&self) -> usize {
        self.state.lock().unwrap().kept.len()
    }

    pub(crate) fn forget_all(&self) {
        self.state.lock().unwrap().kept.clear();
    }

    /// All that it was told.
    pub(crate) fn said(&self) -> Vec<String> {
        self.state.lock().unwrap().said.clone()
    }

    /// The same command, started by this manager.
    pub(crate) fn service(&self, command: &Command) -> Command {
        let mut service = Command::new("sh");
        service
            .args(["-c", "LISTEN_PID=$$ exec \"$0\" \"$@\""])
            .arg(command.get_program())
            .args(command.get_args())
            .env("NOTIFY_SOCKET", &self.socket);
        if let Some(directory) = command.get_current_dir() {
            service.current_dir(directory);
        }
        for (name, value) in command.get_envs() {
            match value {
                Some(value) => service.env(name, value),
                None => service.env_remove(name),
            };
        }
        // As systemd does, it has them until it is told to forget them.
        let state = self.state.lock().unwrap();
        let names: Vec<&str> = state.kept.iter().map(|(name, _)| name.as_str()).collect();
        service
            .env("FDSTORE", state.most.to_string())
            .env("LISTEN_FDS", names.len().to_string())
            .env("LISTEN_FDNAMES", names.join(":"));
        let handed = state.kept.iter().zip(3..).map(|((_, kept), child_fd)| FdMapping {
            parent_fd: kept.as_fd().try_clone_to_owned().unwrap(),
            child_fd,
        });
        let handed = handed.collect();
        assert!(service.fd_mappings(handed).is_ok());
        service
    }
}

impl State {
    fn told(&mut self, text: String, descriptors: Vec<OwnedFd>) {
        let has = |line: &str| text.lines().any(|l| l == line);
        let name = text
            .lines()
            .find_map(|l| l.strip_prefix("FDNAME="))
            .unwrap_or("stored");
        if has("FDSTOREREMOVE=1") {
            if self.forgets {
                self.kept.retain(|(kept, _)| kept != name);
            }
        } else if has("FDSTORE=1") {
            let room = self.most.saturating_sub(self.kept.len());
            let kept = descriptors.into_iter().take(room);
            self.kept
                .extend(kept.map(|descriptor| (name.to_owned(), descriptor)));
        }
        self.said.push(text);
        // The rest is closed: with BARRIER=1, that says that all was read.
    }
}

fn receive(socket: &UnixDatagram) -> (String, Vec<OwnedFd>) {
    let mut text = [0; 4096];
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(AT_ONCE))];
    let mut ancillary = RecvAncillaryBuffer::new(&mut space);
    let received = recvmsg(
        socket,
        &mut [IoSliceMut::new(&mut text)],
        &mut ancillary,
        RecvFlags::CMSG_CLOEXEC,
    )
    .unwrap();
    let mut descriptors = Vec::new();
    for message in ancillary.drain() {
        if let RecvAncillaryMessage::ScmRights(some) = message {
            descriptors.extend(some);
        }
    }
    (
        String::from_utf8_lossy(&text[..received.bytes]).into_owned(),
        descriptors,
    )
}
