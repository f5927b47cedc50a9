#!/usr/bin/env bash
# Boots the lab: a machine with AMD-V under QEMU's emulation, so with an ordinary /dev/kvm.
#
#   run.sh test [NAME]         runs the tests in it whose names contain NAME; ends with
#                              "N passed, M failed"
#   run.sh shell               an interactive root shell in it
#   run.sh cmd 'COMMAND'       runs one command in it: its output and its exit status are ours
#
# In it, / is this machine's own file system, read-only; target/lab is writable; /tmp, /run and
# /var/tmp (an ext4 disk) are its own. LAB_CPUS (2), LAB_MEMORY (6G), LAB_TIMEOUT (seconds) change it.
# Its kernel's messages are in target/lab/run.*/serial.log while it runs; shown if it fails.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
root=$(cd "$here/../.." && pwd)
lab=$root/target/lab
usage() { sed -n '2,/^set/s/^# \{0,1\}//p' "$0"; exit 2; }

run='' qemu='' saved=''
clean() {
    [ -z "$qemu" ] || kill -KILL "$qemu" 2>/dev/null || true
    [ -z "$saved" ] || stty "$saved"
    [ -z "$run" ] || rm -rf "$run"
}
trap clean EXIT
trap 'exit 130' INT TERM HUP

# What machines left that were killed together with their scripts.
for left in "$lab"/run.*; do
    [ -d "$left" ] && ! kill -0 "${left##*.}" 2>/dev/null && rm -rf "$left"
done

# boot LIMIT COMMAND: runs a shell command in the machine; its status is that of the command, 125 if
# the machine did not get that far.
boot() {
    "$here/machine.sh" >&2 || return 125
    run=$lab/run.$$
    mkdir "$run"
    printf '%s\n' "$2" >"$run/command"
    pwd >"$run/folder"
    truncate -s 4G "$run/disk"
    mke2fs -q -t ext4 -O ^has_journal -E lazy_itable_init=1,nodiscard "$run/disk"
    # The machine dies with its time limit, and that with this script, however it ends.
    local bound="setpriv --pdeathsig KILL"
    $bound timeout -s KILL --foreground "$1" $bound qemu-system-x86_64 -machine q35,accel=tcg -cpu max \
        -smp "${LAB_CPUS:-2}" -m "${LAB_MEMORY:-6G}" \
        -nodefaults -no-user-config -no-reboot -display none \
        -kernel "$lab/machine/vmlinux" -initrd "$lab/machine/initramfs.cpio" \
        -append "console=ttyS0 quiet panic=-1 tsc=reliable lab.folder=$lab lab.run=$run" \
        -serial "file:$run/serial.log" -chardev stdio,id=tty,signal=off -serial chardev:tty \
        -drive "file=$run/disk,format=raw,if=virtio,cache=unsafe,discard=unmap" \
        -virtfs local,path=/,mount_tag=root,security_model=none,readonly=on,multidevs=remap \
        -virtfs "local,path=$lab,mount_tag=lab,security_model=none,multidevs=remap" <&0 &
    qemu=$!
    wait "$qemu" || true
    qemu=
    if [ ! -s "$run/status" ]; then
        echo "lab: the machine ended before the command did; the end of its serial log:" >&2
        tail -n 40 "$run/serial.log" >&2
        return 125
    fi
    return "$(cat "$run/status")"
}

# tests [NAME]
tests() {
    local program tee status=0 log=$lab/test.log passed failed
    cargo test --quiet --locked -p moirai-tests --test lab --no-run >&2
    program=$(cargo test --locked -p moirai-tests --test lab --no-run 2>&1 | sed -n 's/.*Executable .*(\(.*\))$/\1/p')
    case $program in /*) ;; *) program=$PWD/$program ;; esac
    exec 8> >(exec tee "$log")
    tee=$!
    boot "${LAB_TIMEOUT:-1200}" "ulimit -c 0; RUST_BACKTRACE=0 MOIRAI_TENANT='$MOIRAI_TENANT' \
        MOIRAI_BINARY='$MOIRAI_BINARY' MOIRAI_IMAGES='$MOIRAI_IMAGES' \
        '$program' --test-threads 1 ${1:+"'$1'"}" </dev/null >&8 || status=$?
    exec 8>&-
    wait "$tee" || true
    passed=$(grep -cE '^test .* \.\.\. ok' "$log" || true)
    failed=$(grep -cE '^test .* \.\.\. FAILED' "$log" || true)
    if [ "$status" -ne 0 ] && [ "$failed" -eq 0 ]; then
        failed=1 # the machine or the test program died
        echo "test result: FAILED. $passed passed; $failed failed"
    fi
    echo "$passed passed, $failed failed"
    [ "$failed" -eq 0 ]
}

cd "$root" && built=${CARGO_TARGET_DIR:-$root/target}/release && cd "$OLDPWD"
: "${MOIRAI_BINARY:=$built/moirai}" "${MOIRAI_TENANT:=$built/moirai-tenant}" "${MOIRAI_IMAGES:=$root/target/images}"
case ${1:-} in
    test) cd "$root" && tests "${2:-}" ;;
    cmd)
        [ $# -eq 2 ] || usage
        boot "${LAB_TIMEOUT:-300}" "$2"
        ;;
    shell)
        echo "lab: the machine takes some seconds; 'exit' ends it" >&2
        if [ -t 0 ]; then saved=$(stty -g) && stty raw -echo; fi
        boot "${LAB_TIMEOUT:-86400}" 'exec bash -i'
        ;;
    *) usage ;;
esac
