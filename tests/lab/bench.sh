#!/usr/bin/env bash
# Runs in the lab (`run.sh bench`): the same guest under Moirai and under QEMU with KVM, in turn. Writes
# lines `WHO WHAT VALUE`, of which tests/src/lab/bench.rs makes medians and ratios.
#
# usage: bench.sh RESULTS ROUNDS [small|debian]     both guests, if none is named
set -euo pipefail
results=$1 rounds=$2 kinds=${3:-small debian}
lab=$(cd "$(dirname "$0")/../.." && pwd)/target/lab
work=$(mktemp -d /var/tmp/bench.XXXXXX)
netns=lab-bench
debian=$lab/debian/root # its image is /dev/vdb
children=()
clean() {
    local child
    for child in "${children[@]}"; do kill -KILL "$child" 2>/dev/null || true; done
    ip netns delete $netns 2>/dev/null || true
    rm -rf "$work"
}
trap clean EXIT

truncate -s 256M "$work/volume"
dd if=/dev/urandom of="$work/volume" bs=1M conv=notrunc status=none count=256
cp "$lab/guest/tools.img" "$work/tools"
cp --sparse=always /dev/vdb "$work/pristine"
# What would be read slowly the first time.
cat "$(command -v qemu-system-x86_64)" $(ldd "$(command -v qemu-system-x86_64)" | grep -oE '/[^ ]+') \
    /usr/share/qemu/*.{bin,rom} /usr/share/seabios/* "$debian".{vmlinux,initrd} >/dev/null 2>&1 || true

# guest KIND: what is booted from now on. `small` measures its devices and powers off; `debian` is only
# waited for.
guest() {
    kind=$1 words="console=ttyS0 quiet panic=-1"
    if [ "$kind" = small ]; then
        kernel=$lab/guest/vmlinux initrd=$lab/guest/initramfs.cpio
        words="$words lab.ip=10.77.0.2/24 lab.bench" ready='guest: ready'
        volume=volume memory=256M
    else
        kernel=$debian.vmlinux initrd=$debian.initrd
        words="$words root=/dev/vda ip=10.77.0.2::10.77.0.1:255.255.255.0:::off" ready='debian login:'
        volume=root memory=512M
        cp --sparse=always "$work/pristine" "$work/root" # each boot finds a file system that was not used
        sync
    fi
}

# until_ready CONSOLE: waits for the guest.
until_ready() {
    local begin=$SECONDS
    while [ $((SECONDS - begin)) -lt 180 ]; do
        grep -q "$ready" "$1" 2>/dev/null && return
        sleep 0.02
    done
    echo "bench: the guest does not get ready:" >&2
    tail "$1" >&2
    return 1
}
now() { date +%s%N; }
# rss PID: KiB of a process without its guest's memory, which is shared memory in all of them.
rss() { awk '/^Rss(Anon|File)/ {sum += $2} END {print sum}' "/proc/$1/status"; }

# measure NAME PID CONSOLE BEGIN: what the guest says and what is seen of its process.
measure() {
    until_ready "$3"
    local took=$((($(now) - $4) / 1000000))
    if [ "$kind" = debian ]; then
        echo "$1 login_ms $took" >>"$results"
        return
    fi
    echo "$1 boot_ms $took" >>"$results"
    echo "$1 vmm_kib $(rss "$2")" >>"$results"
    local tries
    for ((tries = 0; tries < 1200; tries++)); do
        grep -q '^bench ping_ms' "$3" && break
        sleep 0.1
    done
    tr -d '\r' <"$3" | sed -n "s/^bench /$1 /p" >>"$results"
}

# moirai TRANSPORT [KEY]: KEY is set in the tenant's table.
moirai() {
    local who=moirai-$1${2:+-$2} begin pid folder=$work/host
    mkdir -p "$folder"
    cat >"$folder/host.toml" <<END
[host]
cores = [1]
socket = "$folder/host.sock"
state_dir = "$folder/state"
[[disk]]
name = "disk"
path = "$work"
depth = 32
[[link]]
name = "link"
rate = "40Gbit/s"
offload = "segmentation"
tap = "moirai0"
netns = "$netns"
address = "10.77.0.1/24"
END
    cat >"$folder/guest.toml" <<END
[[tenant]]
name = "guest"
kernel = "$kernel"
initrd = "$initrd"
cmdline = "$words"
memory = "$memory"
transport = "$1"
${2:+$2 = true}
[[tenant.disk]]
disk = "disk"
volume = "$volume"
[[tenant.disk]]
disk = "disk"
volume = "tools"
readonly = true
[[tenant.net]]
link = "link"
END
    export MOIRAI_SOCKET=$folder/host.sock
    "$MOIRAI_BINARY" host --config "$folder/host.toml" >/dev/null 2>"$folder/log" &
    local host=$!
    children+=("$host")
    until "$MOIRAI_BINARY" list >/dev/null 2>&1; do sleep 0.1; done
    ip netns exec $netns iperf3 -s >/dev/null 2>&1 &
    local server=$!
    children+=("$server")
    begin=$(now)
    "$MOIRAI_BINARY" launch "$folder/guest.toml" >/dev/null
    "$MOIRAI_BINARY" console guest >"$work/console" 2>/dev/null &
    children+=($!)
    pid=$("$MOIRAI_BINARY" show guest --json | sed -n 's/.*"pid":\([0-9]*\).*/\1/p')
    measure "$who" "$pid" "$work/console" "$begin"
    kill "$server"
    kill "$host"
    wait "$host" || true
}

# qemu MACHINE BUS
qemu() {
    local begin pid
    ip netns add $netns
    ip -n $netns tuntap add dev bench0 mode tap vnet_hdr
    ip -n $netns address add 10.77.0.1/24 dev bench0
    ip -n $netns link set bench0 up
    ip netns exec $netns iperf3 -s >/dev/null 2>&1 &
    local server=$!
    children+=("$server")
    : >"$work/console"
    begin=$(now)
    ip netns exec $netns qemu-system-x86_64 -M "$1,accel=kvm,memory-backend=ram" -cpu host \
        -object memory-backend-memfd,id=ram,size=$memory,share=on -m $memory \
        -nodefaults -no-user-config -no-reboot -display none -serial "file:$work/console" \
        -kernel "$kernel" -initrd "$initrd" -append "$words" \
        -global virtio-mmio.force-legacy=false \
        -drive "id=volume,file=$work/$volume,format=raw,if=none,cache=none,aio=native" \
        -device "virtio-blk-$2,drive=volume" \
        -drive "id=tools,file=$work/tools,format=raw,if=none,readonly=on" \
        -device "virtio-blk-$2,drive=tools" \
        -netdev tap,id=net,ifname=bench0,script=no,downscript=no \
        -device "virtio-net-$2,netdev=net" </dev/null &
    pid=$!
    children+=("$pid")
    measure "qemu-$1" "$pid" "$work/console" "$begin"
    kill -KILL "$pid" 2>/dev/null || true
    wait "$pid" 2>/dev/null || true
    kill "$server"
    ip netns delete $netns
}

: >"$results"
for ((round = 1; round <= rounds; round++)); do
    for what in $kinds; do
        echo "bench: round $round of $rounds, $what" >&2
        guest $what && moirai mmio
        guest $what && qemu microvm device
        guest $what && qemu q35 pci
        guest $what && moirai pci
        [ "$what" = debian ] || { guest $what && moirai pci prefault; }
    done
done
