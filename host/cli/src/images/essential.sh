#!/bin/sh
# Run by mmdebstrap before the kernel is installed; $1 is the new root. The initial RAM disk gets the
# drivers of Moirai's devices and no others, so that it is small and soon unpacked.
set -eu
mkdir -p "$1/etc/initramfs-tools/conf.d" "$1/usr/share/initramfs-tools/modules.d"
printf 'MODULES=list\nCOMPRESS=gzip\nRESUME=none\n' >"$1/etc/initramfs-tools/conf.d/moirai"
printf '%s\n' virtio_pci virtio_mmio virtio_blk >"$1/usr/share/initramfs-tools/modules.d/moirai"
