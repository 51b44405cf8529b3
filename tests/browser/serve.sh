#!/usr/bin/env bash
# Sourced by tests/browser.sh and tests/schemathesis.sh: `serve` starts a turnhook with a page, and sets $page, $source and
# $receiver to its ports. It ends with the script.

if [ -z "${TURNHOOK:-}" ]; then
    cargo build --quiet -p turnhook
    TURNHOOK=${CARGO_TARGET_DIR:-target}/debug/turnhook
fi
TURNHOOK=$(realpath "$TURNHOOK")
folder=$(mktemp -d)
server=
finish() {
    [ -z "$server" ] || kill "$server" 2> /dev/null || true
    rm -rf "$folder"
}
trap finish EXIT
port() { python3 -c 'import socket; s = socket.socket(); s.bind(("127.0.0.1", 0)); print(s.getsockname()[1])'; }

serve() {
    page=$(port) source=$(port) receiver=$(port)
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
listen = "127.0.0.1:$(port)"
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
    for _ in $(seq 600); do
        grep -q '"running"' "$folder/log" && return
        kill -0 "$server" || { cat "$folder/log" >&2; exit 1; }
        sleep 0.1
    done
}
