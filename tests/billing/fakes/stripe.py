"""Stripe's Billing Meters: v1 meter events, and the v2 meter event stream."""

import base64
import secrets
from decimal import Decimal
from urllib.parse import parse_qsl

from .base import Answer, Fake, Request, rfc3339, shown

DAY = 86_400
OLDEST, FUTURE = 35 * DAY, 300
SESSION = 15 * 60


def error(status, message, code=None, retry=None, param=None):
    body = {"error": {"message": message, "type": "invalid_request_error"}}
    if code:
        body["error"]["code"] = code
    if param:
        body["error"]["param"] = param
    return Answer(status, body, {} if retry is None else {"stripe-should-retry": "true" if retry else "false"})


class Stripe(Fake):
    name = "stripe"
    ingest_paths = ("/v1/billing/meter_events", "/v2/billing/meter_events", "/v2/billing/meter_event_stream")
    window = DAY  # the least that is promised

    def __init__(self, **settings):
        super().__init__(**settings)
        self.under_way = set()
        self.saved = {}  # Idempotency-Key -> (body, answer)
        self.sessions = {}

    def read(self, request):
        self.authenticate(request)
        if (request.method, request.path) == ("GET", "/v1/billing/meters"):
            meters = [{"object": "billing.meter", "event_name": meter} for meter in sorted(self.meters or [])]
            return Answer(200, {"object": "list", "data": meters, "has_more": False})
        if (request.method, request.path) == ("POST", "/v2/billing/meter_event_session"):
            token = secrets.token_hex(8)
            self.sessions[token] = self.now() + SESSION
            return Answer(200, {"object": "v2.billing.meter_event_session", "authentication_token": token,
                                "expires_at": shown(self.sessions[token])})
        return None

    def authenticate(self, request):
        key = request.bearer()
        if key is None and request.headers.get("authorization", "").startswith("Basic "):
            key = base64.b64decode(request.headers["authorization"][6:]).decode().partition(":")[0]
        if not key or not key.startswith("sk_"):
            raise error(401, "Invalid API Key provided: ********")

    def failing(self, status):
        return error(status, f"told to answer {status}", "rate_limit" if status == 429 else None)

    def ingest_or_fail(self, request: Request):
        # One call at a time for a customer and meter, while other customers' go on: so outside of the lock, and for as
        # long as the answer takes.
        key = None
        if not request.path.endswith("_stream"):
            try:
                key = self.one_at_a_time(request)
            except Answer as answer:
                return answer
            with self.lock:
                if key in self.under_way:
                    self.errors.append({"code": "concurrent", "customer": key[0]})
                    return error(409, "Another meter event is being created for this customer and meter.",
                                 "too_many_concurrent_requests")
                self.under_way.add(key)
        try:
            return super().ingest_or_fail(request)
        finally:
            with self.lock:
                self.under_way.discard(key)

    @staticmethod
    def one_at_a_time(request):
        if request.path.startswith("/v1/"):
            form = dict(parse_qsl(request.body.decode("utf-8", "replace")))
            return (form.get("payload[stripe_customer_id]"), form.get("event_name"))
        body = request.json(error(400, "Invalid JSON"))
        return (body.get("payload", {}).get("stripe_customer_id"), body.get("event_name"))

    def ingest(self, request):
        if request.path.endswith("_stream"):
            return self.stream(request)
        self.authenticate(request)
        idempotency = request.headers.get("idempotency-key")
        if idempotency in self.saved:
            body, answer = self.saved[idempotency]
            if body != request.body:
                raise error(400, "Keys for idempotent requests can only be used with the same parameters they were "
                                 "first used with.", "idempotency_error")
            return answer
        try:
            answer = self.one(request)
        except Answer as raised:
            answer = raised
        if idempotency:
            self.saved[idempotency] = (request.body, answer)
        return answer

    def before_failure(self, request):
        # A saved failure is answered again to the same key.
        key = request.headers.get("idempotency-key")
        if key:
            self.saved[key] = (request.body, self.failing(500))

    def one_of_v2(self, request):
        """JSON, with codes for all that is refused; the version has to be named."""
        if not request.headers.get("stripe-version"):
            raise error(400, "Stripe-Version is required")
        body = request.json(error(400, "Invalid JSON"))
        at = rfc3339(body.get("timestamp"))
        if at is None:
            raise error(400, "Invalid timestamp", "parameter_invalid")
        if not self.now() - OLDEST <= at <= self.now() + FUTURE:
            raise error(400, "timestamp is out of bounds", "timestamp_in_future" if at > self.now() else "timestamp_too_far_in_past")
        name, identifier, payload = body.get("event_name"), body.get("identifier"), body.get("payload", {})
        if self.meters is not None and name not in self.meters:
            raise error(400, "No active meter", "no_meter")
        wrong = self.payload_error(payload)
        if wrong:
            raise error(400, wrong[1], wrong[0])
        if self.is_duplicate(identifier):
            self.duplicates += 1
            raise error(400, "A meter event exists with this identifier.", "duplicate_meter_event")
        self.validate_later(identifier, name, payload, at)
        return Answer(200, {"object": "v2.billing.meter_event", "event_name": name, "identifier": identifier,
                            "livemode": False, "payload": payload, "created": body["timestamp"], "timestamp": body["timestamp"]})

    def one(self, request):
        if request.path.startswith("/v2/"):
            return self.one_of_v2(request)
        if request.content_type() != "application/x-www-form-urlencoded":
            raise error(400, "Invalid request: send application/x-www-form-urlencoded")
        form = dict(parse_qsl(request.body.decode(), keep_blank_values=True))
        payload = {name[8:-1]: value for name, value in form.items() if name.startswith("payload[") and name.endswith("]")}
        unknown = [n for n in form if n not in ("event_name", "identifier", "timestamp") and not n.startswith("payload[")]
        if unknown:
            raise error(400, f"Received unknown parameter: {unknown[0]}", "parameter_unknown", param=unknown[0])
        name, identifier = form.get("event_name", ""), form.get("identifier", "")
        if not 1 <= len(name) <= 100:
            raise error(400, "Missing required param: event_name.", "parameter_missing", param="event_name")
        if len(identifier) > 100:
            raise error(400, "Invalid string: identifier must be at most 100 characters", param="identifier")
        try:
            at = int(form["timestamp"]) if "timestamp" in form else self.now()
        except ValueError:
            raise error(400, "Invalid integer: timestamp", "parameter_invalid_integer", param="timestamp") from None
        if at < self.now() - OLDEST:
            raise error(400, "The event timestamp cannot be more than 35 days in past. Expected a timestamp greater than or "
                             f"equal to {int(self.now() - OLDEST)}.")
        if at > self.now() + FUTURE:
            raise error(400, "The event timestamp cannot be more than 5 minutes in the future.")
        if self.meters is not None and name not in self.meters:
            raise error(400, f"No active meter found for event name {name}.", "no_meter")
        wrong = self.payload_error(payload)
        if wrong:
            raise error(400, wrong[1], wrong[0])
        if self.is_duplicate(identifier):
            self.duplicates += 1
            raise error(400, f"An event already exists with identifier {identifier}.", retry=False)
        self.validate_later(identifier, name, payload, at)
        return Answer(200, {"object": "billing.meter_event", "created": int(self.now()), "event_name": name,
                            "identifier": identifier, "livemode": False, "payload": payload, "timestamp": int(at)})

    @staticmethod
    def payload_error(payload):
        if not payload.get("stripe_customer_id"):
            return ("payload_no_customer_defined", "Missing required key stripe_customer_id in the payload.")
        if "value" not in payload:
            return ("payload_no_value_defined", "Missing required key value in the payload.")
        value = payload["value"]
        if not isinstance(value, str) or not value.lstrip("-").isdigit() or len(value.lstrip("-")) > 15:
            return ("payload_invalid_value", "The value must be a whole number of at most 15 digits.")
        return None

    def validate_later(self, identifier, name, payload, at):
        """What happens after the 200."""
        customer = payload["stripe_customer_id"]
        if self.customers is not None and customer not in self.customers:
            self.claim(identifier)
            self.errors.append({"code": "meter_event_customer_not_found", "identifier": identifier})
            return
        self.count(identifier, customer, name, {"value": Decimal(payload["value"])}, at, payload)

    def stream(self, request):
        expires = self.sessions.get(request.bearer())
        if expires is None or expires <= self.now():
            raise error(401, "Meter event session has expired.", "billing_meter_event_session_expired")
        body = request.json(error(400, "Invalid JSON"))
        events = body.get("events") if isinstance(body, dict) else None
        if not isinstance(events, list) or not 1 <= len(events) <= 100:
            raise error(400, "events must have between 1 and 100 elements")
        # Nothing of what follows is answered.
        for event in events:
            payload, identifier = event.get("payload", {}), event.get("identifier", "")
            at = rfc3339(event.get("timestamp"))
            wrong = self.payload_error(payload)
            if at is None:
                wrong = ("timestamp_invalid", "")
            elif at < self.now() - OLDEST:
                wrong = ("timestamp_too_far_in_past", "")
            elif at > self.now() + FUTURE:
                wrong = ("timestamp_in_future", "")
            if wrong:
                self.errors.append({"code": wrong[0], "identifier": identifier})
            elif self.is_duplicate(identifier):
                self.duplicates += 1
            else:
                self.validate_later(identifier, event.get("event_name"), payload, at)
        return Answer(200, {})
