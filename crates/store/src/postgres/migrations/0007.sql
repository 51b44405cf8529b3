-- Events of users. A block whose time is over has a change of its own from now on: those that were over before are no news.
INSERT INTO block_change (id, at, kind, realm, user_name, reason, who)
    SELECT c.value + row_number() OVER (ORDER BY b.id), b.until_at, 3, b.realm, b.user_name, '', ''
    FROM block_change b CROSS JOIN counter c
    WHERE c.name = 'block' AND b.kind = 0 AND b.until_at <= extract(epoch FROM now()) * 1000 AND NOT EXISTS
    (SELECT 1 FROM block_change n WHERE n.user_name = b.user_name AND n.realm IS NOT DISTINCT FROM b.realm AND n.id > b.id);
UPDATE counter SET value = greatest(value, (SELECT coalesce(max(id), 0) FROM block_change)) WHERE name = 'block';
-- What a quota said that made the change, packed; and the endpoints that were told of the block, two bytes each.
ALTER TABLE block_change ADD COLUMN quota bytea;
ALTER TABLE block_change ADD COLUMN told bytea;
CREATE INDEX block_of_session ON block_change (session, id) WHERE session IS NOT NULL;
-- Changes up to this one have been told.
ALTER TABLE store ADD COLUMN told_change bigint NOT NULL DEFAULT 0;
UPDATE store SET told_change = (SELECT coalesce(max(id), 0) FROM block_change);

-- Whose the events are that are of no session (event.type 3 quota.reached, 4 user.blocked, 5 user.unblocked).
CREATE TABLE user_event (
    event     bigint PRIMARY KEY,
    realm     bytea,             -- NULL: every realm
    user_name bytea NOT NULL
);
CREATE INDEX user_event_of_user ON user_event (user_name, event);
