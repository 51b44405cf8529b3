//! What is asked of both databases is walked here by the indexes that are meant.
#![allow(clippy::unwrap_used)]

use rusqlite::{Connection, params_from_iter};
use turnhook_reducer::{event::SessionId, time::Timestamp};

use super::{DIALECT, connection::MIGRATIONS};
use crate::{
    query::{Query, values},
    reads,
    session::{self, Part, SessionFilter},
    summed::{AT_ONCE, Ask, Unit},
    usage::{self, UsageFilter},
};

fn plan((sql, values): Query) -> String {
    let conn = Connection::open_in_memory().unwrap();
    for sql in MIGRATIONS {
        conn.execute_batch(sql).unwrap();
    }
    let mut stmt = conn.prepare(&format!("EXPLAIN QUERY PLAN {sql}")).unwrap();
    let lines = stmt
        .query_map(params_from_iter(values), |r| r.get::<_, String>(3))
        .unwrap();
    lines.map(Result::unwrap).collect::<Vec<_>>().join("\n")
}

#[test]
fn ended_sessions_are_walked_by_their_end() {
    let (from, to) = (Timestamp(1), Timestamp(9));
    let after = Some((Timestamp(5), SessionId([1; 16])));
    let plan = plan(reads::ended(
        &DIALECT,
        &SessionFilter::default(),
        from,
        to,
        after,
        10,
    ));
    assert!(
        plan.contains("session_ended (ended_at>? AND ended_at<?)"),
        "{plan}"
    );
    assert!(!plan.contains("TEMP B-TREE"), "{plan}");
}

#[test]
fn a_listing_reads_no_more_than_it_must() {
    let plan = |filter: &SessionFilter, part| plan(session::page(&DIALECT, filter, None, 50, part));
    let since = SessionFilter {
        since: Some(Timestamp(1)),
        ..SessionFilter::default()
    };
    let begun = plan(&since, Part::Begun);
    assert!(begun.contains("SEARCH s USING PRIMARY KEY (id>?)"), "{begun}");
    let overlapping = plan(&since, Part::Overlapping);
    assert!(
        overlapping.contains("session_ended (ended_at>?)"),
        "{overlapping}"
    );
    assert!(overlapping.contains("session_ended (ended_at=?"), "{overlapping}");
    assert!(
        overlapping.contains("SEARCH s USING PRIMARY KEY (id=?)"),
        "{overlapping}"
    );
    let until = SessionFilter {
        until: Some(Timestamp(1)),
        ..SessionFilter::default()
    };
    let until = plan(&until, Part::All);
    assert!(until.contains("SEARCH s USING PRIMARY KEY (id<?)"), "{until}");
    let user = SessionFilter {
        user: Some(b"cust_42".to_vec()),
        since: Some(Timestamp(1)),
        ..SessionFilter::default()
    };
    let user = plan(&user, Part::All);
    assert!(user.contains("INDEX session_of_user (user=?"), "{user}");
    assert!(!user.contains("TEMP B-TREE"), "{user}");
}

#[test]
fn a_users_sums_and_ends_are_ranges_of_an_index() {
    let asked = |user: Option<&[u8]>| {
        let filter = UsageFilter {
            user: user.map(<[u8]>::to_vec),
            ..UsageFilter::default()
        };
        plan(usage::by_quarter(&DIALECT, &filter, None, (1, 2), None, 10))
    };
    let user = asked(Some(b"cust_42"));
    assert!(
        user.contains("USING PRIMARY KEY (user=? AND quarter>? AND quarter<?)"),
        "{user}"
    );
    assert!(!user.contains("TEMP B-TREE"), "{user}");
    let all = asked(None);
    assert!(
        all.contains("usage_quarter_time (quarter>? AND quarter<?)"),
        "{all}"
    );
    assert!(!all.contains("TEMP B-TREE"), "{all}");
    let ended = plan((
        usage::ended_sql(&DIALECT),
        values![b"cust_42".to_vec(), 1i64, 2i64],
    ));
    assert!(
        ended.contains("session_of_user_ended (user=? AND ended_at>? AND ended_at<?)"),
        "{ended}"
    );
}

#[test]
fn users_with_the_most_are_found_without_sorting_and_read_by_their_key() {
    let ask = Ask::new(&DIALECT, Unit::Quarter, None, None, (100, 500));
    let bytes = plan(ask.bytes_of_users());
    assert!(bytes.contains("USING PRIMARY KEY (day>? AND day<?)"), "{bytes}");
    assert!(!bytes.contains("TEMP B-TREE"), "{bytes}");
    for count in [1, AT_ONCE] {
        let users = plan(ask.of_users(&vec![b"cust_42".to_vec(); count]));
        assert!(
            users.contains("USING PRIMARY KEY (user=? AND quarter>? AND quarter<?)"),
            "{users}"
        );
        assert!(!users.contains("TEMP B-TREE"), "{users}");
    }
}
