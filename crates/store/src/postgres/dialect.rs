//! How PostgreSQL wants what is asked of both databases.

use crate::query::Dialect;

pub(crate) const DIALECT: Dialect = Dialect {
    mark: '$',
    keys: "event e",
    key: "e.event_id",
    session: "event e",
    session_id: "e.session_id",
    // Not to walk back through all events in search of one user's: OFFSET keeps it in one piece.
    user_events: "(SELECT v.* FROM session s JOIN event v ON v.session_id = s.id WHERE s.user_name = $1 UNION ALL \
         SELECT v.* FROM user_event u JOIN event v ON v.id = u.event WHERE u.user_name = $1 OFFSET 0) e",
    // By their ids, which the planner sees to be few; a range of ids it takes for many.
    deliveries: "CROSS JOIN endpoint p JOIN delivery d ON d.id = (e.id << 16) | p.id",
    pending: "delivery d",
    dead: "delivery d",
    event: "JOIN event e ON e.id = d.id >> 16 JOIN endpoint p ON p.id = d.endpoint",
    endpoint: "",
    replayed: "delivery d",
    user: "user_name",
    join: "JOIN",
    by_end: "session",
    is: "IS NOT DISTINCT FROM",
};
