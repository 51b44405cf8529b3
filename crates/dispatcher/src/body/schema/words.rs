//! What each field means: the descriptions in the schemas.

use serde_json::{Value, json};

/// Part, field, meaning. A field that is new wants a line here.
const WORDS: &[(&str, &str, &str)] = &[
    ("", "type", "The type of the event."),
    (
        "",
        "timestamp",
        "When the event was decided; never before the session's previous event.",
    ),
    (
        "",
        "test",
        "True in what is sent to try an endpoint (`turnhook endpoints test`, the page), and in nothing else: bill nobody for it.",
    ),
    ("", "data", "What it is about."),
    (
        "Ping",
        "endpoint",
        "The endpoint's name in turnhook's configuration.",
    ),
    ("Data", "session_id", "Names the session."),
    (
        "Data",
        "sequence",
        "0 for the start, then without holes over all types. An endpoint that takes only some types sees holes.",
    ),
    (
        "Data",
        "continues",
        "The session that this one corrects or goes on with: its bytes add to that one's, and no fee for a session is due. Null for most.",
    ),
    (
        "Data",
        "source",
        "The name of the source in turnhook's configuration.",
    ),
    (
        "Data",
        "realm",
        "The realm of the first allocation; null if it is empty. Lossy where it is not UTF-8.",
    ),
    ("Data", "realm_base64", "The exact realm, where it is not UTF-8."),
    (
        "Data",
        "user",
        "What `user_pattern` made of the username; null where it does not match. Lossy where it is not UTF-8.",
    ),
    ("Data", "user_base64", "The exact user, where it is not UTF-8."),
    (
        "Data",
        "usernames",
        "The distinct usernames of its allocations. There is a limit to how many are listed.",
    ),
    ("Data", "usernames_omitted", "How many more usernames there were."),
    (
        "Data",
        "labels",
        "The further named groups of `user_pattern`, of the first allocation.",
    ),
    ("Data", "started_at", "When its first counted allocation opened."),
    (
        "Data",
        "ended_at",
        "When it ended: the last close that counts. Only of an end.",
    ),
    (
        "Data",
        "duration_ms",
        "How long it lasted up to this event. Not of a start.",
    ),
    (
        "Data",
        "end_reason",
        "Why it ended: closed, expired, server_stopped, server_restarted, max_session, cancelled; more may come. Only of an end.",
    ),
    (
        "Data",
        "accuracy",
        "exact: coturn's own totals were seen, and nothing speaks against them. lower_bound: at least this much. Only of an end.",
    ),
    (
        "Data",
        "block_reason",
        "Why its user was blocked, where the session was cancelled.",
    ),
    (
        "Data",
        "billable",
        "The rule that made `billable_bytes`: relayed, client, egress, ingress.",
    ),
    ("Data", "usage", "Since the session's start."),
    (
        "Data",
        "usage_delta",
        "Since the session's previous event. Bill by these of all types, or by `usage` of the end, and not by both.",
    ),
    (
        "Data",
        "allocations",
        "Its allocations. There is a limit to how many are listed.",
    ),
    (
        "Data",
        "allocations_omitted",
        "How many more allocations there were.",
    ),
    (
        "UserData",
        "user",
        "Whom: as `user` of his sessions. Lossy where it is not UTF-8.",
    ),
    (
        "UserData",
        "user_base64",
        "The exact user, where it is not UTF-8.",
    ),
    (
        "UserData",
        "realm",
        "The realm in which it holds; null if that is the empty one, and where `all_realms` is true. Lossy where it is not UTF-8.",
    ),
    (
        "UserData",
        "realm_base64",
        "The exact realm, where it is not UTF-8.",
    ),
    (
        "UserData",
        "all_realms",
        "Whether it holds in every realm. A block in one realm and a block in all of them are two; each is ended as it was made.",
    ),
    (
        "UserData",
        "until",
        "Until when he is blocked, or was to be; null: until somebody unblocks him. Null where a session alone is ended.",
    ),
    (
        "UserData",
        "reason",
        "Why, in the words of whoever did it. Of `user.unblocked`: expired, unblocked; more may come.",
    ),
    (
        "UserData",
        "by",
        "By whom: an operator or program of the API, `command line (…)`, `endpoint NAME` by its answer, `quota`; null where the time of a block was over.",
    ),
    (
        "UserData",
        "quota",
        "The quota that did it; null where somebody did.",
    ),
    (
        "Quota",
        "name",
        "What it is called in turnhook's configuration, or says in words.",
    ),
    ("Quota", "limit", "How much there was to use."),
    (
        "Quota",
        "used",
        "How much was on record as used when it acted: a little more than the limit, since usage is sent at intervals.",
    ),
    ("Quota", "unit", "bytes, seconds; more may come."),
    (
        "Quota",
        "period",
        "day, month (UTC), session (with what it continues); more may come.",
    ),
    (
        "Quota",
        "period_start",
        "When the day or month began; null of a session's.",
    ),
    (
        "Quota",
        "period_end",
        "When the day or month is over; null of a session's.",
    ),
    (
        "Quota",
        "session_id",
        "The session that is ended, where the quota is a session's, else null.",
    ),
    (
        "Usage",
        "client",
        "Between the client and coturn, as coturn counts.",
    ),
    (
        "Usage",
        "peer",
        "Between coturn and the peers; null where this coturn does not report it.",
    ),
    (
        "Usage",
        "billable_bytes",
        "What is to be billed, by the rule in `billable`.",
    ),
    (
        "Legs",
        "client",
        "Between the client and coturn, as coturn counts.",
    ),
    (
        "Legs",
        "peer",
        "Between coturn and the peers; null where this coturn does not report it.",
    ),
    ("Counters", "received_packets", "Packets that coturn received."),
    ("Counters", "received_bytes", "Bytes that coturn received."),
    ("Counters", "sent_packets", "Packets that coturn sent."),
    ("Counters", "sent_bytes", "Bytes that coturn sent."),
    ("Allocation", "id", "coturn's number of it, as coturn writes it."),
    (
        "Allocation",
        "username",
        "Its whole username. Lossy where it is not UTF-8.",
    ),
    (
        "Allocation",
        "username_base64",
        "The exact username, where it is not UTF-8.",
    ),
    (
        "Allocation",
        "opened_at",
        "When it opened, or was first heard of.",
    ),
    (
        "Allocation",
        "opened_seen",
        "Whether coturn's word that it opened was heard.",
    ),
    (
        "Allocation",
        "closed_at",
        "When it closed; null while it is open.",
    ),
    (
        "Allocation",
        "close_reason",
        "Why it closed; null while it is open. As `end_reason`.",
    ),
    (
        "Allocation",
        "totals_seen",
        "Whether coturn's totals of it were heard.",
    ),
    (
        "Allocation",
        "server",
        "The coturn that it was on; null where that is not known.",
    ),
    (
        "Allocation",
        "transport",
        "UDP, TCP, TLS or DTLS, between client and coturn; null where coturn does not say.",
    ),
    (
        "Allocation",
        "server_address",
        "Where coturn was asked; null where coturn does not say.",
    ),
    (
        "Allocation",
        "client_address",
        "The client's address; null where coturn does not say.",
    ),
    (
        "Allocation",
        "tls",
        "Of a client that came by TLS or DTLS, else null.",
    ),
    ("Allocation", "usage", "The part that is counted in this session."),
    ("Tls", "version", "The protocol's version, as coturn names it."),
    ("Tls", "cipher", "The cipher, as coturn names it."),
];

/// Puts the meaning to each field.
pub(super) fn describe(schema: &mut Value, name: &str) {
    let parts: Vec<String> = schema["$defs"].as_object().unwrap().keys().cloned().collect();
    fields("", &mut schema["properties"], name);
    for part in parts {
        fields(&part, &mut schema["$defs"][&part]["properties"], name);
    }
}

fn fields(part: &str, properties: &mut Value, name: &str) {
    for (field, value) in properties.as_object_mut().unwrap() {
        let words = WORDS.iter().find(|(of, known, _)| *of == part && known == field);
        let (.., words) =
            words.unwrap_or_else(|| panic!("{name}: no words for {part:?}, {field:?} in schema/words.rs"));
        value["description"] = json!(words);
    }
}
