#!/usr/bin/env bash
# Boots the lab: a machine with AMD-V under QEMU's emulation, so with an ordinary /dev/kvm.
#
#   run.sh shell               an interactive root shell in it
#   run.sh cmd 'COMMAND'       runs one command in it: its output and its exit status are ours
#
# In it, / is this machine's own file system, read-only; target/lab is writable; /tmp, /run and
# /var/tmp (an ext4 disk) are its own. LAB_CPUS (2), LAB_MEMORY (6G), LAB_TIMEOUT (300 s) change it.
# Its kernel's messages are in target/lab/run.*/serial.log while it runs; shown if it fails.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
lab=$(cd "$here/../.." && pwd)/target/lab
usage() { sed -n '2,/^set/s/^# \{0,1\}//p' "$0"; exit 2; }
case ${1:-} in
    shell) command='exec bash -i' limit=${LAB_TIMEOUT:-86400} ;;
    cmd) [ $# -eq 2 ] || usage; command=$2 limit=${LAB_TIMEOUT:-300} ;;
    *) usage ;;
esac

"$here/machine.sh" >&2
run=$(mktemp -d "$lab/run.XXXXXX")
saved=
if [ -t 0 ]; then saved=$(stty -g); fi
qemu=
clean() {
    [ -z "$qemu" ] || kill -KILL "$qemu" 2>/dev/null || true
    [ -z "$saved" ] || stty "$saved"
    rm -rf "$run"
}
trap clean EXIT
trap 'exit 130' INT TERM HUP
printf '%s\n' "$command" >"$run/command"
pwd >"$run/folder"
truncate -s 4G "$run/disk"
mke2fs -q -t ext4 -O ^has_journal -E lazy_itable_init=1,nodiscard "$run/disk"
if [ "$1" = shell ]; then
    echo "lab: the machine takes some seconds; 'exit' ends it" >&2
    [ -z "$saved" ] || stty raw -echo
fi

# setpriv: the machine dies with this script, however that ends.
setpriv --pdeathsig KILL timeout -s KILL --foreground "$limit" \
    qemu-system-x86_64 -machine q35,accel=tcg -cpu max -smp "${LAB_CPUS:-2}" -m "${LAB_MEMORY:-6G}" \
    -nodefaults -no-user-config -no-reboot -display none \
    -kernel "$lab/machine/vmlinux" -initrd "$lab/machine/initramfs.cpio" \
    -append "console=ttyS0 quiet panic=-1 tsc=reliable lab.folder=$lab lab.run=$run" \
    -serial "file:$run/serial.log" -chardev stdio,id=tty,signal=off -serial chardev:tty \
    -drive "file=$run/disk,format=raw,if=virtio,cache=unsafe" \
    -virtfs local,path=/,mount_tag=root,security_model=none,readonly=on,multidevs=remap \
    -virtfs "local,path=$lab,mount_tag=lab,security_model=none,multidevs=remap" <&0 &
qemu=$!
wait "$qemu" || true
qemu=
if [ ! -s "$run/status" ]; then
    echo "lab: the machine ended before the command did; the end of its serial log:" >&2
    tail -n 40 "$run/serial.log" >&2
    exit 125
fi
exit "$(cat "$run/status")"
