#!/usr/bin/env bash
# Builds target/lab/qemu/qemu-system-x86_64: Debian's QEMU from its source package, reduced to what the
# lab uses, with one line added. Takes three minutes on two cores, once.
#
# Why. VMRUN injects an event into the nested guest by exception_index and leaves it set
# (target/i386/tcg/sysemu/svm_helper.c). If the machine's CPU loop is left before anything else has reset it - at a
# kick of the vCPU thread, and with counted instructions whenever the count is used up - the event is delivered
# once more, with interrupts disabled: the guest deadlocks in its own spin locks. Counted machines do not
# get through a nested boot with that, ordinary ones hang once in a while. QEMU 10 has it too.
set -euo pipefail
lab=$(cd "$(dirname "$0")/../.." && pwd)/target/lab
program=$lab/qemu/qemu-system-x86_64
[ -x "$program" ] && [ "$program" -nt "$0" ] && exit 0
log=$lab/qemu/build.log work=$lab/qemu/work
rm -rf "$work"
mkdir -p "$work/lists/partial"
job=''
# What fails in here would be the status of the script: the job has ended already if all went well.
trap '[ -z "$job" ] || kill -KILL -- "-$job" 2>/dev/null || true; rm -rf "$work"' EXIT
trap 'exit 130' INT TERM HUP
echo "lab: building QEMU with a correction, some three minutes (log: $log)"

# What the build needs: packages with a tool, packages with a library.
missing=()
for pair in meson:meson ninja:ninja-build pkg-config:pkg-config bzip2:bzip2 patch:patch dpkg-source:dpkg-dev; do
    command -v "${pair%%:*}" >/dev/null || missing+=("${pair#*:}")
done
for pair in glib-2.0:libglib2.0-dev pixman-1:libpixman-1-dev libcap-ng:libcap-ng-dev zlib:zlib1g-dev; do
    pkg-config --exists "${pair%%:*}" 2>/dev/null || missing+=("${pair#*:}")
done
for pair in libfdt.h:libfdt-dev attr/attributes.h:libattr1-dev; do
    [ -e "/usr/include/${pair%%:*}" ] || missing+=("${pair#*:}")
done
if [ ${#missing[@]} -gt 0 ]; then
    apt-get update -qq
    DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "${missing[@]}" >"$log" 2>&1 ||
        { tail -n 20 "$log" >&2; exit 1; }
fi

build() {
    # The sources beside the packages that this machine knows of, without changing its lists.
    apt-get indextargets --format 'deb-src $(REPO_URI) $(CODENAME) $(COMPONENT)' 'Identifier: Packages' |
        sort -u >sources.list
    local apt=(apt-get -qq -o Acquire::Retries=3 -o "Dir::Etc::sourcelist=$work/sources.list" -o Dir::Etc::sourceparts=-
        -o "Dir::State::lists=$work/lists" -o APT::Sandbox::User=root)
    "${apt[@]}" update
    "${apt[@]}" source --download-only qemu
    dpkg-source -x qemu_*.dsc source
    cd source
    sed -i '/do_interrupt_x86_hardirq(env, vector, 1);/a\            cs->exception_index = -1;' \
        target/i386/tcg/sysemu/svm_helper.c
    [ "$(grep -A 1 'do_interrupt_x86_hardirq(env, vector, 1);' target/i386/tcg/sysemu/svm_helper.c |
        grep -c 'cs->exception_index = -1;')" -eq 1 ]
    # Debian takes these firmware files out of the source, the build wants them all the same.
    local firmware
    for firmware in $(grep -oE 'edk2-[a-z0-9_-]+\.fd' pc-bios/meson.build); do
        bzip2 </dev/null >"pc-bios/$firmware.bz2"
    done
    mkdir build
    cd build
    ../configure --target-list=x86_64-softmmu --without-default-features --enable-tcg --enable-virtfs \
        --enable-attr --enable-cap-ng --enable-fdt=system --disable-docs --disable-tools \
        --disable-install-blobs --with-git-submodules=ignore --meson=meson
    ninja qemu-system-x86_64
    strip -o "$program.new" qemu-system-x86_64
    mv "$program.new" "$program"
}
# Not as the condition of an `if`: there `set -e` would not hold. A process group, so that it can be ended.
set -m
(cd "$work" && build) >"$log" 2>&1 &
job=$!
wait "$job" || { tail -n 20 "$log" >&2; exit 1; }
