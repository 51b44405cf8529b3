"""The fakes keep the rules that they are written from: what a test of turnhook's rests on."""

import http.client
import json
import time
import unittest
from urllib.parse import urlencode

from fakes.arrays import Autumn, Lago, Meteroid, Metronome, Orb, Polar
from fakes.base import serve, shown
from fakes.cloudevents import CloudEvents, OpenMeter
from fakes.stripe import Stripe

DAY = 86_400


class Client:
    def __init__(self, test, fake):
        self.fake = fake
        server = serve(fake)
        test.addCleanup(server.server_close)
        test.addCleanup(server.shutdown)
        self.port = server.server_address[1]

    def call(self, method, path, body=None, headers=None):
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=30)
        try:
            body = json.dumps(body) if isinstance(body, (dict, list)) else body
            connection.request(method, path, body, {"authorization": "Bearer sk_test_1", **(headers or {})})
            response = connection.getresponse()
            text = response.read()
            return response.status, json.loads(text) if text else None, response.headers
        finally:
            connection.close()

    def post(self, path, body, kind="application/json", **headers):
        return self.call("POST", path, body, {"content-type": kind, **{k.replace("_", "-"): v for k, v in headers.items()}})

    def switch(self, **wish):
        assert self.call("PUT", "/switches", wish)[0] == 204

    def sum(self):
        return sum(line["sum"] for line in self.call("GET", "/sums")[1])

    def state(self):
        return self.call("GET", "/state")[1]


def meter_event(identifier, value="540000", at=None, customer="cus_1"):
    return urlencode({"event_name": "relay", "identifier": identifier, "timestamp": int(at or time.time()),
                      "payload[stripe_customer_id]": customer, "payload[value]": value})


class StripeRules(unittest.TestCase):
    path, form = "/v1/billing/meter_events", "application/x-www-form-urlencoded"

    def test_a_repeat_is_refused_without_a_code_until_the_window_is_over(self):
        client = Client(self, Stripe())
        self.assertEqual(client.post(self.path, meter_event("evt_1"), self.form)[0], 200)
        status, body, headers = client.post(self.path, meter_event("evt_1"), self.form)
        self.assertEqual((status, headers["stripe-should-retry"]), (400, "false"))
        self.assertEqual(body["error"]["message"], "An event already exists with identifier evt_1.")
        self.assertNotIn("code", body["error"])
        client.switch(clock=DAY + 1)
        self.assertEqual(client.post(self.path, meter_event("evt_1"), self.form)[0], 200)
        self.assertEqual(client.sum(), 1_080_000)
        self.assertEqual(client.state()["counted_twice"], ["evt_1"])

    def test_a_saved_500_is_answered_again_to_the_same_key(self):
        client = Client(self, Stripe())
        client.switch(script=["500"])
        for _ in range(2):
            self.assertEqual(client.post(self.path, meter_event("evt_1"), self.form, idempotency_key="evt_1.1")[0], 500)
        self.assertEqual(client.post(self.path, meter_event("evt_1"), self.form, idempotency_key="evt_1.2")[0], 200)
        other = client.post(self.path, meter_event("evt_2"), self.form, idempotency_key="evt_1.2")
        self.assertEqual((other[0], other[1]["error"]["code"]), (400, "idempotency_error"))

    def test_bounds_values_and_customers(self):
        client = Client(self, Stripe(customers=["cus_1"], meters=["relay"]))
        now = time.time()
        for at in (now - 36 * DAY, now + 400):
            self.assertEqual(client.post(self.path, meter_event("evt_1", at=at), self.form)[0], 400)
        for value in ("1.5", "1e9", "1" * 16, ""):
            self.assertEqual(client.post(self.path, meter_event("evt_1", value), self.form)[0], 400)
        self.assertEqual(client.post(self.path, meter_event("evt_1", customer="cus_unknown"), self.form)[0], 200)
        self.assertEqual(client.sum(), 0)
        self.assertEqual(client.state()["errors"][0]["code"], "meter_event_customer_not_found")
        self.assertEqual(client.call("POST", self.path, meter_event("e"), {"content-type": self.form, "authorization": ""})[0], 401)

    def test_the_stream_takes_a_session_and_answers_nothing(self):
        client = Client(self, Stripe(customers=["cus_1"]))
        token = client.call("POST", "/v2/billing/meter_event_session")[1]["authentication_token"]
        event = {"event_name": "relay", "identifier": "evt_1", "timestamp": shown(time.time()),
                 "payload": {"stripe_customer_id": "cus_1", "value": "7"}}
        path = "/v2/billing/meter_event_stream"
        events = {"events": [event, event, {**event, "identifier": "evt_2", "payload": {}}]}
        self.assertEqual(client.post(path, events, authorization=f"Bearer {token}")[:2], (200, {}))
        self.assertEqual((client.sum(), client.state()["duplicates"]), (7, 1))
        client.switch(clock=901)
        status, body, _ = client.post(path, events, authorization=f"Bearer {token}")
        self.assertEqual((status, body["error"]["code"]), (401, "billing_meter_event_session_expired"))

    def test_one_at_a_time_for_a_customer_and_meter(self):
        client = Client(self, Stripe())
        fake = client.fake
        with fake.lock:
            fake.under_way.add(("cus_1", "relay"))
        status, body, _ = client.post(self.path, meter_event("evt_1"), self.form)
        self.assertEqual((status, body["error"]["code"]), (409, "too_many_concurrent_requests"))
        self.assertEqual(client.post(self.path, meter_event("evt_1", customer="cus_2"), self.form)[0], 200)


def cloud_event(identifier, **more):
    return {"specversion": "1.0", "id": identifier, "source": "turnhook/eu-1", "type": "relay", "subject": "cust_42",
            "time": shown(time.time()), "data": {"billable_bytes": 540_000}, **more}


class OpenMeterRules(unittest.TestCase):
    path, batch = "/api/v1/events", "application/cloudevents-batch+json"

    def test_the_header_is_compared_exactly(self):
        client = Client(self, OpenMeter())
        events = [cloud_event("evt_1")]
        self.assertEqual(client.post(self.path, events, self.batch + "; charset=utf-8")[0], 400)
        self.assertEqual(client.post(self.path, events, self.batch)[0], 204)
        self.assertEqual(client.post("/api/v3/openmeter/events", events, self.batch + "; charset=utf-8")[0], 202)
        self.assertEqual((client.sum(), client.state()["duplicates"]), (540_000, 1))

    def test_a_batch_that_fails_in_the_middle_is_in_up_to_there(self):
        client = Client(self, OpenMeter())
        events = [cloud_event(f"evt_{i}") for i in range(4)]
        client.switch(fail_at=2)
        self.assertEqual(client.post(self.path, events, self.batch)[0], 500)
        self.assertEqual(client.sum(), 2 * 540_000)
        self.assertEqual(client.post(self.path, events, self.batch)[0], 204)
        self.assertEqual(client.sum(), 4 * 540_000)

    def test_dedupe_at_the_ingest_loses_what_failed_and_none_counts_twice(self):
        client = Client(self, OpenMeter(dedupe="ingest"))
        client.switch(script=["500"])
        self.assertEqual(client.post(self.path, [cloud_event("evt_1")], self.batch)[0], 500)
        self.assertEqual(client.post(self.path, [cloud_event("evt_1")], self.batch)[0], 204)
        self.assertEqual(client.sum(), 0)
        client = Client(self, OpenMeter(dedupe="off"))
        for _ in range(2):
            client.post(self.path, [cloud_event("evt_1")], self.batch)
        self.assertEqual(client.sum(), 2 * 540_000)

    def test_what_is_required(self):
        client = Client(self, OpenMeter())
        for name in ("id", "source", "type", "subject"):
            self.assertEqual(client.post(self.path, [cloud_event("evt_1", **{name: ""})], self.batch)[0], 400, name)
        self.assertEqual(client.post(self.path, [cloud_event("evt_1", time="yesterday")], self.batch)[0], 400)


class CloudEventsRules(unittest.TestCase):
    def test_binary_mode(self):
        client = Client(self, CloudEvents())
        headers = {"ce-specversion": "1.0", "ce-id": "evt_1", "ce-source": "/turnhook/eu-1", "ce-type": "t",
                   "ce-subject": "J%C3%BCrgen%20%22x%22", "ce-time": shown(time.time())}
        body = json.dumps({"usage_delta": {"billable_bytes": 5, "client": {"sent_bytes": 3}}})
        headers["content-type"] = "application/json"
        self.assertEqual(client.call("POST", "/any", body, headers)[0], 204)
        self.assertEqual(client.fake.items()[0]["customer"], 'Jürgen "x"')
        self.assertEqual(client.fake.items()[0]["values"], {"billable_bytes": 5, "client.sent_bytes": 3})
        for name, value in (("ce-subject", 'a "b"'), ("ce-datacontenttype", "application/json"), ("ce-session_id", "x")):
            self.assertEqual(client.call("POST", "/any", body, {**headers, name: value})[0], 400, name)

    def test_structured_mode_and_batches(self):
        client = Client(self, CloudEvents())
        kind = "application/cloudevents+json"
        self.assertEqual(client.post("/", cloud_event("evt_1"), kind + "; charset=utf-8")[0], 204)
        for wrong in ({"id": ""}, {"session_id": "x"}, {"bytes": 2**31}, {"specversion": "0.3"}):
            self.assertEqual(client.post("/", cloud_event("evt_2", **wrong), kind)[0], 400, wrong)
        self.assertEqual(client.post("/", [cloud_event("evt_2")], "application/cloudevents-batch+json")[0], 415)


def lago_event(identifier, **more):
    return {"transaction_id": identifier, "external_subscription_id": "sub_42", "code": "relay",
            "timestamp": f"{time.time():.3f}", "properties": {"bytes": 540_000}, **more}


class LagoRules(unittest.TestCase):
    path = "/api/v1/events/batch"

    def test_one_repeat_fails_the_batch_by_index(self):
        client = Client(self, Lago())
        self.assertEqual(client.post(self.path, {"events": [lago_event("evt_1")]})[0], 200)
        batch = {"events": [lago_event("evt_0"), lago_event("evt_1"), lago_event("evt_2", code="")]}
        status, body, _ = client.post(self.path, batch)
        self.assertEqual(status, 422)
        self.assertEqual(body["error_details"], {"1": {"transaction_id": ["value_already_exist"]},
                                                 "2": {"code": ["value_is_mandatory"]}})
        self.assertEqual(client.sum(), 540_000)
        twice = client.post(self.path, {"events": [lago_event("evt_3"), lago_event("evt_3")]})
        self.assertEqual((twice[0], list(twice[1]["error_details"])), (422, ["1"]))
        single = client.post("/api/v1/events", {"event": lago_event("evt_1")})
        self.assertEqual((single[0], single[1]["error_details"]), (422, {"transaction_id": ["value_already_exist"]}))
        many = client.post(self.path, {"events": [lago_event(f"evt_{i}") for i in range(101)]})
        self.assertEqual(many[0], 422)

    def test_clickhouse_refuses_nothing_and_the_time_is_part_of_the_key(self):
        client = Client(self, Lago(clickhouse=True))
        event = lago_event("evt_1", timestamp="1795413657.624")
        for _ in range(2):
            self.assertEqual(client.post(self.path, {"events": [event]})[0], 200)
        self.assertEqual(client.sum(), 540_000)
        client.post(self.path, {"events": [{**event, "timestamp": "1795413658"}]})
        self.assertEqual(client.sum(), 1_080_000)


def orb_event(identifier, **more):
    return {"idempotency_key": identifier, "event_name": "relay", "external_customer_id": "cust_42",
            "timestamp": shown(time.time()), "properties": {"bytes": 540_000}, **more}


class OtherRules(unittest.TestCase):
    def test_orb(self):
        for keep in (False, True):
            client = Client(self, Orb(keep_valid=keep))
            old = orb_event("evt_2", timestamp=shown(time.time() - 13 * 3600))
            status, body, _ = client.post("/v1/ingest", {"events": [orb_event("evt_1"), old]})
            self.assertEqual((status, [f["idempotency_key"] for f in body["validation_failed"]]), (400, ["evt_2"]))
            self.assertEqual(client.sum(), 540_000 if keep else 0)
        first = orb_event("evt_1")
        client = Client(self, Orb())
        for _ in range(2):
            self.assertEqual(client.post("/v1/ingest", {"events": [first]})[:2], (200, {"validation_failed": []}))
        self.assertEqual(client.post("/v1/ingest", {"events": [{**first, "properties": {"bytes": 1}}, orb_event("evt_3")]})[0], 400)
        self.assertEqual(client.sum(), 540_000)
        self.assertEqual(client.post("/v1/ingest", {"events": [orb_event("evt_4", properties={"a": None})]})[0], 400)

    def test_metronome_fails_a_batch_for_one_old_event(self):
        client = Client(self, Metronome())
        event = {"transaction_id": "evt_1", "customer_id": "cust_42", "event_type": "relay", "timestamp": shown(time.time()),
                 "properties": {"bytes": "540000"}}
        old = {**event, "transaction_id": "evt_2", "timestamp": shown(time.time() - 35 * DAY)}
        self.assertEqual(client.post("/v1/ingest", [event, old])[0], 400)
        self.assertEqual(client.sum(), 0)
        for _ in range(2):
            self.assertEqual(client.post("/v1/ingest", [event])[0], 200)
        self.assertEqual(client.sum(), 540_000)
        long = {**event, "transaction_id": "evt_3", "properties": {"a": "x" * 257}}
        self.assertEqual(client.post("/v1/ingest", [long])[0], 400)

    def test_polar_takes_not_one_instant_of_the_future(self):
        client = Client(self, Polar())
        event = {"external_id": "evt_1", "name": "relay", "external_customer_id": "cust_42", "timestamp": shown(time.time() - 1),
                 "metadata": {"bytes": 540_000}}
        ahead = {**event, "external_id": "evt_2", "timestamp": shown(time.time() + 30)}
        status, body, _ = client.post("/v1/events/ingest", {"events": [event, ahead]})
        self.assertEqual((status, body["detail"][0]["loc"]), (422, ["body", "events", 1, "timestamp"]))
        self.assertEqual(client.post("/v1/events/ingest", {"events": [event, event]})[1], {"inserted": 1, "duplicates": 1})
        for wrong in ({"metadata": {"a": ""}}, {"organization_id": "x"}, {"name": ""}):
            self.assertEqual(client.post("/v1/events/ingest", {"events": [{**event, **wrong}]})[0], 422, wrong)

    def test_the_second_wave(self):
        client = Client(self, Autumn())
        body = {"customer_id": "c", "feature_id": "f", "value": 3}
        self.assertEqual(client.post("/v1/track", body, idempotency_key="evt_1")[0], 200)
        self.assertEqual(client.post("/v1/track", body, idempotency_key="evt_1")[0], 409)
        client = Client(self, Meteroid(customers=["a"]))
        event = {"event_id": "evt_1", "code": "f", "customer_id": "a", "timestamp": shown(time.time()), "properties": {"v": "3"}}
        body = {"events": [event, {**event, "event_id": "evt_2", "customer_id": "b"}], "allow_partial_failures": True}
        self.assertEqual([f["event_id"] for f in client.post("/api/v1/events/ingest", body)[1]["failures"]], ["evt_2"])
        self.assertEqual(client.sum(), 3)


class Switches(unittest.TestCase):
    def test_a_lost_answer_is_counted_and_a_dropped_request_is_not(self):
        client = Client(self, Metronome())
        event = {"transaction_id": "evt_1", "customer_id": "c", "event_type": "t", "timestamp": shown(time.time()),
                 "properties": {"v": "1"}}
        client.switch(script=["drop", "lose", "503-after", "503", "delay:0.01", "401"])
        for _ in range(2):
            with self.assertRaises((ConnectionError, http.client.HTTPException)):
                client.post("/v1/ingest", [event])
        self.assertEqual(client.sum(), 1)
        answers = [client.post("/v1/ingest", [{**event, "transaction_id": f"evt_{i}"}])[0] for i in (2, 3, 4, 5, 6)]
        self.assertEqual(answers, [503, 503, 200, 401, 200])
        self.assertEqual(client.sum(), 4)


if __name__ == "__main__":
    unittest.main()
