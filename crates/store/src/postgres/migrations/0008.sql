-- Allocations that are to be set right by coturn's log, until whoever leads the source has told them.
CREATE TABLE heal (
    session bytea   PRIMARY KEY, -- the session that tells it
    source  integer NOT NULL,
    data    bytea   NOT NULL
);
