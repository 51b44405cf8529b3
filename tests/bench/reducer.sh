#!/bin/sh
# The reducer alone, on one core: messages a second with a thousand and with a million allocations open.
# See crates/reducer/benches/reduce.rs for what is measured, and README.md there for results.
set -eu
cd "$(dirname "$0")/../.."
exec cargo bench --locked --package turnhook-reducer
