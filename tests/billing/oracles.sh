#!/usr/bin/env bash
# The makers' own clients (Stripe, Orb, Metronome, Lago, Polar, CloudEvents) against the fakes of their products, and
# turnhook's encoders beside them: what their bytes do, ours do. They are installed into a temporary folder; where no
# package index can be had this is left out, and says so.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
root=$(cd "$here/../.." && pwd)
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

python3 -m venv "$work/venv"
if ! timeout 300 "$work/venv/bin/pip" install --quiet --disable-pip-version-check --retries 1 \
    'stripe>=16.1,<17' 'orb-billing>=4.90,<5' 'metronome-sdk>=4.12,<5' 'lago-python-client>=1.55,<2' \
    'polar-sdk>=1.0.2,<2' 'cloudevents>=2.2,<3' > "$work/install.log" 2>&1 ||
    ! timeout 300 npm install --silent --no-audit --no-fund --prefix "$work" cloudevents@10 > "$work/install.log" 2>&1; then
    tail -n 3 "$work/install.log" >&2
    echo "LEFT OUT: the clients of billing products cannot be installed here; their bytes were compared with nothing" >&2
    exit 0
fi
(cd "$root" && cargo build --quiet --locked -p turnhook-dispatcher --example provider)
PYTHONDONTWRITEBYTECODE=1 "$work/venv/bin/python" "$here/oracles.py" \
    "${CARGO_TARGET_DIR:-$root/target}/debug/examples/provider" "$work"
