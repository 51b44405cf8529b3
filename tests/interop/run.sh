#!/usr/bin/env bash
# The reference libraries of Standard Webhooks verify turnhook's signatures, and reject what was tampered
# with: Python's and JavaScript's here, Rust's in the dispatcher's own tests.
# They are installed into a temporary folder; needs python3 with venv, npm, and their registries.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
root=$(cd "$here/../.." && pwd)
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

(cd "$root" && cargo run --quiet -p turnhook-dispatcher --example sign) > "$work/signed.jsonl"

python3 -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet --disable-pip-version-check 'standardwebhooks>=1.0,<2'
"$work/venv/bin/python" "$here/verify.py" < "$work/signed.jsonl"

mkdir "$work/node"
cp "$here/verify.mjs" "$work/node/"
(cd "$work/node" && npm install --silent --no-fund --no-audit --no-save 'standardwebhooks@^1.0.0' > /dev/null)
node "$work/node/verify.mjs" < "$work/signed.jsonl"
