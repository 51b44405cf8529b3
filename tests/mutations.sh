#!/usr/bin/env bash
# Turns the rules of the reducer off, one by one, in a copy of the tree, and says which tests notice.
#
#   tests/mutations.sh            every rule
#   tests/mutations.sh WORD...    those with one of these words in their names
#   tests/mutations.sh --check    only whether each can still be turned off
#
# The rules and how each is turned off stand in tests/mutations.list. A rule whose absence nobody notices is a
# rule without a test: the script then ends with 1. It takes about half a minute a rule.
set -euo pipefail
cd "$(dirname "$0")/.."

src=crates/reducer/src
names=() files=() olds=() news=()

# mutation NAME FILE OLD NEW: in crates/reducer/src/FILE, the text OLD, which stands there once, becomes NEW.
mutation() {
    names+=("$1") files+=("$2") olds+=("$3") news+=("$4")
}
# shellcheck source=tests/mutations.list
source tests/mutations.list

chosen() {
    local name=$1 word
    shift
    (($# == 0)) && return 0
    for word in "$@"; do
        [[ $name == *"$word"* ]] && return 0
    done
    return 1
}

# The text of a file with OLD put in place of NEW; fails where OLD is not there exactly once.
mutated() {
    local text before after
    text=$(cat "$src/$1" && printf x)
    text=${text%x}
    before=${text%%"$2"*}
    [[ $before != "$text" ]] || return 1
    after=${text#"$before$2"}
    [[ $after != *"$2"* ]] || return 1
    printf '%s%s%s' "$before" "$3" "$after"
}

only_check=false
if [[ ${1-} == --check ]]; then
    only_check=true
    shift
fi

stale=0
for i in "${!names[@]}"; do
    if ! mutated "${files[i]}" "${olds[i]}" "${news[i]}" >/dev/null; then
        echo "cannot be turned off any more (see tests/mutations.list): ${names[i]}" >&2
        stale=1
    fi
done
if $only_check || ((stale)); then
    ((!stale)) && echo "all ${#names[@]} rules can be turned off"
    exit $stale
fi

copy=$(mktemp -d)
trap 'rm -rf "$copy"' EXIT
git ls-files -z --cached --others --exclude-standard | tar --null -T - --ignore-failed-read -cf - 2>/dev/null | tar -xf - -C "$copy"
cd "$copy"
export CARGO_TARGET_DIR="$copy/target" RUST_BACKTRACE=0

# The tests that fail, by name; `-` where the crate does not even compile, `?` where they do not come to their end.
failing() {
    if ! cargo test -q -p turnhook-reducer --test it --lib --no-run >"$copy/build.log" 2>&1; then
        echo -
        return
    fi
    local status=0
    timeout 300 cargo test --no-fail-fast -p turnhook-reducer --lib --test it -- --skip cluster:: >"$copy/tests.log" 2>/dev/null ||
        status=$?
    local names
    names=$(sed -n 's/^test \(.*\) \.\.\. FAILED$/\1/p' "$copy/tests.log" | sort -u)
    if ((status != 0)) && [[ -z $names ]]; then
        names='?'
    fi
    printf '%s\n' "$names"
}

# Only what fails because of a rule counts.
already=$(failing)
if [[ $already == - || $already == '?' ]]; then
    echo "the tests do not run with every rule in place" >&2
    tail -20 "$copy/build.log" >&2
    exit 1
fi
if [[ -n $already ]]; then
    sed 's/^/fails with every rule in place, and is not counted: /' <<<"$already" >&2
fi

survived=0
for i in "${!names[@]}"; do
    chosen "${names[i]}" "$@" || continue
    file="$src/${files[i]}"
    cp "$file" "$copy/whole.rs"
    mutated "${files[i]}" "${olds[i]}" "${news[i]}" >"$copy/mutated.rs"
    cat "$copy/mutated.rs" >"$file"
    failures=$(comm -23 <(failing) <(printf '%s\n' "$already") | sed '/^$/d')
    cat "$copy/whole.rs" >"$file"
    case $failures in
        -) echo "DOES NOT COMPILE  ${names[i]}" && survived=1 ;;
        '') echo "SURVIVED          ${names[i]}" && survived=1 ;;
        *) printf 'caught            %s (model: %s, others: %s)\n' "${names[i]}" \
            "$(grep -c '^model::' <<<"$failures" || true)" \
            "$(grep -v '^model::' <<<"$failures" | paste -sd' ' | cut -c1-120)" ;;
    esac
done
exit $survived
