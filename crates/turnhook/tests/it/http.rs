//! `[http] listen`: what it serves, and how.

use std::{
    io::{Read as _, Write as _},
    net::TcpStream,
    time::{SystemTime, UNIX_EPOCH},
};

use crate::harness::{
    billing::Billing,
    eventually,
    feeder::{Allocation, Feeder},
    program::Program,
};

#[test]
fn health_metrics_and_status() {
    let billing = Billing::start();
    let mut program = Program::new(&billing.endpoint());
    program.start();
    assert_eq!(program.get("/livez"), (200, "ok\n".to_owned()));
    program.until("the source", |status| {
        status["sources"]["eu-1"]["state"] == "listening"
    });
    let (code, body) = program.get("/readyz");
    assert_eq!(
        (code, serde_json::from_str(&body).unwrap()),
        (
            200,
            serde_json::json!({
                "ready": true,
                "sources": { "eu-1": { "ready": true, "role": "leader", "state": "listening" } },
                "store": { "ready": true },
            })
        )
    );
    let mut feeder = Feeder::connect(program.source);
    feeder.call("1795413634:cust_42", 1);
    billing.ended("cust_42", 1);

    let status = program.until("the delivery", |status| {
        let endpoint = &status["endpoints"]["billing"];
        endpoint["last_delivered_at"].is_string() && endpoint["pending"] == 0
    });
    assert_eq!(status["version"], env!("CARGO_PKG_VERSION"));
    assert!(status["uptime_seconds"].is_u64());
    assert_eq!(status["sources"]["eu-1"]["open_sessions"], 0);
    assert_eq!(status["store"]["writable"], true);
    let endpoint = &status["endpoints"]["billing"];
    assert_eq!(
        (&endpoint["breaker"], &endpoint["paused"]),
        (&"closed".into(), &false.into())
    );
    assert_eq!(endpoint["dead_letters"], 0);

    let (code, metrics) = program.get("/metrics");
    assert_eq!(code, 200);
    for line in [
        "turnhook_events_total{source=\"eu-1\",kind=\"new\"} 1",
        "turnhook_events_total{source=\"eu-1\",kind=\"total_traffic_peer\"} 1",
        "turnhook_sessions_ended_total{source=\"eu-1\",reason=\"closed\",accuracy=\"exact\"} 1",
        "turnhook_deliveries_total{endpoint=\"billing\",outcome=\"delivered\"} 2",
        "turnhook_outbox_pending{endpoint=\"billing\"} 0",
        "turnhook_dead_letters{endpoint=\"billing\"} 0",
    ] {
        assert!(
            metrics.lines().any(|found| found == line),
            "no `{line}` in\n{metrics}"
        );
    }
    assert!(
        !metrics.contains("cust_42") && !metrics.contains("example.org"),
        "a name is a label:\n{metrics}"
    );
    assert_eq!(program.get("/nothing").0, 404);
    assert!(program.stop().iter().any(|line| line.contains("stopped")));
}

/// Every series that can be told before is there from the start, at 0: what comes to be by its first increment has not
/// risen, and no alert would see it.
#[test]
fn metrics_begin_at_zero_and_count() {
    let billing = Billing::start();
    let mut program = Program::new(&billing.endpoint());
    program.start();
    let zeros = [
        "turnhook_gaps_total{source=\"eu-1\",reason=\"stall\"}",
        "turnhook_events_ignored_total{source=\"eu-1\",reason=\"foreign\"}",
        "turnhook_sessions_started_total{source=\"eu-1\"}",
        "turnhook_sessions_ended_total{source=\"eu-1\",reason=\"expired\",accuracy=\"lower_bound\"}",
        "turnhook_sessions_ended_total{source=\"eu-1\",reason=\"closed\",accuracy=\"exact\"}",
        "turnhook_session_duration_seconds_count{source=\"eu-1\"}",
        "turnhook_billable_bytes_total{source=\"eu-1\"}",
        "turnhook_relayed_bytes_total{source=\"eu-1\",direction=\"to_peers\"}",
        "turnhook_relayed_bytes_total{source=\"eu-1\",direction=\"to_clients\"}",
        "turnhook_unattributed_bytes_total{source=\"eu-1\"}",
        "turnhook_deliveries_total{endpoint=\"billing\",outcome=\"delivered\"}",
        "turnhook_deliveries_total{endpoint=\"billing\",outcome=\"rejected\"}",
        "turnhook_delivery_seconds_count{endpoint=\"billing\"}",
        "turnhook_delivery_age_seconds_count{endpoint=\"billing\"}",
        "turnhook_dead_letters{endpoint=\"billing\"}",
        "turnhook_internal_errors_total",
        "turnhook_commit_errors_total",
    ];
    let metrics = program.get("/metrics").1;
    for series in zeros {
        assert_eq!(value(&metrics, series), 0.0, "{series}");
    }
    assert_eq!(value(&metrics, "turnhook_store_up"), 1.0);
    let kept = |metrics: &str| value(metrics, "turnhook_store_bytes") > 0.0;
    eventually("the size of the store", || {
        kept(&program.get("/metrics").1).then_some(())
    });
    assert!(value(&metrics, "turnhook_event_queue_capacity_bytes{source=\"eu-1\"}") > 1e6);

    let mut feeder = Feeder::connect(program.source);
    let mut call = Allocation::new("1795413634:cust_42", 1);
    feeder.open(&call, 600).unwrap();
    feeder.relay(&mut call, 7, 5).unwrap();
    feeder.close(&call).unwrap();
    billing.ended("cust_42", 1);
    program.nothing_pending();
    eventually("both deliveries to be counted", || {
        let counted = value(
            &program.get("/metrics").1,
            "turnhook_delivery_age_seconds_count{endpoint=\"billing\"}",
        );
        (counted == 2.0).then_some(())
    });
    let metrics = program.get("/metrics").1;
    for (series, wanted) in [
        ("turnhook_sessions_started_total{source=\"eu-1\"}", 1.0),
        ("turnhook_session_duration_seconds_count{source=\"eu-1\"}", 1.0),
        ("turnhook_billable_bytes_total{source=\"eu-1\"}", 1200.0),
        (
            "turnhook_relayed_bytes_total{source=\"eu-1\",direction=\"to_peers\"}",
            700.0,
        ),
        (
            "turnhook_relayed_bytes_total{source=\"eu-1\",direction=\"to_clients\"}",
            500.0,
        ),
    ] {
        assert_eq!(value(&metrics, series), wanted, "{series}");
    }
    for series in [
        "process_cpu_seconds_total",
        "process_resident_memory_bytes",
        "process_open_fds",
    ] {
        assert!(value(&metrics, series) > 0.0, "{series}");
    }
    let now = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap()
        .as_secs_f64();
    let started_at = value(&metrics, "process_start_time_seconds");
    assert!(started_at > 1e9 && started_at <= now, "{started_at}");
}

/// Prometheus's own format for whoever asks for nothing else, OpenMetrics for whoever asks for that.
#[test]
fn metrics_in_the_format_that_is_asked_for() {
    let mut program = Program::new("");
    program.start();
    let scrape = |accept: &str| {
        let mut stream = TcpStream::connect(("127.0.0.1", program.http)).unwrap();
        write!(
            stream,
            "GET /metrics HTTP/1.1\r\nhost: localhost\r\naccept: {accept}\r\nconnection: close\r\n\r\n"
        )
        .unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        let (head, body) = answer.split_once("\r\n\r\n").unwrap();
        (head.to_ascii_lowercase(), body.to_owned())
    };
    let (head, body) = scrape("*/*");
    assert!(head.contains("content-type: text/plain; version=0.0.4"), "{head}");
    assert!(body.contains("# TYPE turnhook_gaps_total counter\n"), "{body}");
    assert!(!body.contains("# EOF") && !body.contains("# UNIT"), "{body}");
    let (head, body) = scrape("application/openmetrics-text;version=1.0.0,text/plain;version=0.0.4;q=0.5");
    assert!(
        head.contains("content-type: application/openmetrics-text"),
        "{head}"
    );
    assert!(
        body.contains("# TYPE turnhook_gaps counter\n") && body.ends_with("# EOF\n"),
        "{body}"
    );
}

/// What stands at the root leads to all the rest.
#[test]
fn a_landing_page() {
    let mut program = Program::new("");
    program.start();
    let (code, page) = program.get("/");
    assert_eq!(code, 200);
    let links: Vec<&str> = page
        .split("href=\"")
        .skip(1)
        .map(|rest| rest.split('"').next().unwrap())
        .collect();
    assert_eq!(links, ["/status", "/metrics", "/readyz", "/livez"]);
    for link in links {
        assert_eq!(program.get(link).0, 200, "{link}");
    }
}

/// A restart is a gap, and the one that follows knows of it: in `/status`, and in the time of the last one.
#[test]
fn gaps_of_the_last_day_are_known_after_a_restart() {
    let mut program = Program::new("");
    let last_gap = "turnhook_last_gap_timestamp_seconds{source=\"eu-1\"}";
    program.start();
    assert_eq!(
        value(&program.get("/metrics").1, last_gap),
        0.0,
        "there was none yet"
    );
    let mut feeder = Feeder::connect(program.source);
    let mut call = Allocation::new("1795413634:cust_42", 1);
    feeder.open(&call, 600).unwrap();
    feeder.relay(&mut call, 7, 5).unwrap();
    program.until("the call", |status| {
        status["sources"]["eu-1"]["open_allocations"] == 1
    });
    program.stop();
    program.start();
    program.until("the gap of the restart", |status| {
        status["sources"]["eu-1"]["recent_gaps"][0]["reason"] == "restart"
    });
    program.stop();
    program.start();
    program.until("the gap of before", |status| {
        status["sources"]["eu-1"]["gaps_24h"].as_u64() >= Some(1)
    });
    assert!(value(&program.get("/metrics").1, last_gap) > 1e9);
}

/// A gap begins where the last run ended, however long nothing had happened before.
#[test]
fn a_restart_after_a_quiet_time_is_a_short_gap() {
    let mut program = Program::new("");
    program.start();
    Feeder::connect(program.source).call("1795413634:cust_42", 1);
    let sessions = ["sessions", "list"];
    eventually("the call", || {
        (program.objects(&sessions).len() == 1).then_some(())
    });
    // What has been committed by now is from before it.
    let quiet_since = jiff::Timestamp::now().as_millisecond();
    program.stop();
    program.start();
    let gaps = eventually("the gap of the restart", || {
        let gaps = program.objects(&["gaps", "list"]);
        (!gaps.is_empty()).then_some(gaps)
    });
    let from: jiff::Timestamp = gaps[0]["from"].as_str().unwrap().parse().unwrap();
    assert!(from.as_millisecond() >= quiet_since, "{gaps:?}");
    assert_eq!(gaps.len(), 1, "{gaps:?}");
    program.stop();
}

/// The value of a series.
#[track_caller]
fn value(metrics: &str, series: &str) -> f64 {
    let line = metrics
        .lines()
        .find_map(|line| line.strip_prefix(series)?.strip_prefix(' '));
    let Some(line) = line else {
        panic!("no {series} in\n{metrics}");
    };
    line.parse().unwrap()
}
