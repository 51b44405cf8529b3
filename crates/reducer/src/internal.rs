//! Broken invariants of our own, for the crates that stand on this one. (The reducer itself logs nothing: it counts its
//! own in its statistics.)

/// Says that something is so that cannot be so: in a test it panics, in a release it is an ERROR in the log and one more
/// in `turnhook_internal_errors_total`, which counts the lines of this target. Takes what `format!` takes.
///
/// Never let such a case pass in silence, and never put a default in the place of what could not be had where it is
/// signed, stored or billed. The caller needs `tracing`.
#[macro_export]
macro_rules! internal_error {
    ($($words:tt)+) => {{
        ::tracing::error!(target: "turnhook::internal_error", $($words)+);
        debug_assert!(false, $($words)+);
    }};
}
