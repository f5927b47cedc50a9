#!/usr/bin/env bash
# `make fuzz`: builds the targets with the coverage that libFuzzer reads (stable Rust, g++) and runs each
# for $SECONDS_FUZZ seconds, two at a time, or those that are named. What is found stays in
# target/fuzz/found, what is learned in target/fuzz/corpus; seeds are in fuzz/corpus.
set -euo pipefail
cd "$(dirname "$0")"
seconds=${SECONDS_FUZZ:-60}
work=$PWD/../target/fuzz
mkdir -p "$work/found"
triple=x86_64-unknown-linux-gnu
export CARGO_TARGET_DIR=$work/build
export RUSTFLAGS="-Cpasses=sancov-module -Cllvm-args=-sanitizer-coverage-level=4 \
-Cllvm-args=-sanitizer-coverage-inline-8bit-counters -Cllvm-args=-sanitizer-coverage-pc-table \
-Cllvm-args=-sanitizer-coverage-trace-compares -Ccodegen-units=1 --cfg fuzzing"
command -v g++ >/dev/null || ../images/packages.sh
cargo build --quiet --locked --release --target "$triple" --bins
[ $# -gt 0 ] || set -- $(cd targets && ls *.rs | sed 's/\.rs$//')

# one TARGET: runs it; prints a line in the form of the tests.
one() {
    local seeds=corpus/$1 learned=$work/corpus/$1 log=$work/$1.log
    mkdir -p "$learned" "$seeds"
    if timeout -k 5 $((seconds + 60)) "$work/build/$triple/release/$1" "$learned" "$seeds" \
        -max_total_time="$seconds" -timeout=10 -rss_limit_mb=1024 -print_final_stats=1 \
        -artifact_prefix="$work/found/$1-" >"$log" 2>&1; then
        echo "test $1 ... ok, $(sed -n 's/^stat::number_of_executed_units: *//p' "$log") inputs"
    else
        grep -E "panicked|ERROR|SUMMARY|Test unit" "$log" | tail -5
        echo "test $1 ... FAILED, see $log"
    fi
}
export -f one
export seconds work triple
results=$(printf '%s\n' "$@" | xargs -P 2 -I{} bash -c 'one {}' | tee /dev/stderr)
passed=$(grep -c "\.\.\. ok" <<<"$results" || true)
failed=$(grep -c "\.\.\. FAILED" <<<"$results" || true)
echo "fuzz: $passed passed, $failed failed"
[ "$failed" = 0 ]
