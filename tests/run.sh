#!/usr/bin/env bash
# Every test, in two rows side by side: those with several real clusters wait more than they work, and leave half of two cores idle.
# What the second row says comes at the end. The test bed is there already; `make test` sees to that.
set -uo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
cargo=${CARGO:-cargo}
second=(majority real_clusters registered_clusters)

"$cargo" test --locked --no-run || exit

first=()
for file in tests/*.rs tests/*/main.rs; do
    name=${file#tests/}
    name=${name%/main.rs}
    name=${name%.rs}
    # static_program is no test, but the program once more.
    [[ " ${second[*]} static_program " == *" $name "* ]] || first+=(--test "$name")
done

said=$(mktemp)
# In a process group of its own, so that whoever ends this ends all of that row.
set -m
"$cargo" test --locked --no-fail-fast "${second[@]/#/--test=}" >"$said" 2>&1 &
row=$!
set +m
trap 'kill -- -"$row" 2>/dev/null; rm -f "$said"' EXIT

status=0
"$cargo" test --locked --no-fail-fast --lib --bins "${first[@]}" || status=$?
"$cargo" test --locked --doc || status=$?
"$cargo" test --locked --manifest-path tests/loom/Cargo.toml --target-dir target/loom || status=$?
wait "$row" || status=$?
cat "$said"
exit "$status"
