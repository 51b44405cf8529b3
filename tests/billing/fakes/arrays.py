"""Products that take an array of usage events with an id, a customer, a time and properties: Lago, Orb, Metronome, Polar."""

import gzip
import json
from decimal import Decimal

from .base import Answer, Fake, number, plain, rfc3339, shown

DAY = 86_400


def numbers(properties):
    found = {name: number(value) for name, value in properties.items()}
    return {name: value for name, value in found.items() if value is not None}


def shown_properties(properties):
    return {name: plain(value) if isinstance(value, Decimal) else value for name, value in properties.items()}


class WithBearer(Fake):
    unauthorized = {"error": "unauthorized"}

    def authenticate(self, request):
        if not request.bearer():
            raise Answer(401, self.unauthorized)


class Lago(WithBearer):
    """`clickhouse`: an organisation whose events are in ClickHouse, where nothing is refused."""

    name = "lago"
    ingest_paths = ("/api/v1/events", "/api/v1/events/batch")
    unauthorized = {"status": 401, "error": "Unauthorized"}
    batch = 100

    def __init__(self, clickhouse=False, **settings):
        super().__init__(**settings)
        self.clickhouse = clickhouse

    def read(self, request):
        self.authenticate(request)
        if (request.method, request.path) == ("GET", "/api/v1/events"):
            return Answer(200, {"events": [], "meta": {"total_count": len(self.counted)}})
        return None

    @staticmethod
    def invalid(details):
        return Answer(422, {"status": 422, "error": "Unprocessable Entity", "code": "validation_errors", "error_details": details})

    def errors_of(self, event, ids):
        if not isinstance(event, dict):
            return {"event": ["value_is_mandatory"]}
        errors = {}
        for name in ("transaction_id", "external_subscription_id", "code"):
            if not event.get(name) or not isinstance(event[name], str):
                errors[name] = ["value_is_mandatory"]
        at = event.get("timestamp")
        if at is not None and number(at) is None:
            errors["timestamp"] = ["invalid_format"]
        if not isinstance(event.get("properties", {}), dict):
            errors["properties"] = ["invalid_format"]
        if event.get("external_subscription_id") in self.poison:
            errors["properties"] = ["invalid_value"]
        key = (event.get("transaction_id"), event.get("external_subscription_id"))
        if not self.clickhouse and (self.is_duplicate(key) or key in ids):
            errors["transaction_id"] = ["value_already_exist"]
        ids.add(key)
        return errors

    def take(self, event):
        at = number(event.get("timestamp")) if event.get("timestamp") is not None else Decimal(self.now())
        key = (event["transaction_id"], event["external_subscription_id"])
        subscription, code = event["external_subscription_id"], event["code"]
        if self.clickhouse:
            key = (*key, str(at))
            # The same id at the same time takes the place of the former.
            self.counted = [item for item in self.counted if item["id"] != " ".join(key)]
            self.ever.pop(key, None)
        unmatched = (self.customers is not None and subscription not in self.customers) or (
            self.meters is not None and code not in self.meters)
        if unmatched:
            self.claim(key)
            self.errors.append({"code": "event.error", "transaction_id": event["transaction_id"]})
            return
        properties = event.get("properties", {})
        self.count(key, subscription, code, numbers(properties), float(at), shown_properties(properties))

    def ingest(self, request):
        self.authenticate(request)
        body = request.json(Answer(400, {"status": 400, "error": "Bad Request", "code": "malformed_json"}))
        if request.path == "/api/v1/events":
            event = body.get("event")
            errors = self.errors_of(event, set())
            self.duplicates += errors.get("transaction_id") == ["value_already_exist"]
            if errors:
                raise self.invalid(errors)
            self.take(event)
            return Answer(200, {"event": {"transaction_id": event["transaction_id"]}})
        events = body.get("events")
        if not isinstance(events, list) or not events:
            raise self.invalid({"events": ["value_is_mandatory"]})
        if len(events) > self.batch:
            raise self.invalid({"events": ["too_many_events"]})
        ids, errors = set(), {}
        for index, event in enumerate(events):
            wrong = self.errors_of(event, ids)
            if wrong:
                errors[str(index)] = wrong
        if errors:
            # One fault, a repeat included, and none of the batch is kept.
            self.duplicates += sum(wrong.get("transaction_id") == ["value_already_exist"] for wrong in errors.values())
            raise self.invalid(errors)
        for event in events:
            self.take(event)
        return Answer(200, {"events": [{"transaction_id": event["transaction_id"]} for event in events]})


class Orb(WithBearer):
    """`keep_valid`: whether the valid events of a refused request were ingested, which Orb does not say."""

    name = "orb"
    ingest_paths = ("/v1/ingest",)
    grace, future, batch = 12 * 3600, 300, 500

    def __init__(self, keep_valid=False, grace=None, **settings):
        super().__init__(**settings)
        self.keep_valid = keep_valid
        self.grace = grace if grace is not None else self.grace
        self.bodies = {}

    def switch(self, wish):
        super().switch(wish)
        self.keep_valid = wish.get("keep_valid", self.keep_valid)
        self.grace = wish.get("grace", self.grace)

    def errors_of(self, event):
        errors = []
        for name in ("event_name", "idempotency_key", "timestamp"):
            if not isinstance(event.get(name), str) or not event[name]:
                errors.append(f"{name} is required")
        if ("customer_id" in event) == ("external_customer_id" in event):
            errors.append("exactly one of customer_id and external_customer_id is required")
        if event.get("external_customer_id") in self.poison:
            errors.append("this customer is refused")
        properties = event.get("properties")
        if not isinstance(properties, dict):
            errors.append("properties is required")
        elif any(value is None or isinstance(value, (dict, list)) for value in properties.values()):
            errors.append("properties must be strings, numbers or booleans")
        at = rfc3339(event.get("timestamp"))
        if at is None:
            errors.append("timestamp must be ISO 8601 with a time zone")
        elif at < self.now() - self.grace:
            errors.append("timestamp is outside of the grace period")
        elif at > self.now() + self.future:
            errors.append("timestamp is in the future")
        return errors

    def ingest(self, request):
        self.authenticate(request)
        wrong = {"type": "https://docs.withorb.com/reference/error-responses#400-request-validation-errors",
                 "status": 400, "title": "Request Validation Errors", "detail": "see validation_failed"}
        body = request.json(Answer(400, {**wrong, "validation_errors": ["not JSON"]}))
        events = body.get("events")
        if not isinstance(events, list) or not events or len(events) > self.batch:
            raise Answer(400, {**wrong, "validation_errors": [f"events: between 1 and {self.batch}"]})
        for event in events:
            known = self.bodies.get(event.get("idempotency_key"))
            if known is not None and known != json.dumps(event, sort_keys=True, default=str):
                raise Answer(400, {**wrong, "validation_errors": ["an idempotency_key was used with another body"]})
        failed = [(event, self.errors_of(event)) for event in events]
        refused = [{"idempotency_key": e.get("idempotency_key"), "validation_errors": why} for e, why in failed if why]
        for event, why in failed:
            if not why and (not refused or self.keep_valid):
                self.take(event)
        if refused:
            raise Answer(400, {**wrong, "validation_failed": refused})
        return Answer(200, {"validation_failed": []})

    def take(self, event):
        key = event["idempotency_key"]
        if self.is_duplicate(key):
            self.duplicates += 1
            return
        self.bodies[key] = json.dumps(event, sort_keys=True, default=str)
        # Aggregated values must be numbers.
        values = {n: v for n, v in numbers(event["properties"]).items() if not isinstance(event["properties"][n], str)}
        self.count(key, event.get("external_customer_id") or event.get("customer_id"), event["event_name"],
                   values, rfc3339(event["timestamp"]), shown_properties(event["properties"]))


class Metronome(WithBearer):
    name = "metronome"
    ingest_paths = ("/v1/ingest",)
    window = 34 * DAY
    oldest, future, batch = 34 * DAY, DAY, 100

    def ingest(self, request):
        self.authenticate(request)
        if request.headers.get("content-encoding") == "gzip":
            request.body = gzip.decompress(request.body)
        events = request.json(Answer(400, {"message": "cannot parse the body"}))
        if not isinstance(events, list) or not 1 <= len(events) <= self.batch:
            raise Answer(400, {"message": f"between 1 and {self.batch} events are expected"})
        for index, event in enumerate(events):
            wrong = self.error_of(event)
            if wrong:
                raise Answer(400, {"message": f"event {index}: {wrong}"})
        for event in events:
            key = event["transaction_id"]
            if self.is_duplicate(key):
                self.duplicates += 1
                continue
            if self.customers is not None and event["customer_id"] not in self.customers:
                self.claim(key)
                self.errors.append({"code": "unmatched_customer", "transaction_id": key})
                continue
            properties = event.get("properties", {})
            self.count(key, event["customer_id"], event["event_type"], numbers(properties), rfc3339(event["timestamp"]),
                       shown_properties(properties))
        return Answer(200)

    def error_of(self, event):
        for name in ("transaction_id", "customer_id", "event_type", "timestamp"):
            if not isinstance(event.get(name), str) or not event[name]:
                return f"{name} is required"
        if event["customer_id"] in self.poison:
            return "this customer is refused"
        at = rfc3339(event["timestamp"])
        if at is None:
            return "timestamp must be RFC 3339"
        if at < self.now() - self.oldest:
            return "timestamp is more than 34 days ago"
        if at > self.now() + self.future:
            return "timestamp is more than 24 hours ahead"
        for name, value in (event.get("properties") or {}).items():
            if len(str(value).encode()) > 256:
                return f"property {name} has more than 256 bytes"
        return None


class Polar(WithBearer):
    name = "polar"
    ingest_paths = ("/v1/events/ingest",)
    unauthorized = {"error": "invalid_token", "error_description": "The access token provided is invalid"}
    most = 10 * 1024 * 1024

    def errors_of(self, index, event):
        def at(field, message):
            return {"loc": ["body", "events", index, field], "msg": message, "type": "value_error", "input": event.get(field)}

        errors = []
        if not isinstance(event.get("name"), str) or not 1 <= len(event["name"]) <= 128:
            errors.append(at("name", "String should have 1 to 128 characters"))
        if ("customer_id" in event) == ("external_customer_id" in event):
            errors.append(at("external_customer_id", "exactly one customer is required"))
        if event.get("external_customer_id") in self.poison:
            errors.append(at("external_customer_id", "this customer is refused"))
        if "organization_id" in event:
            errors.append(at("organization_id", "Setting organization_id is disallowed when using an organization token"))
        when = rfc3339(event.get("timestamp"))
        if when is None:
            errors.append(at("timestamp", "Input should have timezone info"))
        elif when > self.now():
            errors.append(at("timestamp", "Timestamp must be in the past."))
        metadata = event.get("metadata", {})
        if len(metadata) > 50:
            errors.append(at("metadata", "at most 50 keys"))
        for name, value in metadata.items():
            if not 1 <= len(name) <= 40 or isinstance(value, (dict, list)) or value is None:
                errors.append(at("metadata", f"{name} is not allowed"))
            elif isinstance(value, str) and not 1 <= len(value) <= 500:
                errors.append(at("metadata", f"{name} must have 1 to 500 characters"))
        return errors

    def ingest(self, request):
        self.authenticate(request)
        if len(request.body) > self.most:
            raise Answer(413, {"error": "PayloadTooLarge"})
        body = request.json(Answer(422, {"error": "RequestValidationError", "detail": [{"loc": ["body"], "msg": "not JSON"}]}))
        events = body.get("events", [])
        errors = [error for index, event in enumerate(events) for error in self.errors_of(index, event)]
        if errors:
            raise Answer(422, {"error": "RequestValidationError", "detail": errors})
        inserted = repeated = 0
        for event in events:
            key = event.get("external_id")
            if key is not None and self.is_duplicate(key):
                repeated += 1
                continue
            inserted += 1
            metadata = event.get("metadata", {})
            self.count(key or f"none-{len(self.counted)}", event.get("external_customer_id") or event.get("customer_id"),
                       event["name"], numbers(metadata), rfc3339(event["timestamp"]), shown_properties(metadata))
        self.duplicates += repeated
        return Answer(200, {"inserted": inserted, "duplicates": repeated})


class Meteroid(WithBearer):
    """Of the second wave: a failed event is named in a 200, where partial failures are allowed."""

    name = "meteroid"
    ingest_paths = ("/api/v1/events/ingest",)

    def ingest(self, request):
        self.authenticate(request)
        body = request.json(Answer(400, {"code": "BAD_REQUEST", "message": "not JSON"}))
        events = body.get("events", [])
        if not 1 <= len(events) <= 100:
            raise Answer(400, {"code": "BAD_REQUEST", "message": "between 1 and 100 events are expected"})
        failures = []
        for event in events:
            why = self.error_of(event, body.get("allow_backfilling", False))
            if why:
                failures.append({"event_id": event.get("event_id"), "reason": why})
        if failures and not body.get("allow_partial_failures"):
            raise Answer(400, {"code": "BAD_REQUEST", "failures": failures})
        failed = {failure["event_id"] for failure in failures}
        for event in events:
            key = (event["event_id"], event["customer_id"])
            if event["event_id"] in failed:
                continue
            if self.is_duplicate(key):
                self.duplicates += 1
                continue
            self.count(key, event["customer_id"], event["code"], numbers(event["properties"]), rfc3339(event["timestamp"]),
                       event["properties"])
        return Answer(200, {"failures": failures})

    def error_of(self, event, backfilling):
        for name in ("event_id", "code", "customer_id"):
            if not event.get(name):
                return f"{name} is required"
        at = rfc3339(event.get("timestamp"))
        if at is None or at > self.now() + 3600 or (at < self.now() - DAY and not backfilling):
            return "invalid timestamp"
        if any(not isinstance(value, str) for value in event.get("properties", {}).values()):
            return "properties must be strings"
        if self.customers is not None and event["customer_id"] not in self.customers:
            return "unknown customer"
        return None


class Autumn(WithBearer):
    """Of the second wave: a repeat is a 409, and nothing may be later than its own clock."""

    name = "autumn"
    ingest_paths = ("/v1/track", "/v1/balances.track")
    window = DAY

    def ingest(self, request):
        self.authenticate(request)
        body = request.json(Answer(400, {"code": "invalid_inputs", "message": "not JSON"}))
        key = request.headers.get("idempotency-key") or body.get("idempotency_key")
        if not body.get("customer_id") or not body.get("feature_id") or number(body.get("value")) is None:
            raise Answer(400, {"code": "invalid_inputs", "message": "customer_id, feature_id and value are required"})
        at = body.get("timestamp")
        if at is not None and at > self.now() * 1000:
            raise Answer(400, {"code": "invalid_inputs", "message": "timestamp must not be in the future"})
        if self.is_duplicate(key):
            self.duplicates += 1
            raise Answer(409, {"code": "duplicate_idempotency_key", "message": "already processed"})
        self.count(key, body["customer_id"], body["feature_id"], {"value": number(body["value"])}, (at or 0) / 1000)
        return Answer(200, {"id": key, "code": "event_received", "at": shown(self.now())})
