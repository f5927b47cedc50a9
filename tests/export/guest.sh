#!/usr/bin/env bash
# Builds what a Linux guest of another VMM needs in the tests of exports, and prints where it is: the
# lab's guest (tests/lab/machine.sh) with fio and iperf3 added to its initial RAM disk.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
lab=$(cd "$here/../.." && pwd)/target/lab
"$here/../lab/machine.sh" >&2
mkdir -p "$lab/export"
exec 9>"$lab/export/.lock"
flock 9
image=$lab/export/initramfs.cpio
if [ ! -e "$image" ] || [ "$lab/guest/initramfs.cpio" -nt "$image" ] || [ "$0" -nt "$image" ]; then
    tree=$lab/export/tree
    rm -rf "$tree"
    for program in "$(command -v fio)" "$(command -v iperf3)"; do
        # With all libraries, loader included, at the places where they are looked for.
        for file in "$program" $(ldd "$program" | grep -o '/[^ ]*'); do
            install -D "$(readlink -f "$file")" "$tree$file"
        done
    done
    (cd "$tree" && find . | "$lab/packages/busybox/bin/busybox" cpio -o -H newc -R 0:0 2>/dev/null) |
        cat "$lab/guest/initramfs.cpio" - >"$image.new"
    mv "$image.new" "$image"
    rm -rf "$tree"
fi
echo "$lab/guest/vmlinux" "$image"
