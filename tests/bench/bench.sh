#!/bin/sh
# Builds turnhook and the benchmarks (release), and runs one of them: bench.sh NAME.
# Needs redis-server for those that have "redis" or "latency" in their name.
set -eu
here=$(cd "$(dirname "$0")" && pwd)
top=$(cd "$here/../.." && pwd)
cargo build --quiet --release --manifest-path "$top/Cargo.toml" --package turnhook
cargo build --quiet --release --manifest-path "$here/Cargo.toml" --target-dir "$top/target/bench"
TURNHOOK="$top/target/release/turnhook" exec "$top/target/bench/release/turnhook-bench" "$1"
