#!/usr/bin/env bash
# Real allocations on a real coturn relay more than 4 GiB. One of them each way: coturn gives the peer leg's totals
# modulo 2^32, and turnhook bills what coturn's own log says, to the byte, and `turnhook reconcile` says so. The other by TCP relay, in such a way that
# coturn's 32-bit counters of an interval wrap as well: turnhook bills what can be known, and calls it a lower bound.
#
#   ./tests/more-than-4-gib.sh
#
# Needs what tests/run.sh installs, and about two minutes.
set -euo pipefail
cd "$(dirname "$0")/.."
cargo test --locked -p turnhook --test it -- --ignored --exact --nocapture --test-threads=1 \
    metering_direct::more_than_4_gib_in_one_direction \
    tcp_relay::more_than_4_gib_in_one_report
