#!/usr/bin/env bash
# Each fuzz target for TURNHOOK_FUZZ_SECONDS (15 if it is not set), from the committed seeds on.
set -euo pipefail
cd "$(dirname "$0")"

if ! cargo fuzz --version > /dev/null 2>&1; then
    cargo install --quiet --locked cargo-fuzz
fi
# Findings go into a copy: what is committed are the seeds.
corpus=$(mktemp -d)
trap 'rm -rf "$corpus"' EXIT
for target in decode listener log replies; do
    mkdir -p "$corpus/$target"
    # `-s none`: the sanitizers need a nightly toolchain, and the code has no `unsafe`.
    cargo fuzz run --fuzz-dir fuzz -s none "$target" "$corpus/$target" "fuzz/corpus/$target" -- \
        -max_total_time="${TURNHOOK_FUZZ_SECONDS:-15}" -verbosity=0 -print_final_stats=1
done
