-- Who is blocked: of the changes for a user and realm the last one holds. Times are those of the wall clock.
CREATE TABLE block_change (
    id       INTEGER PRIMARY KEY, -- in the order of the commits; the last is never removed, so none comes back
    at       INTEGER NOT NULL,
    kind     INTEGER NOT NULL, -- 0 block, 1 unblock, 2 end a session
    realm    BLOB,             -- NULL: every realm
    user     BLOB,
    session  BLOB,
    until_at INTEGER,          -- NULL: until unblocked
    reason   TEXT NOT NULL,
    who      TEXT NOT NULL
);
CREATE INDEX block_of_user ON block_change (user, id);
