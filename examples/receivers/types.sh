#!/usr/bin/env bash
# The types of the webhooks for TypeScript, Python and Go, made of schema/openapi.json, beside the receivers that use them:
# node/webhooks.d.ts, python/webhooks.py, go/webhooks.go.
#
#   ./examples/receivers/types.sh            # makes them anew
#   ./examples/receivers/types.sh --check    # are they up to date, and do the receivers use them rightly?
#
# Needs npm, Python 3.11 with venv, and go; the generators are installed into target/types, at the versions below. Exits
# with 77 where they cannot be had.
set -euo pipefail
cd "$(dirname "$0")"
root=$(cd ../.. && pwd)
tools=${CARGO_TARGET_DIR:-$root/target}/types
npm_tools=(json-schema-to-typescript@15.0.4 quicktype@23.3.25 typescript@5.9.3 @types/node@20.19.0)
pip_tools=(datamodel-code-generator==0.89.0 mypy==1.18.2)

stamp="${npm_tools[*]} ${pip_tools[*]}"
if [ "$(cat "$tools/installed" 2> /dev/null)" != "$stamp" ]; then
    rm -rf "$tools"
    mkdir -p "$tools"
    npm install --prefix "$tools" --silent --no-fund --no-audit --save-exact "${npm_tools[@]}" &&
        python3 -m venv "$tools/venv" &&
        "$tools/venv/bin/pip" install --quiet "${pip_tools[@]}" || {
        echo "LEFT OUT: the generators cannot be installed from here" >&2
        exit 77
    }
    echo "$stamp" > "$tools/installed"
fi
PATH=$tools/node_modules/.bin:$tools/venv/bin:$PATH

here=$(mktemp -d)
trap 'rm -rf "$here"' EXIT

# One schema of all types. Generators make a type of its own for each reference that has a description beside it.
python3 - "$root/schema/openapi.json" "$here" << 'END'
import json, sys

source, target = sys.argv[1:]
schemas = json.load(open(source))["components"]["schemas"]


def plain(value):
    if isinstance(value, list):
        return [plain(one) for one in value]
    if not isinstance(value, dict):
        return value
    if "$ref" in value:
        return {"$ref": value["$ref"].replace("#/components/schemas/", "#/$defs/")}
    return {key: plain(one) for key, one in value.items()}


def write(name, schema):
    json.dump({"$schema": "https://json-schema.org/draft/2020-12/schema", **schema}, open(f"{target}/{name}", "w"))


defs = plain(schemas)
events = [
    "SessionStart", "SessionUsage", "SessionEnd", "QuotaReached", "UserBlocked", "UserUnblocked", "EndpointPing",
]
write(
    "webhook.json",
    {
        "title": "Webhook",
        "description": "The body of a webhook; its `type` says which. There may be more types in time.",
        "oneOf": [{"$ref": f"#/$defs/{name}"} for name in events],
        "$defs": defs,
    },
)
# Go has no unions: one struct for the data of all session events, in which what only an end has is a pointer, and one for
# those of users.
defs["SessionData"] = defs["SessionStartData"]
defs["UserData"] = defs["UserBlockedData"]
both = {name: {"$ref": f"#/$defs/{name}"} for name in ("SessionData", "UserData", "Ping")}
write("data.json", {"title": "Data", "type": "object", "properties": both, "$defs": defs})
END

made="Made of schema/openapi.json by examples/receivers/types.sh: change nothing here."
json2ts -i "$here/webhook.json" --additionalProperties=false \
    --bannerComment "// $made" > "$here/webhooks.d.ts"
datamodel-codegen --input "$here/webhook.json" --input-file-type jsonschema --output "$here/webhooks.py" \
    --output-model-type typing.TypedDict --target-python-version 3.11 --disable-timestamp --use-schema-description \
    --enum-field-as-literal all --formatters builtin --custom-file-header "# $made" 2> /dev/null
quicktype --src "$here/data.json" --src-lang schema --lang go --package webhooks --top-level Data --just-types-and-package \
    --out "$here/types.go"
{
    echo "// Code generated from schema/openapi.json by examples/receivers/types.sh. DO NOT EDIT."
    echo
    echo "package webhooks"
    # quicktype writes imports where it comes to need them.
    grep '^import ' "$here/types.go"
    # The top level only held the two together.
    grep -v '^import \|^package ' "$here/types.go" |
        awk '/^type Data struct/ { skip = 1 } !skip { print } /^}/ { skip = 0 }' |
        sed -E 's/\b(SessionData|UserData|Quota|TLS|Usage)(Delta)?Class\b/\1/g; s/\bAllocationElement\b/Allocation/g;
            s/\bAllocationUsage\b/Legs/g; s/^type Client /type Counters /; s/^(\s+\w+\s+\*?)Client\b/\1Counters/' | cat -s
} | gofmt > "$here/webhooks.go"

if [ "${1:-}" != --check ]; then
    cp "$here/webhooks.d.ts" node/
    cp "$here/webhooks.py" python/
    cp "$here/webhooks.go" go/
    exit
fi
cmp "$here/webhooks.d.ts" node/webhooks.d.ts
cmp "$here/webhooks.py" python/webhooks.py
cmp "$here/webhooks.go" go/webhooks.go
tsc --noEmit --allowJs --checkJs --target es2022 --module nodenext --moduleResolution nodenext \
    --typeRoots "$tools/node_modules/@types" --types node node/receiver.mjs
(cd python && mypy --cache-dir "$here/mypy" --check-untyped-defs receiver.py)
(cd go && GOCACHE="$here/go" GOFLAGS=-mod=mod go test ./...)
echo "The types are up to date, and used rightly."
