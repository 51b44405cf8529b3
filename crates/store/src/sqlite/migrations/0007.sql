-- Events of users. A block whose time is over has a change of its own from now on: those that were over before are no news.
INSERT INTO block_change (at, kind, realm, user, reason, who)
    SELECT b.until_at, 3, b.realm, b.user, '', '' FROM block_change b
    WHERE b.kind = 0 AND b.until_at <= CAST(strftime('%s', 'now') AS INTEGER) * 1000 AND NOT EXISTS
    (SELECT 1 FROM block_change n WHERE n.user = b.user AND n.realm IS b.realm AND n.id > b.id)
    ORDER BY b.id;
-- What a quota said that made the change, packed; and the endpoints that were told of the block, two bytes each.
ALTER TABLE block_change ADD COLUMN quota BLOB;
ALTER TABLE block_change ADD COLUMN told BLOB;
CREATE INDEX block_of_session ON block_change (session, id) WHERE session IS NOT NULL;
-- Changes up to this one have been told.
ALTER TABLE store ADD COLUMN told_change INTEGER NOT NULL DEFAULT 0;
UPDATE store SET told_change = (SELECT coalesce(max(id), 0) FROM block_change);

-- Whose the events are that are of no session (event.type 3 quota.reached, 4 user.blocked, 5 user.unblocked).
CREATE TABLE user_event (
    event INTEGER PRIMARY KEY,
    realm BLOB,             -- NULL: every realm
    user  BLOB NOT NULL
);
CREATE INDEX user_event_of_user ON user_event (user, event);
