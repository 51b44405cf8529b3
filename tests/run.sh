#!/usr/bin/env bash
# All of turnhook's tests: unit, property and integration tests, the reference libraries of Standard
# Webhooks against our signatures, the examples, and a short run of each fuzz target.
#
#   ./tests/run.sh
#
# Needs Debian or Ubuntu and Rust; installs what else it lacks (asks sudo, unless you are root) and says what.
# Tests start their own redis-server, turnserver and PostgreSQL on free loopback ports, and stop them. Of PostgreSQL only
# the programs are needed: where it has to be installed, no server of it is set up or started.
# TURNBIN=/opt/coturn/bin/turnserver tests with another coturn, and its utilities, than the one on the PATH.
# TURNHOOK_HISTORIES=1000000 runs the reducer's model on so many generated histories;
# TURNHOOK_FUZZ_SECONDS=300 fuzzes each target for so long.
set -euo pipefail
cd "$(dirname "$0")/.."

say() { printf '\n== %s\n' "$*"; }

if ! command -v cargo > /dev/null && [ -f "$HOME/.cargo/env" ]; then . "$HOME/.cargo/env"; fi
command -v cargo > /dev/null || { echo "Rust is needed: https://rustup.rs" >&2; exit 1; }

missing=()
need() { command -v "$1" > /dev/null || missing+=("$2"); }
need cc build-essential
need c++ build-essential
need make build-essential
need redis-server redis-server
need redis-cli redis-tools
need turnserver coturn
need openssl openssl
need python3 python3
need curl curl
need node nodejs
need npm npm
need faketime faketime
python3 -c 'import ensurepip, venv' 2> /dev/null || missing+=(python3-venv)
# Debian keeps the server's programs off the PATH.
compgen -G '/usr/lib/postgresql/*/bin/initdb' > /dev/null || need initdb postgresql
if [ "${#missing[@]}" -gt 0 ]; then
    say "Installing ${missing[*]}"
    as_root=()
    [ "$(id -u)" -eq 0 ] || as_root=(sudo)
    # Without the cluster that the package makes and starts by default.
    no_cluster=/etc/postgresql-common/createcluster.d/turnhook-tests.conf
    "${as_root[@]}" mkdir -p "${no_cluster%/*}"
    echo 'create_main_cluster = false' | "${as_root[@]}" tee "$no_cluster" > /dev/null
    "${as_root[@]}" apt-get update -q
    installed=0
    "${as_root[@]}" env DEBIAN_FRONTEND=noninteractive \
        apt-get install -qy --no-install-recommends "${missing[@]}" || installed=$?
    "${as_root[@]}" rm "$no_cluster"
    [ "$installed" -eq 0 ] || exit "$installed"
fi

# Prometheus's tool for rules, unpacked and not installed: the package would set up a server.
prometheus=${CARGO_TARGET_DIR:-target}/prometheus
if ! command -v promtool > /dev/null && [ ! -x "$prometheus/usr/bin/promtool" ]; then
    say "Fetching promtool"
    mkdir -p "$prometheus"
    (cd "$prometheus" && apt-get download -q prometheus && dpkg -x prometheus_*.deb . && rm prometheus_*.deb) ||
        left_out="alerts, panels and metrics were not held to promtool: Debian's package prometheus cannot be had here"
fi

say "Tests of the workspace"
# Required, since it runs each test in a process of its own: what one leaves behind is no other's.
if ! cargo nextest --version > /dev/null 2>&1; then
    cargo install --quiet --locked cargo-nextest
fi
# Most tests wait for something most of the time: coturn, Redis, a clock.
cargo nextest run --locked --workspace --no-fail-fast --test-threads "$((2 * $(nproc)))"

say "Examples in the documentation"
# nextest runs none.
cargo test --locked --workspace --doc --quiet

say "Signatures, by the reference libraries of Standard Webhooks"
./tests/interop/run.sh

say "The example receivers"
PYTHONDONTWRITEBYTECODE=1 python3 -m unittest discover --start-directory examples/receivers/python
node --test examples/receivers/node

if command -v gofmt > /dev/null && command -v npm > /dev/null && python3 -c 'import sys; sys.exit(sys.version_info < (3, 11))'; then
    say "Types of the webhooks"
    types=0
    ./examples/receivers/types.sh --check || types=$?
    case $types in
        0) ;;
        77) left_out="${left_out:+$left_out; }the types of examples/receivers were not held to the schema" ;;
        *) exit "$types" ;;
    esac
else
    left_out="${left_out:+$left_out; }the types of examples/receivers were not held to the schema: that needs go, npm and Python 3.11"
fi

say "The fakes of billing products keep their rules"
(cd tests/billing && PYTHONDONTWRITEBYTECODE=1 python3 -m unittest test_fakes)

say "Billing products, by their makers' own clients"
./tests/billing/oracles.sh

say "The quickstart"
cargo build --locked -p turnhook
TURNHOOK="${CARGO_TARGET_DIR:-target}/debug/turnhook" ./examples/quickstart.sh

say "The trial of billing products"
TURNHOOK="${CARGO_TARGET_DIR:-target}/debug/turnhook" ./examples/billing/try.sh

say "The prepaid example"
TURNHOOK="${CARGO_TARGET_DIR:-target}/debug/turnhook" ./examples/prepaid/run.sh

say "The page in a browser, some of it"
# Not installed by this script: Chromium is large, and most changes are not to the page.
browser=0
TURNHOOK="${CARGO_TARGET_DIR:-target}/debug/turnhook" SMALL=1 ./tests/browser.sh || browser=$?
case $browser in
    0) ;;
    77) left_out="${left_out:+$left_out; }the page was not looked at in a browser" ;;
    *) exit "$browser" ;;
esac

say "Fuzz targets, briefly"
./tests/fuzz.sh

[ -z "${left_out:-}" ] || say "LEFT OUT: $left_out"
say "All tests passed"
