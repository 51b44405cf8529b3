-- The sums of usage_quarter over all users, written with them: what all use is read without reading every user's rows.
CREATE TABLE usage_all (
    quarter      INTEGER NOT NULL, -- since 1970-01-01
    source       INTEGER NOT NULL,
    realm        BLOB    NOT NULL,
    whole_day    INTEGER NOT NULL, -- 1: some of it is of a whole UTC day of before there were quarters
    started      INTEGER NOT NULL,
    ended        INTEGER NOT NULL,
    lower_bound  INTEGER NOT NULL, -- of those ended
    duration_ms  INTEGER NOT NULL, -- of those ended
    client_received_packets INTEGER NOT NULL, client_received_bytes INTEGER NOT NULL,
    client_sent_packets     INTEGER NOT NULL, client_sent_bytes     INTEGER NOT NULL,
    peer_received_packets   INTEGER NOT NULL, peer_received_bytes   INTEGER NOT NULL,
    peer_sent_packets       INTEGER NOT NULL, peer_sent_bytes       INTEGER NOT NULL,
    billable_bytes          INTEGER NOT NULL,
    PRIMARY KEY (quarter, source, realm)
) WITHOUT ROWID;
-- In halves, since a sum beyond the largest number is an error here; they stop at it, as they do elsewhere.
INSERT INTO usage_all
    SELECT quarter, source, realm, whole_day,
        iif(started_high + (started_low >> 32) > 2147483647, 9223372036854775807, (started_high << 32) + started_low),
        iif(ended_high + (ended_low >> 32) > 2147483647, 9223372036854775807, (ended_high << 32) + ended_low),
        iif(lower_bound_high + (lower_bound_low >> 32) > 2147483647, 9223372036854775807, (lower_bound_high << 32) + lower_bound_low),
        iif(duration_ms_high + (duration_ms_low >> 32) > 2147483647, 9223372036854775807, (duration_ms_high << 32) + duration_ms_low),
        iif(client_received_packets_high + (client_received_packets_low >> 32) > 2147483647, 9223372036854775807, (client_received_packets_high << 32) + client_received_packets_low),
        iif(client_received_bytes_high + (client_received_bytes_low >> 32) > 2147483647, 9223372036854775807, (client_received_bytes_high << 32) + client_received_bytes_low),
        iif(client_sent_packets_high + (client_sent_packets_low >> 32) > 2147483647, 9223372036854775807, (client_sent_packets_high << 32) + client_sent_packets_low),
        iif(client_sent_bytes_high + (client_sent_bytes_low >> 32) > 2147483647, 9223372036854775807, (client_sent_bytes_high << 32) + client_sent_bytes_low),
        iif(peer_received_packets_high + (peer_received_packets_low >> 32) > 2147483647, 9223372036854775807, (peer_received_packets_high << 32) + peer_received_packets_low),
        iif(peer_received_bytes_high + (peer_received_bytes_low >> 32) > 2147483647, 9223372036854775807, (peer_received_bytes_high << 32) + peer_received_bytes_low),
        iif(peer_sent_packets_high + (peer_sent_packets_low >> 32) > 2147483647, 9223372036854775807, (peer_sent_packets_high << 32) + peer_sent_packets_low),
        iif(peer_sent_bytes_high + (peer_sent_bytes_low >> 32) > 2147483647, 9223372036854775807, (peer_sent_bytes_high << 32) + peer_sent_bytes_low),
        iif(billable_bytes_high + (billable_bytes_low >> 32) > 2147483647, 9223372036854775807, (billable_bytes_high << 32) + billable_bytes_low)
    FROM (SELECT quarter, source, realm, max(whole_day) AS whole_day,
        sum(started >> 32) AS started_high, sum(started & 4294967295) AS started_low,
        sum(ended >> 32) AS ended_high, sum(ended & 4294967295) AS ended_low,
        sum(lower_bound >> 32) AS lower_bound_high, sum(lower_bound & 4294967295) AS lower_bound_low,
        sum(duration_ms >> 32) AS duration_ms_high, sum(duration_ms & 4294967295) AS duration_ms_low,
        sum(client_received_packets >> 32) AS client_received_packets_high, sum(client_received_packets & 4294967295) AS client_received_packets_low,
        sum(client_received_bytes >> 32) AS client_received_bytes_high, sum(client_received_bytes & 4294967295) AS client_received_bytes_low,
        sum(client_sent_packets >> 32) AS client_sent_packets_high, sum(client_sent_packets & 4294967295) AS client_sent_packets_low,
        sum(client_sent_bytes >> 32) AS client_sent_bytes_high, sum(client_sent_bytes & 4294967295) AS client_sent_bytes_low,
        sum(peer_received_packets >> 32) AS peer_received_packets_high, sum(peer_received_packets & 4294967295) AS peer_received_packets_low,
        sum(peer_received_bytes >> 32) AS peer_received_bytes_high, sum(peer_received_bytes & 4294967295) AS peer_received_bytes_low,
        sum(peer_sent_packets >> 32) AS peer_sent_packets_high, sum(peer_sent_packets & 4294967295) AS peer_sent_packets_low,
        sum(peer_sent_bytes >> 32) AS peer_sent_bytes_high, sum(peer_sent_bytes & 4294967295) AS peer_sent_bytes_low,
        sum(billable_bytes >> 32) AS billable_bytes_high, sum(billable_bytes & 4294967295) AS billable_bytes_low
        FROM usage_quarter NOT INDEXED GROUP BY quarter, source, realm);
