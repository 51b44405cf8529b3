#!/bin/bash
# Run by tests/packages.sh as a service of a Debian that has systemd and coturn, and nothing of Rust.
set -euo pipefail

say() { echo "-- $*"; }
fail() { echo "FAILED: $*"; journalctl --no-pager -u turnhook -n 30 || true; exit 1; }
# What is on the disk, but for what any package leaves in the books of dpkg, of users and in logs.
files() {
    find / -xdev \( -path /proc -o -path /sys -o -path /run -o -path /tmp -o -path /test -o -path /var/log \
        -o -path /var/cache -o -path /var/lib/apt -o -path /var/lib/dpkg -o -path /var/lib/systemd -o -path /var/tmp \) -prune -o -print |
        grep -vxE '/etc/(passwd|group|shadow|gshadow|subuid|subgid)-|/etc/\.pwd\.lock' | sort
}
until_true() { # seconds command...
    local seconds=$1
    shift
    for _ in $(seq $((seconds * 5))); do
        if "$@" > /dev/null 2>&1; then return; fi
        sleep 0.2
    done
    fail "in vain, for $seconds s: $*"
}

log_has() { journalctl --no-pager "${@:2}" -u turnhook | grep -e "$1" > /dev/null; }
export DEBIAN_FRONTEND=noninteractive

files > /tmp/before

say "Installed: neither enabled nor started"
apt-get install -y /test/turnhook.deb
getent passwd turnhook > /dev/null || fail "there is no user turnhook"
[ "$(stat -c '%U:%G %a' /etc/turnhook/turnhook.toml)" = "root:turnhook 640" ] || fail "modes of the configuration"
[ "$(systemctl is-enabled turnhook || true)" = disabled ] || fail "it is enabled"
[ "$(systemctl is-active turnhook || true)" = inactive ] || fail "it is started"
zcat /usr/share/man/man1/turnhook.1.gz | grep . >/dev/null || fail "there is no manual page"
bash -c '. /usr/share/bash-completion/completions/turnhook; complete -p turnhook' > /dev/null || fail "no completions"

say "Started before it is configured: it ends with 78, says why, and is not tried again"
systemctl start turnhook || true
until_true 10 systemctl is-failed turnhook
[ "$(systemctl show -p ExecMainStatus --value turnhook)" = 78 ] || fail "the status of an empty configuration"
log_has '[sS]ource' || fail "it does not say what is missing"

say "Ten lines of configuration"
turnhook secret | install -m 0640 -g turnhook /dev/stdin /etc/turnhook/billing.secret
secret=$(cat /etc/turnhook/billing.secret)
turnhook listen --listen 127.0.0.1:9000 --secret "$secret" --json > /tmp/webhooks 2> /tmp/listen.log &
listener=$!
cat >> /etc/turnhook/turnhook.toml <<TOML

[[source]]
name   = "eu-1"
type   = "direct"
listen = "127.0.0.1:6380"

[[endpoint]]
name = "billing"
url = "http://127.0.0.1:9000/"
secrets_file = "/etc/turnhook/billing.secret"
TOML
sed -i 's/^\[store\]$/[session]\nlinger = "1s"\n\n[store]/' /etc/turnhook/turnhook.toml
turnhook check > /dev/null
systemctl enable --now turnhook
until_true 20 turnhook ready

say "Who may not read the configuration is told as whom to ask; the user of the service may, and root"
for command in check ready status doctor "sessions list"; do
    asked=0
    # shellcheck disable=SC2086 # words
    setpriv --reuid=nobody --regid=nogroup --clear-groups turnhook $command > /tmp/refused 2>&1 || asked=$?
    [ "$asked" = 78 ] && grep -F 'run the command as root or as the user that turnhook runs as' /tmp/refused > /dev/null ||
        { cat /tmp/refused; fail "turnhook $command as nobody: $asked"; }
done
for command in check ready status "sessions list"; do
    # shellcheck disable=SC2086 # words
    sudo -u turnhook turnhook $command > /dev/null || fail "turnhook $command as the user of the service"
done

say "A reload closes nothing, and the log tells more"
pid=$(systemctl show -p MainPID --value turnhook)
printf '\n[log]\nlevel = "info,turnhook_dispatcher=debug"\n' >> /etc/turnhook/turnhook.toml
systemctl reload turnhook
until_true 20 log_has 'the configuration was read again'
[ "$(systemctl is-active turnhook)" = active ] || fail "it is not active after a reload"
[ "$(systemctl show -p MainPID --value turnhook)" = "$pid" ] || fail "a reload has started it anew"
if log_has attempt -p debug..debug; then fail "it told of attempts before there was one"; fi

say "A restart of coturn, and a call"
cat > /etc/turnserver.conf <<CONF
listening-ip=127.0.0.1
relay-ip=127.0.0.1
allow-loopback-peers
no-tls
no-dtls
realm=example.org
use-auth-secret
static-auth-secret=a-secret-of-the-test
no-cli
redis-statsdb="ip=127.0.0.1 port=6380 dbname=0 connect_timeout=5"
no-tcp-relay
max-allocate-lifetime=15
CONF
systemctl restart coturn
turnutils_peer -L 127.0.0.1 -p 3480 > /dev/null 2>&1 &
peer=$!
until_true 20 bash -c '! turnhook doctor | grep "no coturn is connected" >/dev/null'
turnutils_uclient -W a-secret-of-the-test -u alice -e 127.0.0.1 -r 3480 -c -m 1 -z 5 -l 500 -n 200 127.0.0.1 > /tmp/uclient.log 2>&1 ||
    { cat /tmp/uclient.log; fail "the client"; }
# By the level that was read again; a restart, below, reads it in any case.
until_true 20 log_has attempt -p debug..debug

say "A restart is no gap: systemd keeps coturn's connections"
systemctl restart turnhook
until_true 20 turnhook ready
log_has 'as if it had not stopped' || fail "it began anew"
turnhook gaps list | grep -x 'no gaps' >/dev/null || fail "there is a gap"
# The client leaves its allocations, and coturn says what they relayed when their lifetimes are over.
until_true 60 grep -q '"session.end"' /tmp/webhooks
systemctl stop coturn
until_true 20 log_has 'server gone' -p warning
if log_has 'the configuration was read again' -p warning; then fail "what is no warning is among the warnings"; fi
grep -m 1 '"session.end"' /tmp/webhooks
grep '"session.end"' /tmp/webhooks | grep -E '"billable_bytes": ?[1-9]' >/dev/null || fail "nothing is billed"

say "Commands find the service's store without an option"
turnhook sessions list
turnhook sessions list --format json | grep alice >/dev/null || fail "no session in the list"
[ "$(stat -c '%U %a' /var/lib/turnhook)" = "turnhook 700" ] || fail "modes of the store"

say "An upgrade keeps the configuration, and starts the new program"
before=$(systemctl show -p MainPID --value turnhook)
apt-get install -y /test/turnhook-next.deb
until_true 20 turnhook ready
[ "$(systemctl show -p MainPID --value turnhook)" != "$before" ] || fail "the old program still runs"
grep -q 9000 /etc/turnhook/turnhook.toml || fail "the configuration was overwritten"
[ "$(stat -c '%U:%G %a' /etc/turnhook/turnhook.toml)" = "root:turnhook 640" ] || fail "modes after the upgrade"

say "Removed: stopped, and the store is kept"
cp /etc/turnhook/turnhook.toml /test/copied/
apt-get remove -y turnhook
[ "$(systemctl is-active turnhook || true)" = inactive ] || fail "it still runs"
[ -e /var/lib/turnhook/turnhook.db ] || fail "the store is gone"

say "Purged: nothing is left"
apt-get purge -y turnhook
if getent passwd turnhook > /dev/null; then fail "the user is left"; fi
systemctl daemon-reload
files > /tmp/after
# coturn's configuration and database are this test's.
if diff <(grep -v turnserver /tmp/before | grep -v turndb) <(grep -v turnserver /tmp/after | grep -v turndb) | grep '^>'; then
    fail "something is left"
fi

say "A program that was copied, by the commands above the unit in deploy/, as they stand"
(
    cd /test/copied
    sed -i "s|^secrets_file = .*|secrets = [\"$secret\"]|" turnhook.toml
    sed -n '/^$/q; s/^#   //p' deploy/turnhook.service > commands
    [ "$(wc -l < commands)" -ge 4 ] || fail "there are no commands above the unit"
    bash -euo pipefail commands
)
# This shell knows another place.
hash -r
until_true 20 turnhook ready
[ "$(command -v turnhook)" = /usr/local/bin/turnhook ] || fail "it is not the one that was copied"
[ "$(stat -c %U "/proc/$(systemctl show -p MainPID --value turnhook)")" = turnhook ] || fail "it runs as another user"
[ "$(stat -c '%U:%G %a' /etc/turnhook/turnhook.toml)" = "root:turnhook 640" ] || fail "modes of the configuration"
[ "$(stat -c '%U %a' /var/lib/turnhook)" = "turnhook 700" ] || fail "modes of the store"
turnhook status
systemctl restart turnhook
until_true 20 turnhook ready
sudo -u turnhook turnhook check > /dev/null
systemctl disable --now turnhook

kill "$listener" "$peer" || true
say "All of it holds"
