-- Who is blocked: of the changes for a user and realm the last one holds. Times are those of the wall clock.
CREATE TABLE block_change (
    id        bigint   PRIMARY KEY, -- by the counter, so that numbers rise in the order of the commits
    at        bigint   NOT NULL,
    kind      smallint NOT NULL, -- 0 block, 1 unblock, 2 end a session
    realm     bytea,             -- NULL: every realm
    user_name bytea,
    session   bytea,
    until_at  bigint,            -- NULL: until unblocked
    reason    text     NOT NULL,
    who       text     NOT NULL
);
CREATE INDEX block_of_user ON block_change (user_name, id);
INSERT INTO counter (name, value) VALUES ('block', 0);
