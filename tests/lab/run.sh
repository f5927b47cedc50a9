#!/usr/bin/env bash
# Starts `lab` (tests/src/lab); `run.sh help` says what it can do.
set -euo pipefail
root=$(cd "$(dirname "$0")/../.." && pwd)
(cd "$root" && cargo build --quiet --locked -p moirai-tests --bin lab)
exec "$(cd "$root" && realpath -m "${CARGO_TARGET_DIR:-target}")/debug/lab" "$@"
