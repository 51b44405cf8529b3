#!/usr/bin/env bash
# The makers' own clients (Stripe, Orb, Metronome, Lago, Polar, CloudEvents, OpenMeter) against the fakes of their products,
# and turnhook's encoders beside them: what their bytes do, ours do. They are installed into a temporary folder; where
# one cannot be had, what it would have shown is left out, and that is said.
#
# OpenMeter's OpenAPI documents are read from OPENMETER_API, the folder `api` of its repository, and CloudEvents' JSON schema
# from CLOUDEVENTS_SCHEMA, the file `cloudevents/formats/cloudevents.json` of the specification's; or else fetched from there.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
root=$(cd "$here/../.." && pwd)
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
export PYTHONDONTWRITEBYTECODE=1

# install FOLDER PACKAGE…: into an environment of its own.
install() {
    local folder=$1
    shift
    python3 -m venv "$work/$folder" &&
        timeout 300 "$work/$folder/bin/pip" install --quiet --disable-pip-version-check --retries 1 "$@" \
            > "$work/install.log" 2>&1
}
# published FILE REPOSITORY/PATH: fetches what a repository publishes, unless it is there.
published() {
    curl --fail --silent --show-error --location --max-time 60 --create-dirs --output "$1" \
        "https://raw.githubusercontent.com/$2" 2> "$work/install.log"
}
left_out() {
    tail -n 3 "$work/install.log" >&2
    echo "LEFT OUT: $1" >&2
}

(cd "$root" && cargo build --quiet --locked -p turnhook-dispatcher --example provider)
provider=${CARGO_TARGET_DIR:-$root/target}/debug/examples/provider

if install clients 'stripe>=16.1,<17' 'orb-billing>=4.90,<5' 'metronome-sdk>=4.12,<5' 'lago-python-client>=1.55,<2' \
    'polar-sdk>=1.0.2,<2' 'cloudevents>=2.2,<3' 'jsonschema>=4.26,<5' 'rfc3339-validator' 'rfc3986-validator' &&
    timeout 300 npm install --silent --no-audit --no-fund --prefix "$work" cloudevents@10 > "$work/install.log" 2>&1; then
    schema=${CLOUDEVENTS_SCHEMA:-}
    if [ -z "$schema" ]; then
        schema=$work/cloudevents.json
        if ! published "$schema" cloudevents/spec/main/cloudevents/formats/cloudevents.json; then
            left_out "CloudEvents' JSON schema cannot be fetched here, and CLOUDEVENTS_SCHEMA does not say where it is"
            schema=
        fi
    fi
    "$work/clients/bin/python" "$here/oracles.py" "$provider" "$work" ${schema:+"$schema"}
else
    left_out "the clients of billing products cannot be installed here; their bytes were compared with nothing"
fi

# Of OpenMeter's there are only pre-releases, and they want another version of CloudEvents' client.
if ! install openmeter --pre 'openmeter==1.0.0b236' 'cloudevents<2' ||
    ! install openmeter 'openapi-core>=0.23,<0.24'; then
    left_out "OpenMeter's client cannot be installed here; its bytes were compared with nothing"
    exit 0
fi
documents=${OPENMETER_API:-}
if [ -z "$documents" ]; then
    documents=$work/api
    if ! published "$documents/openapi.yaml" openmeterio/openmeter/main/api/openapi.yaml ||
        ! published "$documents/v3/openapi.yaml" openmeterio/openmeter/main/api/v3/openapi.yaml; then
        left_out "OpenMeter's OpenAPI documents cannot be fetched here, and OPENMETER_API does not say where they are"
        documents=
    fi
fi
"$work/openmeter/bin/python" "$here/oracle_openmeter.py" "$provider" ${documents:+"$documents"}
