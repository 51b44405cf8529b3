"""What all fakes share: the HTTP server, the books, and the ways in which an answer can go wrong."""

import json
import random
import threading
import time
from collections import deque
from datetime import datetime, timezone
from decimal import Decimal
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

MAX_BODY = 16 * 1024 * 1024


class Answer(Exception):
    """What a request is answered with. Raised from wherever that is known."""

    def __init__(self, status, body=None, headers=None):
        super().__init__(status)
        self.status = status
        self.body = body
        self.headers = headers or {}


class Request:
    def __init__(self, method, path, query, headers, body):
        self.method, self.path, self.query, self.headers, self.body = method, path, query, headers, body

    def bearer(self):
        kind, _, token = self.headers.get("authorization", "").partition(" ")
        return token if kind.lower() == "bearer" and token else None

    def content_type(self):
        return self.headers.get("content-type", "").partition(";")[0].strip().lower()

    def json(self, answer):
        """The body; `answer` is raised where it is not JSON."""
        try:
            return json.loads(self.body, parse_float=Decimal)
        except ValueError:
            raise answer from None


def rfc3339(text):
    """Unix seconds, or None where that is no RFC 3339 time."""
    if not isinstance(text, str) or "T" not in text.upper():
        return None
    try:
        at = datetime.fromisoformat(text.upper().replace("Z", "+00:00"))
    except ValueError:
        return None
    return at.timestamp() if at.tzinfo is not None else None


def shown(at):
    return datetime.fromtimestamp(at, timezone.utc).isoformat().replace("+00:00", "Z")


def number(value):
    """A number, or a string that is one, as a Decimal; else None."""
    if isinstance(value, bool) or not isinstance(value, (int, Decimal, str)):
        return None
    try:
        parsed = Decimal(value)
    except ArithmeticError:
        return None
    return parsed if parsed.is_finite() else None


def plain(value):
    return int(value) if value == value.to_integral_value() else float(value)


class Fake:
    """A product. A subclass has `name`, `ingest_paths`, `ingest(request)`; it raises or returns an Answer."""

    name = "fake"
    ingest_paths = ()
    #: For how long an id is known, in seconds; None: for ever; 0: not at all.
    window = None

    def __init__(self, window="default", customers=None, meters=None, **_):
        if window != "default":
            self.window = window
        #: Where given, these alone are known.
        self.customers = set(customers) if customers is not None else None
        self.meters = set(meters) if meters is not None else None
        self.lock = threading.RLock()
        self.clock_offset = 0.0
        self.seen = {}  # key -> when it was received
        self.counted = []  # what would be on an invoice
        self.ever = {}  # key -> how often it was counted
        self.duplicates = 0
        self.errors = []  # what is told later and elsewhere, or not at all
        self.requests = []
        self.script = deque()
        self.chaos = None
        self.refuse_with = None
        #: Customers whose events are refused, whatever they say.
        self.poison = set()

    # --- for products ---

    def now(self):
        return time.time() + self.clock_offset

    def is_duplicate(self, key):
        received = self.seen.get(key)
        return received is not None and (self.window is None or self.now() - received < self.window)

    def claim(self, key):
        self.seen[key] = self.now()

    def count(self, key, customer, meter, values, at, properties=None):
        """`values`: by name, numbers."""
        self.claim(key)
        self.ever[key] = self.ever.get(key, 0) + 1
        self.counted.append(
            {"id": key if isinstance(key, str) else " ".join(map(str, key)), "customer": customer, "meter": meter,
             "values": values, "timestamp": at, "properties": properties or {}}
        )

    def failing(self, status):
        """The answer to a request that fails before anything was done with it."""
        return Answer(status, {"error": f"told to answer {status}"})

    def before_failure(self, request):
        """What the product has done before it fails (claim before write)."""

    def read(self, request):
        """A harmless read of the product's; None where there is none."""
        return None

    # --- control ---

    def sums(self):
        sums = {}
        for item in self.counted:
            for name, value in item["values"].items():
                key = (item["customer"], item["meter"], name)
                sums[key] = sums.get(key, Decimal(0)) + value
        return [
            {"customer": customer, "meter": meter, "value": name, "sum": plain(total)}
            for (customer, meter, name), total in sorted(sums.items(), key=repr)
        ]

    def items(self):
        return [{**item, "values": {name: plain(value) for name, value in item["values"].items()}} for item in self.counted]

    def state(self):
        return {
            "counted": len(self.counted),
            "duplicates": self.duplicates,
            "counted_twice": sorted(str(key) for key, times in self.ever.items() if times > 1),
            "errors": self.errors,
            "requests": len(self.requests),
        }

    def switch(self, wish):
        """
        script: what happens to the next requests, one each: "ok" | "lose" (counted, no answer) | "drop" (neither) |
            "503" (answered, nothing done) | "503-after" (done, and then answered so) | "delay:0.5" (seconds)
        chaos: {"seed": 7, "lose": 0.1, "drop": 0.1, "503": 0.1, "503-after": 0.1}, a part of all requests each
        refuse: a status for every request, null to end it
        clock: by how many seconds the product's clock is ahead; window, customers, meters: as when it was started
        poison: customers whose events are refused, with what that does to their neighbours
        """
        with self.lock:
            if "script" in wish:
                self.script = deque(wish["script"])
            if "chaos" in wish:
                chaos = wish["chaos"]
                self.chaos = chaos and (random.Random(chaos.get("seed", 0)), {k: v for k, v in chaos.items() if k != "seed"})
            if "refuse" in wish:
                self.refuse_with = wish["refuse"]
            if "clock" in wish:
                self.clock_offset = float(wish["clock"])
            if "window" in wish:
                self.window = wish["window"]
            for name in ("customers", "meters", "poison"):
                if name in wish:
                    setattr(self, name, set(wish[name]) if wish[name] is not None else None)

    def next_action(self):
        if self.refuse_with:
            return str(self.refuse_with)
        if self.script:
            return self.script.popleft()
        if self.chaos:
            dice, odds = self.chaos
            thrown = dice.random()
            for action, part in odds.items():
                if thrown < part:
                    return action
                thrown -= part
        return "ok"

    # --- requests ---

    def answer(self, request):
        """An answer, or None where the connection is to be closed without one."""
        if request.method == "GET" and request.path in ("/sums", "/items", "/state", "/requests"):
            with self.lock:
                return Answer(200, {"/sums": self.sums, "/items": self.items, "/state": self.state,
                                    "/requests": lambda: self.requests}[request.path]())
        if request.method == "PUT" and request.path == "/switches":
            self.switch(json.loads(request.body))
            return Answer(204)
        if request.method == "POST" and self.is_ingest(request):
            return self.ingest_or_fail(request)
        with self.lock:
            try:
                answer = self.read(request)
            except Answer as raised:
                answer = raised
        return answer or Answer(404, {"error": f"no such call: {request.method} {request.path}"})

    def is_ingest(self, request):
        return request.path in self.ingest_paths

    def ingest_or_fail(self, request):
        with self.lock:
            self.requests.append(
                {"method": request.method, "path": request.path, "query": request.query,
                 "headers": {k: v for k, v in request.headers.items() if k != "authorization"},
                 "authorized": "authorization" in request.headers,
                 "body": request.body.decode("utf-8", "replace")}
            )
            action = self.next_action()
        after = None
        if action.startswith("delay:"):
            time.sleep(float(action[6:]))
        elif action == "drop":
            return None
        elif action.endswith("-after"):
            after = int(action[:-6])
        elif action.isdigit():
            with self.lock:
                self.before_failure(request)
            return self.failing(int(action))
        try:
            answer = self.locked_ingest(request)
        except Answer as raised:
            answer = raised
        if action == "lose":
            return None
        return self.failing(after) if after else answer

    def locked_ingest(self, request):
        with self.lock:
            try:
                return self.ingest(request)
            except Answer as answer:
                return answer

    def ingest(self, request):
        raise NotImplementedError


def serve(fake, port=0):
    """Serves a fake on a loopback port; returns the server."""

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        # Headers and body are two writes: without this the second would wait for an acknowledgement.
        disable_nagle_algorithm = True

        def handle_one(self):
            length = int(self.headers.get("content-length") or 0)
            if "chunked" in self.headers.get("transfer-encoding", "").lower() or length > MAX_BODY:
                self.close_connection = True
                return Answer(411, {"error": "content-length is required"})
            path, _, query = self.path.partition("?")
            headers = {name.lower(): value for name, value in self.headers.items()}
            return fake.answer(Request(self.command, path, query, headers, self.rfile.read(length)))

        def do(self):
            answer = self.handle_one()
            if answer is None:
                self.close_connection = True
                return
            body = b"" if answer.body is None else json.dumps(answer.body, default=plain).encode()
            self.send_response(answer.status)
            if answer.status != 204:
                self.send_header("content-type", "application/json")
                self.send_header("content-length", str(len(body)))
            for name, value in answer.headers.items():
                self.send_header(name, value)
            self.end_headers()
            if answer.status != 204:
                self.wfile.write(body)

        do_GET = do_POST = do_PUT = do

        def log_message(self, *_):
            pass

    class Server(ThreadingHTTPServer):
        daemon_threads = True
        # Whoever is killed in the middle of a request is no error of the fake's.
        def handle_error(self, request, client_address):
            pass

    server = Server(("127.0.0.1", port), Handler)
    threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.1}, daemon=True).start()
    return server
