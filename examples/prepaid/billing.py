#!/usr/bin/env python3
"""A receiver that keeps balances: it takes what was used from them, and answers with a block where nothing is left.

    python3 billing.py --listen 127.0.0.1:9000 --secret whsec_... --balance alice=2000000 --balance bob=1000000000

Python's standard library is all it needs. Balances are in memory here; keep them, and the ids of the events that were
counted, in one transaction of your database.
"""

import argparse
import json
import os
import sys
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "receivers", "python"))
from receiver import Refused, key_of, verify  # noqa: E402


class Balances:
    """Bytes that each user has left, and what was taken from them."""

    def __init__(self, balances):
        self.left = dict(balances)
        self.used = {}
        self.counted = set()
        self.lock = threading.Lock()

    def take(self, event_id, data):
        """Counts an event once, by its delta; what is left of its user's balance."""
        user = data["user"]
        with self.lock:
            if event_id not in self.counted:
                self.counted.add(event_id)
                delta = data["usage_delta"]["billable_bytes"]
                self.left[user] = self.left.get(user, 0) - delta
                self.used[user] = self.used.get(user, 0) + delta
            return self.left[user]


def make_handler(balances, keys):
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self):
            body = self.rfile.read(int(self.headers.get("content-length", 0)))
            try:
                event_id = verify(keys, self.headers, body, int(time.time()))
            except Refused as refused:
                return self.answer(401, {"error": str(refused)})
            event = json.loads(body)
            # Trials bill nobody, and other types are yet to come.
            if event_id.startswith("evt_test_") or event.get("test") or not str(event.get("type")).startswith("session."):
                return self.answer(200, {})
            data = event["data"]
            left = balances.take(event_id, data)
            why = f" {data['end_reason']}, {data['accuracy']}" if event["type"] == "session.end" else ""
            print(f"{event['type']:<14} {data['user']:<6} -{data['usage_delta']['billable_bytes']:>9}, {left:>10} left{why}", flush=True)
            # Also at the end of a session: whoever has nothing left is not to begin another one.
            self.answer(200, {"block": {"for": "1h", "reason": "balance"}} if left <= 0 else {})

        def do_GET(self):
            with balances.lock:
                self.answer(200, {"used": balances.used, "left": balances.left})

        def answer(self, code, value):
            text = json.dumps(value).encode()
            self.send_response(code)
            self.send_header("content-type", "application/json")
            self.send_header("content-length", str(len(text)))
            self.end_headers()
            self.wfile.write(text)

        def log_message(self, *_):
            pass

    return Handler


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--listen", default="127.0.0.1:9000")
    parser.add_argument("--secret", action="append", required=True)
    parser.add_argument("--balance", action="append", default=[], metavar="USER=BYTES")
    args = parser.parse_args()
    given = (balance.rsplit("=", 1) for balance in args.balance)
    balances = Balances({user: int(left) for user, left in given})
    host, port = args.listen.rsplit(":", 1)
    server = ThreadingHTTPServer((host, int(port)), make_handler(balances, [key_of(s) for s in args.secret]))
    print(f"listening on http://{host}:{server.server_address[1]}", flush=True)
    server.serve_forever()


if __name__ == "__main__":
    main()
