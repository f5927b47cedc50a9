#!/usr/bin/env bash
# Builds target/lab/qemu/qemu-system-x86_64: Debian's QEMU from its source package, reduced to what the
# lab uses, with four corrections (`correct`, below; docs/lab.md). Takes two minutes on two cores, once.
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
echo "lab: building QEMU with corrections, some two minutes (log: $log)"

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

# put before|after FILE LINE TEXT: adds TEXT beside the one line of FILE that has LINE in it.
put() {
    where=$1 line=$3 text=$4 awk '
        BEGIN { where = ENVIRON["where"]; line = ENVIRON["line"]; text = ENVIRON["text"] }
        index($0, line) && ++found && where == "before" { print text }
        { print }
        index($0, line) && where == "after" { print text }
        END { exit found != 1 }' "$2" >"$2.new"
    mv "$2.new" "$2"
}

# What is wrong in the emulation of AMD-V and of several processors in QEMU 7.2.
correct() {
    local svm=target/i386/tcg/sysemu/svm_helper.c
    # VMRUN injects an event by exception_index and leaves it set. If the CPU loop is left before anything else
    # has reset it - at a kick of the vCPU thread, with counted instructions whenever the count is used up - the
    # event is delivered once more, with interrupts disabled: the guest deadlocks in its own spin locks.
    put after $svm 'do_interrupt_x86_hardirq(env, vector, 1);' '            cs->exception_index = -1;'

    # Every FXRSTOR of any processor clears a bit in hflags2 of the first one, by reading and writing the whole
    # word. What that does to its own bits in the meantime is lost: nested paging (its guest meets a triple
    # fault), the global interrupt flag (it never takes an interrupt again, or one on the way out of the guest).
    put before target/i386/tcg/sysemu/fpu_helper.c 'env->hflags2 &= ~HF2_IGNNE_MASK;' \
        '    if (env->hflags2 & HF2_IGNNE_MASK)'

    # Code that one processor changes while another one translates it stays in the cache as it was: a breakpoint
    # that the kernel has put there for a moment is met for ever.
    local code=accel/tcg/translate-all.c
    put after $code 'void *host_pc;' '    uint8_t seen[TARGET_PAGE_SIZE]; size_t first = 0;'
    put after $code 'gen_code_buf = tcg_ctx->code_gen_ptr;' '    if (phys_pc != -1) {
        first = TARGET_PAGE_SIZE - (pc & ~TARGET_PAGE_MASK);
        memcpy(seen, host_pc, first);
    }'
    put after $code 'existing_tb = tb_link_page(' '    if (existing_tb == tb && memcmp(seen, host_pc, MIN(tb->size, first))) {
        tb_phys_invalidate(tb, -1);
        goto buffer_overflow;
    }'

    # VMRUN sets a bit in interrupt_request without the lock that others hold who do so: an interrupt is lost.
    put after $svm '#include "qemu/log.h"' '#include "qemu/main-loop.h"'
    put before $svm 'cs->interrupt_request |= CPU_INTERRUPT_VIRQ;' '        qemu_mutex_lock_iothread();'
    put after $svm 'cs->interrupt_request |= CPU_INTERRUPT_VIRQ;' '        qemu_mutex_unlock_iothread();'
}

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
    correct
    # Debian takes these firmware files out of the source, the build wants them all the same.
    local firmware
    for firmware in $(grep -oE 'edk2-[a-z0-9_-]+\.fd' pc-bios/meson.build); do
        bzip2 </dev/null >"pc-bios/$firmware.bz2"
    done
    printf 'CONFIG_%s=y\n' Q35 VIRTIO_PCI VIRTIO_BLK VIRTIO_9P >configs/devices/x86_64-softmmu/lab.mak
    mkdir build
    cd build
    ../configure --target-list=x86_64-softmmu --without-default-features --without-default-devices \
        --with-devices-x86_64=lab --enable-tcg --enable-virtfs --enable-attr --enable-cap-ng --enable-fdt=system \
        --enable-trace-backends=nop --disable-debug-info --disable-qom-cast-debug --disable-docs --disable-tools \
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
