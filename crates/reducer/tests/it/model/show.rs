//! A history in words, for whoever has to find out what went wrong in it.

use std::{
    fmt::Write as _,
    panic::{AssertUnwindSafe, catch_unwind},
};

use super::{
    history::History,
    run::{Manner, Run},
};

/// What coturn said and turnhook told, second by second, and what was true.
pub(crate) fn in_words(history: &History) -> String {
    let mut run = Run::new(history, Manner::Plain, history.setting.rules.billable);
    run.diary = Some(Vec::new());
    let ended = catch_unwind(AssertUnwindSafe(|| run.play())).is_ok();
    let mut text = format!("{:#?}\n", history.setting);
    for line in run.diary.iter().flatten() {
        let _ = writeln!(text, "{line}");
    }
    for (n, life) in run.fleet.lives.iter().enumerate() {
        let _ = writeln!(
            text,
            "life {n} of {:?}: coturn counted {:?}; really sent on to its client: {} bytes; {:?}",
            life.key, life.known, life.carried.down, life.heard
        );
    }
    if !ended {
        text += "It did not come to its end.\n";
    }
    text
}
