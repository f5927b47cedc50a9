//! Memory is promised, too. A claim is what a guest has and what the host spends on having it; the
//! account says whether the machine has that much left for tenants.

use std::collections::BTreeMap;

use super::quantities::{MEMORY, MIB, Mebibytes};
use super::report::{RefusalReport, ResourceReport};
use crate::Profile;
use crate::holder::Holder;
use crate::model::{Config, Export, Tenant};

/// A tenant process beside its guest's memory, and what the kernel and the host service keep for
/// it: 0.2 MiB of its own and 1.5 MiB of the binary were measured (ten tenants, 2026-11-30); the
/// rest is for the structures of the kernel that no counter shows.
const TENANT_BYTES: u64 = 4 << 20;
/// A virtual CPU: its thread, its state in KVM.
const VCPU_BYTES: u64 = 1 << 20;
/// A device: its queues, its ring of requests, what bounces.
const DEVICE_BYTES: u64 = 2 << 20;
/// Page tables of the process, of the host service and of KVM: in each an entry of 8 bytes for a
/// page of 4 KiB. Measured were 0.8 MiB for 256 MiB without those of KVM.
const PAGE_TABLES_DIVISOR: u64 = 170;

/// Memory that a tenant or an export asks for, in bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MemoryClaim {
    /// What the guest has.
    pub guest: u64,
    /// What having it costs.
    pub overhead: u64,
}

/// Memory that is not there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MemoryRefusal {
    /// What was asked for.
    pub claim: MemoryClaim,
    /// What is not reserved, in bytes.
    pub available: u64,
}

/// The memory of the machine that tenants may have, and who has it.
#[derive(Debug)]
pub(super) struct MemoryAccount {
    capacity: u64,
    held: BTreeMap<Holder, u64>,
}

impl MemoryClaim {
    /// What `tenant` needs on the host of `config`.
    #[must_use]
    pub fn of_tenant(config: &Config, tenant: &Tenant) -> Self {
        let count = |number: usize| u64::try_from(number).unwrap_or(u64::MAX);
        let devices = tenant.volumes.len() + tenant.nets.len() + tenant.own_devices.len();
        let overhead = TENANT_BYTES
            .saturating_add(tenant.memory / PAGE_TABLES_DIVISOR)
            .saturating_add(count(tenant.cores.len()).saturating_mul(VCPU_BYTES))
            .saturating_add(count(devices).saturating_mul(DEVICE_BYTES));
        Self { guest: tenant.memory, overhead: overhead_of(config, overhead) }
    }

    /// What an export needs. Its guest's memory is its VMM's, but a page that its VMM has left out
    /// is charged to the host service when our I/O is the first to touch it.
    #[must_use]
    pub fn of_export(config: &Config, export: &Export) -> Self {
        let overhead = DEVICE_BYTES.saturating_add(export.memory / PAGE_TABLES_DIVISOR);
        Self { guest: export.memory, overhead: overhead_of(config, overhead) }
    }

    pub(super) fn total(self) -> u64 {
        self.guest.saturating_add(self.overhead)
    }
}

/// An ideal machine has no overhead.
fn overhead_of(config: &Config, bytes: u64) -> u64 {
    match config.host.profile {
        Profile::None => 0,
        Profile::Default => bytes,
    }
}

impl MemoryAccount {
    pub(super) fn new(config: &Config) -> Self {
        Self { capacity: config.host.memory, held: BTreeMap::new() }
    }

    /// Whether `claim` fits beside what all but `holder` hold.
    pub(super) fn check(&self, holder: &Holder, claim: MemoryClaim) -> Result<(), MemoryRefusal> {
        let others = self.held.iter().filter(|(other, _)| *other != holder);
        let others = others.fold(0u64, |sum, (_, bytes)| sum.saturating_add(*bytes));
        let available = self.capacity.saturating_sub(others);
        if claim.total() <= available { Ok(()) } else { Err(MemoryRefusal { claim, available }) }
    }

    pub(super) fn enter(&mut self, holder: &Holder, claim: MemoryClaim) {
        self.held.insert(holder.clone(), claim.total());
    }

    pub(super) fn release(&mut self, holder: &Holder) {
        self.held.remove(holder);
    }

    pub(super) fn report(&self) -> ResourceReport {
        ResourceReport {
            name: MEMORY.to_owned(),
            capacity: self.capacity,
            reserved: self.held.values().fold(0u64, |sum, bytes| sum.saturating_add(*bytes)),
        }
    }
}

impl MemoryRefusal {
    /// The most that the guest could have, in whole MiB; `None` if that is less than one.
    fn fits(&self) -> Option<u64> {
        let fixed = self.claim.overhead.saturating_sub(self.claim.guest / PAGE_TABLES_DIVISOR);
        let left = self.available.checked_sub(fixed)?;
        // Page tables are overhead unless there is none at all.
        let guest = if self.claim.overhead == 0 {
            left
        } else {
            left - left / (PAGE_TABLES_DIVISOR + 1) - 1
        };
        Some(guest / MIB * MIB).filter(|bytes| *bytes > 0)
    }

    /// The refusal in the form of `moirai plan`.
    pub(super) fn report(&self) -> RefusalReport {
        let MemoryClaim { guest, overhead } = self.claim;
        let (guest, overhead) = (Mebibytes(guest), Mebibytes(overhead));
        RefusalReport {
            resource: MEMORY.to_owned(),
            requested: self.claim.total(),
            available: self.available,
            later: None,
            nearest: None,
            reason: format!("{guest} are the guest's and {overhead} for having it"),
            write: self.fits().map(|bytes| format!("memory = \"{}M\"", bytes / MIB)),
            explain: None,
        }
    }
}
