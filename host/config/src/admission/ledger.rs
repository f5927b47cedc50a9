//! Who was promised what, and whether another promise fits.

use moirai_scheduler::Contract;
use moirai_scheduler::admission::{self, Resource, reserved_ppm};

use super::memory::{MemoryAccount, MemoryClaim, MemoryRefusal};
use super::report::{ContractReport, RefusalReport, ResourceReport};
use super::resource::{ResourceId, all, core_resource};
use super::several;
use crate::holder::Holder;
use crate::model::{Config, Export, ExportDevice, Host, Tenant};

/// Which of a tenant's parts a contract is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Part {
    /// Virtual CPU, by number.
    Vcpu(u32),
    /// Index in [`Tenant::volumes`].
    Volume(usize),
    /// Index in [`Tenant::nets`].
    Net(usize),
}

/// A contract that a tenant asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Claim {
    /// For which part of the tenant.
    pub part: Part,
    /// On which resource.
    pub resource: ResourceId,
    /// What is asked for.
    pub contract: Contract,
}

/// What cannot be kept.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// A contract.
    Contract(Box<ContractRefusal>),
    /// Memory.
    Memory(MemoryRefusal),
}

/// A claim that cannot be kept.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ContractRefusal {
    /// Name of the resource.
    pub resource: String,
    /// For which part of the tenant.
    pub part: Part,
    /// The answer of the admission test.
    pub refusal: admission::Refusal,
    /// Who holds what of the resource, the tenant's own claims that fit among them.
    pub beside: Vec<(Holder, Contract)>,
    /// Where several virtual CPUs share the contract: all of them together.
    pub several: Option<Several>,
}

/// What is said of a tenant with several virtual CPUs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Several {
    /// How many there are.
    pub vcpus: u64,
    /// What those on this core ask for together, in nanoseconds per second.
    pub requested: u64,
    /// What nobody else has reserved of the core, in parts per million.
    pub available_ppm: u32,
    /// The nearest contract of each that fits all of them on all their cores.
    pub nearest: Option<Contract>,
}

#[derive(Debug)]
struct Held {
    holder: Holder,
    part: Part,
    contract: Contract,
}

#[derive(Debug)]
struct Account {
    id: ResourceId,
    name: String,
    resource: Resource,
    held: Vec<Held>,
}

/// What is held of a resource.
pub(super) struct Holding<'a> {
    pub(super) name: &'a str,
    /// With the clients it has now.
    pub(super) resource: Resource,
    pub(super) held: Vec<(Holder, Contract)>,
}

/// The promises on all resources of a host.
#[derive(Debug)]
pub struct Ledger {
    accounts: Vec<Account>,
    memory: MemoryAccount,
    host: Host,
}

impl Claim {
    /// All that `tenant` asks for.
    #[must_use]
    pub fn all_of(tenant: &Tenant) -> Vec<Self> {
        let vcpus = (0..).zip(&tenant.cores).map(|(number, core)| Self {
            part: Part::Vcpu(number),
            resource: ResourceId::Core(*core),
            contract: tenant.cpu,
        });
        let volumes = tenant.volumes.iter().enumerate().map(|(index, volume)| Self {
            part: Part::Volume(index),
            resource: ResourceId::Disk(volume.disk),
            contract: volume.contract,
        });
        let nets = tenant.nets.iter().enumerate().map(|(index, net)| Self {
            part: Part::Net(index),
            resource: ResourceId::Link(net.link),
            contract: net.contract,
        });
        vcpus.chain(volumes).chain(nets).collect()
    }
}

impl Claim {
    /// What `export` asks for.
    #[must_use]
    pub fn of_export(export: &Export) -> Self {
        let (part, resource) = match &export.device {
            ExportDevice::Volume(volume) => (Part::Volume(0), ResourceId::Disk(volume.disk)),
            ExportDevice::Net(net) => (Part::Net(0), ResourceId::Link(net.link)),
        };
        Self { part, resource, contract: export.contract() }
    }
}

impl Ledger {
    /// An empty ledger for the resources of `config`.
    #[must_use]
    pub fn new(config: &Config) -> Self {
        let account = |(id, name, resource)| Account { id, name, resource, held: Vec::new() };
        let accounts = all(config).into_iter().map(account).collect();
        Self { accounts, memory: MemoryAccount::new(config), host: config.host.clone() }
    }

    /// Admits all claims of `holder` or none. A claim replaces the one that the tenant holds for
    /// the same part; without one for `memory` it keeps what it has.
    ///
    /// # Errors
    /// The claims that do not fit; the ledger is as it was.
    pub fn admit(
        &mut self,
        holder: &Holder,
        claims: &[Claim],
        memory: Option<MemoryClaim>,
    ) -> Result<(), Vec<Refusal>> {
        let mut refusals = Vec::new();
        for account in &self.accounts {
            account.refused(&self.host, holder, claims, &mut refusals);
        }
        self.look_at_all_vcpus(holder, claims, &mut refusals);
        let mut refusals: Vec<_> =
            refusals.into_iter().map(|it| Refusal::Contract(Box::new(it))).collect();
        let memory_refused = memory.and_then(|claim| self.memory.check(holder, claim).err());
        refusals.extend(memory_refused.map(Refusal::Memory));
        if !refusals.is_empty() {
            return Err(refusals);
        }
        for account in &mut self.accounts {
            let mine = |claim: &&Claim| claim.resource == account.id;
            for claim in claims.iter().filter(mine) {
                account.held.retain(|held| held.holder != *holder || held.part != claim.part);
                let Claim { part, contract, .. } = *claim;
                account.held.push(Held { holder: holder.clone(), part, contract });
            }
        }
        if let Some(claim) = memory {
            self.memory.enter(holder, claim);
        }
        Ok(())
    }

    /// Several virtual CPUs have one contract in the tenant's table: where it does not fit, one
    /// refusal for each core is left, and says what to write there.
    fn look_at_all_vcpus(
        &self,
        holder: &Holder,
        claims: &[Claim],
        refusals: &mut Vec<ContractRefusal>,
    ) {
        let is_vcpu = |part: Part| matches!(part, Part::Vcpu(_));
        let vcpus: Vec<_> = claims.iter().filter(|claim| is_vcpu(claim.part)).collect();
        let refused = refusals.iter().find(|refusal| is_vcpu(refusal.part));
        let Some(asked) = refused.map(|refusal| refusal.refusal.requested) else { return };
        if vcpus.len() < 2 {
            return;
        }
        let on = |account: &Account| vcpus.iter().filter(|it| it.resource == account.id).count();
        let cores: Vec<_> = self.accounts.iter().filter(|account| on(account) > 0).collect();
        let fits = |contract: &Contract| {
            cores.iter().all(|core| {
                let mut set = contracts(&core.beside(holder, claims));
                set.extend(std::iter::repeat_n(*contract, on(core)));
                let resource = core.resource_for(&self.host, set.len());
                admission::check(&resource, &set).is_ok()
            })
        };
        let nearest = several::nearest(&asked, fits);
        let mut seen = Vec::new();
        refusals.retain_mut(|refusal| {
            if !is_vcpu(refusal.part) {
                return true;
            }
            let Some(core) = cores.iter().find(|core| core.name == refusal.resource) else {
                return true;
            };
            let count = |number: usize| u64::try_from(number).unwrap_or(u64::MAX);
            let others = reserved_ppm(&contracts(&core.beside(holder, claims)));
            refusal.several = Some(Several {
                vcpus: count(vcpus.len()),
                requested: per_second(&asked).saturating_mul(count(on(core))),
                available_ppm: core.resource.capacity_ppm.saturating_sub(others),
                nearest,
            });
            let first = !seen.contains(&refusal.resource);
            seen.push(refusal.resource.clone());
            first
        });
    }

    /// Every resource with its name and what is held of it.
    pub(super) fn holdings(&self) -> impl Iterator<Item = Holding<'_>> {
        self.accounts.iter().map(|account| Holding {
            name: &account.name,
            resource: account.resource_for(&self.host, account.held.len()),
            held: account.held.iter().map(|held| (held.holder.clone(), held.contract)).collect(),
        })
    }

    /// Gives back all that `holder` holds.
    pub fn release(&mut self, holder: &Holder) {
        for account in &mut self.accounts {
            account.held.retain(|held| held.holder != *holder);
        }
        self.memory.release(holder);
    }

    /// Name, capacity and reserved share of every resource.
    #[must_use]
    pub fn report(&self) -> Vec<ResourceReport> {
        self.accounts
            .iter()
            .map(|account| {
                let held: Vec<_> = account.held.iter().map(|held| held.contract).collect();
                ResourceReport {
                    name: account.name.clone(),
                    capacity: ns_per_s(account.resource.capacity_ppm),
                    reserved: ns_per_s(reserved_ppm(&held)),
                }
            })
            .chain(std::iter::once(self.memory.report()))
            .collect()
    }
}

impl Account {
    /// What is held here and not replaced by `claims` of `holder`.
    fn beside(&self, holder: &Holder, claims: &[Claim]) -> Vec<(Holder, Contract)> {
        let replaced = |held: &&Held| {
            let same = |claim: &Claim| claim.resource == self.id && claim.part == held.part;
            held.holder == *holder && claims.iter().any(same)
        };
        let kept = self.held.iter().filter(|held| !replaced(held));
        kept.map(|held| (held.holder.clone(), held.contract)).collect()
    }

    /// The resource with so many clients: what a dispatcher takes of its core grows with them.
    fn resource_for(&self, host: &Host, clients: usize) -> Resource {
        match self.id {
            ResourceId::Core(_) => core_resource(host, clients),
            ResourceId::Disk(_) | ResourceId::Link(_) => self.resource.clone(),
        }
    }

    /// Notes the claims on this resource that do not fit beside what others hold and beside the
    /// earlier claims.
    fn refused(
        &self,
        host: &Host,
        holder: &Holder,
        claims: &[Claim],
        refusals: &mut Vec<ContractRefusal>,
    ) {
        let mut beside = self.beside(holder, claims);
        for claim in claims.iter().filter(|claim| claim.resource == self.id) {
            let admitted = contracts(&beside);
            let resource = self.resource_for(host, admitted.len() + 1);
            match admission::admit(&resource, &admitted, &claim.contract) {
                Ok(()) => beside.push((holder.clone(), claim.contract)),
                Err(refusal) => {
                    let (resource, beside) = (self.name.clone(), beside.clone());
                    let (part, several) = (claim.part, None);
                    refusals.push(ContractRefusal { resource, part, refusal, beside, several });
                }
            }
        }
    }
}

impl Refusal {
    /// The refusal in the form of `moirai plan`.
    #[must_use]
    pub fn report(&self) -> RefusalReport {
        match self {
            Self::Contract(refusal) => refusal.report(),
            Self::Memory(refusal) => refusal.report(),
        }
    }

    /// The refusal of a contract.
    #[must_use]
    pub fn contract(&self) -> Option<&ContractRefusal> {
        match self {
            Self::Contract(refusal) => Some(refusal),
            Self::Memory(_) => None,
        }
    }
}

impl ContractRefusal {
    fn report(&self) -> RefusalReport {
        let Self { refusal, several, .. } = self;
        let asked = &refusal.requested;
        let (requested, available, asked, nearest) = match several {
            None => (
                per_second(asked),
                refusal.available_ppm,
                ContractReport::of(asked),
                refusal.nearest.as_ref().map(ContractReport::of),
            ),
            Some(Several { vcpus, requested, available_ppm, nearest }) => (
                *requested,
                *available_ppm,
                several::of_tenant(asked, *vcpus),
                nearest.as_ref().map(|nearest| several::of_tenant(nearest, *vcpus)),
            ),
        };
        RefusalReport {
            resource: self.resource.clone(),
            requested,
            available: ns_per_s(available),
            nearest,
            // Said for the whole tenant only where it is one virtual CPU's.
            later: refusal.later.as_ref().filter(|_| several.is_none()).map(ContractReport::of),
            reason: refusal.violation.to_string(),
            write: nearest.as_ref().map(|nearest| nearest.as_keys(&asked)),
            explain: None,
        }
    }
}

fn contracts(named: &[(Holder, Contract)]) -> Vec<Contract> {
    named.iter().map(|(_, contract)| *contract).collect()
}

fn ns_per_s(ppm: u32) -> u64 {
    u64::from(ppm) * 1000
}

/// The service a contract guarantees, in nanoseconds per second, rounded up.
pub fn per_second(contract: &Contract) -> u64 {
    let exact = contract.slice().wide() * 1_000_000_000;
    u64::try_from(exact.div_ceil(contract.period().wide())).unwrap_or(u64::MAX)
}
