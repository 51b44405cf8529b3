# shellcheck shell=bash
# What the examples share: a temporary directory with whatever was started in it, the programs that are needed, and free
# ports. To be sourced from the root of the repository, with the name of the example and the packages that it needs beside
# coturn, OpenSSL and a compiler:
#
#   . examples/common.sh "the quickstart" [python3 curl]
#
# It leaves the program in $turnhook. What an example starts goes into started+=($!), and its files into $work.

example=$1
shift

say() { printf '\n\033[1m%s\033[0m\n' "$*"; }

work=$(mktemp -d)
started=()
cleanup() {
    status=$?
    trap - EXIT INT TERM
    for pid in "${started[@]}"; do kill "$pid" 2>/dev/null || true; done
    for pid in "${started[@]}"; do wait "$pid" 2>/dev/null || true; done
    if [ "$status" -ne 0 ] && [ "$status" -ne 130 ]; then
        echo "$example failed; the logs:" >&2
        tail -n 20 "$work"/*.log >&2 || true
    fi
    rm -rf "$work"
    exit "$status"
}
trap cleanup EXIT
trap 'exit 130' INT TERM

if ! command -v cargo >/dev/null && [ -f "$HOME/.cargo/env" ]; then . "$HOME/.cargo/env"; fi
if [ -n "${TURNBIN:-}" ]; then PATH="$(dirname "$TURNBIN"):$PATH"; fi
missing=()
command -v turnserver >/dev/null && command -v turnutils_uclient >/dev/null || missing+=(coturn)
command -v openssl >/dev/null || missing+=(openssl)
for package in "$@"; do command -v "$package" >/dev/null || missing+=("$package"); done
command -v cc >/dev/null && command -v make >/dev/null || missing+=(build-essential)
if [ "${#missing[@]}" -gt 0 ]; then
    say "Installing ${missing[*]}"
    as_root=()
    [ "$(id -u)" -eq 0 ] || as_root=(sudo)
    "${as_root[@]}" apt-get update -q
    # The package starts a coturn of its own on some systems: it is not needed here and not touched.
    DEBIAN_FRONTEND=noninteractive "${as_root[@]}" apt-get install -qy --no-install-recommends "${missing[@]}"
fi

# TURNHOOK=target/debug/turnhook takes a program that is built already.
if [ -z "${TURNHOOK:-}" ]; then
    command -v cargo >/dev/null || { echo "Rust is needed: https://rustup.rs" >&2; exit 1; }
    say "Building turnhook"
    cargo build --release --locked -p turnhook
fi
# Nothing that is configured in this shell is meant for what follows.
for variable in "${!TURNHOOK_@}"; do unset "$variable"; done
# shellcheck disable=SC2034 # for whoever sources this
turnhook="${TURNHOOK:-${CARGO_TARGET_DIR:-target}/release/turnhook}"

# Waits until a line of a log matches, and prints what the pattern caught.
await() { # log pattern
    for _ in $(seq 600); do
        found=$(sed -nE "s#$2#\\1#p" "$1" 2>/dev/null | head -n 1)
        if [ -n "$found" ]; then echo "$found"; return; fi
        sleep 0.1
    done
    echo "waited in vain for: $2" >&2
    return 1
}

# A port that nothing on this machine uses, for TCP or UDP; each is given out once.
taken=" "
free_port() {
    while :; do
        port=$((20000 + RANDOM % 12000))
        hex=$(printf ':%04X ' "$port")
        if [[ "$taken" != *" $port "* ]] && ! grep -qi "$hex" /proc/net/tcp /proc/net/udp /proc/net/tcp6 /proc/net/udp6 2>/dev/null; then
            taken+="$port "
            return
        fi
    done
}
