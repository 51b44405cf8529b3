// Made of schema/openapi.json by examples/receivers/types.sh: change nothing here.

/**
 * The body of a webhook; its `type` says which. There may be more types in time.
 */
export type Webhook =
  SessionStart | SessionUsage | SessionEnd | QuotaReached | UserBlocked | UserUnblocked | EndpointPing;

/**
 * A session began.
 */
export interface SessionStart {
  data: SessionStartData;
  /**
   * True in what is sent to try an endpoint (`turnhook endpoints test`, the page), and in nothing else: bill nobody for it.
   */
  test?: boolean;
  /**
   * When the event was decided; never before the session's previous event.
   */
  timestamp: string;
  /**
   * The type of the event.
   */
  type: "session.start";
}
export interface SessionStartData {
  /**
   * exact: coturn's own totals were seen, and nothing speaks against them. lower_bound: at least this much. Only of an end.
   */
  accuracy?: string | null;
  /**
   * Its allocations. There is a limit to how many are listed.
   */
  allocations: Allocation[];
  /**
   * How many more allocations there were.
   */
  allocations_omitted: number;
  /**
   * The rule that made `billable_bytes`: relayed, client, egress, ingress.
   */
  billable: string;
  /**
   * Why its user was blocked, where the session was cancelled.
   */
  block_reason?: string | null;
  /**
   * The session that this one corrects or goes on with: its bytes add to that one's, and no fee for a session is due. Null for most.
   */
  continues: string | null;
  /**
   * How long it lasted up to this event. Not of a start.
   */
  duration_ms?: number | null;
  /**
   * Why it ended: closed, expired, server_stopped, server_restarted, max_session, cancelled; more may come. Only of an end.
   */
  end_reason?: string | null;
  /**
   * When it ended: the last close that counts. Only of an end.
   */
  ended_at?: string | null;
  /**
   * The further named groups of `user_pattern`, of the first allocation.
   */
  labels: {
    [k: string]: string;
  };
  /**
   * The realm of the first allocation; null if it is empty. Lossy where it is not UTF-8.
   */
  realm: string | null;
  /**
   * The exact realm, where it is not UTF-8.
   */
  realm_base64?: string | null;
  /**
   * 0 for the start, then without holes over all types. An endpoint that takes only some types sees holes.
   */
  sequence: number;
  /**
   * Names the session.
   */
  session_id: string;
  /**
   * The name of the source in turnhook's configuration.
   */
  source: string;
  /**
   * When its first counted allocation opened.
   */
  started_at: string;
  usage: Usage;
  usage_delta: Usage;
  /**
   * What `user_pattern` made of the username; null where it does not match. Lossy where it is not UTF-8.
   */
  user: string | null;
  /**
   * The exact user, where it is not UTF-8.
   */
  user_base64?: string | null;
  /**
   * The distinct usernames of its allocations. There is a limit to how many are listed.
   */
  usernames: string[];
}
export interface Allocation {
  /**
   * The client's address; null where coturn does not say.
   */
  client_address: string | null;
  /**
   * Why it closed; null while it is open. As `end_reason`.
   */
  close_reason: string | null;
  /**
   * When it closed; null while it is open.
   */
  closed_at: string | null;
  /**
   * coturn's number of it, as coturn writes it.
   */
  id: string;
  /**
   * When it opened, or was first heard of.
   */
  opened_at: string;
  /**
   * Whether coturn's word that it opened was heard.
   */
  opened_seen: boolean;
  /**
   * The coturn that it was on; null where that is not known.
   */
  server: string | null;
  /**
   * Where coturn was asked; null where coturn does not say.
   */
  server_address: string | null;
  /**
   * Of a client that came by TLS or DTLS, else null.
   */
  tls: Tls | null;
  /**
   * Whether coturn's totals of it were heard.
   */
  totals_seen: boolean;
  /**
   * UDP, TCP, TLS or DTLS, between client and coturn; null where coturn does not say.
   */
  transport: string | null;
  usage: Legs;
  /**
   * Its whole username. Lossy where it is not UTF-8.
   */
  username: string;
  /**
   * The exact username, where it is not UTF-8.
   */
  username_base64?: string | null;
}
export interface Tls {
  /**
   * The cipher, as coturn names it.
   */
  cipher: string | null;
  /**
   * The protocol's version, as coturn names it.
   */
  version: string;
}
export interface Legs {
  client: Counters;
  /**
   * Between coturn and the peers; null where this coturn does not report it.
   */
  peer: Counters | null;
}
export interface Counters {
  /**
   * Bytes that coturn received.
   */
  received_bytes: number;
  /**
   * Packets that coturn received.
   */
  received_packets: number;
  /**
   * Bytes that coturn sent.
   */
  sent_bytes: number;
  /**
   * Packets that coturn sent.
   */
  sent_packets: number;
}
export interface Usage {
  /**
   * What is to be billed, by the rule in `billable`.
   */
  billable_bytes: number;
  client: Counters;
  /**
   * Between coturn and the peers; null where this coturn does not report it.
   */
  peer: Counters | null;
}
/**
 * A session carried traffic since its previous event.
 */
export interface SessionUsage {
  data: SessionUsageData;
  /**
   * True in what is sent to try an endpoint (`turnhook endpoints test`, the page), and in nothing else: bill nobody for it.
   */
  test?: boolean;
  /**
   * When the event was decided; never before the session's previous event.
   */
  timestamp: string;
  /**
   * The type of the event.
   */
  type: "session.usage";
}
export interface SessionUsageData {
  /**
   * exact: coturn's own totals were seen, and nothing speaks against them. lower_bound: at least this much. Only of an end.
   */
  accuracy?: string | null;
  /**
   * Its allocations. There is a limit to how many are listed.
   */
  allocations: Allocation[];
  /**
   * How many more allocations there were.
   */
  allocations_omitted: number;
  /**
   * The rule that made `billable_bytes`: relayed, client, egress, ingress.
   */
  billable: string;
  /**
   * Why its user was blocked, where the session was cancelled.
   */
  block_reason?: string | null;
  /**
   * The session that this one corrects or goes on with: its bytes add to that one's, and no fee for a session is due. Null for most.
   */
  continues: string | null;
  /**
   * How long it lasted up to this event. Not of a start.
   */
  duration_ms: number | null;
  /**
   * Why it ended: closed, expired, server_stopped, server_restarted, max_session, cancelled; more may come. Only of an end.
   */
  end_reason?: string | null;
  /**
   * When it ended: the last close that counts. Only of an end.
   */
  ended_at?: string | null;
  /**
   * The further named groups of `user_pattern`, of the first allocation.
   */
  labels: {
    [k: string]: string;
  };
  /**
   * The realm of the first allocation; null if it is empty. Lossy where it is not UTF-8.
   */
  realm: string | null;
  /**
   * The exact realm, where it is not UTF-8.
   */
  realm_base64?: string | null;
  /**
   * 0 for the start, then without holes over all types. An endpoint that takes only some types sees holes.
   */
  sequence: number;
  /**
   * Names the session.
   */
  session_id: string;
  /**
   * The name of the source in turnhook's configuration.
   */
  source: string;
  /**
   * When its first counted allocation opened.
   */
  started_at: string;
  usage: Usage;
  usage_delta: Usage;
  /**
   * What `user_pattern` made of the username; null where it does not match. Lossy where it is not UTF-8.
   */
  user: string | null;
  /**
   * The exact user, where it is not UTF-8.
   */
  user_base64?: string | null;
  /**
   * The distinct usernames of its allocations. There is a limit to how many are listed.
   */
  usernames: string[];
}
/**
 * A session is over.
 */
export interface SessionEnd {
  data: SessionEndData;
  /**
   * True in what is sent to try an endpoint (`turnhook endpoints test`, the page), and in nothing else: bill nobody for it.
   */
  test?: boolean;
  /**
   * When the event was decided; never before the session's previous event.
   */
  timestamp: string;
  /**
   * The type of the event.
   */
  type: "session.end";
}
export interface SessionEndData {
  /**
   * exact: coturn's own totals were seen, and nothing speaks against them. lower_bound: at least this much. Only of an end.
   */
  accuracy: string | null;
  /**
   * Its allocations. There is a limit to how many are listed.
   */
  allocations: Allocation[];
  /**
   * How many more allocations there were.
   */
  allocations_omitted: number;
  /**
   * The rule that made `billable_bytes`: relayed, client, egress, ingress.
   */
  billable: string;
  /**
   * Why its user was blocked, where the session was cancelled.
   */
  block_reason?: string | null;
  /**
   * The session that this one corrects or goes on with: its bytes add to that one's, and no fee for a session is due. Null for most.
   */
  continues: string | null;
  /**
   * How long it lasted up to this event. Not of a start.
   */
  duration_ms: number | null;
  /**
   * Why it ended: closed, expired, server_stopped, server_restarted, max_session, cancelled; more may come. Only of an end.
   */
  end_reason: string | null;
  /**
   * When it ended: the last close that counts. Only of an end.
   */
  ended_at: string | null;
  /**
   * The further named groups of `user_pattern`, of the first allocation.
   */
  labels: {
    [k: string]: string;
  };
  /**
   * The realm of the first allocation; null if it is empty. Lossy where it is not UTF-8.
   */
  realm: string | null;
  /**
   * The exact realm, where it is not UTF-8.
   */
  realm_base64?: string | null;
  /**
   * 0 for the start, then without holes over all types. An endpoint that takes only some types sees holes.
   */
  sequence: number;
  /**
   * Names the session.
   */
  session_id: string;
  /**
   * The name of the source in turnhook's configuration.
   */
  source: string;
  /**
   * When its first counted allocation opened.
   */
  started_at: string;
  usage: Usage;
  usage_delta: Usage;
  /**
   * What `user_pattern` made of the username; null where it does not match. Lossy where it is not UTF-8.
   */
  user: string | null;
  /**
   * The exact user, where it is not UTF-8.
   */
  user_base64?: string | null;
  /**
   * The distinct usernames of its allocations. There is a limit to how many are listed.
   */
  usernames: string[];
}
/**
 * A user has used up a quota, and it has acted: he is blocked, or his session is ended.
 */
export interface QuotaReached {
  data: QuotaReachedData;
  /**
   * True in what is sent to try an endpoint (`turnhook endpoints test`, the page), and in nothing else: bill nobody for it.
   */
  test?: boolean;
  /**
   * When the event was decided; never before the session's previous event.
   */
  timestamp: string;
  /**
   * The type of the event.
   */
  type: "quota.reached";
}
export interface QuotaReachedData {
  /**
   * Whether it holds in every realm. A block in one realm and a block in all of them are two; each is ended as it was made.
   */
  all_realms: boolean;
  /**
   * By whom: an operator or program of the API, `command line (…)`, `endpoint NAME` by its answer, `quota`; null where the time of a block was over.
   */
  by: string | null;
  quota: Quota;
  /**
   * The realm in which it holds; null if that is the empty one, and where `all_realms` is true. Lossy where it is not UTF-8.
   */
  realm: string | null;
  /**
   * The exact realm, where it is not UTF-8.
   */
  realm_base64?: string | null;
  /**
   * Why, in the words of whoever did it. Of `user.unblocked`: expired, unblocked; more may come.
   */
  reason: string;
  /**
   * Until when he is blocked, or was to be; null: until somebody unblocks him. Null where a session alone is ended.
   */
  until: string | null;
  /**
   * Whom: as `user` of his sessions. Lossy where it is not UTF-8.
   */
  user: string;
  /**
   * The exact user, where it is not UTF-8.
   */
  user_base64?: string | null;
}
export interface Quota {
  /**
   * How much there was to use.
   */
  limit: number;
  /**
   * What it is called in turnhook's configuration, or says in words.
   */
  name: string;
  /**
   * day, month (UTC), session (with what it continues); more may come.
   */
  period: string;
  /**
   * When the day or month is over; null of a session's.
   */
  period_end: string | null;
  /**
   * When the day or month began; null of a session's.
   */
  period_start: string | null;
  /**
   * The session that is ended, where the quota is a session's, else null.
   */
  session_id: string | null;
  /**
   * bytes, seconds; more may come.
   */
  unit: string;
  /**
   * How much was on record as used when it acted: a little more than the limit, since usage is sent at intervals.
   */
  used: number;
}
/**
 * A user is blocked: what he has open is ended, and what he begins. A later block takes the place of an earlier one.
 */
export interface UserBlocked {
  data: UserBlockedData;
  /**
   * True in what is sent to try an endpoint (`turnhook endpoints test`, the page), and in nothing else: bill nobody for it.
   */
  test?: boolean;
  /**
   * When the event was decided; never before the session's previous event.
   */
  timestamp: string;
  /**
   * The type of the event.
   */
  type: "user.blocked";
}
export interface UserBlockedData {
  /**
   * Whether it holds in every realm. A block in one realm and a block in all of them are two; each is ended as it was made.
   */
  all_realms: boolean;
  /**
   * By whom: an operator or program of the API, `command line (…)`, `endpoint NAME` by its answer, `quota`; null where the time of a block was over.
   */
  by: string | null;
  /**
   * The quota that did it; null where somebody did.
   */
  quota: Quota | null;
  /**
   * The realm in which it holds; null if that is the empty one, and where `all_realms` is true. Lossy where it is not UTF-8.
   */
  realm: string | null;
  /**
   * The exact realm, where it is not UTF-8.
   */
  realm_base64?: string | null;
  /**
   * Why, in the words of whoever did it. Of `user.unblocked`: expired, unblocked; more may come.
   */
  reason: string;
  /**
   * Until when he is blocked, or was to be; null: until somebody unblocks him. Null where a session alone is ended.
   */
  until: string | null;
  /**
   * Whom: as `user` of his sessions. Lossy where it is not UTF-8.
   */
  user: string;
  /**
   * The exact user, where it is not UTF-8.
   */
  user_base64?: string | null;
}
/**
 * A user is blocked no more.
 */
export interface UserUnblocked {
  data: UserUnblockedData;
  /**
   * True in what is sent to try an endpoint (`turnhook endpoints test`, the page), and in nothing else: bill nobody for it.
   */
  test?: boolean;
  /**
   * When the event was decided; never before the session's previous event.
   */
  timestamp: string;
  /**
   * The type of the event.
   */
  type: "user.unblocked";
}
export interface UserUnblockedData {
  /**
   * Whether it holds in every realm. A block in one realm and a block in all of them are two; each is ended as it was made.
   */
  all_realms: boolean;
  /**
   * By whom: an operator or program of the API, `command line (…)`, `endpoint NAME` by its answer, `quota`; null where the time of a block was over.
   */
  by: string | null;
  /**
   * The quota that did it; null where somebody did.
   */
  quota: Quota | null;
  /**
   * The realm in which it holds; null if that is the empty one, and where `all_realms` is true. Lossy where it is not UTF-8.
   */
  realm: string | null;
  /**
   * The exact realm, where it is not UTF-8.
   */
  realm_base64?: string | null;
  /**
   * Why, in the words of whoever did it. Of `user.unblocked`: expired, unblocked; more may come.
   */
  reason: string;
  /**
   * Until when he is blocked, or was to be; null: until somebody unblocks him. Null where a session alone is ended.
   */
  until: string | null;
  /**
   * Whom: as `user` of his sessions. Lossy where it is not UTF-8.
   */
  user: string;
  /**
   * The exact user, where it is not UTF-8.
   */
  user_base64?: string | null;
}
/**
 * A trial, sent by `turnhook endpoints test`. Never billed.
 */
export interface EndpointPing {
  data: Ping;
  /**
   * True in what is sent to try an endpoint (`turnhook endpoints test`, the page), and in nothing else: bill nobody for it.
   */
  test?: boolean;
  /**
   * When the event was decided; never before the session's previous event.
   */
  timestamp: string;
  /**
   * The type of the event.
   */
  type: "endpoint.ping";
}
export interface Ping {
  /**
   * The endpoint's name in turnhook's configuration.
   */
  endpoint: string;
}
