//! Faults on demand, so that a test can make any part end before its time. Only builds with debug assertions have them.
//!
//! `FAULT_INJECTION=panic:housekeeper@FILE` makes the housekeeper panic once there is such a file, `return:…` makes it return, and
//! `abort:…` ends what a subscriber started. (The name does not begin with `TURNHOOK_`: what does is configuration.)

use std::fmt::Display;

/// The work of a part, with the fault that was asked for.
#[cfg(not(debug_assertions))]
pub(crate) fn wrap<P: Display, E, W: Future<Output = Result<(), E>>>(_: &P, work: W) -> W {
    work
}

/// The work of a part, with the fault that was asked for.
#[cfg(debug_assertions)]
pub(crate) fn wrap<P: Display, E, W: Future<Output = Result<(), E>>>(
    part: &P,
    work: W,
) -> impl Future<Output = Result<(), E>> + use<P, E, W> {
    let part = part.to_string();
    let (panics, returns) = (asked_for("panic", &part), asked_for("return", &part));
    async move {
        tokio::select! {
            ended = work => ended,
            () = triggered(panics) => std::panic::resume_unwind(Box::new("a fault was asked for")),
            () = triggered(returns) => Ok(()),
        }
    }
}

/// The work of a task inside a part, with the panic that was asked for: `FAULT_INJECTION=panic:TASK@FILE`.
pub(crate) async fn inside(what: &str, work: impl Future<Output = ()>) {
    #[cfg(debug_assertions)]
    if asked_for("panic", what).is_some_and(|file| file.exists()) {
        std::panic::resume_unwind(Box::new("a fault was asked for"));
    }
    #[cfg(not(debug_assertions))]
    let _ = what;
    work.await;
}

/// Resolves when the task behind this part is to end, and not the part itself.
pub(crate) async fn abort(part: &impl Display) {
    #[cfg(debug_assertions)]
    triggered(asked_for("abort", &part.to_string())).await;
    #[cfg(not(debug_assertions))]
    let _ = part;
    #[cfg(not(debug_assertions))]
    std::future::pending::<()>().await;
}

/// The file that triggers the fault, if this one was asked for.
#[cfg(debug_assertions)]
fn asked_for(fault: &str, part: &str) -> Option<std::path::PathBuf> {
    let asked = std::env::var("FAULT_INJECTION").ok()?;
    let (what, file) = asked.split_once('@')?;
    (what.split_once(':') == Some((fault, part))).then(|| file.into())
}

#[cfg(debug_assertions)]
async fn triggered(file: Option<std::path::PathBuf>) {
    let Some(file) = file else {
        return std::future::pending().await;
    };
    while !file.exists() {
        tokio::time::sleep(std::time::Duration::from_millis(10)).await;
    }
}
