//! How SQLite wants what is asked of both databases.

use crate::query::Dialect;

/// The cross joins and the indexes named say how it is to be walked, whatever the planner believes.
pub(crate) const DIALECT: Dialect = Dialect {
    mark: '?',
    keys: "event_key k CROSS JOIN event e ON e.id = k.event",
    key: "k.event_id",
    session: "session_event l CROSS JOIN event e ON e.id = l.event",
    session_id: "l.session_id",
    user_events: "(SELECT k.event FROM session s CROSS JOIN session_event k ON k.session_id = s.id AND s.user = ?1 \
         UNION ALL SELECT event FROM user_event WHERE user = ?1) l CROSS JOIN event e ON e.id = l.event",
    deliveries: "CROSS JOIN delivery d NOT INDEXED ON d.id BETWEEN e.id << 16 AND (e.id << 16) + 65535",
    pending: "delivery d INDEXED BY delivery_pending",
    dead: "delivery d INDEXED BY delivery_dead",
    event: "CROSS JOIN event e ON e.id = d.id >> 16",
    endpoint: "CROSS JOIN endpoint p ON p.id = d.endpoint",
    replayed: "delivery d INDEXED BY delivery_replay",
    user: "user",
    join: "CROSS JOIN",
    by_end: "session INDEXED BY session_ended",
    is: "IS",
};
