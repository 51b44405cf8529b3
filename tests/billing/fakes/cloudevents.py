"""CloudEvents 1.0 over HTTP: a strict receiver, and OpenMeter, which takes the same in its own way."""

import json
import re
from decimal import Decimal
from urllib.parse import unquote_to_bytes

from .base import Answer, Fake, number, plain, rfc3339

ATTRIBUTE = re.compile(r"[a-z0-9]{1,20}\Z")
REQUIRED = ("id", "source", "specversion", "type")
#: What a header value may hold as it is.
PRINTABLE = re.compile(r"[\x21-\x7e ]*\Z")


def values_of(data):
    """The numbers in an event's data, one level down as well."""
    found = {}
    for name, value in (data or {}).items():
        if isinstance(value, dict):
            found.update({f"{name}.{inner}": v for inner, v in values_of(value).items()})
        elif number(value) is not None and not isinstance(value, str):
            found[name] = number(value)
    return found


class CloudEvents(Fake):
    """Takes structured and binary mode on any path, and batches where `batches` is set."""

    name = "cloudevents"

    def __init__(self, batches=False, **settings):
        super().__init__(**settings)
        self.batches = batches

    def is_ingest(self, request):
        return True

    def ingest(self, request):
        kind = request.content_type()
        if kind == "application/cloudevents+json":
            events = [self.structured(request.json(Answer(400, {"error": "not JSON"})))]
        elif kind == "application/cloudevents-batch+json":
            if not self.batches:
                raise Answer(415, {"error": "batches are not asked for"})
            events = [self.structured(event) for event in request.json(Answer(400, {"error": "not JSON"}))]
        elif kind.startswith("application/cloudevents"):
            raise Answer(415, {"error": f"{kind} is not understood"})
        else:
            events = [self.binary(request)]
        for event in events:
            self.check(event)
        for event in events:
            key = (event["source"], event["id"])
            if self.is_duplicate(key):
                self.duplicates += 1
                continue
            data = event.get("data")
            # With deltas, what was used since the previous event is what adds up.
            delta = data.get("usage_delta") if isinstance(data, dict) else None
            self.count(key, event.get("subject"), event["type"], values_of(delta if isinstance(delta, dict) else data),
                       rfc3339(event.get("time")), {k: v for k, v in event.items() if k != "data"})
        return Answer(204)

    @staticmethod
    def structured(event):
        if not isinstance(event, dict):
            raise Answer(400, {"error": "an event is an object"})
        if "data" in event and "data_base64" in event:
            raise Answer(400, {"error": "data and data_base64 exclude each other"})
        return event

    @staticmethod
    def binary(request):
        event = {}
        for name, value in request.headers.items():
            if not name.startswith("ce-"):
                continue
            if not PRINTABLE.match(value) or '"' in value or " " in value:
                raise Answer(400, {"error": f"{name} holds what has to be percent-encoded"})
            try:
                event[name[3:]] = unquote_to_bytes(value).decode("utf-8")
            except UnicodeDecodeError:
                raise Answer(400, {"error": f"{name} is not UTF-8"}) from None
        if "datacontenttype" in event:
            raise Answer(400, {"error": "ce-datacontenttype must not be there: Content-Type says it"})
        event["datacontenttype"] = request.headers.get("content-type", "")
        event["data"] = json.loads(request.body, parse_float=Decimal) if request.body else None
        return event

    @staticmethod
    def check(event):
        for name in REQUIRED:
            if not isinstance(event.get(name), str) or not event[name]:
                raise Answer(400, {"error": f"{name} is required"})
        if event["specversion"] != "1.0":
            raise Answer(400, {"error": "specversion must be 1.0"})
        if "time" in event and rfc3339(event["time"]) is None:
            raise Answer(400, {"error": "time must be RFC 3339"})
        for name, value in event.items():
            if name == "data":
                continue
            if not ATTRIBUTE.match(name) and name != "data_base64":
                raise Answer(400, {"error": f"{name} is no name of an attribute"})
            if isinstance(value, int) and not isinstance(value, bool) and not -(2**31) <= value < 2**31:
                raise Answer(400, {"error": f"{name} does not fit an Integer"})
            if not isinstance(value, (str, int, bool)):
                raise Answer(400, {"error": f"{name} must be a string, an integer or a boolean"})


class OpenMeter(Fake):
    """`dedupe`: "sink" (counted once), "ingest" (the key is claimed before the write), "off"."""

    name = "openmeter"
    ingest_paths = ("/api/v1/events", "/api/v3/openmeter/events")
    window = 32 * 86_400

    def __init__(self, dedupe="sink", **settings):
        super().__init__(**settings)
        self.dedupe = dedupe
        self.claimed = set()
        self.fail_at = None

    def switch(self, wish):
        super().switch(wish)
        self.dedupe = wish.get("dedupe", self.dedupe)
        # The index in the next batch at which the write fails.
        self.fail_at = wish.get("fail_at", self.fail_at)

    def read(self, request):
        if (request.method, request.path) == ("GET", "/api/v1/events"):
            return Answer(200, [{"event": {"id": item["id"]}, "ingestedAt": None} for item in self.counted[-1:]])
        return None

    def problem(self, status, detail):
        return Answer(status, {"type": "about:blank", "title": "Bad Request", "status": status, "detail": detail})

    def failing(self, status):
        return self.problem(status, f"told to answer {status}")

    def before_failure(self, request):
        if self.dedupe == "ingest":
            self.claimed.update((e["source"], e["id"]) for e in self.events(request))

    def events(self, request):
        v1 = request.path == "/api/v1/events"
        # v1 compares the whole header.
        kind = request.headers.get("content-type", "") if v1 else request.content_type()
        if kind not in ("application/cloudevents+json", "application/cloudevents-batch+json", "application/json"):
            raise self.problem(400, "invalid content type")
        events = request.json(self.problem(400, "cannot read the body"))
        if kind == "application/cloudevents+json" and not isinstance(events, dict):
            raise self.problem(400, "one event was expected")
        if kind == "application/cloudevents-batch+json" and not isinstance(events, list):
            raise self.problem(400, "an array was expected")
        events = events if isinstance(events, list) else [events]
        for event in events:
            for name in (*REQUIRED, "subject"):
                if not isinstance(event.get(name), str) or not event[name]:
                    raise self.problem(400, f"{name} is required")
            if "time" in event and rfc3339(event["time"]) is None:
                raise self.problem(400, "time must be RFC 3339")
            if event.get("datacontenttype", "application/json") != "application/json":
                raise self.problem(400, "datacontenttype must be application/json")
            if event.get("data") is not None and not isinstance(event["data"], dict):
                raise self.problem(400, "data must be an object")
        return events

    def ingest(self, request):
        for index, event in enumerate(self.events(request)):
            key = (event["source"], event["id"])
            if self.dedupe == "ingest":
                if key in self.claimed:
                    self.duplicates += 1
                    continue
                self.claimed.add(key)
            if self.fail_at == index:
                self.fail_at = None
                raise self.problem(500, "cannot write")
            if self.dedupe == "sink" and self.is_duplicate(key):
                self.duplicates += 1
                continue
            if self.meters is not None and event["type"] not in self.meters:
                self.claim(key)
                self.errors.append({"code": "validationError", "id": event["id"]})
                continue
            values = values_of(event.get("data"))
            self.count(key, event["subject"], event["type"], values, rfc3339(event.get("time")),
                       {k: v if not isinstance(v, Decimal) else plain(v) for k, v in (event.get("data") or {}).items()})
        return Answer(204 if request.path == "/api/v1/events" else 202)
