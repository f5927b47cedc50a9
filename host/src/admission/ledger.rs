//! Who was promised what, and whether another promise fits.

use moirai_scheduler::Contract;
use moirai_scheduler::admission::{self, Resource, reserved_ppm};

use super::plan::{ContractReport, RefusalReport, ResourceReport};
use super::resource::{ResourceId, all, core_resource};
use crate::config::export::{Export, ExportDevice};
use crate::config::model::{Config, Host, Tenant};

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

/// A claim that cannot be kept.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{resource}: {refusal}")]
pub struct Refusal {
    /// Name of the resource.
    pub resource: String,
    /// For which part of the tenant.
    pub part: Part,
    /// The answer of the admission test.
    pub refusal: admission::Refusal,
    /// Who holds what of the resource, the tenant's own claims that fit among them.
    pub beside: Vec<(String, Contract)>,
}

#[derive(Debug)]
struct Held {
    tenant: String,
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
    pub(super) resource: &'a Resource,
    pub(super) held: Vec<(String, Contract)>,
}

/// The promises on all resources of a host.
#[derive(Debug)]
pub struct Ledger {
    accounts: Vec<Account>,
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
        Self { accounts, host: config.host.clone() }
    }

    /// Admits all claims of `tenant` or none. A claim replaces the one that the tenant holds for
    /// the same part.
    ///
    /// # Errors
    /// The claims that do not fit; the ledger is as it was.
    pub fn admit(&mut self, tenant: &str, claims: &[Claim]) -> Result<(), Vec<Refusal>> {
        let mut refusals = Vec::new();
        for account in &self.accounts {
            account.refused(&self.host, tenant, claims, &mut refusals);
        }
        if !refusals.is_empty() {
            return Err(refusals);
        }
        for account in &mut self.accounts {
            let mine = |claim: &&Claim| claim.resource == account.id;
            for claim in claims.iter().filter(mine) {
                account.held.retain(|held| held.tenant != tenant || held.part != claim.part);
                let Claim { part, contract, .. } = *claim;
                account.held.push(Held { tenant: tenant.to_owned(), part, contract });
            }
        }
        Ok(())
    }

    /// Every resource with its name and what is held of it.
    pub(super) fn holdings(&self) -> impl Iterator<Item = Holding<'_>> {
        self.accounts.iter().map(|account| Holding {
            name: &account.name,
            resource: &account.resource,
            held: account.held.iter().map(|held| (held.tenant.clone(), held.contract)).collect(),
        })
    }

    /// Gives back all that `tenant` holds.
    pub fn release(&mut self, tenant: &str) {
        for account in &mut self.accounts {
            account.held.retain(|held| held.tenant != tenant);
        }
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
            .collect()
    }
}

impl Account {
    /// Notes the claims on this resource that do not fit beside what others hold and beside the
    /// earlier claims.
    fn refused(&self, host: &Host, tenant: &str, claims: &[Claim], refusals: &mut Vec<Refusal>) {
        let claims: Vec<_> = claims.iter().filter(|claim| claim.resource == self.id).collect();
        let replaced = |held: &Held| {
            held.tenant == tenant && claims.iter().any(|claim| claim.part == held.part)
        };
        let kept = self.held.iter().filter(|held| !replaced(held));
        let mut beside: Vec<_> = kept.map(|held| (held.tenant.clone(), held.contract)).collect();
        for claim in claims {
            let admitted: Vec<_> = beside.iter().map(|(_, contract)| *contract).collect();
            let resource = match self.id {
                ResourceId::Core(_) => core_resource(host, admitted.len() + 1),
                ResourceId::Disk(_) | ResourceId::Link(_) => self.resource.clone(),
            };
            match admission::admit(&resource, &admitted, &claim.contract) {
                Ok(()) => beside.push((tenant.to_owned(), claim.contract)),
                Err(refusal) => {
                    let (resource, beside) = (self.name.clone(), beside.clone());
                    refusals.push(Refusal { resource, part: claim.part, refusal, beside });
                }
            }
        }
    }
}

impl Refusal {
    /// The refusal in the form of `moirai plan`.
    #[must_use]
    pub fn report(&self) -> RefusalReport {
        RefusalReport {
            resource: self.resource.clone(),
            requested: per_second(&self.refusal.requested),
            available: ns_per_s(self.refusal.available_ppm),
            nearest: self.refusal.nearest.as_ref().map(ContractReport::of),
            reason: self.refusal.violation.to_string(),
            explain: None,
        }
    }
}

fn ns_per_s(ppm: u32) -> u64 {
    u64::from(ppm) * 1000
}

/// The service a contract guarantees, in nanoseconds per second, rounded up.
pub(crate) fn per_second(contract: &Contract) -> u64 {
    let exact = u128::from(contract.slice()) * 1_000_000_000;
    u64::try_from(exact.div_ceil(u128::from(contract.period()))).unwrap_or(u64::MAX)
}
