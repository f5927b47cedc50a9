#!/bin/bash
# Boots images under QEMU's microvm by PVH, as a VMM that knows nothing of Moirai does:
# echo has to report ready, answer a datagram and end by itself; thrash has to read and write a
# volume without an error.
#
# usage: qemu.sh [kvm|tcg]    (default: kvm where /dev/kvm can be opened, else tcg)
# MOIRAI_IMAGES: where images/build.sh has put the images. Exit status 77: cannot run here.
set -euo pipefail

root=$(cd "$(dirname "$0")/../.." && pwd)
images=${MOIRAI_IMAGES:-$root/target/images}
if ! command -v qemu-system-x86_64 >/dev/null; then
    [ -z "${MOIRAI_REQUIRE_QEMU:-}" ] || { echo "FAILED: qemu-system-x86_64 is not installed" >&2; exit 1; }
    echo "SKIPPED: guest under QEMU: qemu-system-x86_64 is not installed (apt install qemu-system-x86)" >&2
    exit 77
fi

accel=${1:-tcg}
if [ $# -eq 0 ] && { : <>/dev/kvm; } 2>/dev/null; then accel=kvm; fi
case $accel in
    kvm) cpu=host,-arch-capabilities ;;
    tcg) cpu=max ;;
    *) echo "usage: $0 [kvm|tcg]" >&2; exit 2 ;;
esac

work=$(mktemp -d)
qemu=
trap '[ -z "$qemu" ] || kill "$qemu" 2>/dev/null || true; rm -rf "$work"' EXIT

fail() {
    echo "FAILED: guest under QEMU ($accel): $1; its console:" >&2
    cat "$work/console" "$work/errors" >&2
    exit 1
}

# boot IMAGE WORDS DEVICE-OPTIONS...: starts a machine in the background.
# acpi=off: only then does microvm announce its devices on the command line.
boot() {
    local image=$images/$1 words=$2
    shift 2
    [ -f "$image" ] || { echo "FAILED: no image $image: run images/build.sh first" >&2; exit 1; }
    timeout -s KILL 60 qemu-system-x86_64 \
        -M "microvm,accel=$accel,acpi=off,x-option-roms=off,rtc=off" -cpu "$cpu" -m 32 \
        -nodefaults -no-user-config -display none -serial stdio -no-reboot \
        -global virtio-mmio.force-legacy=false -kernel "$image" -append "$words" "$@" \
        >"$work/console" 2>"$work/errors" </dev/null &
    qemu=$!
}

# ends APP: waits for the end of the machine and of the application in it.
ends() {
    wait "$qemu" || fail "QEMU ended with status $?"
    qemu=
    grep -q "\"app\":\"$1\",\"event\":\"done\"" "$work/console" || fail "it did not end by itself"
}

port=$((20000 + RANDOM % 20000))
boot echo 'ip=10.0.2.15/24 gw=10.0.2.2 port=7 for_ms=4000' \
    -netdev "user,id=net,hostfwd=udp:127.0.0.1:$port-10.0.2.15:7" \
    -device virtio-net-device,netdev=net
for _ in $(seq 100); do
    grep -q '"app":"echo","event":"ready"' "$work/console" && break
    sleep 0.1
done
grep -q '"app":"echo","event":"ready"' "$work/console" || fail "it is not ready"
exec 3<>"/dev/udp/127.0.0.1/$port"
answer=
for _ in 1 2 3; do # datagrams may be lost
    printf 'moirai' >&3
    answer=$(timeout 1 head -c 6 <&3 || true)
    [ "$answer" = moirai ] && break
done
[ "$answer" = moirai ] || fail "it answers \"$answer\" to a datagram \"moirai\""
ends echo
echo "ok: echo under QEMU ($accel): ready, answers, ends"

truncate -s 8M "$work/volume"
boot thrash 'mode=mixed depth=16 size=65536 count=400' \
    -drive "id=volume,file=$work/volume,format=raw,if=none" -device virtio-blk-device,drive=volume
ends thrash
grep -q '"reads":200,"writes":200,"errors":0' "$work/console" || fail "it has read or written wrongly"
echo "ok: thrash under QEMU ($accel): 200 reads, 200 writes"

# A film of 51 packets, 10 ms each, with a clock reference in each; one has lost its sync byte.
for packet in $(seq 0 50); do
    sync=47
    [ "$packet" != 20 ] || sync=00
    printf '%s01003007 10%012x%0352d' "$sync" $((packet * 900 << 15)) 0 | tr -d ' ' | sed 's/../\\x&/g'
done | xargs -0 printf '%b' >"$work/film"
truncate -s %512 "$work/film"
link="-netdev user,id=net -device virtio-net-device,netdev=net"
drive="-drive id=volume,file=$work/film,format=raw,if=none -device virtio-blk-device,drive=volume"
# shellcheck disable=SC2086 # these are words
boot streamer 'ip=10.0.2.15/24 to=239.1.1.1:9,10.9.9.9:5004,10.0.2.77:5004 loop=0' $link $drive
ends streamer
grep -q '"receiver":"10.9.9.9:5004","reason":"no route"' "$work/console" || fail "it names no route"
grep -q '"receiver":"10.0.2.77:5004","reason":"no neighbour"' "$work/console" || fail "it names no neighbour"
grep -q '"lost_bytes":188,"lost_packets":1,' "$work/console" || fail "it counts no lost packet"
# The 50 that are left make seven packets of seven and one of one.
grep -q '"packets":8,"bytes":9400,' "$work/console" || fail "it has not sent the others"

# fails APP WORDS MESSAGE: the application has to end with an error that says so.
fails() {
    # shellcheck disable=SC2086
    boot "$1" "$2" $link $drive
    wait "$qemu" || fail "QEMU ended with status $?"
    qemu=
    tail -n 1 "$work/console" | grep -q "\"app\":\"$1\",\"event\":\"error\".*$3" || fail "it does not say: $3"
}
# QEMU answers for the host, where nobody listens.
for app in "streamer loop=0" "flood count=20 for_ms=500"; do
    words="ip=10.0.2.15/24 ${app#* }"
    fails "${app%% *}" "$words to=10.9.9.9:9" 'no receiver could be reached: 10.9.9.9:9 no route'
    fails "${app%% *}" "$words to=10.0.2.2:9" 'no receiver could be reached: 10.0.2.2:9 refused'
    grep -q '"receiver":"10.0.2.2:9","reason":"refused"' "$work/console" || fail "it names nobody"
    grep -q '"refused":[1-9]' "$work/console" || fail "it counts no refusal"
    fails "${app%% *}" "$words to=10.0.2.2:9 gw=10.0.3.1" 'gw=10.0.3.1: it is outside our own network'
    # Its time is over before the next hop has answered, or has not.
    fails "${app%% *}" "$words to=10.0.2.77:9 for_ms=300" 'no receiver could be reached: 10.0.2.77:9 no neighbour'
    grep -q '"unresolved":[1-9]' "$work/console" || fail "it counts nobody without a neighbour"
    fails "${app%% *}" "${words/10.0.2.15/10.0.2.255} to=10.0.2.2:9" "that is everybody's address"
done
for app in carnage echo flood hostile pulse streamer thrash; do
    fails "$app" 'report_ms=0 lop=0' 'lop=0: there is no such word; the words are '
done
echo "ok: streamer and flood under QEMU ($accel): name who cannot be reached and words that are wrong, skip damage"
