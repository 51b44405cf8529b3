#!/bin/sh
# From a block to the end of its user's session at billing, a hundred times by each of two ways, on a real coturn. Prints
# its figures, one a line. TURNHOOK=target/debug/turnhook takes a program that is built already; TURNBIN another coturn.
set -eu
here=$(cd "$(dirname "$0")" && pwd)
top=$(cd "$here/../.." && pwd)
if [ -z "${TURNHOOK:-}" ]; then
    cargo build --quiet --release --locked --manifest-path "$top/Cargo.toml" --package turnhook
    TURNHOOK="$top/target/release/turnhook"
fi
export TURNHOOK
exec python3 "$here/cut-off.py"
