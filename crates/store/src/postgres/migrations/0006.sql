-- The sums of usage_quarter over all users, written with them: what all use is read without reading every user's rows.
CREATE TABLE usage_all (
    quarter      bigint NOT NULL, -- since 1970-01-01
    source       integer NOT NULL,
    realm        bytea    NOT NULL,
    whole_day    bigint NOT NULL, -- 1: some of it is of a whole UTC day of before there were quarters
    started      bigint NOT NULL,
    ended        bigint NOT NULL,
    lower_bound  bigint NOT NULL, -- of those ended
    duration_ms  bigint NOT NULL, -- of those ended
    client_received_packets bigint NOT NULL, client_received_bytes bigint NOT NULL,
    client_sent_packets     bigint NOT NULL, client_sent_bytes     bigint NOT NULL,
    peer_received_packets   bigint NOT NULL, peer_received_bytes   bigint NOT NULL,
    peer_sent_packets       bigint NOT NULL, peer_sent_bytes       bigint NOT NULL,
    billable_bytes          bigint NOT NULL,
    PRIMARY KEY (quarter, source, realm)
);
INSERT INTO usage_all
    SELECT quarter, source, realm, max(whole_day),
        least(sum(started), 9223372036854775807)::bigint,
        least(sum(ended), 9223372036854775807)::bigint,
        least(sum(lower_bound), 9223372036854775807)::bigint,
        least(sum(duration_ms), 9223372036854775807)::bigint,
        least(sum(client_received_packets), 9223372036854775807)::bigint,
        least(sum(client_received_bytes), 9223372036854775807)::bigint,
        least(sum(client_sent_packets), 9223372036854775807)::bigint,
        least(sum(client_sent_bytes), 9223372036854775807)::bigint,
        least(sum(peer_received_packets), 9223372036854775807)::bigint,
        least(sum(peer_received_bytes), 9223372036854775807)::bigint,
        least(sum(peer_sent_packets), 9223372036854775807)::bigint,
        least(sum(peer_sent_bytes), 9223372036854775807)::bigint,
        least(sum(billable_bytes), 9223372036854775807)::bigint
    FROM usage_quarter GROUP BY quarter, source, realm;
