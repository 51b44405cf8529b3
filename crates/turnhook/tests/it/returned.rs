//! A server of a `direct` source that was taken to have stopped is heard again: that is said, and what it relayed unheard is
//! a gap.

use crate::harness::{
    billing::{Billing, counted, direct},
    eventually,
    feeder::{Allocation, Feeder},
    program::Program,
};

/// Whether turnhook was there all the while, or is started in between and knows of the server from its store alone.
#[test]
fn a_server_that_had_not_stopped() {
    for restarted in [false, true] {
        let billing = Billing::start();
        let mut program = direct(&billing);
        program.start();
        let mut feeder = Feeder::connect(program.source);
        let authenticates = Feeder::started(program.source);
        let mut call = Allocation::new("1795413634:ann", 7);
        feeder.open(&call, 600).unwrap();
        feeder.relay(&mut call, 1000, 1000).unwrap();
        billing.told("ann", 200_000);
        feeder.hang_up();
        authenticates.hang_up();
        let first = billing.ended("ann", 1).remove(0);
        assert_eq!(first.end_reason(), "server_stopped");
        if restarted {
            program.stop();
            program.start();
        }
        let mut feeder = Feeder::connect(program.source);
        feeder.refresh(&call, 600).unwrap();
        feeder.relay(&mut call, 500, 500).unwrap();
        feeder.close(&call).unwrap();
        let both = billing.ended("ann", 2);
        assert_eq!(
            both.iter().map(|s| s.billable()).sum::<u64>(),
            300_000,
            "{both:#?}"
        );
        let of_the_server = || -> Vec<_> {
            let gaps = program.objects(&["gaps", "list"]);
            gaps.into_iter()
                .filter(|gap| gap["reason"] == "reconnect" && !gap["server"].is_null())
                .collect()
        };
        let gaps = eventually("the gap", || {
            Some(of_the_server()).filter(|gaps| !gaps.is_empty())
        });
        assert_eq!(gaps.len(), 1, "{gaps:#?}");
        assert_eq!(
            gaps[0]["from"],
            first.events.last().unwrap().body["data"]["ended_at"]
        );
        assert_eq!(counted(&program, &["turnhook_gaps_total", "reconnect"]), 1);
        let log = program.log();
        let said = log.iter().filter(|line| line.contains("is heard again")).count();
        assert_eq!(said, 1, "restarted: {restarted}: {log:#?}");
    }
}

/// A report of more packets than coturn sends in one came late: it may be of another interval than it seems.
#[test]
fn reports_that_come_late_are_counted() {
    let billing = Billing::start();
    let mut program = direct(&billing);
    program.start();
    let mut feeder = Feeder::connect(program.source);
    let mut call = Allocation::new("1795413634:ann", 7);
    feeder.open(&call, 600).unwrap();
    for packets in [2000, 3000, 3000, 100] {
        feeder.relay(&mut call, packets, packets).unwrap();
    }
    feeder.close(&call).unwrap();
    assert_eq!(billing.ended("ann", 1)[0].billable(), 2 * 8100 * 100);
    assert_eq!(
        counted(&program, &["turnhook_late_reports_total{source=\"eu-1\"}"]),
        2
    );
}

/// It is said once that it had not, though turnhook is started anew before all of its allocations are heard again.
#[test]
fn a_server_that_had_not_stopped_is_on_record_once() {
    let billing = Billing::start();
    let mut program = direct(&billing);
    program.start();
    let mut feeder = Feeder::connect(program.source);
    let authenticates = Feeder::started(program.source);
    let (ann, bob) = (
        Allocation::new("1795413634:ann", 7),
        Allocation::new("1795413634:bob", 8),
    );
    feeder.open(&ann, 600).unwrap();
    feeder.open(&bob, 600).unwrap();
    billing.started("ann");
    billing.started("bob");
    feeder.hang_up();
    authenticates.hang_up();
    for user in ["ann", "bob"] {
        assert_eq!(billing.ended(user, 1)[0].end_reason(), "server_stopped");
    }
    let mut feeder = Feeder::connect(program.source);
    feeder.refresh(&ann, 600).unwrap();
    let of_the_server = |program: &Program| -> Vec<_> {
        let gaps = program.objects(&["gaps", "list"]);
        gaps.into_iter().filter(|gap| !gap["server"].is_null()).collect()
    };
    let first = eventually("the gap", || {
        Some(of_the_server(&program)).filter(|gaps| !gaps.is_empty())
    });
    drop(feeder);
    program.stop();
    program.start();
    let mut feeder = Feeder::connect(program.source);
    feeder.refresh(&bob, 600).unwrap();
    feeder.relay(&mut { bob }, 1000, 1000).unwrap();
    // It is heard again, and what it says is committed.
    let bob = billing.ended("bob", 1).remove(0);
    eventually("what continues", || {
        let sessions = billing.sessions_of("bob");
        sessions
            .iter()
            .any(|s| s.continues() && s.billable() > 0)
            .then_some(())
    });
    assert!(bob.has_ended());
    assert_eq!(of_the_server(&program), first);
    let log = program.log();
    assert!(
        !log.iter().any(|line| line.contains("is heard again")),
        "{log:#?}"
    );
}
