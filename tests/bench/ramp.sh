#!/bin/sh
# Prints its figures, one a line: see src/ beside this for what is measured, and README.md there for results.
set -eu
exec "$(dirname "$0")/bench.sh" ramp
