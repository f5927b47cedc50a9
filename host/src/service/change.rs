//! Other contracts for a running tenant: admission again, and the old ones stay if it refuses.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::life::Phase;
use super::tenant::{Tenant, Vcpu};
use super::view::TenantView;
use super::{Service, ServiceError, lock};
use crate::admission::plan::TenantPlan;
use crate::admission::{Claim, Part};
use crate::config::document::{ContractTable, TenantTable};
use crate::config::units::Size;
use crate::config::{Problem, check_tenants};

/// What is to change. Keys that are not given stay as they are; a new slice replaces a rate and the
/// other way round.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Change {
    /// The contract on the core.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cpu: Option<ContractTable>,
    /// Memory that the guest is to keep, by its balloon.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub memory: Option<Size>,
    /// Contracts of volumes, by the name of the disk or by number, from 0.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub disk: BTreeMap<String, ContractTable>,
    /// Contracts of interfaces, by the name of the link or by number, from 0.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub net: BTreeMap<String, ContractTable>,
}

impl Change {
    /// The table of a tenant with the change.
    ///
    /// # Errors
    /// A key that names nothing.
    fn apply(&self, old: &TenantTable) -> Result<TenantTable, Problem> {
        let mut table = old.clone();
        if let Some(change) = self.cpu {
            table.cpu = Some(table.cpu.unwrap_or_default().changed(change));
        }
        for (key, change) in &self.disk {
            let place = find(&old.disk, key, |volume| &volume.disk);
            let place = place.and_then(|index| table.disk.get_mut(index));
            let volume = place.ok_or_else(|| unknown("disk", key))?;
            let ContractTable { period, slice, rate, deadline, extra } =
                volume.contract().changed(*change);
            (volume.period, volume.slice, volume.rate) = (period, slice, rate);
            (volume.deadline, volume.extra) = (deadline, extra);
        }
        for (key, change) in &self.net {
            let place = find(&old.net, key, |net| &net.link);
            let place = place.and_then(|index| table.net.get_mut(index));
            let net = place.ok_or_else(|| unknown("net", key))?;
            let ContractTable { period, slice, rate, deadline, extra } =
                net.contract().changed(*change);
            (net.period, net.slice, net.rate) = (period, slice, rate);
            (net.deadline, net.extra) = (deadline, extra);
        }
        Ok(table)
    }
}

fn find<T>(items: &[T], key: &str, name: impl Fn(&T) -> &String) -> Option<usize> {
    let by_number = key.parse().ok().filter(|index: &usize| *index < items.len());
    by_number.or_else(|| items.iter().position(|item| name(item) == key))
}

fn unknown(kind: &str, key: &str) -> Problem {
    Problem {
        path: format!("{kind}.{key}"),
        message: format!("the tenant has no {kind} {key:?}"),
        help: "name a disk or link of the tenant, or give the number of the device, from 0"
            .to_owned(),
    }
}

impl Service {
    /// Gives a running tenant other contracts.
    ///
    /// # Errors
    /// [`ServiceError::Unknown`], [`ServiceError::NotRunning`], [`ServiceError::Bad`] and
    /// [`ServiceError::Refused`]; then nothing has changed.
    pub fn change(&self, name: &str, change: &Change) -> Result<TenantView, ServiceError> {
        let tenant = self.find(name)?;
        let claims = self.admit_change(&tenant, change)?;
        for claim in claims {
            self.apply(&tenant, &claim)?;
        }
        if let Some(Size(bytes)) = change.memory
            && !tenant.keep_memory(bytes)
        {
            return Err(ServiceError::Bad(vec![Problem {
                path: "memory".to_owned(),
                message: "the tenant has no balloon".to_owned(),
                help: "launch it with balloon = true".to_owned(),
            }]));
        }
        Ok(tenant.view(&self.shared.config))
    }

    /// Admits the change and enters it; returns the claims that differ from what was.
    fn admit_change(&self, tenant: &Tenant, change: &Change) -> Result<Vec<Claim>, ServiceError> {
        let name = tenant.name.clone();
        tenant.with(|live| {
            if live.phase != Phase::Running {
                return Err(ServiceError::NotRunning(name));
            }
            let bad = |problem| ServiceError::Bad(vec![problem]);
            let table = change.apply(&live.spec.table).map_err(bad)?;
            let specs = check_tenants(&self.shared.config, std::slice::from_ref(&table));
            let spec = specs.map_err(ServiceError::Bad)?.pop();
            let spec = spec.ok_or_else(|| ServiceError::Unknown(name.clone()))?;
            let (old, new) = (Claim::all_of(&live.spec), Claim::all_of(&spec));
            let admitted = lock(&self.shared.ledger).admit(&name, &new);
            admitted.map_err(|refusals| {
                let refusals = refusals.iter().map(|refusal| refusal.report()).collect();
                ServiceError::Refused(vec![TenantPlan { name, admitted: false, refusals }])
            })?;
            live.spec = spec;
            Ok(new.into_iter().filter(|claim| !old.contains(claim)).collect())
        })
    }

    /// Tells whoever keeps the contract.
    fn apply(&self, tenant: &Tenant, claim: &Claim) -> Result<(), ServiceError> {
        let gone = || ServiceError::NotRunning(tenant.name.clone());
        let resources = &self.shared.resources;
        if let Part::Vcpu(number) = claim.part {
            let number = usize::try_from(number).unwrap_or(usize::MAX);
            let vcpu = tenant.with(|live| live.vcpus.get(number).copied());
            let Vcpu { core, id } = vcpu.ok_or_else(gone)?;
            let dispatcher = resources.dispatcher(core).ok_or_else(gone)?;
            return Ok(dispatcher.change(id, claim.contract)?);
        }
        let device = tenant
            .with(|live| live.devices.iter().find(|device| device.part == claim.part).cloned());
        let device = device.ok_or_else(gone)?;
        let domain = resources.domain(&device.group).ok_or_else(gone)?;
        Ok(domain.change(device.id, claim.contract)?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn table() -> TenantTable {
        toml::from_str(
            "name = \"a\"\nimage = \"i\"\n[cpu]\nperiod = \"10ms\"\nslice = \"2ms\"\n\
             [[disk]]\ndisk = \"ssd\"\nvolume = \"v\"\n[[disk]]\ndisk = \"hdd\"\nvolume = \"w\"\n",
        )
        .expect("a table")
    }

    fn change(text: &str) -> Change {
        serde_json::from_str(text).expect("a change")
    }

    #[test]
    fn a_change_keeps_what_it_does_not_name() {
        let new = change(r#"{"cpu": {"slice": "3ms"}}"#).apply(&table()).expect("applies");
        let cpu = new.cpu.expect("a contract");
        assert_eq!((cpu.period, cpu.slice), ("10ms".parse().ok(), "3ms".parse().ok()));
        assert_eq!(new.disk, table().disk);
    }

    #[test]
    fn a_volume_is_found_by_disk_or_by_number() {
        for key in ["hdd", "1"] {
            let text = format!(r#"{{"disk": {{"{key}": {{"period": "1s", "rate": "5%"}}}}}}"#);
            let new = change(&text).apply(&table()).expect("applies");
            let rates: Vec<_> = new.disk.iter().map(|volume| volume.rate.is_some()).collect();
            assert_eq!(rates, [false, true]);
        }
    }

    #[test]
    fn a_device_that_is_not_there_is_named() {
        let problem = change(r#"{"net": {"0": {}}}"#).apply(&table()).expect_err("no interface");
        assert!(problem.message.contains("no net \"0\""), "{}", problem.message);
    }
}
