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

for tool in node npm "${CHROMIUM:-chromium}"; do
    command -v "$tool" > /dev/null || { echo "LEFT OUT: the page in a browser: there is no $tool" >&2; exit 77; }
done
CHROMIUM=$(command -v "${CHROMIUM:-chromium}")
if [ -z "${TURNHOOK:-}" ]; then
    cargo build --quiet -p turnhook
    TURNHOOK=target/debug/turnhook
fi
TURNHOOK=$(realpath "$TURNHOOK")
(cd tests/browser && npm ci --silent --no-audit --no-fund) ||
    { echo "LEFT OUT: the page in a browser: its driver cannot be had from npm" >&2; exit 77; }

folder=$(mktemp -d)
server=
finish() {
    [ -z "$server" ] || kill "$server" 2> /dev/null || true
    rm -rf "$folder"
}
trap finish EXIT
port() { node -e 'const s = require("net").createServer().listen(0, "127.0.0.1", () => { console.log(s.address().port); s.close(); })'; }
page=$(port) source=$(port) http=$(port) receiver=$(port)
echo "correct horse" | "$TURNHOOK" admin user otto --role operator > "$folder/users"
cat > "$folder/turnhook.toml" << END
[[source]]
name = "eu-1"
type = "direct"
listen = "127.0.0.1:$source"
[session]
group_by = "allocation"
linger = "0s"
[store]
path = "$folder/turnhook.db"
[http]
listen = "127.0.0.1:$http"
[admin]
listen = "127.0.0.1:$page"
users_file = "$folder/users"
[[endpoint]]
name = "billing"
url = "http://127.0.0.1:$receiver/turn"
secrets = ["whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"]
END
"$TURNHOOK" run --config "$folder/turnhook.toml" 2> "$folder/log" &
server=$!
for _ in $(seq 300); do
    grep -q '"running"' "$folder/log" && break
    kill -0 "$server" || { cat "$folder/log" >&2; exit 1; }
    sleep 0.1
done
TURNHOOK_PAGE="http://127.0.0.1:$page" TURNHOOK_SOURCE=$source TURNHOOK_RECEIVER=$receiver CHROMIUM=$CHROMIUM \
    SHOTS=$PWD/target/browser node tests/browser/walk.mjs
