#!/usr/bin/env bash
# `make bench`: the scheduler by itself, then whole runs beside fio, QEMU and the host itself.
#
# usage: bench.sh [--json] [--quick] [--pairs N] [--seconds S] [--only NAME,...]
# Needs root, /dev/kvm and what `make` builds. Takes about six minutes; run it on an idle machine.
# With --json, standard output is one JSON object.
set -euo pipefail
cd "$(dirname "$0")/.."
export CARGO_TERM_PROGRESS_WHEN=never MOIRAI_TENANT="$PWD/target/release/moirai-tenant" \
    MOIRAI_IMAGE="$PWD/target/release/moirai-image"
export MOIRAI_IMAGES="$PWD/target/images"

# Waits up to a minute for a quiet machine, and says if it did not become one.
load() { awk '{print ($1 >= 0.5)}' /proc/loadavg; }
case " $* " in
    *" --quick "*) ;;
    *) for _ in $(seq 12); do [ "$(load)" = 0 ] && break; sleep 5; done ;;
esac
[ "$(load)" = 0 ] || echo "WARNING: others use this machine ($(cut -d' ' -f1-3 /proc/loadavg))" >&2

case " $* " in
    *" --json "* | *" --only "*) ;;
    *) timeout -k 10 300 cargo bench --locked -p moirai-scheduler ;;
esac
timeout -k 20 1200 cargo bench --locked -p moirai-tests --bench appliance -- "$@"
