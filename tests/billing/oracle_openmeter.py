"""
OpenMeter's own client against the same fake as ours, and its published OpenAPI documents over our requests.

Apart from the other clients, since it wants an older version of CloudEvents' client: see oracles.sh. The arguments are the
example `provider` of turnhook-dispatcher and the folder with OpenMeter's documents (`openapi.yaml`, `v3/openapi.yaml`), if they
could be had.
"""

import datetime
import json
import pathlib
import sys

from fakes.cloudevents import OpenMeter
from oracles import AT, BYTES, IDS, KEY, REALM, Ours, check, compare, failures, wish

METERS = [["turn_relay", "billable_bytes", "bytes"]]


def client(ours):
    from openmeter import Client
    from openmeter.models import Event

    at = datetime.datetime.fromtimestamp(AT / 1000, datetime.timezone.utc)

    def theirs(url, ids):
        events = [Event(id=id, source="turnhook/sample", specversion="1.0", type="turn_relay", subject="cust_42", time=at,
                        data={"bytes": BYTES, "realm": REALM}) for id in ids]
        try:
            with Client(endpoint=url, token=KEY, retry_total=0) as openmeter:
                if len(events) == 1:
                    openmeter.events.ingest_event(events[0])
                else:
                    openmeter.events.ingest_events(events)
            return "taken"
        except Exception as error:  # a type for each status
            return type(error).__name__

    def forget(body):
        # Their times have microseconds.
        events = body if isinstance(body, list) else [body]
        return [{**event, "time": datetime.datetime.fromisoformat(event["time"].replace("Z", "+00:00"))} for event in events]

    for batches, taken in ((True, 2), (False, 4)):
        compare(f"openmeter, {'in a batch' if batches else 'one by one'}", OpenMeter, theirs, ours,
                (["taken"] * taken, [["Accepted"] * (2 if batches else 1)] * taken),
                wish("openmeter", METERS), batches=batches, forget=forget)
    # Their model reads our bytes, field by field.
    for event in json.loads(ours.ask(wish("openmeter", METERS))["body"]):
        read = Event(event)
        check("their model reads our bytes", (read.id in IDS, read.subject, read.time, read.data["bytes"]),
              (True, "cust_42", at, BYTES))


def documents(ours, folder):
    import yaml
    from openapi_core import OpenAPI
    from openapi_core.testing import MockRequest

    loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
    for api, file, prefix in (("v1", "openapi.yaml", ""), ("v3", "v3/openapi.yaml", "/api/v3")):
        whole = yaml.load((folder / file).read_text(), loader)
        made = ours.ask({**wish("openmeter", METERS), "options": {"api": api}})
        path = made["path"].removeprefix(prefix)
        if path not in whole["paths"]:
            check(f"{api}: the document has the path", sorted(whole["paths"])[:3], path)
            continue
        # Its other paths are of no interest, and there are hundreds. Its servers have other hosts.
        whole["paths"] = {path: {"post": whole["paths"][path]["post"]}}
        whole["servers"] = [{"url": "http://localhost"}]
        kinds = ("application/cloudevents+json", "application/cloudevents-batch+json")
        document = OpenAPI.from_dict(whole)
        document.config.extra_media_type_deserializers = {kind: json.loads for kind in kinds}

        def verdict(body, kind):
            request = MockRequest("http://localhost", "post", path, data=body.encode(), content_type=kind,
                                  headers={"Authorization": f"Bearer {KEY}"})
            faults = list(document.iter_request_errors(request))
            return "valid" if not faults else "refused"

        for ids in (IDS[:1], IDS):
            sent = ours.ask({**wish("openmeter", METERS), "ids": ids, "options": {"api": api}})
            events, kind = json.loads(sent["body"]), sent["content_type"]
            check(f"{api}: its document takes {len(ids)} of ours", verdict(sent["body"], kind), "valid")
            for name, broken in (("without a subject", {"subject": None}), ("without an id", {"id": None}),
                                 ("with a wrong time", {"time": "yesterday"}), ("with data that is no object", {"data": 1})):
                for event in events if isinstance(events, list) else [events]:
                    wrong = {k: v for k, v in {**event, **broken}.items() if v is not None}
                    wrong = [wrong] if isinstance(events, list) else wrong
                    check(f"{api}: and none {name}", verdict(json.dumps(wrong), kind), "refused")
            check(f"{api}: and no other type of content", verdict(sent["body"], "text/plain"), "refused")


def main():
    ours = Ours(sys.argv[1])
    client(ours)
    if len(sys.argv) > 2:
        documents(ours, pathlib.Path(sys.argv[2]))
    ours.process.stdin.close()
    if ours.process.wait() != 0:
        failures.append("the example did not end well")
    if failures:
        sys.exit(f"{len(failures)} differences: {', '.join(failures)}")
    print("What OpenMeter's client does, ours does" + (", and its documents take it." if len(sys.argv) > 2 else "."))


if __name__ == "__main__":
    main()
