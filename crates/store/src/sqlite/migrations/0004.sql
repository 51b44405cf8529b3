-- What of a delivery to a billing product was sent, from before its first request on: it may have been counted.
CREATE TABLE sent (
    delivery INTEGER PRIMARY KEY,
    items    BLOB NOT NULL -- as they were sent, and how far each has come
);

-- How much of an event an endpoint is sent: so from this event on, so that a repeat has the same bytes whatever is configured then.
CREATE TABLE included (
    endpoint    INTEGER NOT NULL,
    from_event  INTEGER NOT NULL,
    allocations INTEGER NOT NULL,
    addresses   INTEGER NOT NULL, -- 0 or 1
    PRIMARY KEY (endpoint, from_event)
) WITHOUT ROWID;
