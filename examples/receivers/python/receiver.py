#!/usr/bin/env python3
"""A receiver of turnhook's webhooks: verifies, counts every event once, adds up what to bill.

Python's standard library is all it needs:

    python3 receiver.py --listen 127.0.0.1:9000 --secret whsec_... --database usage.db
    curl http://127.0.0.1:9000/usage

Types of the webhooks are in webhooks.py, for mypy and the like; nothing needs them to run.
"""

from __future__ import annotations

import argparse
import base64
import binascii
import hashlib
import hmac
import json
import os
import sqlite3
import sys
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from webhooks import SessionEndData, Webhook

TOLERANCE_SECONDS = 300
BODY_LIMIT = 4 * 1024 * 1024


class Refused(Exception):
    """The request is not one of turnhook's, or not a fresh one."""


def verify(secrets, headers, body, now):
    """Checks the signature: HMAC-SHA256 over "{id}.{timestamp}.{body}", in base64, by any of the secrets."""
    event_id = headers.get("webhook-id", "")
    timestamp = headers.get("webhook-timestamp", "")
    if not event_id or not timestamp.isascii() or not timestamp.isdigit():
        raise Refused("webhook-id or webhook-timestamp is missing")
    # An old request, sent again by somebody who recorded it, is none of turnhook's: its retries have a new timestamp.
    if abs(now - int(timestamp)) > TOLERANCE_SECONDS:
        raise Refused("the timestamp is too far from this clock")
    signed = f"{event_id}.{timestamp}.".encode() + body
    wanted = [hmac.new(secret, signed, hashlib.sha256).digest() for secret in secrets]
    for signature in headers.get("webhook-signature", "").split(" "):
        version, _, encoded = signature.partition(",")
        try:
            given = base64.b64decode(encoded, validate=True)
        except (binascii.Error, ValueError):
            continue
        if version == "v1" and any(hmac.compare_digest(given, one) for one in wanted):
            return event_id
    raise Refused("no signature fits")


def key_of(secret):
    """whsec_<base64> -> the key."""
    if not secret.startswith("whsec_"):
        raise SystemExit("a secret starts with whsec_ (make one with `turnhook secret`)")
    return base64.b64decode(secret.removeprefix("whsec_"), validate=True)


ACCOUNT = ("realm", "realm_base64", "user", "user_base64")


def account_of(data: SessionEndData) -> str:
    """Who is billed: a user of a realm, since `alice` of two realms is two customers.

    `user` is null where the username does not match turnhook's user_pattern: a null, and no word that somebody could
    be called. Names that are not UTF-8 look alike as text; `user_base64` distinguishes them.
    """
    if "user" not in data or "realm" not in data:
        raise KeyError("user or realm")
    return json.dumps([data.get(name) for name in ACCOUNT])


class Books:
    """What was received, in SQLite. The event and what it adds are written in one transaction."""

    def __init__(self, path):
        self.lock = threading.Lock()
        self.db = sqlite3.connect(path, check_same_thread=False, isolation_level=None)
        self.db.executescript(
            """
            PRAGMA journal_mode = WAL;
            PRAGMA synchronous = FULL;
            CREATE TABLE IF NOT EXISTS seen (webhook_id TEXT PRIMARY KEY, received_at INTEGER NOT NULL);
            CREATE TABLE IF NOT EXISTS usage (
                account TEXT PRIMARY KEY, sessions INTEGER NOT NULL, billable_bytes INTEGER NOT NULL,
                lower_bound_sessions INTEGER NOT NULL
            );
            """
        )

    def enter(self, event_id: str, event: Webhook, now: float) -> bool:
        """Enters an event. False if it was entered before: turnhook sends again what it saw no answer to."""
        with self.lock:
            self.db.execute("BEGIN IMMEDIATE")
            try:
                new = self.db.execute(
                    "INSERT OR IGNORE INTO seen VALUES (?, ?)", (event_id, int(now))
                ).rowcount
                # A type that is not among those of webhooks.py is none to bill by, and neither is what
                # `turnhook endpoints test` sends.
                is_test = event_id.startswith("evt_test_") or event.get("test", False)
                if new and not is_test and "type" in event and event["type"] == "session.end":
                    self.add(event["data"])
                self.db.execute("COMMIT")
            except BaseException:
                self.db.execute("ROLLBACK")
                raise
        return bool(new)

    def add(self, data: SessionEndData) -> None:
        # A session that continues another one corrects it: its bytes count, it is not a session more.
        sessions = 0 if data.get("continues") else 1
        lower_bound = 1 if data.get("accuracy") == "lower_bound" else 0
        self.db.execute(
            """
            INSERT INTO usage VALUES (?, ?, ?, ?) ON CONFLICT (account) DO UPDATE SET
                sessions = sessions + excluded.sessions,
                billable_bytes = billable_bytes + excluded.billable_bytes,
                lower_bound_sessions = lower_bound_sessions + excluded.lower_bound_sessions
            """,
            (account_of(data), sessions, int(data["usage"]["billable_bytes"]), lower_bound),
        )

    def usage(self):
        with self.lock:
            rows = self.db.execute("SELECT * FROM usage ORDER BY account").fetchall()
        names = ("sessions", "billable_bytes", "lower_bound_sessions")
        return [dict(zip(ACCOUNT, json.loads(account))) | dict(zip(names, numbers)) for account, *numbers in rows]


class Server(ThreadingHTTPServer):
    daemon_threads = True
    secrets: list[bytes]
    books: Books


class Handler(BaseHTTPRequestHandler):
    server: Server
    protocol_version = "HTTP/1.1"  # keep-alive: turnhook reuses its connections

    def do_POST(self):
        try:
            length = int(self.headers.get("content-length", ""))
        except ValueError:
            length = -1
        if not 0 <= length <= BODY_LIMIT:
            self.close_connection = True
            return self.answer(413 if length > BODY_LIMIT else 411)
        body = self.rfile.read(length)
        now = time.time()
        try:
            event_id = verify(self.server.secrets, self.headers, body, now)
        except Refused as refused:
            # 401 is tried again: right while a secret is being rotated, harmless for a stranger.
            return self.answer(401, {"error": str(refused)})
        try:
            new = self.server.books.enter(event_id, json.loads(body), now)
        except (ValueError, KeyError, TypeError) as error:
            # 422 says "never": turnhook puts the event to the dead letters, for a person to look at.
            return self.answer(422, {"error": f"not understood: {error!r}"})
        # Any other failure, a full disk say, answers nothing or 500, and turnhook comes again.
        return self.answer(200, {"new": new})

    def do_GET(self):
        if self.path == "/usage":
            return self.answer(200, self.server.books.usage())
        return self.answer(404)

    def answer(self, status, body=None):
        payload = (json.dumps(body) + "\n").encode() if body is not None else b""
        self.send_response(status)
        self.send_header("content-type", "application/json")
        self.send_header("content-length", str(len(payload)))
        self.end_headers()
        self.wfile.write(payload)

    def log_message(self, format, *arguments):
        pass


def make_server(host, port, secrets, database):
    server = Server((host, port), Handler)
    server.secrets = [key_of(secret) for secret in secrets]
    server.books = Books(database)
    return server


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--listen", default="127.0.0.1:9000")
    parser.add_argument("--secret", action="append", help="whsec_...; any number, or TURNHOOK_SECRET")
    parser.add_argument("--database", default="usage.db")
    options = parser.parse_args()
    secrets = options.secret or os.environ.get("TURNHOOK_SECRET", "").split()
    if not secrets:
        parser.error("--secret is needed")
    host, _, port = options.listen.rpartition(":")
    server = make_server(host.strip("[]"), int(port), secrets, options.database)
    print(f"listening on http://{host}:{server.server_address[1]}/", file=sys.stderr, flush=True)
    try:
        server.serve_forever()
    except KeyboardInterrupt:
        pass


if __name__ == "__main__":
    main()
