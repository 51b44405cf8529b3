#!/bin/sh
# Two minutes of deliveries at full rate with a retention of ten seconds: whether the store's size comes to rest. Prints its
# figures, one a line: see src/upkeep.rs for what is measured.
set -eu
exec "$(dirname "$0")/bench.sh" upkeep
