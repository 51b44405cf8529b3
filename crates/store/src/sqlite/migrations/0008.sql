-- Allocations that are to be set right by coturn's log, until whoever leads the source has told them.
CREATE TABLE heal (
    session BLOB    PRIMARY KEY, -- the session that tells it
    source  INTEGER NOT NULL,
    data    BLOB    NOT NULL
);
