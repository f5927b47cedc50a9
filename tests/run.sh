#!/usr/bin/env bash
# Starts `suite` (tests/src/suite), which runs every test and ends with "N passed, M failed, K skipped".
set -euo pipefail
cd "$(dirname "$0")/.."
cargo build --quiet --locked -p moirai-tests --bin suite
exec "$(realpath -m "${CARGO_TARGET_DIR:-target}")/debug/suite" "$@"
