-- The same sums as in usage_day by quarters of an hour, for days of any zone; by user first: a user's month is one range.
CREATE TABLE usage_quarter (
    user         BLOB    NOT NULL, -- empty: none
    quarter      INTEGER NOT NULL, -- since 1970-01-01
    source       INTEGER NOT NULL,
    realm        BLOB    NOT NULL,
    whole_day    INTEGER NOT NULL, -- 1: of a whole UTC day of before there were quarters, put down at its noon
    started      INTEGER NOT NULL,
    ended        INTEGER NOT NULL,
    lower_bound  INTEGER NOT NULL, -- of those ended
    duration_ms  INTEGER NOT NULL, -- of those ended
    client_received_packets INTEGER NOT NULL, client_received_bytes INTEGER NOT NULL,
    client_sent_packets     INTEGER NOT NULL, client_sent_bytes     INTEGER NOT NULL,
    peer_received_packets   INTEGER NOT NULL, peer_received_bytes   INTEGER NOT NULL,
    peer_sent_packets       INTEGER NOT NULL, peer_sent_bytes       INTEGER NOT NULL,
    billable_bytes          INTEGER NOT NULL,
    PRIMARY KEY (user, quarter, source, realm)
) WITHOUT ROWID;
INSERT INTO usage_quarter
    SELECT user, day * 96 + 48, source, realm, 1, started, ended, lower_bound, duration_ms,
        client_received_packets, client_received_bytes, client_sent_packets, client_sent_bytes,
        peer_received_packets, peer_received_bytes, peer_sent_packets, peer_sent_bytes, billable_bytes
    FROM usage_day;
CREATE INDEX usage_quarter_time ON usage_quarter (quarter, user, source, realm);

-- A user's sessions by when they were over; what continues a session.
CREATE INDEX session_of_user_ended ON session (user, ended_at) WHERE user IS NOT NULL;
CREATE INDEX session_continues ON session (continues) WHERE continues IS NOT NULL;

-- What people did, and who.
CREATE TABLE audit (
    id     INTEGER PRIMARY KEY,
    at     INTEGER NOT NULL,
    who    TEXT    NOT NULL,
    action TEXT    NOT NULL, -- replay, discard, pause, resume, block …
    target TEXT    NOT NULL, -- an endpoint, a user, a filter
    detail TEXT    NOT NULL, -- the reason, in words
    count  INTEGER NOT NULL  -- of what it changed
);
