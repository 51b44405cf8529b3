//! What every session is like: one start, usages, one end, and what they say adds up.

use std::collections::{BTreeMap, BTreeSet};

use turnhook_reducer::{
    event::{EventType, SessionEvent, SessionId},
    rules::{GroupBy, Rules},
    usage::Legs,
};

use super::run::Outcome;

/// `steady` if the wall clock was never put back: then times tell the order of sessions, and durations are their
/// differences.
pub(crate) fn sessions_have_their_shape(rules: &Rules, outcome: &Outcome, steady: bool) {
    let mut sessions: BTreeMap<SessionId, Vec<&SessionEvent>> = BTreeMap::new();
    let mut ids = BTreeSet::new();
    let mut ended: BTreeMap<(Vec<u8>, Vec<u8>), u64> = BTreeMap::new();
    for event in &outcome.events {
        assert!(ids.insert(event.id), "an event id twice");
        sessions.entry(event.session_id).or_default().push(event);
        // Sessions of one group follow each other.
        let username = event.usernames.first().cloned().unwrap_or_default();
        let group = match rules.group_by {
            GroupBy::User => event.user.clone().unwrap_or_default(),
            GroupBy::Username => username,
            GroupBy::Allocation => continue,
        };
        let last = ended.entry((event.realm.to_vec(), group.to_vec())).or_default();
        match (event.event_type, event.end) {
            (EventType::Start, _) => assert!(
                !steady || event.started_at.0 >= *last,
                "it started before the one before ended: {event:#?}"
            ),
            (_, Some(end)) => *last = (*last).max(end.ended_at.0),
            _ => {}
        }
    }
    for events in sessions.values() {
        session_has_its_shape(events, steady);
        if let Some(continued) = events[0].continues {
            let before = sessions
                .get(&continued)
                .expect("it continues a session that was told");
            assert!(before.last().unwrap().end.is_some(), "of one that is over");
            assert!(!steady || before[0].timestamp <= events[0].timestamp);
        }
    }
}

fn session_has_its_shape(events: &[&SessionEvent], steady: bool) {
    let last = events.len() - 1;
    let mut sum = Legs::default();
    let mut billed = 0;
    for (n, event) in events.iter().enumerate() {
        assert_eq!(event.sequence as usize, n, "a hole, or a repeat: {event:#?}");
        let expected = match n {
            0 => EventType::Start,
            _ if n == last => EventType::End,
            _ => EventType::Usage,
        };
        assert_eq!(event.event_type, expected, "{event:#?}");
        assert_eq!(event.end.is_some(), n == last);
        assert_eq!(
            (event.started_at, event.continues),
            (events[0].started_at, events[0].continues)
        );
        assert!(event.started_at <= event.timestamp, "{event:#?}");
        assert!(
            n == 0 || events[n - 1].timestamp <= event.timestamp,
            "time went back: {event:#?}"
        );
        assert!(
            event.event_type != EventType::Usage || !event.usage_delta.is_zero(),
            "nothing to tell"
        );
        sum = sum.plus(event.usage_delta.legs);
        billed += event.usage_delta.billable_bytes;
        assert_eq!((sum, billed), (event.usage.legs, event.usage.billable_bytes));
        assert_eq!(event.allocations_omitted, 0, "fleets are small here");
        let parts = event
            .allocations
            .iter()
            .fold(Legs::default(), |sum, r| sum.plus(r.usage));
        assert_eq!(
            parts, event.usage.legs,
            "its allocations do not add up: {event:#?}"
        );
        for report in &event.allocations {
            if let Some((closed_at, _)) = report.closed {
                assert!(report.opened_at <= closed_at, "{report:#?}");
            }
        }
    }
    assert!(last > 0, "it has no end");
    let end = events[last].end.unwrap();
    assert!(events[0].started_at <= end.ended_at, "{:#?}", events[last]);
    assert!(end.ended_at <= events[last].timestamp, "{:#?}", events[last]);
    let (started_at, ended_at) = (events[0].started_at, end.ended_at);
    assert!(
        !steady || events[last].duration_ms == Some(ended_at.since(started_at)),
        "{:#?}",
        events[last]
    );
    assert_eq!(events[0].duration_ms, None);
}
