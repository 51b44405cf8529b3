-- How far time has certainly come: what is removed for its age follows this, and not a clock that may have been put ahead.
ALTER TABLE store ADD COLUMN horizon INTEGER;

-- What the database would not take, by itself: taken out of its commit so that all else could be committed.
CREATE TABLE refused (
    id     INTEGER PRIMARY KEY,
    source INTEGER NOT NULL,
    at     INTEGER NOT NULL,
    kind   TEXT    NOT NULL, -- event, state, unattributed, gap
    name   TEXT    NOT NULL, -- which
    error  TEXT    NOT NULL, -- what the database said
    data   BLOB, -- an event as in event.data, a row of the state, bytes in words; NULL where it is too large
    UNIQUE (source, at, kind, name)
);

-- Sessions of a user; sessions by when they were over, the open ones among them.
CREATE INDEX session_of_user ON session (user, id) WHERE user IS NOT NULL;
CREATE INDEX session_ended ON session (ended_at);
CREATE INDEX gap_over ON gap (to_at);
CREATE UNIQUE INDEX endpoint_pause_open ON endpoint_pause (endpoint) WHERE to_at IS NULL;

-- Sums that had overflowed became floating point numbers, which nothing could read any more.
UPDATE usage_day SET
    duration_ms = iif(typeof(duration_ms) = 'real', 9223372036854775807, duration_ms),
    client_received_packets = iif(typeof(client_received_packets) = 'real', 9223372036854775807, client_received_packets),
    client_received_bytes = iif(typeof(client_received_bytes) = 'real', 9223372036854775807, client_received_bytes),
    client_sent_packets = iif(typeof(client_sent_packets) = 'real', 9223372036854775807, client_sent_packets),
    client_sent_bytes = iif(typeof(client_sent_bytes) = 'real', 9223372036854775807, client_sent_bytes),
    peer_received_packets = iif(typeof(peer_received_packets) = 'real', 9223372036854775807, peer_received_packets),
    peer_received_bytes = iif(typeof(peer_received_bytes) = 'real', 9223372036854775807, peer_received_bytes),
    peer_sent_packets = iif(typeof(peer_sent_packets) = 'real', 9223372036854775807, peer_sent_packets),
    peer_sent_bytes = iif(typeof(peer_sent_bytes) = 'real', 9223372036854775807, peer_sent_bytes),
    billable_bytes = iif(typeof(billable_bytes) = 'real', 9223372036854775807, billable_bytes)
WHERE 'real' IN (typeof(duration_ms), typeof(client_received_packets), typeof(client_received_bytes),
    typeof(client_sent_packets), typeof(client_sent_bytes), typeof(peer_received_packets), typeof(peer_received_bytes),
    typeof(peer_sent_packets), typeof(peer_sent_bytes), typeof(billable_bytes));
