//! What a guest's CPUID says: what KVM supports, minus what this VMM does not promise, plus where
//! this vCPU sits and how fast its clocks run.

use kvm_bindings::{CpuId, KVM_CPUID_FLAG_SIGNIFCANT_INDEX, kvm_cpuid_entry2};
use kvm_ioctls::{Error, Kvm};
use moirai_abi::machine::CPUID_TIMING_LEAF;

/// Frequency of KVM's local APIC timer.
const APIC_BUS_KHZ: u32 = 1_000_000;
/// x87, SSE and AVX: the state that guests may use. AVX-512 is left out because XCR0 is not
/// virtualized on every host (platform.md).
pub const XCR0_ALLOWED: u32 = 0b111;
/// Size of an XSAVE area for [`XCR0_ALLOWED`]: legacy area, header, AVX.
const XSAVE_BYTES: u32 = 512 + 64 + 256;

/// Features of leaf 7 (subleaf 0) that are masked: those that need more than [`XCR0_ALLOWED`].
const LEAF7_EBX_MASK: u32 = {
    let mpx = 1 << 14;
    let avx512 = 1 << 16 | 1 << 17 | 1 << 21 | 1 << 26 | 1 << 27 | 1 << 28 | 1 << 30 | 1 << 31;
    mpx | avx512
};
const LEAF7_ECX_MASK: u32 = {
    let protection_keys = 1 << 3 | 1 << 4;
    let avx512 = 1 << 1 | 1 << 6 | 1 << 11 | 1 << 12 | 1 << 14;
    protection_keys | avx512
};
const LEAF7_EDX_MASK: u32 = {
    let avx512 = 1 << 2 | 1 << 3 | 1 << 8 | 1 << 23;
    let amx = 1 << 22 | 1 << 24 | 1 << 25;
    avx512 | amx
};
/// AVX-512 BF16 and AMX FP16 in leaf 7 (subleaf 1).
const LEAF7_1_EAX_MASK: u32 = 1 << 5 | 1 << 21;

/// CPUID for all vCPUs of a VM; [`Template::for_vcpu`] makes it one vCPU's.
#[derive(Clone, Debug)]
pub struct Template {
    entries: Vec<kvm_cpuid_entry2>,
    vcpus: u8,
}

impl Template {
    /// Asks KVM what it supports and masks it.
    ///
    /// # Errors
    /// KVM's refusal.
    pub fn new(kvm: &Kvm, vcpus: u8) -> Result<Self, Error> {
        let mut entries = kvm.get_supported_cpuid(kvm_bindings::KVM_MAX_CPUID_ENTRIES)?;
        entries.as_mut_slice().iter_mut().for_each(mask);
        // Topology is written afresh, and AVX-512 and AMX have leaves of their own.
        let ours = |e: &&kvm_cpuid_entry2| !matches!(e.function, 0xb | 0x1f | 0x1d | 0x1e);
        let mut entries: Vec<_> = entries.as_slice().iter().filter(ours).copied().collect();
        for entry in &mut entries {
            if entry.function == 0x4000_0000 {
                entry.eax = entry.eax.max(CPUID_TIMING_LEAF);
            }
        }
        Ok(Self { entries, vcpus })
    }

    /// CPUID of vCPU `index`, whose TSC runs at `tsc_khz`.
    ///
    /// # Errors
    /// If there are more entries than KVM takes.
    pub fn for_vcpu(&self, index: u8, tsc_khz: u32) -> Result<CpuId, Error> {
        let mut entries = self.entries.clone();
        let (apic_id, vcpus) = (u32::from(index), u32::from(self.vcpus));
        for entry in &mut entries {
            place(entry, apic_id, vcpus);
        }
        for leaf in [0xb, 0x1f] {
            entries.extend(topology(leaf, apic_id, vcpus));
        }
        entries.push(kvm_cpuid_entry2 {
            function: CPUID_TIMING_LEAF,
            eax: tsc_khz,
            ebx: APIC_BUS_KHZ,
            ..Default::default()
        });
        CpuId::from_entries(&entries).map_err(|_| Error::new(libc::E2BIG))
    }
}

fn mask(entry: &mut kvm_cpuid_entry2) {
    match (entry.function, entry.index) {
        (7, 0) => {
            entry.ebx &= !LEAF7_EBX_MASK;
            entry.ecx &= !LEAF7_ECX_MASK;
            entry.edx &= !LEAF7_EDX_MASK;
        }
        (7, 1) => entry.eax &= !LEAF7_1_EAX_MASK,
        (0xd, 0) => {
            entry.eax &= XCR0_ALLOWED;
            (entry.ebx, entry.ecx, entry.edx) = (XSAVE_BYTES, XSAVE_BYTES, 0);
        }
        (0xd, 1) => (entry.ebx, entry.ecx, entry.edx) = (XSAVE_BYTES, 0, 0),
        // State components above AVX.
        (0xd, 3..) => (entry.eax, entry.ebx, entry.ecx, entry.edx) = (0, 0, 0, 0),
        _ => {}
    }
}

/// Writes what depends on the vCPU into leaves that KVM fills with the host's values.
fn place(entry: &mut kvm_cpuid_entry2, apic_id: u32, vcpus: u32) {
    const X2APIC: u32 = 1 << 21;
    const TSC_DEADLINE: u32 = 1 << 24;
    const HYPERVISOR: u32 = 1 << 31;
    match entry.function {
        1 => {
            entry.ebx = entry.ebx & 0xffff | vcpus << 16 | apic_id << 24;
            entry.ecx |= X2APIC | TSC_DEADLINE | HYPERVISOR;
        }
        // Cores of the package, and nobody to share a cache with but these.
        4 if entry.eax & 0x1f != 0 => {
            let level = entry.eax >> 5 & 7;
            let sharing = if level >= 3 { vcpus - 1 } else { 0 };
            entry.eax = entry.eax & 0x3fff | sharing << 14 | (vcpus - 1) << 26;
        }
        _ => {}
    }
}

/// Extended topology: one thread a core, `vcpus` cores in one package.
fn topology(function: u32, apic_id: u32, vcpus: u32) -> [kvm_cpuid_entry2; 3] {
    const THREADS: u32 = 1 << 8;
    const CORES: u32 = 2 << 8;
    let id_bits = vcpus.next_power_of_two().trailing_zeros();
    let level = |index, eax, ebx, kind: u32| kvm_cpuid_entry2 {
        function,
        index,
        flags: KVM_CPUID_FLAG_SIGNIFCANT_INDEX,
        eax,
        ebx,
        ecx: kind | index,
        edx: apic_id,
        ..Default::default()
    };
    [level(0, 0, 1, THREADS), level(1, id_bits, vcpus, CORES), level(2, 0, 0, 0)]
}
