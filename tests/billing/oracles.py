"""
The makers' own clients against the same fakes as ours: whatever their bytes do there, ours do.

Each client sends two events, then both again; so does turnhook's encoder (the example `provider` of turnhook-dispatcher,
whose path is the first argument; the second is where CloudEvents' client for Node is installed, and the third the schema
that its specification publishes, if it could be had). What the two fakes hold
afterwards, and what the bodies say, must be equal, and each answer must mean the same to both.
"""

import http.client
import json
import pathlib
import subprocess
import sys
import time
from urllib.parse import parse_qsl, urlsplit

from fakes.arrays import Lago, Metronome, Orb, Polar
from fakes.base import serve, shown
from fakes.cloudevents import CloudEvents, OpenMeter
from fakes.stripe import Stripe

KEY = "sk_test_oracle"
AT = int((time.time() - 60) * 1000)
TIME = shown(AT // 1000).replace("Z", f".{AT % 1000:03}Z")
IDS = ["evt_oracle_1", "evt_oracle_2"]
BYTES, REALM = 540_000, "example.org"
failures = []


def check(name, ours, theirs):
    if ours == theirs:
        print(f"  same: {name}")
    else:
        failures.append(name)
        print(f"  DIFFERENT: {name}\n    ours:   {ours}\n    theirs: {theirs}")


class Ours:
    def __init__(self, program):
        self.process = subprocess.Popen([program], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)

    def ask(self, wish):
        self.process.stdin.write(json.dumps(wish) + "\n")
        self.process.stdin.flush()
        return json.loads(self.process.stdout.readline())

    def send(self, url, wish, token=KEY):
        """Sends, and says what the answer means for each item."""
        request = self.ask(wish)
        connection = http.client.HTTPConnection(urlsplit(url).netloc, timeout=30)
        headers = {"content-type": request["content_type"], "authorization": f"Bearer {token}", **request["headers"]}
        connection.request(request["method"], request["path"] or "/", request["body"].encode(), headers)
        response = connection.getresponse()
        answer = {"status": response.status, "body": response.read().decode(),
                  "headers": {name.lower(): value for name, value in response.getheaders()}}
        connection.close()
        return self.ask({**wish, "answer": answer})


def wish(product, meters, customer="cust_42", **more):
    return {"product": product, "meters": meters, "customer": customer, "at": AT, "ids": IDS, "properties": ["realm"], **more}


def body_of(request):
    kind = request["headers"].get("content-type", "")
    if "json" in kind:
        return json.loads(request["body"])
    return sorted(parse_qsl(request["body"]))


def compare(name, fake, theirs, ours, expected, product_wish, batches=True, forget=lambda body: body):
    """`theirs(url, ids)` sends with the maker's client, and says "taken", "known" or the name of an error."""
    fakes = fake(), fake()
    servers = [serve(each) for each in fakes]
    urls = [f"http://127.0.0.1:{server.server_address[1]}" for server in servers]
    print(name)
    groups = [IDS] if batches else [[id] for id in IDS]
    said = [theirs(urls[1], group) for _ in range(2) for group in groups]
    verdicts = [ours.send(urls[0], {**product_wish, "ids": group, "attempt": attempt})
                for attempt in (1, 2) for group in groups]
    check("the client's outcomes", said, expected[0])
    check("our verdicts", verdicts, expected[1])
    check("what was counted", fakes[0].items(), fakes[1].items())
    check("method and path", [(r["method"], r["path"]) for r in fakes[0].requests],
          [(r["method"], r["path"]) for r in fakes[1].requests])
    check("bodies", [forget(body_of(r)) for r in fakes[0].requests], [forget(body_of(r)) for r in fakes[1].requests])
    # A wrong moment and a wrong key mean the same to both.
    for script, meaning in (("503", "Uncertain"), ("401", "Held"), ("429", "Retry")):
        for each in fakes:
            # Until it is ended: some clients try again by themselves.
            each.switch({"refuse": script})
        verdict = ours.send(urls[0], {**product_wish, "ids": groups[0], "attempt": 3})
        check(f"{script} is {meaning}, and an error of the client's", (set(verdict), theirs(urls[1], groups[0]) not in ("taken", "known")),
              ({meaning}, True))
        for each in fakes:
            each.switch({"refuse": None})
    for server in servers:
        server.shutdown()
        server.server_close()


def stripe(ours):
    import stripe as sdk

    def client(url):
        return sdk.StripeClient(KEY, base_addresses={"api": url, "meter_events": url}, max_network_retries=0)

    def outcome(call):
        try:
            call()
            return "taken"
        except sdk.InvalidRequestError as error:
            known = error.code == "duplicate_meter_event" or "already exists" in str(error)
            return "known" if known else f"InvalidRequestError {error.code}"
        except sdk.StripeError as error:
            return type(error).__name__

    def v1(url, ids):
        return outcome(lambda: client(url).v1.billing.meter_events.create({
            "event_name": "turn_relay", "identifier": ids[0], "timestamp": AT // 1000,
            "payload": {"stripe_customer_id": "cus_1", "value": str(BYTES)}}))

    def v2(url, ids):
        return outcome(lambda: client(url).v2.billing.meter_events.create({
            "event_name": "turn_relay", "identifier": ids[0], "timestamp": TIME,
            "payload": {"stripe_customer_id": "cus_1", "value": str(BYTES)}}))

    meters = [["turn_relay", "billable_bytes", "value"]]
    expected = (["taken", "taken", "known", "known"], [["Accepted"], ["Accepted"], ["Duplicate"], ["Duplicate"]])
    more = {"properties": [], "customer": "cus_1"}
    compare("stripe v1", Stripe, v1, ours, expected, {**wish("stripe", meters), **more}, batches=False)
    compare("stripe v2", Stripe, v2, ours, expected,
            {**wish("stripe", meters), **more, "options": {"api": "v2"}}, batches=False)


def orb(ours):
    import orb as sdk

    def theirs(url, ids):
        try:
            answer = sdk.Orb(api_key=KEY, base_url=f"{url}/v1", max_retries=0).events.ingest(events=[
                {"idempotency_key": id, "event_name": "turn_relay", "external_customer_id": "cust_42", "timestamp": TIME,
                 "properties": {"bytes": BYTES, "realm": REALM}} for id in ids])
            return "taken" if answer.validation_failed == [] else "failed"
        except sdk.APIError as error:
            return type(error).__name__

    meters = [["turn_relay", "billable_bytes", "bytes"]]
    compare("orb", Orb, theirs, ours, (["taken"] * 2, [["Delivered"] * 2] * 2), wish("orb", meters))


def metronome(ours):
    import metronome as sdk

    def theirs(url, ids):
        try:
            sdk.Metronome(bearer_token=KEY, base_url=url, max_retries=0).v1.usage.ingest(usage=[
                {"transaction_id": id, "customer_id": "cust_42", "event_type": "turn_relay", "timestamp": TIME,
                 "properties": {"bytes": str(BYTES), "realm": REALM}} for id in ids])
            return "taken"
        except sdk.APIError as error:
            return type(error).__name__

    meters = [["turn_relay", "billable_bytes", "bytes"]]
    compare("metronome", Metronome, theirs, ours, (["taken"] * 2, [["Accepted"] * 2] * 2), wish("metronome", meters))


def lago(ours):
    from lago_python_client import Client
    from lago_python_client.exceptions import LagoApiError
    from lago_python_client.models import BatchEvent, Event

    seconds = f"{AT // 1000}.{AT % 1000:03}"

    def theirs(url, ids):
        try:
            Client(api_key=KEY, api_url=url, max_retries=0, retry_on_rate_limit=False).events.batch_create(BatchEvent(events=[
                Event(transaction_id=id, external_subscription_id="sub_42", code="turn_relay", timestamp=seconds,
                      properties={"bytes": BYTES, "realm": REALM}) for id in ids]))
            return "taken"
        except LagoApiError as error:
            details = error.response.get("error_details", {}) if isinstance(error.response, dict) else {}
            known = details and all(d == {"transaction_id": ["value_already_exist"]} for d in details.values())
            return "known" if known else f"LagoApiError {error.status_code}"
        except Exception as error:  # what its HTTP client raises
            return type(error).__name__

    def forget(body):
        # Their model writes it even where there is none.
        return [{k: v for k, v in event.items() if k != "precise_total_amount_cents"} for event in body["events"]]

    product_wish = wish("lago", [["turn_relay", "billable_bytes", "bytes"]], customer="sub_42")
    compare("lago", Lago, theirs, ours, (["taken", "known"], [["Accepted"] * 2, ["Duplicate"] * 2]), product_wish, forget=forget)
    # Their model reads our bytes, and refuses them without an id.
    body = json.loads(ours.ask(product_wish)["body"])
    check("their model reads our bytes", [e.transaction_id for e in BatchEvent(**body).events], IDS)
    del body["events"][0]["transaction_id"]
    try:
        BatchEvent(**body)
        check("their model misses an id", "read", "refused")
    except ValueError:
        check("their model misses an id", "refused", "refused")


def polar(ours):
    from polar.v2026_10 import Polar as Sdk

    def theirs(url, ids):
        try:
            answer = Sdk(KEY, base_url=url).events.ingest(events=[
                {"name": "turn_relay", "external_id": id, "external_customer_id": "cust_42",
                 "timestamp": TIME,
                 "metadata": {"bytes": BYTES, "realm": REALM}} for id in ids])
            return "known" if answer.duplicates == len(ids) else "taken"
        except Exception as error:  # a type for each status
            return type(error).__name__

    meters = [["turn_relay", "billable_bytes", "bytes"]]
    compare("polar", Polar, theirs, ours, (["taken", "known"], [["Delivered"] * 2, ["Duplicate"] * 2]),
            wish("polar", meters))


def cloudevents(ours):
    from cloudevents.core.bindings.http import HTTPMessage, from_http_event, to_binary_event, to_structured_event
    from cloudevents.core.v1.event import CloudEvent

    print("cloudevents")
    # The specification's schema, as their client for Node is checked by it.
    validator = pathlib.Path(sys.argv[2]) / "node_modules/cloudevents/dist/schema/v1.js"
    script = f"const event = JSON.parse(require('fs').readFileSync(0)); console.log(require({json.dumps(str(validator))})(event))"

    def is_valid(event):
        said = subprocess.run(["node", "-e", script], input=json.dumps(event), capture_output=True, text=True, check=True)
        return {"true": True, "false": False}[said.stdout.strip()]

    for mode, encode in (("structured", to_structured_event), ("binary", to_binary_event)):
        request = ours.ask({**wish("cloudevents", [], customer='Jürgen "x" %'), "options": {"mode": mode}, "ids": IDS[:1]})
        headers = {"content-type": request["content_type"], **request["headers"]}
        if mode == "structured":
            event = json.loads(request["body"])
            check("the specification's schema takes ours, and none without an id",
                  (is_valid(event), is_valid({k: v for k, v in event.items() if k != "id"})), (True, False))
        event = from_http_event(HTTPMessage(headers=headers, body=request["body"].encode()))
        check(f"{mode}: their parser reads ours", (event.get_id(), event.get_source(), event.get_type(), event.get_subject(),
              round(event.get_time().timestamp() * 1000), event.get_specversion()),
              (IDS[0], "/turnhook/sample", "io.turnhook.session.usage", 'Jürgen "x" %', AT, "1.0"))
        data = event.get_data()
        data = json.loads(data) if isinstance(data, (str, bytes)) else data
        check(f"{mode}: and the data", data["usage_delta"]["billable_bytes"], BYTES)
        # Their encoding of the same event does the same at a strict receiver.
        again = encode(CloudEvent(attributes=event.get_attributes(), data=data))
        fakes = CloudEvents(), CloudEvents()
        for fake, (sent_headers, sent) in zip(fakes, ((headers, request["body"].encode()), (again.headers, again.body))):
            server = serve(fake)
            connection = http.client.HTTPConnection("127.0.0.1", server.server_address[1], timeout=30)
            for _ in range(2):
                connection.request("POST", "/", sent, sent_headers)
                response = connection.getresponse()
                response.read()
                check(f"{mode}: taken", response.status, 204)
            connection.close()
            server.shutdown()
            server.server_close()
        strip = lambda item: {k: v for k, v in item.items() if k not in ("timestamp", "properties")}
        check(f"{mode}: counted once", [strip(i) for i in fakes[0].items()], [strip(i) for i in fakes[1].items()])
    # OpenMeter's events are CloudEvents as well.
    request = ours.ask({**wish("openmeter", [["turn_relay", "billable_bytes", "bytes"]]), "ids": IDS[:1]})
    check("openmeter: the specification's schema takes ours", is_valid(json.loads(request["body"])), True)
    event = from_http_event(HTTPMessage(headers={"content-type": request["content_type"]}, body=request["body"].encode()))
    check("openmeter: their parser reads ours", (event.get_id(), event.get_subject(), event.get_data()["bytes"]),
          (IDS[0], "cust_42", BYTES))
    server = serve(fake := OpenMeter())
    url = f"http://127.0.0.1:{server.server_address[1]}"
    verdicts = [ours.send(url, wish("openmeter", [["turn_relay", "billable_bytes", "bytes"]])) for _ in range(2)]
    check("openmeter: verdicts", verdicts, [["Accepted"] * 2] * 2)
    check("openmeter: counted once", fake.sums()[0]["sum"], 2 * BYTES)
    server.shutdown()
    server.server_close()


def cloudevents_schema(ours, schema):
    """The schema that the specification publishes takes all that is sent as a CloudEvent."""
    from jsonschema import Draft7Validator, FormatChecker

    validator = Draft7Validator(json.loads(pathlib.Path(schema).read_text()), format_checker=FormatChecker())
    relay = [["turn_relay", "billable_bytes", "bytes"]]
    print("cloudevents, by its published schema")
    for name, sent in (
        ("structured", wish("cloudevents", [], customer='Jürgen "x" %', options={"mode": "structured"}, ids=IDS[:1])),
        ("in a batch", wish("cloudevents", [], options={"mode": "batch"})),
        ("for OpenMeter", wish("openmeter", relay)),
        ("for OpenMeter's v3", wish("openmeter", relay, options={"api": "v3"})),
    ):
        body = json.loads(ours.ask(sent)["body"])
        events = body if isinstance(body, list) else [body]
        check(f"{name}: as many as were asked for", len(events), len(sent["ids"]))
        for event in events:
            check(f"{name}: taken", [error.message for error in validator.iter_errors(event)], [])
            for broken in ("id", "source", "type", "specversion"):
                check(f"{name}: and none without {broken}",
                      validator.is_valid({k: v for k, v in event.items() if k != broken}), False)
            for field, wrong in (("time", "yesterday"), ("source", "a b"), ("subject", ""), ("specversion", "")):
                check(f"{name}: nor with {field} {wrong!r}", validator.is_valid({**event, field: wrong}), False)


def main():
    ours = Ours(sys.argv[1])
    if len(sys.argv) > 3:
        cloudevents_schema(ours, sys.argv[3])
    for oracle in (stripe, orb, metronome, lago, polar, cloudevents):
        oracle(ours)
    ours.process.stdin.close()
    if ours.process.wait() != 0:
        failures.append("the example did not end well")
    if failures:
        sys.exit(f"{len(failures)} differences: {', '.join(failures)}")
    print("What their bytes do, ours do.")


if __name__ == "__main__":
    main()
