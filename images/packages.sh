#!/usr/bin/env bash
# Installs the Debian packages that the demo, the tests and the benchmarks use as independent peers:
# ffmpeg (makes and decodes the film), fio (the disk's own speed), QEMU (boots our images and uses our
# devices too), ip and ping (look at our links from outside).
# Does nothing where they are there already.
set -euo pipefail
declare -A need=(
    [ffmpeg]=ffmpeg [fio]=fio [qemu-system-x86_64]=qemu-system-x86 [cc]=gcc
    [ip]=iproute2 [ping]=iputils-ping [setpriv]=util-linux
    [iperf3]=iperf3 [socat]=socat [ssh]=openssh-client [mke2fs]=e2fsprogs [mmdebstrap]=mmdebstrap
    [iasl]=acpica-tools
    [qemu-img]=qemu-utils [xz]=xz-utils [lz4]=lz4
)

# look: which packages have tools that are not there.
look() {
    missing=()
    for tool in "${!need[@]}"; do
        command -v "$tool" >/dev/null || missing+=("${need[$tool]}")
    done
}

look
[ ${#missing[@]} -eq 0 ] && exit 0
if [ "$(id -u)" -ne 0 ]; then
    echo "cannot install packages without root; run: apt-get install ${missing[*]}" >&2
    exit 1
fi
export DEBIAN_FRONTEND=noninteractive
apt-get update -qq
# Twice, because apt removes what is in conflict with what it installs: Debian's QEMU takes away a
# qemu-img of backports, whose place Debian's own has to take.
for _ in 1 2; do
    echo "installing: ${missing[*]}"
    apt-get install -y -qq --no-install-recommends "${missing[@]}" >/dev/null
    look
    [ ${#missing[@]} -eq 0 ] && exit 0
done
echo "still missing after their installation: ${missing[*]}" >&2
exit 1
