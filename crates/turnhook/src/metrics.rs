//! Everything that is counted. Labels are names from the configuration and words from a fixed list: no
//! username, realm or address is ever one.

mod endpoints;
mod enforce;
mod families;
mod format;
mod labels;
mod process;
mod sources;

use prometheus_client::{
    encoding::text,
    metrics::{
        counter::Counter,
        gauge::Gauge,
        histogram::{Histogram, exponential_buckets},
        info::Info,
    },
    registry::{Registry, Unit},
};

pub use self::{
    endpoints::EndpointMetrics,
    enforce::{CancelResult, EnforceMetrics},
    format::Format,
    labels::{
        EndLabels, EndpointLabels, EventLabels, MessageKind, OutcomeLabels, ReasonLabels, SourceLabels,
    },
    sources::{IGNORED, SourceMetrics, TO_CLIENTS, TO_PEERS},
};

/// All metrics. Fields are the names without `turnhook_` and `_total`.
#[derive(Debug)]
pub struct Metrics {
    registry: Registry,
    /// Of sources and sessions.
    pub sources: SourceMetrics,
    /// Of endpoints and deliveries.
    pub endpoints: EndpointMetrics,
    /// Of allocations that are to be ended, and of gates.
    pub enforce: EnforceMetrics,
    /// How long commits took, sync to disk included.
    pub commit_seconds: Histogram,
    /// Commits that failed.
    pub commit_errors: Counter,
    /// Parts of commits that the database would not take, put on record instead.
    pub store_refused: Counter,
    /// Whether the store can be used: 1 or 0.
    pub store_up: Gauge,
    /// What the store takes on disk.
    pub store_bytes: Gauge,
    /// When the oldest session of the ledger began, in seconds; 0 while there is none.
    pub ledger_oldest: Gauge,
    /// Broken invariants of our own.
    pub internal_errors: Counter,
}

impl Default for Metrics {
    fn default() -> Metrics {
        Metrics::new()
    }
}

impl Metrics {
    /// Registers all of them.
    #[must_use]
    pub fn new() -> Metrics {
        let mut registry = Registry::default();
        registry.register_collector(Box::new(process::Process::new()));
        let ours = registry.sub_registry_with_prefix("turnhook");
        let sources = SourceMetrics::new(ours);
        let endpoints = EndpointMetrics::new(ours);
        let enforce = EnforceMetrics::new(ours);
        let commit_seconds = Histogram::new(exponential_buckets(0.0001, 2.0, 16));
        let [store_up, store_bytes, ledger_oldest]: [Gauge; 3] = Default::default();
        let [commit_errors, store_refused, internal_errors]: [Counter; 3] = Default::default();
        ours.register_with_unit(
            "commit",
            "How long commits to the store took",
            Unit::Seconds,
            commit_seconds.clone(),
        );
        for (name, help, counter) in [
            (
                "commit_errors",
                "Commits to the store that failed",
                &commit_errors,
            ),
            (
                "store_refused",
                "Parts of commits that the database did not take: left out, and on record in its table refused",
                &store_refused,
            ),
            (
                "internal_errors",
                "Broken invariants of turnhook's own: see the log",
                &internal_errors,
            ),
        ] {
            ours.register(name, help, counter.clone());
        }
        ours.register("store_up", "Whether the store can be used", store_up.clone());
        ours.register(
            "store_bytes",
            "What the store takes on disk: its file and log, or the whole database; 0 where it does not say",
            store_bytes.clone(),
        );
        ours.register_with_unit(
            "ledger_oldest_timestamp",
            "When the oldest session that is kept began; 0 while there is none",
            Unit::Seconds,
            ledger_oldest.clone(),
        );
        ours.register(
            "build",
            "The running program",
            Info::new([("version", env!("CARGO_PKG_VERSION"))]),
        );
        Metrics {
            registry,
            sources,
            endpoints,
            enforce,
            commit_seconds,
            commit_errors,
            store_refused,
            store_up,
            store_bytes,
            ledger_oldest,
            internal_errors,
        }
    }

    /// As text.
    #[must_use]
    pub fn encode(&self, format: Format) -> String {
        let mut text = String::new();
        if let Err(error) = text::encode(&mut text, &self.registry) {
            turnhook_reducer::internal_error!("the metrics cannot be written: {error}");
        }
        match format {
            Format::Prometheus => format::to_prometheus(&text),
            Format::OpenMetrics => text,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The names are part of the contract, and all that can be known before is there from the start: a counter that
    /// comes to be by its first increment has not risen.
    #[test]
    fn every_series_is_there_from_the_start() {
        let metrics = Metrics::new();
        metrics.sources.make("eu-1", true);
        metrics.sources.make("us-1", false);
        metrics.endpoints.make("billing");
        let text = metrics.encode(Format::Prometheus);
        for line in [
            "turnhook_events_total{source=\"eu-1\",kind=\"deleted\"} 0",
            "turnhook_events_ignored_total{source=\"eu-1\",reason=\"foreign\"} 0",
            "turnhook_events_ignored_total{source=\"us-1\",reason=\"bad_key\"} 0",
            "turnhook_gaps_total{source=\"eu-1\",reason=\"reconnect\"} 0",
            "turnhook_gaps_total{source=\"eu-1\",reason=\"store_unavailable\"} 0",
            "turnhook_open_allocations{source=\"eu-1\"} 0",
            "turnhook_open_sessions{source=\"eu-1\"} 0",
            "turnhook_sessions_started_total{source=\"eu-1\"} 0",
            "turnhook_sessions_ended_total{source=\"eu-1\",reason=\"closed\",accuracy=\"exact\"} 0",
            "turnhook_sessions_ended_total{source=\"us-1\",reason=\"server_stopped\",accuracy=\"lower_bound\"} 0",
            "turnhook_session_duration_seconds_count{source=\"eu-1\"} 0",
            "turnhook_billable_bytes_total{source=\"eu-1\"} 0",
            "turnhook_relayed_bytes_total{source=\"eu-1\",direction=\"to_peers\"} 0",
            "turnhook_relayed_bytes_total{source=\"eu-1\",direction=\"to_clients\"} 0",
            "turnhook_unattributed_bytes_total{source=\"eu-1\"} 0",
            "turnhook_wedged_threads_total{source=\"us-1\",reason=\"silent\"} 0",
            "turnhook_source_servers{source=\"eu-1\"} 0",
            "turnhook_source_last_message_timestamp_seconds{source=\"eu-1\"} 0",
            "turnhook_source_last_message_timestamp_seconds{source=\"us-1\"} 0",
            "turnhook_last_gap_timestamp_seconds{source=\"eu-1\"} 0",
            "turnhook_logins_refused_total{source=\"eu-1\",reason=\"wrong_password\"} 0",
            "turnhook_deliveries_total{endpoint=\"billing\",outcome=\"delivered\"} 0",
            "turnhook_deliveries_total{endpoint=\"billing\",outcome=\"gave_up\"} 0",
            "turnhook_delivery_seconds_count{endpoint=\"billing\"} 0",
            "turnhook_delivery_age_seconds_count{endpoint=\"billing\"} 0",
            "turnhook_outbox_pending{endpoint=\"billing\"} 0",
            "turnhook_outbox_oldest_seconds{endpoint=\"billing\"} 0.0",
            "turnhook_dead_letters{endpoint=\"billing\"} 0",
            "turnhook_endpoint_paused{endpoint=\"billing\"} 0",
            "turnhook_endpoint_held{endpoint=\"billing\"} 0",
            "turnhook_endpoint_breaker_open{endpoint=\"billing\"} 0",
            "turnhook_commit_seconds_count 0",
            "turnhook_commit_errors_total 0",
            "turnhook_store_up 0",
            "turnhook_store_bytes 0",
            "turnhook_ledger_oldest_timestamp_seconds 0",
            "turnhook_event_queue_bytes{source=\"eu-1\"} 0",
            "turnhook_event_queue_capacity_bytes{source=\"us-1\"} 0",
            "turnhook_internal_errors_total 0",
            "# TYPE turnhook_internal_errors_total counter",
            "# TYPE process_cpu_seconds_total counter",
            "# TYPE process_resident_memory_bytes gauge",
            "# TYPE process_open_fds gauge",
            "# TYPE process_start_time_seconds gauge",
        ] {
            assert!(text.lines().any(|found| found == line), "no `{line}` in\n{text}");
        }
        assert!(
            !text.contains("turnhook_source_servers{source=\"us-1\"}"),
            "of a Redis nobody knows the servers"
        );
        assert!(metrics.encode(Format::OpenMetrics).ends_with("# EOF\n"));
    }
}
