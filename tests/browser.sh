#!/usr/bin/env bash
# The page in a real browser: each view in light, dark, at 360 pixels, without script and by keyboard; what axe finds, errors in
# the console and requests beyond loopback are faults. Screenshots are left in target/browser.
#
#   ./tests/browser.sh            # all of it: a minute
#   SMALL=1 ./tests/browser.sh    # some views, narrow, and the keyboard: as tests/run.sh does
#
# Ends with 77 where one of its tools is missing.
#
# Needs Debian's chromium, Node and npm (`apt-get install chromium nodejs npm`); what is from npm has a lock file.
set -euo pipefail
cd "$(dirname "$0")/.."

for tool in node npm python3 "${CHROMIUM:-chromium}"; do
    command -v "$tool" > /dev/null || { echo "LEFT OUT: the page in a browser: there is no $tool" >&2; exit 77; }
done
CHROMIUM=$(command -v "${CHROMIUM:-chromium}")
(cd tests/browser && npm ci --silent --no-audit --no-fund) ||
    { echo "LEFT OUT: the page in a browser: its driver cannot be had from npm" >&2; exit 77; }

# shellcheck source=tests/browser/serve.sh
. tests/browser/serve.sh
serve
TURNHOOK_PAGE="http://127.0.0.1:$page" TURNHOOK_SOURCE=$source TURNHOOK_RECEIVER=$receiver CHROMIUM=$CHROMIUM \
    SHOTS=$PWD/target/browser node tests/browser/walk.mjs
