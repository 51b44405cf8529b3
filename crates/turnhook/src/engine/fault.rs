//! Faults on demand, so that a test can make any part end before its time. Only builds with debug assertions have them.
//!
//! `FAULT_INJECTION=panic:housekeeper@FILE` makes the housekeeper panic once there is such a file, `return:…` makes it return, `stop:…` has it do nothing
//! more, and `abort:…` ends what a subscriber started. `hold:…` keeps the thread on which a part ends, or a step of one is done, for as
//! long as there is such a file, into which it writes that it does. `small:…@` makes a bound one that a test can come to.
//! Several are parted by commas. (The name does not begin with `TURNHOOK_`: what does is configuration.)

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
    let stops = asked_for("stop", &part);
    async move {
        let ended = tokio::select! {
            ended = work => ended,
            () = triggered(panics) => std::panic::resume_unwind(Box::new("a fault was asked for")),
            () = triggered(returns) => Ok(()),
            // It does nothing more, and has not ended.
            () = triggered(stops) => std::future::pending().await,
        };
        hold(&part);
        ended
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

/// A step of what a part does, with the panic or the standing still that was asked for.
pub(crate) fn step(what: &str) {
    #[cfg(debug_assertions)]
    {
        if asked_for("panic", what).is_some_and(|file| file.exists()) {
            std::panic::resume_unwind(Box::new("a fault was asked for"));
        }
        hold(what);
    }
    #[cfg(not(debug_assertions))]
    let _ = what;
}

/// The same, of a step that is done apart where there is much of it: then alone.
pub(crate) fn step_of_many(many: bool, what: &str) {
    if many {
        step(what);
    }
}

/// A bound, or a part of it where that was asked for.
pub(crate) fn bound(what: &str, bound: usize, part: usize) -> usize {
    #[cfg(debug_assertions)]
    if asked_for("small", what).is_some() {
        return bound / part;
    }
    #[cfg(not(debug_assertions))]
    let _ = (what, part);
    bound
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
    // Looked up at each message.
    static ASKED: std::sync::LazyLock<String> =
        std::sync::LazyLock::new(|| std::env::var("FAULT_INJECTION").unwrap_or_default());
    ASKED.split(',').find_map(|asked| {
        let (what, file) = asked.split_once('@')?;
        (what.split_once(':') == Some((fault, part))).then(|| file.into())
    })
}

/// Keeps this thread, and whatever else would run on it.
#[cfg(debug_assertions)]
fn hold(what: &str) {
    let Some(file) = asked_for("hold", what) else {
        return;
    };
    // Who waits for this may have removed it meanwhile.
    let open = std::fs::File::options().write(true).open(&file);
    if open.is_ok_and(|mut file| std::io::Write::write_all(&mut file, b"held").is_ok()) {
        while file.exists() {
            std::thread::sleep(std::time::Duration::from_millis(10));
        }
    }
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
