#!/usr/bin/env bash
# The JSON API against its own OpenAPI document, by Schemathesis: requests that the document allows, and such that it does
# not, and whether each answer is one that it documents.
#
#   ./tests/schemathesis.sh                  # half a minute and more
#   EXAMPLES=500 ./tests/schemathesis.sh     # of each operation
#
# Schemathesis is put into target/schemathesis, from PyPI. Ends with 77 where it cannot be had.
set -euo pipefail
cd "$(dirname "$0")/.."

python3 -c 'import ensurepip, venv' 2> /dev/null || { echo "LEFT OUT: the API by its document: there is no python3-venv" >&2; exit 77; }
tools=${CARGO_TARGET_DIR:-$PWD/target}/schemathesis
if [ ! -x "$tools/bin/schemathesis" ]; then
    if ! python3 -m venv "$tools" || ! timeout 300 "$tools/bin/pip" install --quiet --disable-pip-version-check 'schemathesis>=4.32,<5'; then
        rm -rf "$tools"
        echo "LEFT OUT: the API by its document: schemathesis cannot be had from PyPI" >&2
        exit 77
    fi
fi
# shellcheck source=tests/browser/serve.sh
. tests/browser/serve.sh
serve
cd "$folder" # its cache goes with it
cat > schemathesis.toml << END
# A name that is made up is never that of the endpoint that there is.
[[operations]]
include-path-regex = "endpoints/"
parameters = { "path.name" = "billing" }
# A period is checked as a whole: its days may be right, and in the wrong order, or too many.
[[operations]]
include-path-regex = "usage"
checks.positive_data_acceptance.enabled = false
END
# Wrong passwords are answered 429 after a few of them, whatever else is asked: what is and is not let in has its own tests.
# A recording is read until its reader goes.
"$tools/bin/schemathesis" run "http://127.0.0.1:$page/api/v1/openapi.json" --auth "otto:correct horse" \
    --exclude-path-regex '/record$' --exclude-checks ignored_auth \
    --phases examples,coverage,fuzzing --max-examples "${EXAMPLES:-30}" --seed 1 --continue-on-failure --no-color "$@"
