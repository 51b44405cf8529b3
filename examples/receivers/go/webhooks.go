// Code generated from schema/openapi.json by examples/receivers/types.sh. DO NOT EDIT.

package webhooks

import "time"

type Ping struct {
	// The endpoint's name in turnhook's configuration.
	Endpoint string `json:"endpoint"`
}

type SessionData struct {
	// exact: coturn's own totals were seen, and nothing speaks against them. lower_bound: at
	// least this much. Only of an end.
	Accuracy *string `json:"accuracy"`
	// Its allocations. There is a limit to how many are listed.
	Allocations []Allocation `json:"allocations"`
	// How many more allocations there were.
	AllocationsOmitted int64 `json:"allocations_omitted"`
	// The rule that made `billable_bytes`: relayed, client, egress, ingress.
	Billable string `json:"billable"`
	// Why its user was blocked, where the session was cancelled.
	BlockReason *string `json:"block_reason"`
	// The session that this one corrects or goes on with: its bytes add to that one's, and no
	// fee for a session is due. Null for most.
	Continues *string `json:"continues"`
	// How long it lasted up to this event. Not of a start.
	DurationMS *int64 `json:"duration_ms"`
	// Why it ended: closed, expired, server_stopped, server_restarted, max_session, cancelled;
	// more may come. Only of an end.
	EndReason *string `json:"end_reason"`
	// When it ended: the last close that counts. Only of an end.
	EndedAt *time.Time `json:"ended_at"`
	// The further named groups of `user_pattern`, of the first allocation.
	Labels map[string]string `json:"labels"`
	// The realm of the first allocation; null if it is empty. Lossy where it is not UTF-8.
	Realm *string `json:"realm"`
	// The exact realm, where it is not UTF-8.
	RealmBase64 *string `json:"realm_base64"`
	// 0 for the start, then without holes over all types. An endpoint that takes only some
	// types sees holes.
	Sequence int64 `json:"sequence"`
	// Names the session.
	SessionID string `json:"session_id"`
	// The name of the source in turnhook's configuration.
	Source string `json:"source"`
	// When its first counted allocation opened.
	StartedAt  time.Time `json:"started_at"`
	Usage      Usage     `json:"usage"`
	UsageDelta Usage     `json:"usage_delta"`
	// What `user_pattern` made of the username; null where it does not match. Lossy where it is
	// not UTF-8.
	User *string `json:"user"`
	// The exact user, where it is not UTF-8.
	UserBase64 *string `json:"user_base64"`
	// The distinct usernames of its allocations. There is a limit to how many are listed.
	Usernames []string `json:"usernames"`
}

type Allocation struct {
	// The client's address; null where coturn does not say.
	ClientAddress *string `json:"client_address"`
	// Why it closed; null while it is open. As `end_reason`.
	CloseReason *string `json:"close_reason"`
	// When it closed; null while it is open.
	ClosedAt *time.Time `json:"closed_at"`
	// coturn's number of it, as coturn writes it.
	ID string `json:"id"`
	// When it opened, or was first heard of.
	OpenedAt time.Time `json:"opened_at"`
	// Whether coturn's word that it opened was heard.
	OpenedSeen bool `json:"opened_seen"`
	// The coturn that it was on; null where that is not known.
	Server *string `json:"server"`
	// Where coturn was asked; null where coturn does not say.
	ServerAddress *string `json:"server_address"`
	// Of a client that came by TLS or DTLS, else null.
	TLS *TLS `json:"tls"`
	// Whether coturn's totals of it were heard.
	TotalsSeen bool `json:"totals_seen"`
	// UDP, TCP, TLS or DTLS, between client and coturn; null where coturn does not say.
	Transport *string `json:"transport"`
	Usage     Legs    `json:"usage"`
	// Its whole username. Lossy where it is not UTF-8.
	Username string `json:"username"`
	// The exact username, where it is not UTF-8.
	UsernameBase64 *string `json:"username_base64"`
}

type TLS struct {
	// The cipher, as coturn names it.
	Cipher *string `json:"cipher"`
	// The protocol's version, as coturn names it.
	Version string `json:"version"`
}

type Legs struct {
	Client Counters `json:"client"`
	// Between coturn and the peers; null where this coturn does not report it.
	Peer *Counters `json:"peer"`
}

type Counters struct {
	// Bytes that coturn received.
	ReceivedBytes int64 `json:"received_bytes"`
	// Packets that coturn received.
	ReceivedPackets int64 `json:"received_packets"`
	// Bytes that coturn sent.
	SentBytes int64 `json:"sent_bytes"`
	// Packets that coturn sent.
	SentPackets int64 `json:"sent_packets"`
}

type Usage struct {
	// What is to be billed, by the rule in `billable`.
	BillableBytes int64    `json:"billable_bytes"`
	Client        Counters `json:"client"`
	// Between coturn and the peers; null where this coturn does not report it.
	Peer *Counters `json:"peer"`
}

type UserData struct {
	// Whether it holds in every realm. A block in one realm and a block in all of them are two;
	// each is ended as it was made.
	AllRealms bool `json:"all_realms"`
	// By whom: an operator or program of the API, `command line (…)`, `endpoint NAME` by its
	// answer, `quota`; null where the time of a block was over.
	By *string `json:"by"`
	// The quota that did it; null where somebody did.
	Quota *Quota `json:"quota"`
	// The realm in which it holds; null if that is the empty one, and where `all_realms` is
	// true. Lossy where it is not UTF-8.
	Realm *string `json:"realm"`
	// The exact realm, where it is not UTF-8.
	RealmBase64 *string `json:"realm_base64"`
	// Why, in the words of whoever did it. Of `user.unblocked`: expired, unblocked; more may
	// come.
	Reason string `json:"reason"`
	// Until when he is blocked, or was to be; null: until somebody unblocks him. Null where a
	// session alone is ended.
	Until *time.Time `json:"until"`
	// Whom: as `user` of his sessions. Lossy where it is not UTF-8.
	User string `json:"user"`
	// The exact user, where it is not UTF-8.
	UserBase64 *string `json:"user_base64"`
}

type Quota struct {
	// How much there was to use.
	Limit int64 `json:"limit"`
	// What it is called in turnhook's configuration, or says in words.
	Name string `json:"name"`
	// day, month (UTC), session (with what it continues); more may come.
	Period string `json:"period"`
	// When the day or month is over; null of a session's.
	PeriodEnd *time.Time `json:"period_end"`
	// When the day or month began; null of a session's.
	PeriodStart *time.Time `json:"period_start"`
	// The session that is ended, where the quota is a session's, else null.
	SessionID *string `json:"session_id"`
	// bytes, seconds; more may come.
	Unit string `json:"unit"`
	// How much was on record as used when it acted: a little more than the limit, since usage
	// is sent at intervals.
	Used int64 `json:"used"`
}
