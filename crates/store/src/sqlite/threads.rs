//! The store's own threads. What one that panics did stays undone: whoever runs on the store hears of it.

use std::{
    any::Any,
    io,
    panic::{AssertUnwindSafe, catch_unwind},
    sync::Arc,
    thread::JoinHandle,
};

use tokio::sync::watch;

#[derive(Clone)]
pub(super) struct Threads {
    panicked: Arc<watch::Sender<Option<String>>>,
}

impl Threads {
    pub(super) fn new() -> Threads {
        Threads {
            panicked: Arc::new(watch::Sender::new(None)),
        }
    }

    pub(super) fn start(
        &self,
        name: &'static str,
        work: impl FnOnce() + Send + 'static,
    ) -> io::Result<JoinHandle<()>> {
        let panicked = Arc::clone(&self.panicked);
        let watched = move || {
            // Nothing that it used is used after it.
            if let Err(panic) = catch_unwind(AssertUnwindSafe(work)) {
                panicked.send_replace(Some(format!("its thread {name:?} panicked: {}", words(&*panic))));
            }
        };
        std::thread::Builder::new().name(name.into()).spawn(watched)
    }

    /// Resolves when one of them has panicked: which, and how.
    pub(super) async fn panicked(&self) -> String {
        let mut panicked = self.panicked.subscribe();
        if let Ok(how) = panicked.wait_for(Option::is_some).await {
            return how.clone().unwrap_or_default();
        }
        std::future::pending().await
    }
}

fn words(panic: &(dyn Any + Send)) -> String {
    let text = panic.downcast_ref::<&str>().map(|text| (*text).to_owned());
    text.or_else(|| panic.downcast_ref().cloned())
        .unwrap_or_else(|| "without a message".to_owned())
}

/// The panic that a test asks for: `FAULT_INJECTION=panic:THREAD@FILE`, once there is such a file. Only builds with debug
/// assertions have it.
pub(super) fn fault(thread: &str) {
    #[cfg(debug_assertions)]
    if let Ok(asked) = std::env::var("FAULT_INJECTION")
        && let Some((what, file)) = asked.split_once('@')
        && what.strip_prefix("panic:") == Some(thread)
        && std::path::Path::new(file).exists()
    {
        std::panic::resume_unwind(Box::new("a fault was asked for"));
    }
    #[cfg(not(debug_assertions))]
    let _ = thread;
}
