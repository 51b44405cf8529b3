#!/usr/bin/env bash
# Tries the packages of deploy/release.sh (made first, where they are not in target/package yet):
#
#   sudo ./tests/packages.sh
#
# - lintian has nothing to say of the .deb; the .rpm holds the same files, and its program runs;
# - on a Debian that knows nothing of Rust, with a systemd of its own: the package is installed, a service that is not
#   configured says so, ten lines of configuration and a restart of coturn lead to a billed session, an upgrade keeps what
#   was changed, and a purge leaves nothing.
#
# Needs root, on Debian or Ubuntu: the Debian is made by debootstrap in a temporary directory and booted by systemd-nspawn,
# without a network. Installs what it lacks. Takes some minutes, most of it for the release build.
set -euo pipefail
cd "$(dirname "$0")/.."

say() { printf '\n== %s\n' "$*"; }
fail() { echo "FAILED: $*" >&2; exit 1; }

[ "$(id -u)" -eq 0 ] || fail "this needs root, for debootstrap and systemd-nspawn"
missing=()
need() { command -v "$1" > /dev/null || missing+=("$2"); }
need lintian lintian
need debootstrap debootstrap
need systemd-nspawn systemd-container
need rpm rpm
need rpm2cpio rpm2cpio
need cpio cpio
if [ "${#missing[@]}" -gt 0 ]; then
    say "Installing ${missing[*]}"
    apt-get update -q
    DEBIAN_FRONTEND=noninteractive apt-get install -qy --no-install-recommends "${missing[@]}"
fi

compgen -G 'target/package/turnhook_*.deb' > /dev/null || ./deploy/release.sh
deb=$(ls target/package/turnhook_*.deb)
rpm=$(ls target/package/turnhook-*.rpm)

say "Checksums"
(cd target/package && sha256sum --check --quiet SHA256SUMS)

say "lintian"
lintian --allow-root --fail-on error,warning "$deb"

work=$(mktemp -d)
trap 'rm -rf --one-file-system "$work"' EXIT

say "The program in each package is the same, names no path of this machine, and runs"
mkdir "$work/deb" "$work/rpm"
dpkg -x "$deb" "$work/deb"
# Debian's ends with 1 when all went well, too: what it made is compared.
rpm2cpio "$rpm" > "$work/cpio" || true
(cd "$work/rpm" && cpio -idm --quiet < ../cpio)
cmp "$work/deb/usr/bin/turnhook" "$work/rpm/usr/bin/turnhook"
"$work/rpm/usr/bin/turnhook" --version
if grep -qaF "${CARGO_HOME:-$HOME/.cargo}" "$work/deb/usr/bin/turnhook"; then
    fail "the program names $HOME/.cargo"
fi
for file in etc/turnhook/turnhook.toml usr/lib/systemd/system/turnhook.service usr/lib/sysusers.d/turnhook.conf \
    usr/share/man/man1/turnhook.1.gz usr/share/man/man5/turnhook.toml.5.gz; do
    cmp "$work/deb/$file" "$work/rpm/$file"
done
rpm -qp --nosignature --scripts "$rpm" | grep systemd-sysusers >/dev/null || fail "the .rpm makes no user"

say "A Debian without Rust"
debootstrap --variant=minbase --include=systemd,systemd-sysv,dbus,libpam-systemd,coturn,openssl,ca-certificates \
    bookworm "$work/root" > "$work/debootstrap.log" 2>&1 || { tail -n 20 "$work/debootstrap.log"; exit 1; }
mkdir "$work/root/test"
cp "$deb" "$work/root/test/turnhook.deb"
install -m 0755 tests/packages/inside.sh "$work/root/test/"
install -m 0644 tests/packages/inside.service "$work/root/etc/systemd/system/"
mkdir -p "$work/root/etc/systemd/system/multi-user.target.wants"
ln -sf ../inside.service "$work/root/etc/systemd/system/multi-user.target.wants/inside.service"
# Its name for itself: the host's is not resolved without a network.
echo "127.0.0.1 localhost turnhook-test" > "$work/root/etc/hosts"
timeout 300 systemd-nspawn --quiet --directory "$work/root" --boot --register=no --keep-unit --private-network \
    --hostname turnhook-test > "$work/boot.log" 2>&1 < /dev/null || true
cat "$work/root/test/output" 2> /dev/null || tail -n 40 "$work/boot.log"
[ "$(cat "$work/root/test/status" 2> /dev/null)" = 0 ] || fail "within the Debian"

say "The packages are as they should be"
