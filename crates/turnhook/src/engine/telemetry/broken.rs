//! Broken invariants of the reducer, which logs nothing: counted at once, and said.

use prometheus_client::metrics::counter::Counter;
use tracing::error;
use turnhook_reducer::{Broken, time::Timestamp};

use super::servers::PACE;
use crate::{logging::REDUCER_ERROR, metrics::Metrics};

pub(super) struct BrokenInvariants {
    counter: Counter,
    said_at: Option<Timestamp>,
    unsaid: Broken,
}

impl BrokenInvariants {
    pub(super) fn new(metrics: &Metrics) -> BrokenInvariants {
        BrokenInvariants {
            counter: metrics.internal_errors.clone(),
            said_at: None,
            unsaid: Broken::default(),
        }
    }

    /// One line a minute at most, for all of that time: what is broken may be met by each message.
    pub(super) fn found(&mut self, at: Timestamp, source: &str, broken: Broken) {
        if broken.count > 0 {
            self.counter.inc_by(broken.count);
            self.unsaid.add(broken);
        }
        if self.unsaid.count == 0 || self.said_at.is_some_and(|said_at| at.since(said_at) < PACE) {
            return;
        }
        self.said_at = Some(at);
        let Broken { count, what } = std::mem::take(&mut self.unsaid);
        error!(target: REDUCER_ERROR, source, count,
            "something is so that cannot be so: {}; please report it, with the log", what.join("; "));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{logging::lines_of, metrics::Format};

    #[test]
    fn what_is_broken_is_counted_at_once_and_said_once_a_minute() {
        let metrics = Metrics::new();
        let mut invariants = BrokenInvariants::new(&metrics);
        let broken = |count, what| Broken {
            count,
            what: vec![what],
        };
        let mut at = |seconds: u64, broken: Broken| {
            // As the program has its log, which counts other lines of this kind by itself.
            lines_of(metrics.internal_errors.clone(), || {
                invariants.found(Timestamp(seconds * 1000), "eu-1", broken);
            })
        };
        let counted = || metrics.internal_errors.get();
        assert_eq!((at(1, Broken::default()), counted()), (String::new(), 0));
        let text = at(2, broken(1, "a session of no group"));
        assert_eq!((text.lines().count(), counted()), (1, 1), "{text}");
        assert!(
            text.contains("ERROR turnhook::internal_error::reducer:"),
            "{text}"
        );
        assert!(
            text.contains("a session of no group") && text.contains("count=1"),
            "{text}"
        );
        assert!(text.contains("eu-1"), "{text}");
        for (second, what) in [(3, "a"), (61, "b")] {
            assert_eq!(at(second, broken(2, what)), "");
        }
        assert_eq!(counted(), 5);
        let text = at(62, Broken::default());
        assert!(text.contains("a; b") && text.contains("count=4"), "{text}");
        assert_eq!((at(200, Broken::default()), counted()), (String::new(), 5));
        let shown = metrics.encode(Format::Prometheus);
        assert!(shown.contains("\nturnhook_internal_errors_total 5\n"), "{shown}");
    }
}
