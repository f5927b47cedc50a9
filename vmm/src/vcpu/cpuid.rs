//! What a guest's CPUID says: what KVM supports, minus what this VMM does not promise, plus where
//! this vCPU sits and how fast its clocks run.

use kvm_bindings::{CpuId, KVM_CPUID_FLAG_SIGNIFCANT_INDEX, kvm_cpuid_entry2};
use kvm_ioctls::{Cap, Error, Kvm};
use moirai_abi::machine::CPUID_TIMING_LEAF;

/// Frequency of KVM's local APIC timer.
const APIC_BUS_KHZ: u32 = 1_000_000;
/// x87, SSE and AVX: the state that guests may use. AVX-512 is left out because XCR0 is not
/// virtualized on every host (platform.md).
pub const XCR0_ALLOWED: u32 = 0b111;
/// Size of an XSAVE area for [`XCR0_ALLOWED`]: legacy area, header, AVX.
const XSAVE_BYTES: u32 = 512 + 64 + 256;

/// Features of leaf 1 that are masked: a VM in this VM, and the capability register of a PMU.
const LEAF1_ECX_MASK: u32 = 1 << 5 | 1 << 15;
/// Features of leaf 7 (subleaf 0) that are masked: those that need more than [`XCR0_ALLOWED`] or
/// supervisor state, enclaves, tracing, and quality of service, which is the host's to give.
const LEAF7_EBX_MASK: u32 = {
    let mpx = 1 << 14;
    let avx512 = 1 << 16 | 1 << 17 | 1 << 21 | 1 << 26 | 1 << 27 | 1 << 28 | 1 << 30 | 1 << 31;
    let (sgx, rdt, tracing) = (1 << 2, 1 << 12 | 1 << 15, 1 << 25);
    mpx | avx512 | sgx | rdt | tracing
};
const LEAF7_ECX_MASK: u32 = {
    let protection_keys = 1 << 3 | 1 << 4;
    let avx512 = 1 << 1 | 1 << 6 | 1 << 11 | 1 << 12 | 1 << 14;
    let (shadow_stacks, sgx) = (1 << 7, 1 << 30);
    protection_keys | avx512 | shadow_stacks | sgx
};
const LEAF7_EDX_MASK: u32 = {
    let avx512 = 1 << 2 | 1 << 3 | 1 << 8 | 1 << 23;
    let amx = 1 << 22 | 1 << 24 | 1 << 25;
    let (branch_records, branch_tracking) = (1 << 19, 1 << 20);
    avx512 | amx | branch_records | branch_tracking
};
/// AVX-512 BF16 and AMX FP16 in leaf 7 (subleaf 1).
const LEAF7_1_EAX_MASK: u32 = 1 << 5 | 1 << 21;
/// SVM and the counters of a PMU in leaf 0x8000_0001.
const LEAF_EXT1_ECX_MASK: u32 = 1 << 2 | 1 << 23 | 1 << 24 | 1 << 28;

/// CPUID for all vCPUs of a VM; [`Template::for_vcpu`] makes it one vCPU's.
#[derive(Clone, Debug)]
pub struct Template {
    entries: Vec<kvm_cpuid_entry2>,
    vcpus: u8,
    tsc_deadline: bool,
}

impl Template {
    /// Asks KVM what it supports and masks it.
    ///
    /// # Errors
    /// KVM's refusal.
    pub fn new(kvm: &Kvm, vcpus: u8) -> Result<Self, Error> {
        let supported = kvm.get_supported_cpuid(kvm_bindings::KVM_MAX_CPUID_ENTRIES)?;
        // Not in the list of what is supported, because it needs KVM's own local APIC.
        let tsc_deadline = kvm.check_extension(Cap::TscDeadlineTimer);
        Ok(Self::of(supported.as_slice(), vcpus, tsc_deadline))
    }

    fn of(supported: &[kvm_cpuid_entry2], vcpus: u8, tsc_deadline: bool) -> Self {
        let mut entries: Vec<_> =
            supported.iter().filter(|entry| !is_hidden(entry.function)).copied().collect();
        entries.iter_mut().for_each(mask);
        Self { entries, vcpus, tsc_deadline }
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
            if entry.function == 1 {
                set_bit(&mut entry.ecx, TSC_DEADLINE, self.tsc_deadline);
            }
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

/// Leaves that are not passed on: topology is written afresh; PMU, SGX, tracing, AMX, branch
/// records, SVM and encrypted memory have leaves of their own and are masked.
fn is_hidden(function: u32) -> bool {
    let topology = matches!(function, 0xb | 0x1f);
    let basic = matches!(function, 0xa | 0x12 | 0x14 | 0x1c | 0x1d | 0x1e | 0x23);
    let extended = matches!(function, 0x8000_000a | 0x8000_001b | 0x8000_001f | 0x8000_0022);
    topology || basic || extended
}

fn mask(entry: &mut kvm_cpuid_entry2) {
    match (entry.function, entry.index) {
        (1, _) => entry.ecx &= !LEAF1_ECX_MASK,
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
        (0x4000_0000, _) => entry.eax = entry.eax.max(CPUID_TIMING_LEAF),
        (0x8000_0001, _) => entry.ecx &= !LEAF_EXT1_ECX_MASK,
        _ => {}
    }
}

const X2APIC: u32 = 1 << 21;
const TSC_DEADLINE: u32 = 1 << 24;
const HYPERVISOR: u32 = 1 << 31;
/// `edx` of leaf 1: more than one logical processor; `ecx` of leaf 0x8000_0001: they are cores.
const HTT: u32 = 1 << 28;
const CMP_LEGACY: u32 = 1 << 1;

fn set_bit(register: &mut u32, bit: u32, on: bool) {
    *register = if on { *register | bit } else { *register & !bit };
}

/// Writes what depends on the vCPU into leaves that KVM fills with the host's values.
fn place(entry: &mut kvm_cpuid_entry2, apic_id: u32, vcpus: u32) {
    match entry.function {
        1 => {
            entry.ebx = entry.ebx & 0xffff | vcpus << 16 | apic_id << 24;
            entry.ecx |= X2APIC | HYPERVISOR;
            set_bit(&mut entry.edx, HTT, vcpus > 1);
        }
        // Cores of the package, and nobody to share a cache with but these.
        4 if entry.eax & 0x1f != 0 => {
            entry.eax = entry.eax & 0x3fff | sharing(entry.eax, vcpus) << 14 | (vcpus - 1) << 26;
        }
        0x8000_0001 => {
            // Reserved where the vendor is Intel.
            let known = entry.ecx & CMP_LEGACY != 0;
            set_bit(&mut entry.ecx, CMP_LEGACY, known && vcpus > 1);
        }
        // AMD: number of cores and width of a core's number in the APIC id.
        0x8000_0008 => entry.ecx = id_bits(vcpus) << 12 | (vcpus - 1),
        0x8000_001d if entry.eax & 0x1f != 0 => {
            entry.eax = entry.eax & 0x3fff | sharing(entry.eax, vcpus) << 14;
        }
        // AMD: APIC id, core with one thread, one node.
        0x8000_001e => (entry.eax, entry.ebx, entry.ecx) = (apic_id, apic_id, 0),
        _ => {}
    }
}

/// With how many others a vCPU shares the cache that `eax` of leaf 4 or 0x8000_001d describes.
fn sharing(eax: u32, vcpus: u32) -> u32 {
    let level = eax >> 5 & 7;
    if level >= 3 { vcpus - 1 } else { 0 }
}

/// Bits of the APIC id that number the vCPUs.
fn id_bits(vcpus: u32) -> u32 {
    vcpus.next_power_of_two().trailing_zeros()
}

/// Extended topology: one thread a core, `vcpus` cores in one package.
fn topology(function: u32, apic_id: u32, vcpus: u32) -> [kvm_cpuid_entry2; 3] {
    const THREADS: u32 = 1 << 8;
    const CORES: u32 = 2 << 8;
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
    [level(0, 0, 1, THREADS), level(1, id_bits(vcpus), vcpus, CORES), level(2, 0, 0, 0)]
}

#[cfg(test)]
mod tests {
    use super::{Template, kvm_cpuid_entry2};

    /// Leaves of a processor that can do everything.
    fn all_of(functions: &[u32]) -> Vec<kvm_cpuid_entry2> {
        let everything = |&function: &u32| kvm_cpuid_entry2 {
            function,
            eax: u32::MAX,
            ebx: u32::MAX,
            ecx: u32::MAX,
            edx: u32::MAX,
            ..Default::default()
        };
        functions.iter().map(everything).collect()
    }

    fn vcpu(index: u8, vcpus: u8, tsc_deadline: bool) -> Vec<kvm_cpuid_entry2> {
        let functions =
            [1, 4, 7, 0xa, 0x12, 0x1f, 0x8000_0001, 0x8000_0008, 0x8000_000a, 0x8000_001e];
        let template = Template::of(&all_of(&functions), vcpus, tsc_deadline);
        template.for_vcpu(index, 2_000_000).unwrap().as_slice().to_vec()
    }

    fn leaf(entries: &[kvm_cpuid_entry2], function: u32, index: u32) -> kvm_cpuid_entry2 {
        let mut found = entries.iter().filter(|e| (e.function, e.index) == (function, index));
        let entry = *found.next().unwrap();
        assert!(found.next().is_none(), "leaf {function:#x} is there once");
        entry
    }

    #[test]
    fn what_the_vm_cannot_do_is_hidden() {
        let entries = vcpu(0, 1, false);
        assert!(entries.iter().all(|e| !matches!(e.function, 0xa | 0x12 | 0x8000_000a)));
        let features = leaf(&entries, 1, 0);
        let (vmx, pdcm) = (1 << 5, 1 << 15);
        assert_eq!(features.ecx & (vmx | pdcm | super::TSC_DEADLINE), 0);
        assert_eq!(features.edx & super::HTT, 0, "one vCPU has no neighbour");
        let (sgx, avx512) = (1 << 2, 1 << 16);
        assert_eq!(leaf(&entries, 7, 0).ebx & (sgx | avx512), 0);
        let (svm, counters) = (1 << 2, 1 << 23);
        assert_eq!(leaf(&entries, 0x8000_0001, 0).ecx & (svm | counters), 0);
        assert_ne!(leaf(&vcpu(0, 1, true), 1, 0).ecx & super::TSC_DEADLINE, 0);
    }

    #[test]
    fn all_ways_to_ask_for_the_topology_agree() {
        let entries = vcpu(5, 6, true);
        let features = leaf(&entries, 1, 0);
        assert_eq!((features.ebx >> 24, features.ebx >> 16 & 0xff), (5, 6));
        assert_eq!(leaf(&entries, 4, 0).eax >> 26, 5, "cores less one");
        for function in [0xb, 0x1f] {
            let (threads, cores) = (leaf(&entries, function, 0), leaf(&entries, function, 1));
            assert_eq!((threads.eax, threads.ebx, threads.edx), (0, 1, 5));
            assert_eq!((cores.eax, cores.ebx, cores.edx), (3, 6, 5));
        }
        assert_eq!(leaf(&entries, 0x8000_0008, 0).ecx, 3 << 12 | 5);
        let extended = leaf(&entries, 0x8000_001e, 0);
        assert_eq!((extended.eax, extended.ebx, extended.ecx), (5, 5, 0));
    }
}
