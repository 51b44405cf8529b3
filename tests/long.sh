#!/usr/bin/env bash
# What takes too long for every change, and is to be run before a release and after a change of the core.
#
#   ./tests/long.sh [PART]...      all of them, if none is named
#
#   runs        the suite ten times in a row, half of them with both cores kept busy: a test that fails now and then
#   histories   a million generated histories against the reducer's model, in forty slices that can be repeated:
#               TURNHOOK_SLICES="7 23" ./tests/long.sh histories
#   fuzz        each fuzz target for ten minutes
#   load        an allocation that relays more than 4 GiB each way
#   restarts    a hundred restarts under a service manager that keeps sockets, with a real coturn under load
#   alerts      alerts fire by the real thing that each warns of, and clear, with a real Prometheus
#   page        all of the page in a browser, and the API by its own document
#   packages    a release, made anew, and what it made: installed, configured, upgraded and removed under a real systemd
#   twice       the program as it is shipped, built in two folders: byte for byte the same
#   postgres    store and nodes on the oldest and on the newest PostgreSQL that turnhook is for
set -euo pipefail
cd "$(dirname "$0")/.."

say() { printf '\n== %s\n' "$*"; }

if ! command -v cargo > /dev/null && [ -f "$HOME/.cargo/env" ]; then . "$HOME/.cargo/env"; fi
parts=(runs histories fuzz load restarts alerts page packages twice postgres)
[ "$#" -gt 0 ] || set -- "${parts[@]}"

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
    local slice failed=()
    # shellcheck disable=SC2086 # numbers
    for slice in ${TURNHOOK_SLICES:-$(seq 40)}; do
        say "Generated histories, slice $slice of 40"
        TURNHOOK_SEED=$slice TURNHOOK_HISTORIES=25000 NEXTEST_PROFILE=ci nice -n 19 \
            cargo nextest run --locked --release -p turnhook-reducer -E 'test(/^(model|cluster)::/)' ||
            failed+=("$slice")
    done
    if [ "${#failed[@]}" -gt 0 ]; then
        echo "these slices found something: ${failed[*]}" >&2
        return 1
    fi
}

fuzz() {
    say "Ten minutes of each fuzz target"
    TURNHOOK_FUZZ_SECONDS=600 ./tests/fuzz.sh
}

load() {
    say "More than 4 GiB"
    ./tests/more-than-4-gib.sh
}

restarts() {
    say "A hundred restarts, and no message lost"
    cargo nextest run --locked -p turnhook --run-ignored only -E 'test(a_hundred_restarts)'
}

alerts() {
    say "Alerts fire, and clear"
    # A fault of our own stops a build for development, and is an alert in use: here it is as in use, in the crate that the
    # fault is made in (and in ours, built anew for it in any case).
    local built=${CARGO_TARGET_DIR:-target}/debug/turnhook in_use=${CARGO_TARGET_DIR:-target}/turnhook-of-alerts
    cargo build --locked -p turnhook \
        --config 'profile.dev.package.turnhook-dispatcher.debug-assertions=false' \
        --config 'profile.dev.package.turnhook.debug-assertions=false'
    cp --force "$built" "$in_use"
    TURNHOOK=$(realpath "$in_use") ./tests/alerts.py
}

page() {
    say "The page in a browser, all of it"
    left_out_or ./tests/browser.sh
    say "The API by its own document"
    left_out_or ./tests/schemathesis.sh
}

packages() {
    # What lies there may be of other sources.
    say "A release"
    ./deploy/release.sh
    local as_root=()
    [ "$(id -u)" -eq 0 ] || as_root=(sudo)
    "${as_root[@]}" ./tests/packages.sh --made
}

twice() {
    say "The program as it is shipped, built twice"
    ./deploy/release.sh --twice
}

postgres() {
    say "The oldest and the newest PostgreSQL"
    ./tests/postgres-versions.sh
}

# 77: a tool is missing, and that was said.
left_out_or() {
    local ended=0
    "$@" || ended=$?
    [ "$ended" -eq 0 ] || [ "$ended" -eq 77 ] || return "$ended"
}

for what in "$@"; do
    case " ${parts[*]} " in
        *" $what "*) "$what" ;;
        *)
            echo "usage: tests/long.sh [$(IFS='|' && echo "${parts[*]}")]..." >&2
            exit 2
            ;;
    esac
done
