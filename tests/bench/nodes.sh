#!/bin/sh
# Several nodes on one PostgreSQL (a temporary one; Debian's package `postgresql`): deliveries a second, takeovers,
# ingest. Prints its figures, one a line: see src/nodes.rs for what is measured, and README.md there for results.
set -eu
exec "$(dirname "$0")/bench.sh" nodes
