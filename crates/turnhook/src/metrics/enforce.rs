//! What becomes of allocations that are to be ended.

use prometheus_client::{
    encoding::EncodeLabelSet,
    metrics::{counter::Counter, family::Family, gauge::Gauge},
    registry::Registry,
};

use turnhook_control::gate::Answer;

use super::SourceLabels;
use crate::config::quota::Per;

/// `{result}`; one of a fixed list.
#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct ResultLabels {
    result: &'static str,
}

/// `{source,address}`: that of a control, from the configuration.
#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct ControlLabels {
    source: String,
    address: String,
}

/// `{source,answer}`.
#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct AnswerLabels {
    source: String,
    answer: &'static str,
}

/// `{per}`; one of a fixed list.
#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct PerLabels {
    per: &'static str,
}

/// What became of an allocation that was to be ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CancelResult {
    /// The stream said that it is gone.
    Done,
    /// It was gone already, or its number is another one's.
    Gone,
    /// Its client can move, and would go on with its ticket.
    Mobile,
    /// Another server answers there than the one that has it.
    WrongServer,
    /// Neither the stream nor coturn said in time that it is gone.
    Timeout,
    /// coturn's CLI could not be asked.
    Unreachable,
    /// There are more sessions of that name than the CLI lists.
    Unlisted,
    /// It cannot be named to the CLI.
    Unnamed,
}

impl CancelResult {
    const ALL: [CancelResult; 8] = [
        CancelResult::Done,
        CancelResult::Gone,
        CancelResult::Mobile,
        CancelResult::WrongServer,
        CancelResult::Timeout,
        CancelResult::Unreachable,
        CancelResult::Unlisted,
        CancelResult::Unnamed,
    ];

    /// The label.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            CancelResult::Done => "done",
            CancelResult::Gone => "gone",
            CancelResult::Mobile => "mobile",
            CancelResult::WrongServer => "wrong_server",
            CancelResult::Timeout => "timeout",
            CancelResult::Unreachable => "unreachable",
            CancelResult::Unlisted => "unlisted",
            CancelResult::Unnamed => "unnamed",
        }
    }
}

/// Beside the others.
#[derive(Debug, Default)]
pub struct EnforceMetrics {
    cancels: Family<ResultLabels, Counter>,
    blocked_new: Family<SourceLabels, Counter>,
    control_up: Family<ControlLabels, Gauge>,
    gate_answers: Family<AnswerLabels, Counter>,
    quotas_reached: Family<PerLabels, Counter>,
}

impl EnforceMetrics {
    /// Registered, and those with known labels at 0.
    pub(super) fn new(registry: &mut Registry) -> EnforceMetrics {
        let metrics = EnforceMetrics::default();
        registry.register(
            "cancels",
            "Allocations of blocked users that were to be ended, by what became of them",
            metrics.cancels.clone(),
        );
        registry.register(
            "blocked_new",
            "Allocations that blocked users opened",
            metrics.blocked_new.clone(),
        );
        registry.register(
            "control_up",
            "Whether coturn's CLI can be used: 1 or 0",
            metrics.control_up.clone(),
        );
        registry.register(
            "gate_answers",
            "Questions of coturn for the key of a user, by what was answered",
            metrics.gate_answers.clone(),
        );
        registry.register(
            "quotas_reached",
            "Users who were blocked, and sessions that were ended, by a quota",
            metrics.quotas_reached.clone(),
        );
        for per in Per::ALL.map(Per::as_str) {
            let _ = metrics.quotas_reached.get_or_create(&PerLabels { per });
        }
        for result in CancelResult::ALL {
            let result = result.as_str();
            let _ = metrics.cancels.get_or_create(&ResultLabels { result });
        }
        metrics
    }

    /// One more.
    pub fn cancelled(&self, result: CancelResult) {
        let result = result.as_str();
        self.cancels.get_or_create(&ResultLabels { result }).inc();
    }

    /// One more.
    pub fn quota_reached(&self, per: Per) {
        let per = per.as_str();
        self.quotas_reached.get_or_create(&PerLabels { per }).inc();
    }

    /// That of a source.
    #[must_use]
    pub fn blocked_new(&self, source: &str) -> Counter {
        let source = source.to_owned();
        self.blocked_new.get_or_create(&SourceLabels { source }).clone()
    }

    /// That of a source's gates.
    #[must_use]
    pub fn gate_answers(&self, source: &str, answer: Answer) -> Counter {
        let labels = AnswerLabels {
            source: source.to_owned(),
            answer: answer.as_str(),
        };
        self.gate_answers.get_or_create(&labels).clone()
    }

    /// That of a control.
    #[must_use]
    pub fn control_up(&self, source: &str, address: &str) -> Gauge {
        let labels = ControlLabels {
            source: source.to_owned(),
            address: address.to_owned(),
        };
        self.control_up.get_or_create(&labels).clone()
    }
}
