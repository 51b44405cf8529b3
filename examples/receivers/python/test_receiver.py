"""python3 -m unittest discover -s examples/receivers/python"""

import base64
import hashlib
import hmac
import http.client
import json
import os
import tempfile
import threading
import time
import unittest

import receiver

KEY = bytes(range(24))
OLD_KEY = bytes(range(24, 48))
SECRETS = ["whsec_" + base64.b64encode(key).decode() for key in (KEY, OLD_KEY)]


def end(user="cust_42", billable=540000, realm="example.org", **more):
    usage = {"billable_bytes": billable}
    data = {"realm": realm, "user": user, "continues": None, "accuracy": "exact", "usage": usage} | more
    return json.dumps({"type": "session.end", "data": data}).encode()


def headers(event_id, body, key=KEY, timestamp=None, before=""):
    timestamp = str(int(time.time()) if timestamp is None else timestamp)
    mac = hmac.new(key, f"{event_id}.{timestamp}.".encode() + body, hashlib.sha256).digest()
    signature = before + "v1," + base64.b64encode(mac).decode()
    return {"webhook-id": event_id, "webhook-timestamp": timestamp, "webhook-signature": signature}


class Receiver(unittest.TestCase):
    def setUp(self):
        self.directory = tempfile.TemporaryDirectory()
        self.addCleanup(self.directory.cleanup)
        self.database = os.path.join(self.directory.name, "usage.db")
        self.start()

    def start(self):
        self.server = receiver.make_server("127.0.0.1", 0, SECRETS, self.database)
        threading.Thread(target=self.server.serve_forever, daemon=True).start()
        self.addCleanup(self.stop)

    def stop(self):
        self.server.shutdown()
        self.server.server_close()
        self.server.books.db.close()

    def request(self, method, path="/turn", body=None, head=None):
        connection = http.client.HTTPConnection(*self.server.server_address, timeout=30)
        self.addCleanup(connection.close)
        connection.request(method, path, body, head or {})
        response = connection.getresponse()
        text = response.read()
        return response.status, json.loads(text) if text else None

    def post(self, event_id, body, **how):
        return self.request("POST", body=body, head=headers(event_id, body, **how))

    def usage(self, user="cust_42", realm="example.org", **exact):
        """The sums of one account, and nothing else of it."""
        found = [
            account
            for account in self.request("GET", "/usage")[1]
            if (account["realm"], account["user"]) == (realm, user) and exact.items() <= account.items()
        ]
        self.assertEqual(len(found), 1, found)
        names = ("sessions", "billable_bytes", "lower_bound_sessions")
        return {name: found[0][name] for name in names}

    def test_usage_adds_up_by_user(self):
        self.assertEqual(self.post("evt_1", end()), (200, {"new": True}))
        self.assertEqual(self.post("evt_2", end(billable=1)), (200, {"new": True}))
        self.assertEqual(self.post("evt_3", end(user=None, accuracy="lower_bound")), (200, {"new": True}))
        self.assertEqual(self.post("evt_4", json.dumps({"type": "session.usage", "data": {}}).encode())[0], 200)
        self.assertEqual(self.usage(), {"sessions": 2, "billable_bytes": 540001, "lower_bound_sessions": 0})
        self.assertEqual(self.usage(user=None)["lower_bound_sessions"], 1)

    def test_who_looks_alike_is_not_the_same(self):
        people = [
            {"user": "alice"},
            {"user": "alice", "realm": "other.example"},
            {"user": "alice", "realm": None},
            {"user": None},
            {"user": "(unknown)"},
            {"user": "null"},
            {"user": "M\ufffdller", "user_base64": "TfxsbGVy"},
            {"user": "M\ufffdller", "user_base64": "TfZsbGVy"},
            {"user": "M\ufffdller"},
        ]
        for number, one in enumerate(people):
            self.assertEqual(self.post(f"evt_{number}", end(billable=number, **one))[0], 200)
        accounts = self.request("GET", "/usage")[1]
        self.assertEqual(sorted(account["billable_bytes"] for account in accounts), list(range(len(people))))
        self.assertEqual(self.usage("M\ufffdller", user_base64="TfZsbGVy")["billable_bytes"], 7)

    def test_an_event_counts_once_however_often_it_comes(self):
        for new in (True, False, False):
            self.assertEqual(self.post("evt_1", end()), (200, {"new": new}))
        self.stop()
        self.start()
        self.assertEqual(self.post("evt_1", end()), (200, {"new": False}), "after a restart too")
        self.assertEqual(self.usage()["billable_bytes"], 540000)

    def test_a_session_that_continues_another_is_no_session_more(self):
        self.post("evt_1", end())
        self.post("evt_2", end(billable=400, continues="ses_1"))
        self.assertEqual(self.usage(), {"sessions": 1, "billable_bytes": 540400, "lower_bound_sessions": 0})

    def test_wrong_requests_are_refused_and_count_nothing(self):
        body = end()
        stranger = bytes(24)
        good = headers("evt_1", body)
        for head in (
            {},
            headers("evt_1", body, key=stranger),
            headers("evt_1", body, timestamp=int(time.time()) - 301),
            headers("evt_1", body, timestamp=int(time.time()) + 301),
            good | {"webhook-id": "evt_2"},
            good | {"webhook-timestamp": "soon"},
            good | {"webhook-signature": good["webhook-signature"].replace("v1,", "v2,")},
            good | {"webhook-signature": "v1,*** v1,"},
        ):
            self.assertEqual(self.request("POST", body=body, head=head)[0], 401, head)
        self.assertEqual(self.request("POST", body=end(billable=1), head=good)[0], 401, "another body")
        self.assertEqual(self.request("GET", "/usage")[1], [])

    def test_rotation_any_secret_and_any_signature_will_do(self):
        self.assertEqual(self.post("evt_1", end(), key=OLD_KEY)[0], 200)
        self.assertEqual(self.post("evt_2", end(), before="v1,AAAA ")[0], 200)

    def test_what_is_signed_but_makes_no_sense_is_for_a_person(self):
        self.assertEqual(self.post("evt_1", b"not json")[0], 422)
        self.assertEqual(self.post("evt_2", b'{"type": "session.end", "data": {}}')[0], 422)
        self.assertEqual(self.post("evt_2", end())[0], 200, "a refused event was not taken for seen")

    def test_trials_are_accepted_and_bill_nobody(self):
        self.assertEqual(self.post("evt_test_1", end())[0], 200)
        marked = json.dumps(json.loads(end()) | {"test": True}).encode()
        self.assertEqual(self.post("evt_1", marked)[0], 200)
        self.assertEqual(self.request("GET", "/usage")[1], [])

    def test_unknown_types_are_accepted(self):
        self.assertEqual(self.post("evt_1", b'{"type": "endpoint.ping", "data": {}}')[0], 200)


if __name__ == "__main__":
    unittest.main()
