//! The registers with which a vCPU starts.

use kvm_bindings::{
    Msrs, kvm_lapic_state, kvm_msr_entry, kvm_regs, kvm_segment, kvm_sregs, kvm_xcrs,
};
use kvm_ioctls::{Error, VcpuFd};
use moirai_abi::boot::{Ring3Note, TSS_SELECTOR, USER_CODE_SELECTOR, USER_DATA_SELECTOR};

use super::cpuid::XCR0_ALLOWED;
use crate::boot::Entry;
use crate::boot::start_info::START_INFO;
use crate::boot::zero_page::{GDT, GDT_LIMIT, PAGE_TABLE, ZERO_PAGE};

const CR0_PE_ET: u64 = 0x11;
const CR0_PG: u64 = 1 << 31;
const CR4_PAE: u64 = 0x20;
const EFER_LME_LMA: u64 = 0x500;
/// Paging, write protection, native FPU errors, monitor coprocessor, protected mode.
const CR0_LONG: u64 = 0x8001_0033;
/// PAE, SSE and its exceptions, XSAVE, and `rdfsbase` and its kin for ring 3.
const CR4_LONG: u64 = 0x20 | 0x600 | 0x4_0000 | 0x1_0000;
/// NX, long mode active and enabled, SYSCALL.
const EFER_LONG: u64 = 0xd01;
/// IOPL 3 (ports without a trap to ring 0), interrupts enabled.
const RFLAGS_RING3: u64 = 0x3202;
const RFLAGS_RESET: u64 = 2;

const TYPE_CODE: u8 = 11;
const TYPE_DATA: u8 = 3;
const TYPE_BUSY_TSS: u8 = 11;

const MSR_MTRR_DEFAULT_TYPE: u32 = 0x2ff;
const MTRR_ENABLED_WRITE_BACK: u64 = 1 << 11 | 6;

const LAPIC_SPURIOUS: usize = 0xf0;
const LAPIC_LVT_LINT0: usize = 0x350;
/// Enabled, spurious vector 255.
const SPURIOUS_ENABLED: u32 = 0x1ff;
const LVT_MASKED: u32 = 0x1_0000;

/// Sets the first vCPU to the entry point of the image.
///
/// # Errors
/// KVM refuses a state, for instance a page table beyond the physical address width.
pub fn boot(vcpu: &VcpuFd, entry: Entry) -> Result<(), Error> {
    set_lasting(vcpu)?;
    match entry {
        Entry::Pvh(address) => pvh(vcpu, address),
        Entry::Linux64(address) => linux64(vcpu, address),
        Entry::Ring3(note) => ring3(vcpu, note),
    }
}

/// Makes a vCPU wait for INIT and SIPI. Some KVM hosts deliver them only after the local APIC has
/// been written once (platform.md).
///
/// # Errors
/// KVM's refusal.
pub fn wait_for_sipi(vcpu: &VcpuFd) -> Result<(), Error> {
    set_lasting(vcpu)?;
    vcpu.set_lapic(&vcpu.get_lapic()?)
}

/// What firmware leaves behind and INIT does not touch.
fn set_lasting(vcpu: &VcpuFd) -> Result<(), Error> {
    // Where KVM itself runs under an emulator, it may not learn that the guest enables AVX, and
    // would then neither save that state nor tell its size.
    set_xcr0(vcpu)?;
    // Memory is write-back by default. Linux without MTRRs does without PAT, too.
    let default_type = kvm_msr_entry {
        index: MSR_MTRR_DEFAULT_TYPE,
        data: MTRR_ENABLED_WRITE_BACK,
        ..Default::default()
    };
    let msrs = Msrs::from_entries(&[default_type]).map_err(|_| Error::new(libc::ENOMEM))?;
    vcpu.set_msrs(&msrs).map(|_set| ())
}

fn pvh(vcpu: &VcpuFd, address: u32) -> Result<(), Error> {
    let mut sregs = vcpu.get_sregs()?;
    let code = flat(0x10, TYPE_CODE, 0);
    set_segments(
        &mut sregs,
        kvm_segment { db: 1, l: 0, ..code },
        flat(0x18, TYPE_DATA, 0),
        kvm_segment { limit: 0x67, present: 1, type_: TYPE_BUSY_TSS, ..Default::default() },
    );
    (sregs.cr0, sregs.cr4, sregs.efer) = (CR0_PE_ET, 0, 0);
    vcpu.set_sregs(&sregs)?;
    vcpu.set_regs(&kvm_regs {
        rip: address.into(),
        rbx: START_INFO,
        rflags: RFLAGS_RESET,
        ..Default::default()
    })
}

/// The state of the 64-bit Linux boot protocol: long mode, interrupts off, selectors 0x10 and 0x18
/// of a GDT in memory.
fn linux64(vcpu: &VcpuFd, address: u64) -> Result<(), Error> {
    let mut sregs = vcpu.get_sregs()?;
    let tss = kvm_segment { limit: 0x67, present: 1, type_: TYPE_BUSY_TSS, ..Default::default() };
    set_segments(&mut sregs, flat(0x10, TYPE_CODE, 0), flat(0x18, TYPE_DATA, 0), tss);
    (sregs.gdt.base, sregs.gdt.limit) = (GDT, GDT_LIMIT);
    (sregs.cr0, sregs.cr3) = (CR0_PE_ET | CR0_PG, PAGE_TABLE);
    (sregs.cr4, sregs.efer) = (CR4_PAE, EFER_LME_LMA);
    vcpu.set_sregs(&sregs)?;
    vcpu.set_regs(&kvm_regs {
        rip: address,
        rsi: ZERO_PAGE,
        rflags: RFLAGS_RESET,
        ..Default::default()
    })
}

fn ring3(vcpu: &VcpuFd, note: Ring3Note) -> Result<(), Error> {
    let mut sregs = vcpu.get_sregs()?;
    let tss_limit = u32::try_from(note.tss_limit).map_err(|_| Error::new(libc::EINVAL))?;
    let table_limit = u16::try_from(note.gdt_limit).map_err(|_| Error::new(libc::EINVAL))?;
    set_segments(
        &mut sregs,
        flat(USER_CODE_SELECTOR, TYPE_CODE, 3),
        flat(USER_DATA_SELECTOR, TYPE_DATA, 3),
        kvm_segment {
            base: note.tss_base,
            limit: tss_limit,
            selector: TSS_SELECTOR,
            type_: TYPE_BUSY_TSS,
            present: 1,
            ..Default::default()
        },
    );
    (sregs.gdt.base, sregs.gdt.limit) = (note.gdt_base, table_limit);
    (sregs.idt.base, sregs.idt.limit) = (note.idt_base, 256 * 16 - 1);
    (sregs.cr0, sregs.cr3) = (CR0_LONG, note.page_table);
    (sregs.cr4, sregs.efer) = (CR4_LONG, EFER_LONG);
    vcpu.set_sregs(&sregs)?;
    enable_lapic(vcpu)?;
    vcpu.set_regs(&kvm_regs {
        rip: note.entry,
        rsp: note.stack_top,
        rdi: START_INFO,
        rflags: RFLAGS_RING3,
        ..Default::default()
    })
}

/// A flat 4 GiB segment (64-bit if it is code).
fn flat(selector: u16, type_: u8, dpl: u8) -> kvm_segment {
    let code = u8::from(type_ == TYPE_CODE);
    kvm_segment {
        limit: u32::MAX,
        selector,
        type_,
        present: 1,
        dpl,
        db: 1 - code,
        s: 1,
        l: code,
        g: 1,
        ..Default::default()
    }
}

fn set_segments(sregs: &mut kvm_sregs, code: kvm_segment, data: kvm_segment, tss: kvm_segment) {
    sregs.cs = code;
    for segment in [&mut sregs.ds, &mut sregs.es, &mut sregs.fs, &mut sregs.gs, &mut sregs.ss] {
        *segment = data;
    }
    sregs.tr = tss;
    sregs.ldt = kvm_segment { unusable: 1, ..Default::default() };
}

/// Allows the guest what its CPUID offers; a host without AVX gets by with less.
fn set_xcr0(vcpu: &VcpuFd) -> Result<(), Error> {
    let mut xcrs = kvm_xcrs { nr_xcrs: 1, ..Default::default() };
    for value in [XCR0_ALLOWED, XCR0_ALLOWED & 3] {
        if let Some(xcr0) = xcrs.xcrs.first_mut() {
            (xcr0.xcr, xcr0.value) = (0, value.into());
        }
        match vcpu.set_xcrs(&xcrs) {
            Err(error) if error.errno() == libc::EINVAL => {}
            done => return done,
        }
    }
    Err(Error::new(libc::EINVAL))
}

/// What the image's own ring-0 shim would do: enable the local APIC, mask the 8259's line.
fn enable_lapic(vcpu: &VcpuFd) -> Result<(), Error> {
    let mut lapic = vcpu.get_lapic()?;
    set_lapic_register(&mut lapic, LAPIC_SPURIOUS, SPURIOUS_ENABLED);
    set_lapic_register(&mut lapic, LAPIC_LVT_LINT0, LVT_MASKED);
    vcpu.set_lapic(&lapic)
}

fn set_lapic_register(lapic: &mut kvm_lapic_state, offset: usize, value: u32) {
    for (register, byte) in lapic.regs.iter_mut().skip(offset).zip(value.to_le_bytes()) {
        *register = i8::from_le_bytes([byte]);
    }
}
