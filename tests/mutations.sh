#!/usr/bin/env bash
# Turns the rules of metering and of billing off, one by one, in a copy of the tree, and says which test notices.
#
#   tests/mutations.sh            those rules of which that is not known yet
#   tests/mutations.sh --again    every rule
#   tests/mutations.sh WORD...    those with one of these words in their names
#   tests/mutations.sh --check    only whether each can still be turned off, and whether the test that notices is there
#
# The rules and how each is turned off stand in tests/mutations.list; which test notices is kept in tests/mutations.caught,
# a line a rule, as soon as it is known: a run that was interrupted goes on where it was. A rule whose absence nobody
# notices is a rule without a test: the script then ends with 1. Tests with a name go first. Generated histories are
# played only where none of those notices, TURNHOOK_HISTORIES of them (default 1000: this is about the rule, and not
# about the rarest history).
set -euo pipefail
cd "$(dirname "$0")/.."

names=() crates=() files=() olds=() news=()

# of CRATE: what follows is of crates/CRATE.
of() {
    crate=$1
}
# mutation NAME FILE OLD NEW: in the crate's src/FILE, the text OLD, which stands there once, becomes NEW.
mutation() {
    names+=("$1") crates+=("$crate") files+=("crates/$crate/src/$2") olds+=("$3") news+=("$4")
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
    text=$(cat "$1" && printf x)
    text=${text%x}
    before=${text%%"$2"*}
    [[ $before != "$text" ]] || return 1
    after=${text#"$before$2"}
    [[ $after != *"$2"* ]] || return 1
    printf '%s%s%s' "$before" "$3" "$after"
}

only_check=false again=false
case ${1-} in
    --check) only_check=true && shift ;;
    --again) again=true && shift ;;
esac

stale=0
for i in "${!names[@]}"; do
    if ! mutated "${files[i]}" "${olds[i]}" "${news[i]}" >/dev/null; then
        echo "cannot be turned off any more (see tests/mutations.list): ${names[i]}" >&2
        stale=1
    fi
done
caught=$PWD/tests/mutations.caught
touch "$caught"

# The crate that a rule is of.
of_rule() {
    local i
    for i in "${!names[@]}"; do
        [[ ${names[i]} != "$1" ]] || echo "${crates[i]}"
    done
}

# The test that notices a rule's absence, as far as is known.
known() {
    awk -F '\t' -v name="$1" '$1 == name { print $2 }' "$caught"
}

if $only_check; then
    for name in "${names[@]}"; do
        test=$(known "$name")
        if [[ -z $test || $test == - ]]; then
            echo "no test is known yet that notices (run tests/mutations.sh): $name" >&2
        elif ! grep -rqE "fn ${test##*::}\(" "crates/$(of_rule "$name")"; then
            echo "the test that noticed is gone ($test): $name" >&2
            stale=1
        fi
    done
    while IFS=$'\t' read -r name _; do
        if ! printf '%s\n' "${names[@]}" | grep -xF "$name" >/dev/null; then
            echo "no rule any more (see tests/mutations.list): $name" >&2
            stale=1
        fi
    done <"$caught"
fi
if $only_check || ((stale)); then
    ((!stale)) && echo "all ${#names[@]} rules can be turned off"
    exit $stale
fi

keep() {
    local rest
    rest=$(awk -F '\t' -v name="$1" '$1 != name' "$caught")
    { [[ -z $rest ]] || printf '%s\n' "$rest"; printf '%s\t%s\n' "$1" "$2"; } | sort >"$caught.new"
    mv "$caught.new" "$caught"
}

copy=$(mktemp -d)
trap 'rm -rf "$copy"' EXIT
git ls-files -z --cached --others --exclude-standard | tar --null -T - --ignore-failed-read -cf - 2>/dev/null | tar -xf - -C "$copy"
# What an earlier run built of its last copy is older than this one, whatever the files of this one say.
find "$copy" -name '*.rs' -exec touch {} +
# What others need is built once, and kept.
target=${CARGO_TARGET_DIR:-$PWD/target}/mutations
cd "$copy"
export CARGO_TARGET_DIR="$target" RUST_BACKTRACE=0 TURNHOOK_HISTORIES=${TURNHOOK_HISTORIES:-1000} TURNHOOK_SEED=1
# What is built for each rule is run for seconds.
cargo=(cargo --config 'profile.dev.package.turnhook-reducer.opt-level=0' --config 'profile.dev.debug=false')

tests() {
    "${cargo[@]}" test -q -p "turnhook-$crate" "$@" --no-run >"$copy/build.log" 2>&1 || { echo - && return; }
    timeout 600 "${cargo[@]}" test -p "turnhook-$crate" "$@" ${only[@]+-- "${only[@]}"} >"$copy/tests.log" 2>/dev/null ||
        [[ $? != 124 ]] || echo '?'
    sed -n 's/^test \(.*\) \.\.\. FAILED$/\1/p' "$copy/tests.log"
}

# The tests of a crate that fail, by name; `-` where it does not even compile, `?` where they do not come to their end. What
# is quick goes first, and what comes after it is not even built once somebody has noticed.
failing() {
    local crate=$1 failed only=()
    if [[ $crate != reducer ]]; then
        failed=$(tests --lib)
        [[ -n $failed ]] || failed=$(tests --test it)
    else
        only=(--skip model:: --skip cluster::) && failed=$(tests --test it)
        [[ -n $failed ]] || { only=() && failed=$(tests --lib); }
        [[ -n $failed ]] || { only=(model::) && failed=$(tests --test it); }
        [[ -n $failed ]] || { only=(cluster::) && failed=$(tests --test it); }
    fi
    sort -u <<<"$failed" | sed '/^$/d'
}

# Those that fail with every rule in place, which do not count.
declare -A already
tried() {
    [[ -z ${already[$1]+x} ]] || return 0
    already[$1]=$(failing "$1")
    if [[ ${already[$1]} == - || ${already[$1]} == *'?'* ]]; then
        echo "the tests of $1 do not run with every rule in place" >&2
        tail -20 "$copy/build.log" >&2
        exit 1
    fi
    [[ -z ${already[$1]} ]] ||
        echo "fails with every rule in place, and is not counted: ${already[$1]//$'\n'/, }" >&2
}

survived=0
for i in "${!names[@]}"; do
    name=${names[i]}
    chosen "$name" "$@" || continue
    if (($# == 0)) && ! $again && [[ $(known "$name") == *::* ]]; then
        continue
    fi
    tried "${crates[i]}"
    file=${files[i]}
    cp "$file" "$copy/whole.rs"
    mutated "${files[i]}" "${olds[i]}" "${news[i]}" >"$copy/mutated.rs"
    cat "$copy/mutated.rs" >"$file"
    failures=$(comm -23 <(failing "${crates[i]}") <(printf '%s\n' "${already[${crates[i]}]}") | sed '/^$/d')
    cat "$copy/whole.rs" >"$file"
    case $failures in
        -) echo "does not compile: $name" && survived=1 ;;
        '') echo "not caught: $name" && keep "$name" - && survived=1 ;;
        *)
            # One by its name, rather than generated histories.
            by=$(grep -vE '^(model|cluster)::' <<<"$failures" | head -1 || true)
            by=${by:-$(head -1 <<<"$failures")}
            echo "caught by $by ($(grep -c . <<<"$failures") in all): $name"
            keep "$name" "$by"
            ;;
    esac
done
exit $survived
