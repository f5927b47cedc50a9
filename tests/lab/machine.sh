#!/usr/bin/env bash
# Builds the lab's machine in target/lab from Debian packages; what is there already stays.
#
#   qemu/              the emulator, see qemu.sh
#   debs/, packages/   the packages as downloaded and unpacked; nothing gets installed
#   machine/           vmlinux, initramfs.cpio: the machine that runs the tests
#   guest/             vmlinux, bzImage, initramfs.cpio: an unmodified cloud kernel for tenants
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
root=$(cd "$here/../.." && pwd)
lab=$root/target/lab
mkdir -p "$lab"
exec 9>"$lab/.lock"
flock 9 # several labs may start at once
setpriv --pdeathsig TERM "$here/qemu.sh"
cd "$lab"

# The real packages behind Debian's names for "the newest kernel".
kernel_of() { apt-cache depends "$1" | awk '$1 == "Depends:" && /linux-image/ {print $2; exit}'; }

# unpack PACKAGE DIRECTORY
unpack() {
    [ -d "packages/$2" ] && return
    echo "lab: unpacking $1"
    mkdir -p debs packages
    (cd debs && apt-get download -qq "$1" 2>/dev/null) || { # no list of packages yet, or an old one
        apt-get update -qq
        (cd debs && apt-get download -qq "$1")
    }
    rm -rf "packages/$2.new"
    dpkg-deb -x "debs/$1"_*.deb "packages/$2.new"
    mv "packages/$2.new" "packages/$2"
}

# vmlinux BZIMAGE OUT: the uncompressed kernel out of its image (boot protocol 2.08, fields
# setup_sects, payload_offset and payload_length).
vmlinux() {
    local field setup offset length
    field() { od -An -t "u$2" -j "$1" -N "$2" "$3" | tr -d ' '; }
    setup=$(field 497 1 "$1") offset=$(field 584 4 "$1") length=$(field 588 4 "$1")
    dd if="$1" of="$2.packed" bs=1M iflag=skip_bytes,count_bytes status=none \
        skip=$(((setup + 1) * 512 + offset)) count="$length"
    case $(od -An -t x1 -N 2 "$2.packed" | tr -d ' ') in
        fd37) xz -dc <"$2.packed" >"$2" 2>/dev/null || true ;; # four bytes of length follow the data
        0221) lz4 -dc <"$2.packed" >"$2" 2>/dev/null || true ;;
        *) echo "lab: $1 is packed in an unknown way" >&2; exit 1 ;;
    esac
    rm "$2.packed"
    [ "$(head -c 4 "$2" | tr -d '\177')" = ELF ] || { echo "lab: no kernel in $1" >&2; exit 1; }
}

# modules PACKAGE TREE NAME...: copies modules and writes the order in which they are to be loaded.
modules() {
    local from=packages/$1/lib/modules to=$2 name path
    shift 2
    mkdir -p "$to/modules"
    : >"$to/modules/order"
    for name in "$@"; do
        path=$(find "$from" -name "$name.ko" | head -1)
        [ -n "$path" ] || continue # built into this kernel
        cp "$path" "$to/modules/"
        echo "$name" >>"$to/modules/order"
    done
}

# tree TREE INIT: a file system of busybox and one script.
tree() {
    mkdir -p "$1"/{bin,dev,proc,sys,tmp,run,mnt,etc,root}
    cp packages/busybox/bin/busybox "$1/bin/"
    ln -sf busybox "$1/bin/sh"
    install -m 755 "$2" "$1/init"
}

pack() { (cd "$1" && find . | LC_ALL=C sort | "$lab/packages/busybox/bin/busybox" cpio -o -H newc -R 0:0 2>/dev/null) >"$2.new" && mv "$2.new" "$2"; }

stale() { [ ! -e "$1" ] || [ -n "$(find "${@:2}" -newer "$1" -print -quit)" ]; }

VIRTIO="virtio_ring virtio virtio_pci_legacy_dev virtio_pci_modern_dev virtio_pci"

[ -d packages/kernel ] || unpack "$(kernel_of linux-image-amd64)" kernel
[ -d packages/cloud ] || unpack "$(kernel_of linux-image-cloud-amd64)" cloud
unpack busybox-static busybox

mkdir -p machine guest
[ -e machine/vmlinux ] || vmlinux packages/kernel/boot/vmlinuz-* machine/vmlinux
[ -e guest/vmlinux ] || vmlinux packages/cloud/boot/vmlinuz-* guest/vmlinux
[ -e guest/bzImage ] || cp packages/cloud/boot/vmlinuz-* guest/bzImage

if stale machine/initramfs.cpio "$here/machine.sh" "$here/init"; then
    rm -rf machine/tree
    tree machine/tree "$here/init"
    # shellcheck disable=SC2086
    modules kernel machine/tree irqbypass kvm ccp kvm-amd $VIRTIO \
        netfs 9pnet fscache 9p 9pnet_virtio virtio_blk failover net_failover virtio_net \
        crc16 mbcache jbd2 crc32c_generic ext4 tun veth llc stp bridge dummy vsock
    pack machine/tree machine/initramfs.cpio
fi
# The guests' tools as a volume: programs of this machine with their libraries, for chroot.
TOOLS="fio iperf3 mke2fs e2fsck socat"
if stale guest/tools.img "$here/machine.sh"; then
    rm -rf guest/tools && mkdir -p guest/tools/{bin,proc,sys,dev,tmp,run,etc,mnt}
    for tool in $TOOLS; do
        path=$(command -v "$tool")
        cp "$(readlink -f "$path")" "guest/tools/bin/$tool"
        ldd "$path" | grep -oE '/[^ ]+' | while read -r library; do
            mkdir -p "guest/tools$(dirname "$library")"
            cp -Ln "$library" "guest/tools$library"
        done
    done
    rm -f guest/tools.img
    mke2fs -q -t ext4 -O ^has_journal -L tools -d guest/tools guest/tools.img 160M
fi
if stale guest/initramfs.cpio "$here/machine.sh" "$here"/guest-* "$here/probe.rs"; then
    rm -rf guest/tree
    tree guest/tree "$here/guest-init"
    install -m 755 "$here/guest-bench" guest/tree/bench
    rustc -O -C target-feature=+crt-static -C panic=abort -C strip=symbols --edition 2024 \
        -o guest/tree/probe "$here/probe.rs"
    # shellcheck disable=SC2086
    modules cloud guest/tree $VIRTIO virtio_mmio virtio_blk failover net_failover virtio_net \
        evdev button vsock vmw_vsock_virtio_transport_common vmw_vsock_virtio_transport \
        rng-core virtio-rng virtio_console virtio_balloon
    pack guest/tree guest/initramfs.cpio
fi
