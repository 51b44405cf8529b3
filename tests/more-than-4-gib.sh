#!/usr/bin/env bash
# One real allocation on a real coturn relays more than 4 GiB each way. coturn gives the peer leg's totals modulo
# 2^32; turnhook tells what coturn's own log says, to the byte.
#
#   ./tests/more-than-4-gib.sh
#
# Needs what tests/run.sh installs, and about a minute.
set -euo pipefail
cd "$(dirname "$0")/.."
cargo test --locked -p turnhook --test it -- --ignored --exact --nocapture \
    metering_direct::more_than_4_gib_in_one_direction
