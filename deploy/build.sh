#!/usr/bin/env bash
# The program as it is shipped: packages, tarball and image are all made of this one build.
#
#   ./deploy/build.sh        # target/dist/turnhook
#
# The same sources and toolchain give the same bytes wherever they are built: paths of this machine are not in them.
set -euo pipefail
cd "$(dirname "$0")/.."

cargo_home=${CARGO_HOME:-$HOME/.cargo}
# The code of SQLite, jemalloc and ring is in C; its compiler gets the same.
RUSTFLAGS="--remap-path-prefix=$cargo_home=/cargo --remap-path-prefix=$PWD=/turnhook ${RUSTFLAGS:-}"
CFLAGS="-ffile-prefix-map=$cargo_home=/cargo -ffile-prefix-map=$PWD=/turnhook ${CFLAGS:-}"
export RUSTFLAGS CFLAGS
exec cargo build --profile dist --locked -p turnhook
