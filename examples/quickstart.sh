#!/usr/bin/env bash
# turnhook in a minute: a real coturn with real traffic, and each webhook as it arrives.
#
#   ./examples/quickstart.sh
#
# Needs Debian or Ubuntu and Rust; installs coturn if it is missing (asks sudo, unless you are root).
# TURNBIN=/opt/coturn/bin/turnserver takes another coturn, with its utilities, than the one on the PATH.
# Everything runs on 127.0.0.1, on free ports, in a temporary directory, and is gone at the end.
set -euo pipefail
cd "$(dirname "$0")/.."

. examples/common.sh "the quickstart"

# --- turnhook, a receiver, coturn ---------------------------------------------------------------------

secret=$("$turnhook" secret)
say "A receiver: turnhook listen"
"$turnhook" listen --listen 127.0.0.1:0 --secret "$secret" >"$work/webhooks.txt" 2>"$work/listen.log" &
started+=($!)
receiver=$(await "$work/listen.log" '^listening on (http://[^ ]*)$')
echo "listens on $receiver"

free_port; direct=$port
cat >"$work/turnhook.toml" <<TOML
[[source]]
name   = "quickstart"
type   = "direct"                       # coturn connects straight to turnhook: no Redis
listen = "127.0.0.1:$direct"

[session]
usage_interval = "3s"                   # the default is 60s; this is for the impatient
linger         = "1s"
expiry_grace   = "2s"

[store]
path = "$work/turnhook.db"

[http]
listen = "127.0.0.1:0"

[[endpoint]]
name    = "receiver"
url     = "$receiver"
secrets = ["$secret"]

[log]
format = "text"
TOML

say "turnhook: turnhook run --config turnhook.toml"
sed -e "s#$secret#whsec_…#" -e "s#$work/##" -e 's/^/    /' "$work/turnhook.toml"
"$turnhook" run --config "$work/turnhook.toml" 2>"$work/turnhook.log" &
node=$!
started+=("$node")
await "$work/turnhook.log" '.*(running).*' >/dev/null

say "A TURN server: coturn, with redis-statsdb pointing at turnhook"
openssl req -x509 -newkey rsa:2048 -nodes -days 1 -subj /CN=localhost \
    -keyout "$work/key.pem" -out "$work/cert.pem" 2>/dev/null
free_port; turn=$port
free_port; turns=$port
free_port; peer=$port
turn_secret=$(openssl rand -hex 16)
# Allocations live 15 s unless they are refreshed, so that those which a client leaves behind end soon.
turnserver -n --log-file=stdout --no-cli --no-dtls --verbose \
    --listening-ip=127.0.0.1 --relay-ip=127.0.0.1 --allow-loopback-peers \
    --listening-port="$turn" --tls-listening-port="$turns" --cert="$work/cert.pem" --pkey="$work/key.pem" \
    --realm=example.org --use-auth-secret --static-auth-secret="$turn_secret" --max-allocate-lifetime=15 \
    --pidfile="$work/turnserver.pid" --userdb="$work/turndb" \
    --redis-statsdb="ip=127.0.0.1 port=$direct dbname=0" >"$work/coturn.log" 2>&1 &
started+=($!)
turnutils_peer -L 127.0.0.2 -p "$peer" >"$work/peer.log" 2>&1 &
started+=($!)
await "$work/coturn.log" ".*TCP listener opened on : 127.0.0.1:($turns).*" >/dev/null
grep -oE 'Version Coturn-[^ ]*' "$work/coturn.log" | head -n 1

# --- traffic ------------------------------------------------------------------------------------------

say "Traffic: three users over UDP, TCP and TLS; each webhook as it arrives"
tail -n +1 -F --pid="$node" "$work/webhooks.txt" 2>/dev/null &
started+=($!)
clients=()
call() { # user packets options...
    user=$1 packets=$2
    shift 2
    # With -W the client logs in as `<expiry>:<user>`, as the TURN REST API does.
    turnutils_uclient -W "$turn_secret" -u "$user" -e 127.0.0.2 -r "$peer" -c -m 2 -z 5 -l 1000 -n "$packets" "$@" \
        127.0.0.1 >"$work/client-$user.log" 2>&1 &
    clients+=($!)
    started+=($!)
}
call alice 1000 -p "$turn"
call bob 600 -t -p "$turn"
call carol 400 -t -S -p "$turns"
for client in "${clients[@]}"; do wait "$client" || { echo "a client failed" >&2; exit 1; }; done

echo "(the clients have hung up; what they left open expires in some seconds)"
for _ in $(seq 300); do
    open=$("$turnhook" sessions list --config "$work/turnhook.toml" --open --format json | wc -l)
    pending=$("$turnhook" deliveries list --config "$work/turnhook.toml" --state pending --format json | wc -l)
    if [ "$open" -eq 0 ] && [ "$pending" -eq 0 ]; then break; fi
    sleep 0.2
done
sleep 0.5

say "The sessions: turnhook sessions list"
"$turnhook" sessions list --config "$work/turnhook.toml"
refused=$(grep -c 'REFUSED' "$work/webhooks.txt" || true)
echo
echo "$(wc -l <"$work/webhooks.txt") webhooks arrived, $refused of them with a wrong signature."
if [ "$refused" -ne 0 ] || [ "$open" -ne 0 ] || [ "$pending" -ne 0 ]; then exit 1; fi
