#!/usr/bin/env bash
# Runs every test and ends with one line: "N passed, M failed".
#
# The suites run one after the other: real tenants under real-time priorities share two cores badly.
# What a suite prints is shown as it comes and kept in target/test-logs/.
set -uo pipefail
cd "$(dirname "$0")/.."
export CARGO_TERM_PROGRESS_WHEN=never MOIRAI_TENANT="$PWD/target/release/moirai-tenant"
export MOIRAI_IMAGES="$PWD/target/images"
logs=target/test-logs
mkdir -p "$logs"
passed=0 failed=0

# suite NAME LIMIT COMMAND...: runs a suite whose output ends with "N passed, M failed", or has cargo's
# "test result" lines, or none: then its exit status is one test.
suite() {
    local name=$1 limit=$2 log="$logs/$1.log" begin=$SECONDS status ok bad
    shift 2
    echo "== $name"
    timeout -k 10 "$limit" "$@" 2>&1 | tee "$log" | grep --line-buffered -vE '^test .* \.\.\. ok$|^$'
    status=${PIPESTATUS[0]}
    ok=$(grep -oE '^test result: .* ([0-9]+) passed' "$log" | grep -oE '[0-9]+ passed' | awk '{n+=$1} END {print n+0}')
    bad=$(grep -oE '^test result: .*; ([0-9]+) failed' "$log" | grep -oE '[0-9]+ failed' | awk '{n+=$1} END {print n+0}')
    if grep -qE '^[0-9]+ passed, [0-9]+ failed$' "$log"; then
        read -r ok _ bad _ < <(grep -E '^[0-9]+ passed, [0-9]+ failed$' "$log" | tail -n 1)
    fi
    if [ "$status" -ne 0 ] && [ "$bad" -eq 0 ]; then
        bad=1 # it did not build, hung, or has no test lines and failed
    elif [ "$ok" -eq 0 ] && [ "$status" -eq 0 ]; then
        ok=1
    fi
    passed=$((passed + ok)) failed=$((failed + bad))
    echo "== $name: $ok passed, $bad failed, $((SECONDS - begin)) s"
}

suite format 120 cargo fmt --all --check
suite scheduler 600 cargo test --no-fail-fast --locked -p moirai-scheduler -p moirai-simulator
suite parts 900 cargo test --no-fail-fast --locked -p moirai-abi -p moirai-devices -p moirai-vmm --features moirai-devices/mock
suite host 1200 cargo test --no-fail-fast --locked -p moirai-launch -p moirai-runtime -p moirai-cpu -p moirai-io \
    -p moirai-config -p moirai-api -p moirai-service -p moirai-bench -p moirai-cli
suite guest 600 env -C guest cargo test --no-fail-fast --locked --target x86_64-unknown-linux-gnu -p moirai-media -p moirai-libos
suite qemu 120 guest/tests/qemu.sh
suite readme 600 guest/tests/readme.sh
# What later suites boot: by itself, so that a failure here is not taken for one of theirs.
suite machine 600 tests/lab/machine.sh
suite debian 300 tests/lab/run.sh debian
suite end-to-end 900 cargo test --no-fail-fast --locked -p moirai-tests -- --test-threads 1
# What takes longest in the lab is left to `make lab`; it says so.
LAB_SKIP='debian::logs_in_with_one fio_verifies_a_raw_volume_over_pci fio_verifies_a_qcow2 fio_verifies_a_stripe
    boot::bzimage_mmio boot::pvh_pci eight_tenants ignores_its_power_button' \
    suite lab 1500 tests/lab/run.sh test
suite counted 600 tests/lab/run.sh test counted

echo "$passed passed, $failed failed"
[ "$failed" -eq 0 ]
