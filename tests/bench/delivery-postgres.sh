#!/bin/sh
# A temporary PostgreSQL (Debian's package `postgresql`), one node. Prints its figures, one a line: see
# src/delivery_postgres.rs for what is measured, and README.md there for results. STATEMENTS=1 shows where the time goes.
set -eu
exec "$(dirname "$0")/bench.sh" delivery-postgres
