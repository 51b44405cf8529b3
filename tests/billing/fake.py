#!/usr/bin/env python3
"""
Fakes of billing products on loopback ports, for tests and for trying out.

    python3 tests/billing/fake.py stripe lago openmeter

prints one line of JSON, {"stripe": "http://127.0.0.1:PORT", …}, and serves until its standard input ends or it is
killed. `name=product` gives a fake another name, and settings follow as JSON: `'orb2=orb:{"grace":3600}'`.

    GET  /sums       what would be on an invoice, by customer, meter and value
    GET  /items      the same, one by one
    GET  /state      how many were counted, repeated, counted twice, and what was accepted and not counted
    GET  /requests   each ingest request as it came (never its credentials)
    PUT  /switches   to lose an answer, answer 5xx, delay, move the clock: see Fake.switch in fakes/base.py
"""

import json
import os
import sys
import threading

from fakes.arrays import Autumn, Lago, Meteroid, Metronome, Orb, Polar
from fakes.base import serve
from fakes.cloudevents import CloudEvents, OpenMeter
from fakes.stripe import Stripe

PRODUCTS = {fake.name: fake for fake in (Autumn, CloudEvents, Lago, Meteroid, Metronome, OpenMeter, Orb, Polar, Stripe)}


def start(wish):
    wish, _, settings = wish.partition(":")
    name, _, product = wish.partition("=")
    if (product or name) not in PRODUCTS:
        sys.exit(f"no fake of {product or name!r}; there are: {', '.join(PRODUCTS)}")
    settings = json.loads(settings) if settings else {}
    port = settings.pop("port", 0)
    return name, serve(PRODUCTS[product or name](**settings), port)


def main():
    if len(sys.argv) < 2 or sys.argv[1] in ("-h", "--help"):
        sys.exit(__doc__.strip())
    servers = dict(start(wish) for wish in sys.argv[1:])
    print(json.dumps({name: f"http://127.0.0.1:{server.server_address[1]}" for name, server in servers.items()}), flush=True)
    # Whoever started this may be killed: then its end of the pipe closes, and nothing is left behind.
    if not sys.stdin.isatty() and os.environ.get("FAKES_STAY") != "1":
        sys.stdin.read()
        return
    threading.Event().wait()


if __name__ == "__main__":
    main()
