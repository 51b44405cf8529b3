#!/bin/sh
# A temporary PostgreSQL (Debian's package `postgresql`), one node, at a thousand events a second. Prints its figures, one a
# line: see src/latency.rs for what is measured, and README.md there for results.
set -eu
exec "$(dirname "$0")/bench.sh" latency-postgres
