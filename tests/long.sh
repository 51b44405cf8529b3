#!/usr/bin/env bash
# What takes too long for every change, and is to be run before a release and after a change of the core.
#
#   ./tests/long.sh [runs|histories|fuzz|load]...      all of them, if none is named
#
#   runs        the suite ten times in a row, half of them with both cores kept busy: a test that fails now and then
#   histories   a million generated histories against the reducer's model
#   fuzz        each fuzz target for ten minutes
#   load        an allocation that relays more than 4 GiB each way
set -euo pipefail
cd "$(dirname "$0")/.."

say() { printf '\n== %s\n' "$*"; }

if ! command -v cargo > /dev/null && [ -f "$HOME/.cargo/env" ]; then . "$HOME/.cargo/env"; fi
[ "$#" -gt 0 ] || set -- runs histories fuzz load

busy=()
idle() {
    [ "${#busy[@]}" -eq 0 ] || kill "${busy[@]}" 2> /dev/null || true
    busy=()
}
trap idle EXIT
keep_busy() {
    for _ in $(seq "$(nproc)"); do
        (while :; do :; done) &
        busy+=("$!")
    done
}

runs() {
    for run in $(seq 10); do
        say "The suite, run $run of 10"
        if [ $((run % 2)) -eq 0 ]; then keep_busy; fi
        NEXTEST_PROFILE=ci cargo nextest run --locked --workspace
        idle
    done
}

histories() {
    say "A million histories"
    TURNHOOK_HISTORIES=1000000 cargo nextest run --locked --release -p turnhook-reducer
}

fuzz() {
    say "Ten minutes of each fuzz target"
    TURNHOOK_FUZZ_SECONDS=600 ./tests/fuzz.sh
}

load() {
    say "More than 4 GiB"
    ./tests/more-than-4-gib.sh
}

for what in "$@"; do
    case "$what" in
        runs | histories | fuzz | load) "$what" ;;
        *)
            echo "usage: tests/long.sh [runs|histories|fuzz|load]..." >&2
            exit 2
            ;;
    esac
done
