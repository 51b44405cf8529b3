#!/usr/bin/env bash
# Makes what is published, in target/package: a .deb, an .rpm, a tarball, an SBOM (CycloneDX), the notices of
# third parties, and SHA256SUMS. For the machine that it runs on: x86-64 with glibc is what has been tried.
#
#   ./deploy/release.sh               # everything
#   ./deploy/release.sh --twice       # builds the program in two folders, and compares: is it reproducible?
#
# Needs Rust and Python 3; installs the cargo tools that it lacks, and says which. `tests/packages.sh` tries the packages.
set -euo pipefail
cd "$(dirname "$0")/.."
root=$PWD

say() { printf '\n== %s\n' "$*"; }

tool() {
    cargo "$1" --version > /dev/null 2>&1 && return
    say "Installing cargo-$1 (of Cargo's registry)"
    # Unoptimised: built in a fraction of the time, and used for seconds. But for the one that compares thousands of texts.
    local profile=(--debug)
    [ "$1" != about ] || profile=(--features cli)
    cargo install --quiet --locked "${profile[@]}" "cargo-$1"
}

version=$(sed -n '/^\[workspace.package\]/,/^\[/s/^version = "\(.*\)"$/\1/p' Cargo.toml)
host=$(rustc -vV | sed -n 's/^host: //p')
# All times within the packages are that of the commit.
SOURCE_DATE_EPOCH=$(git log -1 --format=%ct 2> /dev/null || date +%s)
export SOURCE_DATE_EPOCH

if [ "${1:-}" = --twice ]; then
    say "The program, twice, from two folders"
    work=$(mktemp -d)
    trap 'rm -rf "$work"' EXIT
    for copy in one another/place; do
        mkdir -p "$work/$copy"
        git archive HEAD | tar -x -C "$work/$copy"
        (cd "$work/$copy" && CARGO_TARGET_DIR="$PWD/target" ./deploy/build.sh)
    done
    cmp "$work/one/target/dist/turnhook" "$work/another/place/target/dist/turnhook"
    echo "The two are the same, byte for byte:"
    sha256sum "$work/one/target/dist/turnhook"
    exit
fi

for name in deb generate-rpm about cyclonedx; do tool "$name"; done

say "The program"
./deploy/build.sh
built=${CARGO_TARGET_DIR:-$root/target}/dist/turnhook

say "What goes beside it"
stage=$root/target/package/stage
rm -rf "$root/target/package"
mkdir -p "$stage"
install -m 0755 "$built" "$stage/turnhook"
"$stage/turnhook" manual "$stage/man"
gzip -9n "$stage"/man/*
mkdir -p "$stage/completions"
"$stage/turnhook" completions bash > "$stage/completions/turnhook.bash"
"$stage/turnhook" completions zsh > "$stage/completions/_turnhook"
"$stage/turnhook" completions fish > "$stage/completions/turnhook.fish"
# A package has a user of its own; the unit in deploy/ is for a program that was copied to /usr/local.
sed -e 's|/usr/local/bin/|/usr/bin/|; s|/usr/local/share/doc/|/usr/share/doc/|' \
    -e '1,/^$/{/^#/d}' deploy/turnhook.service | sed '1{/^$/d}' > "$stage/turnhook.service"
./deploy/package/doc.py "$stage/doc"
gzip -9nc CHANGELOG.md > "$stage/CHANGELOG.md.gz"
for page in NEWS changelog; do gzip -9nc "deploy/package/$page" > "$stage/$page.Debian.gz"; done

say "Notices of third parties, and the SBOM"
cargo about generate --locked --config deploy/package/about.toml --manifest-path crates/turnhook/Cargo.toml \
    deploy/package/about.hbs > "$stage/third-party.html"
gzip -9n "$stage/third-party.html"
cargo cyclonedx --manifest-path crates/turnhook/Cargo.toml --format json --target "$host" \
    --override-filename turnhook.cdx --quiet
mv crates/turnhook/turnhook.cdx.json "$root/target/package/turnhook-$version.cdx.json"
# It writes one beside the manifest of each crate of the workspace.
git ls-files --others --exclude-standard -- '*.cdx.json' | xargs -r rm

say "The .deb"
cargo deb --no-build --no-strip --locked -p turnhook --output "$root/target/package/"

say "The .rpm"
cargo generate-rpm -p crates/turnhook --output "$root/target/package/" --source-date "$SOURCE_DATE_EPOCH"

say "The tarball"
tree=turnhook-$version-$host
mkdir -p "$root/target/package/$tree"
cp -r "$stage/turnhook" "$stage/man" "$stage/completions" "$stage/doc" "$stage/third-party.html.gz" LICENSE CHANGELOG.md \
    deploy/turnhook.service deploy/package/turnhook.toml deploy/package/sysusers.d/turnhook.conf "$root/target/package/$tree/"
tar --sort=name --owner=0 --group=0 --numeric-owner --mtime="@$SOURCE_DATE_EPOCH" -C "$root/target/package" \
    -cf - "$tree" | gzip -9n > "$root/target/package/$tree.tar.gz"
rm -rf "${root:?}/target/package/$tree"

(cd target/package && find . -maxdepth 1 -type f ! -name SHA256SUMS -printf '%P\n' | sort | xargs sha256sum > SHA256SUMS)
say "Made"
ls -l target/package
