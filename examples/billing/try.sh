#!/usr/bin/env bash
# Real coturn traffic through turnhook into three billing products at once, with things killed on the way; then the sums
# of all, side by side.
#
#   ./examples/billing/try.sh
#
# The products are the fakes of tests/billing: no account is needed, and nothing leaves this machine. Needs Debian or
# Ubuntu and Rust; installs coturn and Python if they are missing (asks sudo, unless you are root).
# TURNBIN=/opt/coturn/bin/turnserver takes another coturn, with its utilities, than the one on the PATH.
# Everything runs on 127.0.0.1, on free ports, in a temporary directory, and is gone at the end.
set -euo pipefail
cd "$(dirname "$0")/../.."

. examples/common.sh "the trial of billing products" python3

# --- the products -------------------------------------------------------------------------------------

say "Three billing products: fakes of Stripe, Lago and OpenMeter"
FAKES_STAY=1 PYTHONDONTWRITEBYTECODE=1 python3 tests/billing/fake.py stripe lago openmeter \
    >"$work/fakes.json" 2>"$work/fakes.log" </dev/null &
started+=($!)
await "$work/fakes.json" '(.*\}.*)'
address() { python3 -c 'import json, sys; print(json.load(open(sys.argv[1]))[sys.argv[2]])' "$work/fakes.json" "$1"; }
ask() { # product path [switches]
    python3 - "$(address "$1")$2" "${3:-}" <<'PY'
import sys, urllib.request
url, wish = sys.argv[1:]
request = urllib.request.Request(url, wish.encode() or None, method="PUT" if wish else "GET")
print(urllib.request.urlopen(request).read().decode())
PY
}
echo "each loses some answers, closes connections, and answers 503 before and after it has counted"
for product in stripe lago openmeter; do
    ask "$product" /switches '{"chaos": {"seed": 7, "lose": 0.15, "drop": 0.1, "503": 0.1, "503-after": 0.1}}' >/dev/null
done

# --- turnhook -----------------------------------------------------------------------------------------

free_port; direct=$port
free_port; http=$port
printf 'user,customer\nalice,cus_alice\nbob,cus_bob\ncarol,cus_carol\n' >"$work/customers.csv"
cat >"$work/turnhook.toml" <<TOML
[[source]]
name   = "try"
type   = "direct"
listen = "127.0.0.1:$direct"

[session]
usage_interval = "1s"                   # the default is 60s; this is for the impatient
linger         = "1s"
expiry_grace   = "2s"

[store]
path = "$work/turnhook.db"

[http]
listen = "127.0.0.1:$http"

[[endpoint]]
name = "stripe"
type = "stripe"
url = "$(address stripe)"
bearer = "sk_test_try"
meters = [{ event = "turn_relayed_bytes", value = "billable_bytes" }]
customers_file = "$work/customers.csv"
retry = { initial = "200ms", max = "1s", give_up_after = "24h" }

[[endpoint]]
name = "lago"
type = "lago"
url = "$(address lago)"
bearer = "try"
meters = [{ event = "turn_relay", value = "billable_bytes" }]
batch = { max = 100, wait = "500ms" }
retry = { initial = "200ms", max = "1s" }

[[endpoint]]
name = "openmeter"
type = "openmeter"
url = "$(address openmeter)"
meters = [{ event = "turn_relay", value = "billable_bytes" }]
batch = { max = 100, wait = "500ms" }
retry = { initial = "200ms", max = "1s" }

[log]
format = "text"
TOML

say "turnhook run"
start_turnhook() {
    : >"$work/turnhook.log"
    "$turnhook" run --config "$work/turnhook.toml" 2>"$work/turnhook.log" &
    running=$!
    started+=("$running")
    await "$work/turnhook.log" '.*(running).*' >/dev/null
}
start_turnhook

# --- coturn and traffic -------------------------------------------------------------------------------

say "coturn, and three users over UDP and TCP"
free_port; turn=$port
free_port; peer=$port
turn_secret=$(openssl rand -hex 16)
turnserver -n --log-file=stdout --no-cli --no-tls --no-dtls --verbose \
    --listening-ip=127.0.0.1 --relay-ip=127.0.0.1 --allow-loopback-peers --listening-port="$turn" \
    --realm=example.org --use-auth-secret --static-auth-secret="$turn_secret" --max-allocate-lifetime=15 \
    --pidfile="$work/turnserver.pid" --userdb="$work/turndb" \
    --redis-statsdb="ip=127.0.0.1 port=$direct dbname=0" >"$work/coturn.log" 2>&1 &
started+=($!)
turnutils_peer -L 127.0.0.2 -p "$peer" >"$work/peer.log" 2>&1 &
started+=($!)
await "$work/coturn.log" ".*TCP listener opened on : 127.0.0.1:($turn).*" >/dev/null
clients=()
call() { # user packets options...
    user=$1 packets=$2
    shift 2
    turnutils_uclient -W "$turn_secret" -u "$user" -e 127.0.0.2 -r "$peer" -c -m 2 -z 5 -l 1000 -n "$packets" "$@" \
        -p "$turn" 127.0.0.1 >"$work/client-$user.log" 2>&1 &
    clients+=($!)
    started+=($!)
}
call alice 1200
call bob 1000 -t
call carol 1100

for round in 1 2 3; do
    sleep 1
    echo "kill -9 turnhook ($round), and start it again"
    kill -9 "$running"
    wait "$running" 2>/dev/null || true
    start_turnhook
done
for client in "${clients[@]}"; do wait "$client" || { echo "a client failed" >&2; exit 1; }; done

say "The clients have hung up; what they left open expires in some seconds"
open=1 pending=1
for _ in $(seq 600); do
    open=$("$turnhook" sessions list --config "$work/turnhook.toml" --open --format json | wc -l)
    pending=$("$turnhook" deliveries list --config "$work/turnhook.toml" --state pending --format json | wc -l)
    if [ "$open" -eq 0 ] && [ "$pending" -eq 0 ]; then break; fi
    sleep 0.2
done

# --- both sums ----------------------------------------------------------------------------------------

say "Bytes to bill: turnhook's ledger, and what each product would put on the invoice"
"$turnhook" sessions list --config "$work/turnhook.toml" --limit 100000 --format json >"$work/sessions.jsonl"
"$turnhook" deliveries list --config "$work/turnhook.toml" --state dead --format json >"$work/dead.jsonl"
for product in stripe lago openmeter; do
    ask "$product" /sums >"$work/$product.sums"
    ask "$product" /state >"$work/$product.state"
done
python3 - "$work" <<'PY'
import json, pathlib, sys

work = pathlib.Path(sys.argv[1])
lines = lambda name: [json.loads(line) for line in (work / name).read_text().splitlines()]
ledger = {}
for session in lines("sessions.jsonl"):
    ledger[session["user"]] = ledger.get(session["user"], 0) + session["usage"]["billable_bytes"]
products = {}
for product in ("stripe", "lago", "openmeter"):
    sums = json.loads((work / f"{product}.sums").read_text())
    # Whatever else is a number in a record is no bytes.
    sums = [line for line in sums if line["value"] in ("value", "billable_bytes")]
    products[product] = {line["customer"].removeprefix("cus_"): line["sum"] for line in sums}
print(f"{'user':10}{'ledger':>14}" + "".join(f"{name:>14}" for name in products))
for user in sorted(ledger):
    print(f"{user:10}{ledger[user]:14,}" + "".join(f"{sums.get(user, 0):14,}" for sums in products.values()))
# All three are there, since what coturn says while turnhook is down is lost but for the totals at the end of a call.
equal = len(ledger) == 3 and all(ledger.values())
equal = equal and all({user: sums.get(user, 0) for user in ledger} == ledger for sums in products.values())
for product in products:
    state = json.loads((work / f"{product}.state").read_text())
    print(f"{product}: {state['requests']} requests, {state['counted']} records counted, "
          f"{state['duplicates']} repeats recognised, {len(state['counted_twice'])} counted twice")
    equal = equal and not state["counted_twice"]
dead = lines("dead.jsonl")
print(f"dead letters: {len(dead)}")
print("The sums are equal, to the byte." if equal and ledger and not dead else "THE SUMS DIFFER.")
sys.exit(0 if equal and ledger and not dead else 1)
PY
if [ "$open" -ne 0 ] || [ "$pending" -ne 0 ]; then exit 1; fi
