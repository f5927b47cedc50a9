#!/usr/bin/env bash
# `make mutants`: breaks the scheduler in every way that cargo-mutants knows, one at a time, and runs its
# tests. A mutant that they do not notice has to be in mutants.txt, with the reason why it cannot be
# noticed; one that is in there and noticed is named. Takes half an hour on one core.
#
# usage: mutants.sh [FURTHER ARGUMENTS OF cargo mutants]    --file 'scheduler/src/heap.rs', say
set -euo pipefail
cd "$(dirname "$0")/.."
explained=scheduler/mutants.txt out=target/mutants-out
command -v cargo-mutants >/dev/null || cargo install --quiet --locked cargo-mutants

mkdir -p "$out"
cargo mutants --cargo-arg=--locked --package moirai-scheduler --output "$out" --colors never "$@" || {
    status=$?
    # 2: some were missed; 3: some ran into the time limit, which is noticing.
    [ $status -eq 2 ] || [ $status -eq 3 ] || exit $status
}
out=$out/mutants.out

# Lines and columns change with every edit: a mutant is known by its file and its words.
names() { sed -E 's/^([^:]+):[0-9]+:[0-9]+: /\1: /' "$@" | LC_ALL=C sort; }
known() { sed -E '/^(#|$)/d; s/ +# .*//' "$explained" | LC_ALL=C sort; }
unexplained=$(comm -23 <(names "$out/missed.txt") <(known))
explained_but_caught=$(comm -12 <(names "$out/caught.txt" "$out/timeout.txt") <(known) |
    comm -23 - <(names "$out/missed.txt"))

count() { wc -l <"$out/$1.txt"; }
echo "mutants: $(count caught) caught, $(count timeout) ended by the time limit," \
    "$(count unviable) that do not compile, $(count missed) survivors"
[ $(($(count caught) + $(count timeout) + $(count missed))) -gt 0 ] || { echo "no mutant was run"; exit 1; }
[ -z "$explained_but_caught" ] || printf 'caught, yet in %s:\n%s\n' "$explained" "$explained_but_caught"
if [ -n "$unexplained" ]; then
    printf 'not noticed by any test:\n%s\n' "$unexplained"
    exit 1
fi
echo "every survivor is explained in $explained"
