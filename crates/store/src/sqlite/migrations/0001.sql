-- Times are milliseconds since the Unix epoch. Names that come from coturn are BLOBs: raw bytes.

-- The one row that belongs to the whole store.
CREATE TABLE store (
    id           INTEGER PRIMARY KEY CHECK (id = 1),
    store_id     BLOB    NOT NULL,
    -- Events up to this one are in the ledger (session, session_event, usage_day) and in event_key.
    ledger_event INTEGER NOT NULL DEFAULT 0,
    -- While a batch of events is being added to usage_day: its last event, and the last key that is done.
    usage_event  INTEGER,
    usage_key    BLOB
);

CREATE TABLE source (
    id    INTEGER PRIMARY KEY,
    name  TEXT    NOT NULL UNIQUE,
    clock INTEGER              -- the time of its last commit that was folded out of state_log
);

CREATE TABLE endpoint (
    id         INTEGER PRIMARY KEY,
    name       TEXT    NOT NULL UNIQUE,
    created_at INTEGER NOT NULL,
    removed_at INTEGER          -- no longer configured; its deliveries stay
);

-- A pause is over when to_at is set.
CREATE TABLE endpoint_pause (
    id       INTEGER PRIMARY KEY,
    endpoint INTEGER NOT NULL,
    from_at  INTEGER NOT NULL,
    to_at    INTEGER,
    reason   TEXT    NOT NULL
);

-- The reducers' state: opaque rows. state_log holds what changed since, one row for each commit, and wins.
CREATE TABLE state (
    source INTEGER NOT NULL,
    tbl    INTEGER NOT NULL,
    key    INTEGER NOT NULL,
    value  BLOB    NOT NULL,
    PRIMARY KEY (source, tbl, key)
) WITHOUT ROWID;

CREATE TABLE state_log (
    seq     INTEGER PRIMARY KEY,
    source  INTEGER NOT NULL,
    clock   INTEGER NOT NULL,
    bytes   INTEGER NOT NULL, -- of the changes before they were packed
    changes BLOB    NOT NULL
);

-- The outbox: each event once, and a delivery for each endpoint that it goes to.
CREATE TABLE event (
    id         INTEGER PRIMARY KEY,
    event_id   BLOB    NOT NULL,
    session_id BLOB    NOT NULL,
    source     INTEGER NOT NULL,
    type       INTEGER NOT NULL, -- 0 session.start, 1 session.usage, 2 session.end
    sequence   INTEGER NOT NULL,
    at         INTEGER NOT NULL,
    data       BLOB    NOT NULL  -- packed: the facts for the ledger, then the body
);

CREATE TABLE delivery (
    id               INTEGER PRIMARY KEY,        -- event << 16 | endpoint
    endpoint         INTEGER NOT NULL,
    session          INTEGER NOT NULL,           -- the first 8 bytes of the session's id
    state            INTEGER NOT NULL,           -- 0 pending, 1 delivered, 2 dead, 3 discarded
    attempts         INTEGER NOT NULL,
    prior            INTEGER NOT NULL,           -- of these, attempts before the last replay
    at               INTEGER NOT NULL,           -- pending: the next attempt; else: when it was finished
    latency_ms       INTEGER NOT NULL,           -- of the successful attempt; until then a number of the same width
    status           INTEGER,                    -- of the successful attempt, if it was not 200
    first_attempt_at INTEGER,                    -- since queued; NULL where the first attempt succeeded
    replay           INTEGER,                    -- the last replay that queued it
    reason           TEXT                        -- why it is dead
);
CREATE INDEX delivery_pending ON delivery (endpoint, session) WHERE state = 0;
CREATE INDEX delivery_dead ON delivery (endpoint) WHERE state = 2;
CREATE INDEX delivery_replay ON delivery (replay) WHERE replay IS NOT NULL AND state = 0;

-- Attempts that failed, and those of deliveries that were queued again. A plain success is in its delivery.
CREATE TABLE attempt (
    delivery   INTEGER NOT NULL,
    n          INTEGER NOT NULL,
    at         INTEGER NOT NULL, -- when it began
    latency_ms INTEGER NOT NULL,
    status     INTEGER,
    error      TEXT,
    answer     BLOB,             -- at most 1 KiB
    PRIMARY KEY (delivery, n)
) WITHOUT ROWID;

CREATE TABLE replay (
    id    INTEGER PRIMARY KEY,
    at    INTEGER NOT NULL,
    who   TEXT    NOT NULL,
    what  TEXT    NOT NULL,
    total INTEGER NOT NULL
);

-- The ledger, brought up to store.ledger_event in sorted batches.
CREATE TABLE event_key (
    event_id BLOB    PRIMARY KEY,
    event    INTEGER NOT NULL
) WITHOUT ROWID;

CREATE TABLE session_event (
    session_id BLOB    NOT NULL,
    sequence   INTEGER NOT NULL,
    event      INTEGER NOT NULL,
    PRIMARY KEY (session_id, sequence, event)
) WITHOUT ROWID;

CREATE TABLE session (
    id           BLOB    PRIMARY KEY,
    source       INTEGER NOT NULL,
    started_at   INTEGER NOT NULL,
    updated_at   INTEGER NOT NULL, -- its last event's timestamp
    ended_at     INTEGER,
    reason       INTEGER,
    accuracy     INTEGER,
    sequence     INTEGER NOT NULL, -- its last event's
    event        INTEGER NOT NULL, -- its last event
    continues    BLOB,
    realm        BLOB    NOT NULL,
    user         BLOB,
    peer_leg     INTEGER NOT NULL,
    allocations  INTEGER NOT NULL,
    client_received_packets INTEGER NOT NULL, client_received_bytes INTEGER NOT NULL,
    client_sent_packets     INTEGER NOT NULL, client_sent_bytes     INTEGER NOT NULL,
    peer_received_packets   INTEGER NOT NULL, peer_received_bytes   INTEGER NOT NULL,
    peer_sent_packets       INTEGER NOT NULL, peer_sent_bytes       INTEGER NOT NULL,
    billable_bytes          INTEGER NOT NULL,
    names        BLOB    NOT NULL  -- packed: usernames and labels
) WITHOUT ROWID;

-- The usage_delta of all events by the UTC day of their timestamps, and the sessions begun and ended then.
CREATE TABLE usage_day (
    day          INTEGER NOT NULL, -- days since 1970-01-01
    source       INTEGER NOT NULL,
    realm        BLOB    NOT NULL,
    user         BLOB    NOT NULL, -- empty: none
    started      INTEGER NOT NULL,
    ended        INTEGER NOT NULL,
    lower_bound  INTEGER NOT NULL, -- of those ended
    duration_ms  INTEGER NOT NULL, -- of those ended
    client_received_packets INTEGER NOT NULL, client_received_bytes INTEGER NOT NULL,
    client_sent_packets     INTEGER NOT NULL, client_sent_bytes     INTEGER NOT NULL,
    peer_received_packets   INTEGER NOT NULL, peer_received_bytes   INTEGER NOT NULL,
    peer_sent_packets       INTEGER NOT NULL, peer_sent_bytes       INTEGER NOT NULL,
    billable_bytes          INTEGER NOT NULL,
    PRIMARY KEY (day, source, realm, user)
) WITHOUT ROWID;

CREATE TABLE unattributed (
    id         INTEGER PRIMARY KEY,
    source     INTEGER NOT NULL,
    at         INTEGER NOT NULL,
    server     BLOB    NOT NULL, -- empty: not known
    realm      BLOB    NOT NULL,
    username   BLOB    NOT NULL,
    allocation INTEGER NOT NULL,
    opened_at  INTEGER NOT NULL,
    reason     TEXT    NOT NULL,
    client_received_packets INTEGER NOT NULL, client_received_bytes INTEGER NOT NULL,
    client_sent_packets     INTEGER NOT NULL, client_sent_bytes     INTEGER NOT NULL,
    peer_received_packets   INTEGER NOT NULL, peer_received_bytes   INTEGER NOT NULL,
    peer_sent_packets       INTEGER NOT NULL, peer_sent_bytes       INTEGER NOT NULL,
    billable_bytes          INTEGER NOT NULL,
    UNIQUE (source, at, server, realm, username, allocation, opened_at, reason)
);

CREATE TABLE gap (
    id      INTEGER PRIMARY KEY,
    source  INTEGER NOT NULL,
    from_at INTEGER NOT NULL,
    to_at   INTEGER NOT NULL,
    reason  TEXT    NOT NULL,
    server  BLOB    NOT NULL, -- empty: all of the source
    UNIQUE (source, from_at, to_at, reason, server)
);
