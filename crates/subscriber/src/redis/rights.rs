//! What a user of Redis must be allowed, said where Redis refuses it. `deploy/redis.conf` has all of it.

/// Whether Redis says that its user lacks a right.
pub(super) fn are_missing(answer: &str) -> bool {
    answer.contains("NOPERM")
}

/// The subscription itself was refused.
pub(super) fn subscription(answer: &str, patterns: [&str; 2]) -> String {
    if !are_missing(answer) {
        return format!("subscription refused: {answer}");
    }
    let [one, other] = patterns;
    format!(
        "subscription refused: {answer}. Its user needs `+psubscribe &{one} &{other}`: just these two patterns, since Redis \
         compares patterns to the letter"
    )
}

/// Status keys cannot be read: what a gap leaves open would stay open.
pub(super) fn snapshot(answer: &str) -> String {
    format!("{answer}. Its user needs `+scan +object|idletime +get ~turn/*`")
}

/// A command was refused.
pub(super) fn of(command: &str, answer: &str) -> String {
    match command {
        "SCAN" | "OBJECT" | "GET" => snapshot(answer),
        "CLIENT" => format!("{answer}. For `heal` its user needs `+client|list +client|kill`"),
        "CLUSTER" => format!("{answer}. In a Cluster its user needs `+cluster|slots`"),
        _ => answer.to_owned(),
    }
}

/// Redis has no password, listens beyond loopback, and lets nobody in.
pub(super) fn denied(answer: &str) -> String {
    let first = answer.split(". ").next().unwrap_or(answer);
    format!(
        "{first}. It has no password and is asked from another machine: give it one (`requirepass`, or a user with rights of \
         its own) and the source too; `protected-mode no` would let everybody in"
    )
}
