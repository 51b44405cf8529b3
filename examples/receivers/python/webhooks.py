# Made of schema/openapi.json by examples/receivers/types.sh: change nothing here.

from __future__ import annotations

from typing import Literal, NotRequired, TypeAlias, TypedDict


class Counters(TypedDict):
    received_bytes: int
    received_packets: int
    sent_bytes: int
    sent_packets: int


class Legs(TypedDict):
    client: Counters
    peer: Counters | None


class Ping(TypedDict):
    endpoint: str


class Quota(TypedDict):
    limit: int
    name: str
    period: str
    period_end: str | None
    period_start: str | None
    session_id: str | None
    unit: str
    used: int


class QuotaReachedData(TypedDict):
    all_realms: bool
    by: str | None
    quota: Quota
    realm: str | None
    realm_base64: NotRequired[str | None]
    reason: str
    until: str | None
    user: str
    user_base64: NotRequired[str | None]


class Tls(TypedDict):
    cipher: str | None
    version: str


class Usage(TypedDict):
    billable_bytes: int
    client: Counters
    peer: Counters | None


class UserBlockedData(TypedDict):
    all_realms: bool
    by: str | None
    quota: Quota | None
    realm: str | None
    realm_base64: NotRequired[str | None]
    reason: str
    until: str | None
    user: str
    user_base64: NotRequired[str | None]


class UserUnblockedData(TypedDict):
    all_realms: bool
    by: str | None
    quota: Quota | None
    realm: str | None
    realm_base64: NotRequired[str | None]
    reason: str
    until: str | None
    user: str
    user_base64: NotRequired[str | None]


class Allocation(TypedDict):
    client_address: str | None
    close_reason: str | None
    closed_at: str | None
    id: str
    opened_at: str
    opened_seen: bool
    server: str | None
    server_address: str | None
    tls: Tls | None
    totals_seen: bool
    transport: str | None
    usage: Legs
    username: str
    username_base64: NotRequired[str | None]


class EndpointPing(TypedDict):
    """
    A trial, sent by `turnhook endpoints test`. Never billed.
    """

    data: Ping
    test: NotRequired[bool]
    timestamp: str
    type: Literal['endpoint.ping']


class QuotaReached(TypedDict):
    """
    A user has used up a quota, and it has acted: he is blocked, or his session is ended.
    """

    data: QuotaReachedData
    test: NotRequired[bool]
    timestamp: str
    type: Literal['quota.reached']


class SessionEndData(TypedDict):
    accuracy: str | None
    allocations: list[Allocation]
    allocations_omitted: int
    billable: str
    block_reason: NotRequired[str | None]
    continues: str | None
    duration_ms: int | None
    end_reason: str | None
    ended_at: str | None
    labels: dict[str, str]
    realm: str | None
    realm_base64: NotRequired[str | None]
    sequence: int
    session_id: str
    source: str
    started_at: str
    usage: Usage
    usage_delta: Usage
    user: str | None
    user_base64: NotRequired[str | None]
    usernames: list[str]


class SessionStartData(TypedDict):
    accuracy: NotRequired[str | None]
    allocations: list[Allocation]
    allocations_omitted: int
    billable: str
    block_reason: NotRequired[str | None]
    continues: str | None
    duration_ms: NotRequired[int | None]
    end_reason: NotRequired[str | None]
    ended_at: NotRequired[str | None]
    labels: dict[str, str]
    realm: str | None
    realm_base64: NotRequired[str | None]
    sequence: int
    session_id: str
    source: str
    started_at: str
    usage: Usage
    usage_delta: Usage
    user: str | None
    user_base64: NotRequired[str | None]
    usernames: list[str]


class SessionUsageData(TypedDict):
    accuracy: NotRequired[str | None]
    allocations: list[Allocation]
    allocations_omitted: int
    billable: str
    block_reason: NotRequired[str | None]
    continues: str | None
    duration_ms: int | None
    end_reason: NotRequired[str | None]
    ended_at: NotRequired[str | None]
    labels: dict[str, str]
    realm: str | None
    realm_base64: NotRequired[str | None]
    sequence: int
    session_id: str
    source: str
    started_at: str
    usage: Usage
    usage_delta: Usage
    user: str | None
    user_base64: NotRequired[str | None]
    usernames: list[str]


class UserBlocked(TypedDict):
    """
    A user is blocked: what he has open is ended, and what he begins. A later block takes the place of an earlier one.
    """

    data: UserBlockedData
    test: NotRequired[bool]
    timestamp: str
    type: Literal['user.blocked']


class UserUnblocked(TypedDict):
    """
    A user is blocked no more.
    """

    data: UserUnblockedData
    test: NotRequired[bool]
    timestamp: str
    type: Literal['user.unblocked']


class SessionEnd(TypedDict):
    """
    A session is over.
    """

    data: SessionEndData
    test: NotRequired[bool]
    timestamp: str
    type: Literal['session.end']


class SessionStart(TypedDict):
    """
    A session began.
    """

    data: SessionStartData
    test: NotRequired[bool]
    timestamp: str
    type: Literal['session.start']


class SessionUsage(TypedDict):
    """
    A session carried traffic since its previous event.
    """

    data: SessionUsageData
    test: NotRequired[bool]
    timestamp: str
    type: Literal['session.usage']


Webhook: TypeAlias = SessionStart | SessionUsage | SessionEnd | QuotaReached | UserBlocked | UserUnblocked | EndpointPing
