#!/bin/sh
# Prints its figures, one a line: see src/ beside this for what is measured. Needs PostgreSQL for the takeover.
set -eu
exec "$(dirname "$0")/bench.sh" pauses
