#!/usr/bin/env bash
# Boots the lab: a machine with AMD-V under QEMU's emulation, so with an ordinary /dev/kvm.
#
#   run.sh test [NAME]         runs the tests in it whose names contain NAME; ends with
#                              "N passed, M failed"
#   run.sh shell               an interactive root shell in it
#   run.sh cmd 'COMMAND'       runs one command in it: its output and its exit status are ours
#   run.sh debian              builds the image of Debian, if it is not there
#   run.sh bench [ROUNDS] [small|debian]
#                              the same guests under Moirai and QEMU: ratios
#
# In it, / is this machine's own file system, read-only; target/lab/share is writable; /tmp, /run and
# /var/tmp (an ext4 disk) are its own. LAB_CPUS (2), LAB_MEMORY (6G), LAB_TIMEOUT (seconds) change it;
# LAB_SEED (1) gives the counted machines other random numbers;
# LAB_SKIP leaves out the tests whose names contain one of its words.
# MOIRAI_BINARY, MOIRAI_TENANT, MOIRAI_IMAGES: what is tested, if not what `make` has built.
# LAB_PROGRAMS: folder of the test programs, if cargo is not to build them.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
root=$(cd "$here/../.." && pwd)
lab=$root/target/lab
usage() { sed -n '2,/^set/s/^# \{0,1\}//p' "$0"; exit 2; }

run=$lab/share/run.$$ machines=() saved=''
clean() {
    local machine
    for machine in "${machines[@]}"; do kill -KILL "$machine" 2>/dev/null || true; done
    [ -z "$saved" ] || stty "$saved"
    rm -rf "$run"
}
trap clean EXIT
trap 'exit 130' INT TERM HUP

# prepare: builds what is stale, clears away what machines left that were killed with their scripts. The build
# is told to end when this script does, however that ends; it would not hear of it as a child that is waited for.
prepare() {
    local left
    setpriv --pdeathsig TERM "$here/machine.sh" </dev/null >&2 &
    wait $! || return 125
    for left in "$lab"/share/run.*; do
        [ ! -d "$left" ] || kill -0 "${left##*.}" 2>/dev/null || rm -rf "$left"
    done
    mkdir -p "$run"
}

# watch MACHINE: ends a machine that stands still - nothing in it has run for three minutes - and says
# what its processors are at. Counts looks, because the development machine may stand still, too.
watch() {
    local beat last='' same=0
    cd "$run"
    mkdir -p "$lab/logs"
    while setpriv --pdeathsig KILL sleep 5 && kill -0 "$1" 2>/dev/null; do
        beat=$(stat -c %y beat 2>/dev/null || true)
        [ "$beat" = "$last" ] && same=$((same + 1)) || same=0
        last=$beat
        [ $same -ge 36 ] || continue
        echo "lab: THE MACHINE STANDS STILL (all of it is in $lab/logs/standstill)" >>serial.log
        for _ in 1 2 3 4 5; do
            printf '%s\n' "info registers -a" "cpu 0" "x/100gx \$rsp" "cpu 1" "x/100gx \$rsp"
            sleep 0.2
        done | socat -T 5 - unix:serial.monitor >"$lab/logs/standstill" 2>&1 || true
        grep -aE '^CPU#|RIP=' "$lab/logs/standstill" >>serial.log || true
        kill -KILL "$1"
        return
    done
}

# machine LIMIT NAME WORDS ARGUMENTS...: a machine in the background that dies with its time limit,
# and that with this script, however it ends. Its kernel's messages go to $run/NAME.log.
machine() {
    local limit=$1 name=$2 words=$3 bound="setpriv --pdeathsig KILL"
    shift 3
    # In its own folder: the path of a socket must be short.
    $bound env -C "$run" timeout -s KILL --foreground "$limit" $bound "$lab/qemu/qemu-system-x86_64" \
        -L /usr/share/seabios -L /usr/share/qemu \
        -machine q35,accel=tcg -cpu max -nodefaults -no-user-config -no-reboot -display none \
        -kernel "$lab/machine/vmlinux" -append "console=ttyS0 quiet panic=-1 tsc=reliable $words" \
        -monitor "unix:$name.monitor,server=on,wait=off" -serial "file:$run/$name.log" "$@" <&0 &
    machines+=($!)
}

# boot LIMIT COMMAND: runs a shell command in the machine; its status is that of the command, 125 if
# the machine did not get that far.
boot() {
    local disks=() image
    prepare || return
    rm -f "$run"/{status,beat,begun,serial.log}
    printf 'while :; do echo >%q; sleep 5; done &\n%s\n' "$run/beat" "$2" >"$run/command"
    pwd >"$run/folder"
    truncate -s 4G "$run/disk"
    mke2fs -q -t ext4 -O ^has_journal -E lazy_itable_init=1,nodiscard "$run/disk"
    # /dev/vdb and so on: a copy of Debian for each test that boots it; what they write is forgotten.
    for image in ${debians:-}; do
        disks+=(-drive "file=$image,format=raw,if=virtio,snapshot=on,cache=unsafe,discard=unmap")
    done
    machine "$1" serial "lab.share=$lab/share lab.run=$run" \
        -smp "${LAB_CPUS:-2}" -m "${LAB_MEMORY:-6G}" -initrd "$lab/machine/initramfs.cpio" \
        -chardev stdio,id=tty,signal=off -serial chardev:tty \
        -drive "file=$run/disk,format=raw,if=virtio,cache=unsafe,discard=unmap" \
        "${disks[@]}" \
        -virtfs local,path=/,mount_tag=root,security_model=none,readonly=on,multidevs=remap \
        -virtfs "local,path=$lab/share,mount_tag=share,security_model=none,multidevs=remap"
    local machine=${machines[-1]}
    watch "$machine" &
    machines+=($!)
    wait "$machine" || true
    { kill -KILL "${machines[-1]}" && wait "${machines[-1]}"; } 2>/dev/null || true
    if [ ! -s "$run/status" ]; then
        echo "lab: the machine ended before the command did; the end of its serial log:" >&2
        tail -n 40 "$run/serial.log" >&2
        return 125
    fi
    return "$(cat "$run/status")"
}

# program TARGET: builds a test program and prints its path.
program() {
    local path
    if [ -n "${LAB_PROGRAMS:-}" ]; then
        realpath "$LAB_PROGRAMS/$1"
        return
    fi
    cargo test --quiet --locked -p moirai-tests --test "$1" --no-run >&2 || return
    path=$(cargo test --locked -p moirai-tests --test "$1" --no-run 2>&1 |
        sed -n 's/.*Executable .*(\(.*\))$/\1/p')
    realpath "$path"
}

# debian: the image for the tests of that name, made by the `moirai` under test.
debian() {
    local image=$lab/debian/root
    debians="$image $image"
    if [ -e "$image" ] && [ -z "$(find "$root/host/src/image" -newer "$image" -print -quit)" ]; then
        return
    fi
    echo "lab: building Debian, a minute or two" >&2
    mkdir -p "$lab/debian"
    rm -f "$image"*
    ssh-keygen -q -t ed25519 -N '' -C lab -f "$image.key"
    "$MOIRAI_BINARY" image debian "$image" --ssh-key "$image.key.pub" >&2
}

# environment: what a test program needs to know, for a shell.
environment() {
    printf 'ulimit -c 0\nexport RUST_BACKTRACE=0 MOIRAI_BINARY=%q MOIRAI_TENANT=%q MOIRAI_IMAGES=%q\n' \
        "$MOIRAI_BINARY" "$MOIRAI_TENANT" "$MOIRAI_IMAGES"
}

# warm: has the machine read once what every launch reads, so that no launch waits for 9p.
warm() {
    printf 'cat %q %q %q/* >/dev/null 2>&1' "$MOIRAI_BINARY" "$MOIRAI_TENANT" "$lab/guest"
}

# ordinary [NAME]: the tests of main.rs, one after the other in one machine - or in several: if one does not
# come to its end, it has failed the test that it was at, and another one does the rest. Machines used to stand
# still once in a while (docs/lab.md); should one do so again, its test is begun once more.
ordinary() {
    local path status skip=() left word command at stood=''
    path=$(program lab) || return
    for word in ${LAB_SKIP:-}; do skip+=(--skip "$word"); done
    [ ${#skip[@]} -eq 0 ] || echo "lab: LEFT OUT HERE, run by \`make lab\`: $LAB_SKIP"
    mapfile -t left < <("$path" --list --format terse "${skip[@]}" "$@" | sed -n 's/: test$//p')
    case ${left[*]} in *debian::*) debian || return ;; esac
    while [ ${#left[@]} -gt 0 ]; do
        status=0
        command="$(environment); $(warm); '$here/each.sh' 300 '$path' '$run/begun' ${left[*]}"
        boot "${LAB_TIMEOUT:-1200}" "$command" </dev/null || status=$?
        [ "$status" -eq 125 ] || return "$([ "$status" -eq 101 ] && echo 0 || echo "$status")"
        [ -s "$run/begun" ] || return "$status"
        at=$(tail -n 1 "$run/begun")
        left=("${left[@]:$(($(wc -l <"$run/begun") - 1))}")
        if [ "$at" != "$stood" ] && grep -q 'STANDS STILL' "$run/serial.log"; then
            echo "... THE MACHINE STOOD STILL; once more in a new one"
            stood=$at
        else
            echo "... FAILED with its machine"
            left=("${left[@]:1}")
        fi
    done
}

# counted: two machines whose clocks count instructions, with everything in their memory, do the same;
# what they measure has to be the same to the last digit. A third one does it without scheduling.
counted() {
    local path tree=$run/tree file name
    path=$(program counted) || return
    prepare || return
    cp -r "$lab/machine/tree" "$tree"
    echo "irqbypass kvm ccp kvm-amd" >"$tree/modules/order"
    for file in "$MOIRAI_BINARY" "$MOIRAI_TENANT" "$path" "$MOIRAI_IMAGES/carnage" \
        "$lab/guest/vmlinux" "$lab/guest/initramfs.cpio" \
        $(ldd "$MOIRAI_BINARY" "$path" | grep -oE '/[^ :]+ \(0x' | cut -d ' ' -f 1 | sort -u); do
        mkdir -p "$tree$(dirname "$file")"
        case $file in
            "$MOIRAI_BINARY" | "$path") strip -o "$tree$file" "$file" ;;
            *) cp -L "$file" "$tree$file" ;;
        esac
    done
    { environment; echo "'$path' \"\$1\""; } >"$tree/counted"
    (cd "$tree" && find . | LC_ALL=C sort | bin/busybox cpio -o -H newc -R 0:0 2>/dev/null) >"$run/counted.cpio"
    for name in one two control; do
        local policy=moirai
        [ $name != control ] || policy=control
        machine "${LAB_TIMEOUT:-1200}" $name "nokaslr random.trust_cpu=off lab.counted=$policy" \
            -icount shift=2,sleep=off -rtc base=2026-01-01,clock=vm -seed ${LAB_SEED:-1} -smp 1 -m 2G \
            -initrd "$run/counted.cpio" -serial "file:$run/$name.out" </dev/null
    done
    wait "${machines[@]: -3}" || true
    cp "$run"/{one,two,control}.{out,log} "$lab/logs/"
    cat "$run"/{one,control}.out
    for name in one control; do
        grep -q '^\[status 0\]' "$run/$name.out" && continue
        echo "test counted::$name ... FAILED"
        tail -n 40 "$run/$name.log"
    done
    if grep -q '^\[status' "$run/two.out" && cmp "$run"/{one,two}.out; then
        echo "test counted::figures_are_the_same_on_every_run ... ok"
    else
        echo "test counted::figures_are_the_same_on_every_run ... FAILED"
    fi
}

# tests [NAME]
tests() {
    local log=$lab/logs/test.log passed failed name=${1:-}
    mkdir -p "$lab/logs"
    exec 8> >(exec tee "$log")
    local tee=$!
    case $name in counted*) ;; *) ordinary "$name" >&8 || echo "test lab ... FAILED" >&8 ;; esac
    # Only by name: a busy nested guest is so slow under counting that this takes longer than all the rest.
    case $name in counted*) counted >&8 || echo "test counted ... FAILED" >&8 ;; esac
    exec 8>&-
    wait "$tee" || true
    passed=$(grep -cE '^test .* \.\.\. ok' "$log" || true)
    failed=$(grep -cE '^test .* \.\.\. FAILED' "$log" || true)
    echo "$passed passed, $failed failed"
    [ "$failed" -eq 0 ] && [ "$passed" -gt 0 ]
}

built=$(cd "$root" && realpath -m "${CARGO_TARGET_DIR:-target}")/release
: "${MOIRAI_BINARY:=$built/moirai}" "${MOIRAI_TENANT:=$built/moirai-tenant}"
: "${MOIRAI_IMAGES:=$root/target/images}"
case ${1:-} in
    test) cd "$root" && tests "${2:-}" ;;
    cmd)
        [ $# -eq 2 ] || usage
        boot "${LAB_TIMEOUT:-300}" "$2"
        ;;
    bench)
        debian
        command="$(environment); $(warm); exec '$here/bench.sh' ${2:-3} ${3:-}"
        boot "${LAB_TIMEOUT:-3600}" "$command" </dev/null
        ;;
    debian) debian ;;
    shell)
        echo "lab: the machine takes some seconds; 'exit' ends it" >&2
        if [ -t 0 ]; then saved=$(stty -g) && stty raw -echo; fi
        boot "${LAB_TIMEOUT:-86400}" 'exec bash -i'
        ;;
    *) usage ;;
esac
