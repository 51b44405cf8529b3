#!/usr/bin/env bash
# Prepaid, to the end: two users with balances, real traffic through a real coturn. One of them runs out, is cut off, and
# cannot come back; the other one goes on. At the end both sums are printed: what billing counted, and what coturn did.
#
#   ./examples/prepaid/run.sh
#
# Needs Debian or Ubuntu and Rust; installs coturn if it is missing (asks sudo, unless you are root).
# TURNBIN=/opt/coturn/bin/turnserver takes another coturn, with its utilities, than the one on the PATH.
# Everything runs on 127.0.0.1, on free ports, in a temporary directory, and is gone at the end.
set -euo pipefail
cd "$(dirname "$0")/../.."

. examples/common.sh "the prepaid example" python3 curl

# --- turnhook, billing, coturn -------------------------------------------------------------------------

secret=$("$turnhook" secret)
say "Billing: alice has paid for 2 MB, bob for 1 GB"
python3 examples/prepaid/billing.py --listen 127.0.0.1:0 --secret "$secret" \
    --balance alice=2000000 --balance bob=1000000000 >"$work/billing.log" 2>&1 &
started+=($!)
billing=$(await "$work/billing.log" '^listening on (http://[^ ]*)$')

free_port; direct=$port
free_port; cli=$port
cli_password=$(openssl rand -hex 16)
printf '%s\n' "$cli_password" >"$work/cli-password"
cat >"$work/turnhook.toml" <<TOML
[[source]]
name   = "eu-1"
type   = "direct"
listen = "127.0.0.1:$direct"

[session]
usage_interval = "1s"                   # how often a balance is looked at, at most: the default is 60s
linger         = "1s"

[store]
path = "$work/turnhook.db"

[http]
listen = "127.0.0.1:0"

[[endpoint]]
name    = "billing"
url     = "$billing"
secrets = ["$secret"]

[[control]]                             # coturn's CLI, by which allocations are ended
source        = "eu-1"
address       = "127.0.0.1:$cli"
password_file = "$work/cli-password"

[enforce]
obey = ["billing"]                      # its answers may block

[log]
format = "text"
TOML

say "turnhook: turnhook run --config turnhook.toml"
sed -e "s#$secret#whsec_…#" -e "s#$work/##" -e 's/^/    /' "$work/turnhook.toml"
"$turnhook" run --config "$work/turnhook.toml" 2>"$work/turnhook.log" &
started+=($!)
await "$work/turnhook.log" '.*(running).*' >/dev/null

say "A TURN server: coturn, with its CLI on"
free_port; turn=$port
free_port; peer=$port
turn_secret=$(openssl rand -hex 16)
if turnserver --help 2>&1 | grep -- '^ *--cli[[:space:]]' >/dev/null; then cli_on=(--cli); else cli_on=(); fi
turnserver -n --log-file=stdout --no-tls --no-dtls --verbose --simple-log "${cli_on[@]}" \
    --cli-ip=127.0.0.1 --cli-port="$cli" --cli-password="$cli_password" \
    --listening-ip=127.0.0.1 --relay-ip=127.0.0.1 --allow-loopback-peers --listening-port="$turn" \
    --realm=example.org --use-auth-secret --static-auth-secret="$turn_secret" \
    --pidfile="$work/turnserver.pid" --userdb="$work/turndb" \
    --redis-statsdb="ip=127.0.0.1 port=$direct dbname=0" >"$work/coturn.log" 2>&1 &
started+=($!)
turnutils_peer -L 127.0.0.2 -p "$peer" >"$work/peer.log" 2>&1 &
started+=($!)
await "$work/turnhook.log" '.*(allocations can be ended).*' >/dev/null

# --- traffic -------------------------------------------------------------------------------------------

say "Traffic: both relay about 500 kB a second, over TCP"
tail -n +2 -F "$work/billing.log" 2>/dev/null &
started+=($!)
# With -W the client logs in as `<expiry>:<user>`, as the TURN REST API does.
for user in alice bob; do
    turnutils_uclient -W "$turn_secret" -u "$user" -t -e 127.0.0.2 -r "$peer" -c -m 1 -z 1 -l 250 -n 12000 -p "$turn" \
        127.0.0.1 >"$work/client-$user.log" 2>&1 &
    started+=($!)
done
await "$work/billing.log" '^session.end +(alice) .*cancelled.*' >/dev/null
ends() { grep -c "^session.end *$1" "$work/billing.log" || true; }

say "alice comes back, with a credential that is still valid"
turnutils_uclient -W "$turn_secret" -u alice -t -e 127.0.0.2 -r "$peer" -c -m 1 -z 1 -l 250 -n 2000 -p "$turn" \
    127.0.0.1 >"$work/client-alice-2.log" 2>&1 &
started+=($!)
for _ in $(seq 300); do [ "$(ends alice)" -ge 2 ] && break; sleep 0.1; done
[ "$(ends alice)" -ge 2 ] || { echo "alice is back" >&2; exit 1; }
if grep -q '^session.end *bob .*cancelled' "$work/billing.log"; then echo "bob was cut off" >&2; exit 1; fi

say "Who is blocked: turnhook blocks list"
"$turnhook" blocks list --config "$work/turnhook.toml"

say "Both sums for alice"
sleep 1
counted=$(curl -s "$billing" | python3 -c 'import json, sys; print(json.load(sys.stdin)["used"]["alice"])')
relayed=$(python3 - "$work/coturn.log" <<'PY'
import collections, re, sys
client, peer = collections.Counter(), collections.Counter()
line = re.compile(r"session (\d+): (peer )?usage: .*username=<\d+:alice>, rp=\d+, rb=(\d+), sp=\d+, sb=(\d+)")
total = 0
for text in open(sys.argv[1], errors="replace"):
    if (found := line.search(text)) and found[2]:
        total += int(found[3]) + int(found[4])
print(total)
PY
)
echo "billing counted  $counted bytes"
echo "coturn relayed   $relayed bytes (its log, peer legs)"
echo "paid for         2000000 bytes; used beyond: $((counted - 2000000)), which is what was under way between two reports"
[ "$counted" -eq "$relayed" ] || { echo "the sums differ" >&2; exit 1; }
