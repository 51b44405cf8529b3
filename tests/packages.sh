#!/usr/bin/env bash
# Makes the packages (deploy/release.sh), and tries them:
#
#   ./deploy/release.sh && sudo ./tests/packages.sh --made    # those that lie in target/package: refused, where a source is newer
#   ./tests/packages.sh                                       # as root, with Rust: makes them first
#
# - lintian has nothing to say of the .deb, and mandoc nothing of the manual pages; the .rpm holds the same files, and its
#   program runs;
# - the .rpm is installed into a root of its own, upgraded and removed by Debian's rpm, which runs its scriptlets there, and
#   what it asks for is known. No distribution of rpm's has been tried;
# - on a Debian that knows nothing of Rust, with a systemd of its own: the package is installed, a service that is not
#   configured says so, ten lines of configuration and a restart of coturn lead to a billed session, a reload and a restart
#   lose nothing, an upgrade keeps what was changed, and a purge leaves nothing. Then a program that was copied, with the
#   unit in deploy/.
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
need mandoc mandoc
need man man-db
if [ "${#missing[@]}" -gt 0 ]; then
    say "Installing ${missing[*]}"
    apt-get update -q
    DEBIAN_FRONTEND=noninteractive apt-get install -qy --no-install-recommends "${missing[@]}"
fi

if [ "${1:-}" = --made ]; then
    [ -f target/package/SHA256SUMS ] || fail "nothing is made: ./deploy/release.sh"
    newer=$(find Cargo.toml Cargo.lock README.md CHANGELOG.md SECURITY.md LICENSE crates deploy examples schema \
        -type f -not -path '*/tests/*' -newer target/package/stage/turnhook -print -quit)
    [ -z "$newer" ] || fail "$newer is newer than what lies in target/package: ./deploy/release.sh"
else
    if ! command -v cargo > /dev/null && [ -f "$HOME/.cargo/env" ]; then . "$HOME/.cargo/env"; fi
    command -v cargo > /dev/null || fail "root has no cargo here: make them by ./deploy/release.sh, and try them with --made"
    ./deploy/release.sh
fi
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
# What is there to read is laid out once; what else stands beside it is of each kind of package.
for part in README.md OPERATING.md schema examples; do
    diff -r "$work/deb/usr/share/doc/turnhook/$part" "$work/rpm/usr/share/doc/turnhook/$part"
done

say "Manual pages"
cp -r "$work/deb/usr/share/man" "$work/man"
gunzip "$work"/man/*/*.gz
pages=("$work"/man/*/*)
# Warnings are of how clap writes pages: no date, and breaks beside paragraphs.
mandoc -T lint -W error "${pages[@]}"
for page in "${pages[@]}"; do
    said=$(LC_ALL=C.UTF-8 MANROFFSEQ='' MANWIDTH=80 man --warnings -E UTF-8 -l -Tutf8 -Z "$page" 2>&1 > /dev/null)
    [ -z "$said" ] || fail "$page: $said"
done

say "A Debian without Rust"
debootstrap --variant=minbase --include=systemd,systemd-sysv,dbus,libpam-systemd,coturn,openssl,ca-certificates,sudo \
    bookworm "$work/root" > "$work/debootstrap.log" 2>&1 || { tail -n 20 "$work/debootstrap.log"; exit 1; }

say "The .rpm, by rpm, in a root of its own"
rpm_root=$work/rpm-root
cp -a "$work/root" "$rpm_root"
by_rpm() { rpm --root "$rpm_root" --force-debian --nosignature "$@"; }
# What is there is in the books of dpkg, so what it asks for is looked for by hand.
while read -r needed _; do
    case $needed in
        rpmlib\(* | config\(* | rtld\(*) ;;
        systemd) [ -x "$rpm_root/usr/lib/systemd/systemd" ] ;;
        /*) [ -x "$rpm_root$needed" ] ;;
        *.so.*) chroot "$rpm_root" /sbin/ldconfig -p | grep -F "${needed%%(*} " > /dev/null ;;
        *) false ;;
    esac || fail "the .rpm asks for $needed"
done < <(rpm -qp --nosignature --requires "$rpm")
by_rpm --install --nodeps "$rpm"
modes() { chroot "$rpm_root" stat -c '%U:%G %a' "$1"; }
[ "$(modes /etc/turnhook)" = "root:turnhook 750" ] || fail "modes of /etc/turnhook"
[ "$(modes /etc/turnhook/turnhook.toml)" = "root:turnhook 640" ] || fail "modes of the configuration"
chroot "$rpm_root" turnhook --version
chroot "$rpm_root" turnhook check > "$work/check" 2>&1 || [ "$?" = 78 ] || { cat "$work/check"; fail "check"; }
# Installed again: to the scriptlets that is an upgrade.
echo '# changed' >> "$rpm_root/etc/turnhook/turnhook.toml"
chmod 0600 "$rpm_root/etc/turnhook/turnhook.toml"
by_rpm --reinstall --nodeps "$rpm"
grep -q '^# changed' "$rpm_root/etc/turnhook/turnhook.toml" || fail "the configuration was overwritten"
[ "$(modes /etc/turnhook/turnhook.toml)" = "root:turnhook 600" ] || fail "modes after it was installed again"
# But for its mode and group, which the scriptlet sets, all is as it was packed.
other=$(by_rpm --verify --nodeps turnhook | grep -v ' c /etc/turnhook/turnhook.toml$' || true)
[ -z "$other" ] || fail "rpm --verify: $other"
by_rpm --erase turnhook
[ -e "$rpm_root/etc/turnhook/turnhook.toml.rpmsave" ] || fail "the changed configuration is gone"
left=$(find "$rpm_root/usr" "$rpm_root/etc/systemd" -name '*turnhook*' ! -type d)
[ -z "$left" ] || fail "left by the .rpm: $left"

say "The .deb, under a systemd of its own"
mkdir "$work/root/test"
cp "$deb" "$work/root/test/turnhook.deb"
# The same, as the next version.
dpkg-deb -R "$deb" "$work/next"
sed -i 's/^Version: .*/&+next/' "$work/next/DEBIAN/control"
dpkg-deb -Znone -b "$work/next" "$work/root/test/turnhook-next.deb" > /dev/null
# What the commands above the unit start from, as if it had been built there.
mkdir -p "$work/root/test/copied/target/dist"
cp -r --parents deploy/turnhook.service deploy/package "$work/root/test/copied/"
printf '#!/bin/sh\n' > "$work/root/test/copied/deploy/build.sh"
chmod +x "$work/root/test/copied/deploy/build.sh"
cp "$work/deb/usr/bin/turnhook" "$work/root/test/copied/target/dist/"
install -m 0755 tests/packages/inside.sh "$work/root/test/"
install -m 0644 tests/packages/inside.service "$work/root/etc/systemd/system/"
mkdir -p "$work/root/etc/systemd/system/multi-user.target.wants"
ln -sf ../inside.service "$work/root/etc/systemd/system/multi-user.target.wants/inside.service"
# Its name for itself: the host's is not resolved without a network.
echo "127.0.0.1 localhost turnhook-test" > "$work/root/etc/hosts"
echo turnhook-test > "$work/root/etc/hostname"
timeout 600 systemd-nspawn --quiet --directory "$work/root" --boot --register=no --keep-unit --private-network \
    --hostname turnhook-test > "$work/boot.log" 2>&1 < /dev/null || true
cat "$work/root/test/output" 2> /dev/null || tail -n 40 "$work/boot.log"
[ "$(cat "$work/root/test/status" 2> /dev/null)" = 0 ] || fail "within the Debian"

say "The packages are as they should be"
