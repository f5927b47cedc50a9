//! Other contracts for a running tenant or an export: admission again, and the old ones stay if it
//! refuses.

use moirai_api::{Change, ExportView, Phase, TenantView};

use super::served::{Place, ServedDevice};
use super::tenant::{Tenant, Vcpu};

use super::{HostService, ServiceError, lock};
use moirai_config::admission::plan::TenantPlan;
use moirai_config::admission::{Claim, Part};
use moirai_config::units::Size;
use moirai_config::{Holder, Problem, check_exports, check_tenants};
use moirai_io::IoDomainError;

impl HostService {
    /// Gives a running tenant other contracts.
    ///
    /// # Errors
    /// [`ServiceError::Unknown`], [`ServiceError::NotRunning`], [`ServiceError::Bad`] and
    /// [`ServiceError::Refused`]; then nothing has changed.
    pub fn change(&self, name: &str, change: &Change) -> Result<TenantView, ServiceError> {
        let tenant = self.find(name)?;
        // To the end: what the ledger has and what is kept must change in the same order.
        let _alone = lock(&tenant.changing);
        if change.memory.is_some() && !tenant.has_balloon() {
            return Err(ServiceError::Bad(vec![Problem {
                path: "memory".to_owned(),
                message: "the tenant has no balloon".to_owned(),
                help: "launch it with balloon = true".to_owned(),
            }]));
        }
        let claims = self.admit_change(&tenant, change)?;
        for claim in claims {
            self.apply(&tenant, &claim)?;
        }
        if let Some(Size(bytes)) = change.memory {
            tenant.keep_memory(bytes);
        }
        Ok(tenant.view(&self.shared.config))
    }

    /// Gives an export another contract; whoever is connected stays, with what is in flight.
    ///
    /// # Errors
    /// [`ServiceError::UnknownExport`], [`ServiceError::Bad`] and [`ServiceError::Refused`]; then
    /// nothing has changed.
    pub fn change_export(&self, name: &str, change: &Change) -> Result<ExportView, ServiceError> {
        let unknown = || ServiceError::UnknownExport(name.to_owned());
        // To the end, so that neither an end nor another change comes between.
        let _alone = lock(&self.exporting);
        let mut exports = lock(&self.exports);
        let export = exports.get_mut(name).ok_or_else(unknown)?;
        let bad = |problem| ServiceError::Bad(vec![problem]);
        let table = change.of_export(&export.spec.table).map_err(bad)?;
        let specs = check_exports(&self.shared.config, std::slice::from_ref(&table));
        let spec = specs.map_err(ServiceError::Bad)?.pop().ok_or_else(unknown)?;
        let (old, new) = (Claim::of_export(&export.spec), Claim::of_export(&spec));
        let claims = self.readmit(&spec.holder(), &[old], vec![new])?;
        export.spec = spec;
        let place = export.device.place.clone();
        drop(exports);
        for claim in claims {
            self.apply_to_device(&place, &claim)?;
        }
        let view = self.exports().into_iter().find(|view| view.name == name);
        view.ok_or_else(unknown)
    }

    /// Admits the change and enters it; returns the claims that differ from what was.
    fn admit_change(&self, tenant: &Tenant, change: &Change) -> Result<Vec<Claim>, ServiceError> {
        let name = tenant.name.clone();
        tenant.with(|live| {
            if live.life.phase() != Phase::Running {
                return Err(ServiceError::NotRunning(name));
            }
            let bad = |problem| ServiceError::Bad(vec![problem]);
            let table = change.of_tenant(&live.spec.table).map_err(bad)?;
            let specs = check_tenants(&self.shared.config, std::slice::from_ref(&table));
            let spec = specs.map_err(ServiceError::Bad)?.pop();
            let spec = spec.ok_or_else(|| ServiceError::Unknown(name.clone()))?;
            let (old, new) = (Claim::all_of(&live.spec), Claim::all_of(&spec));
            let claims = self.readmit(&spec.holder(), &old, new)?;
            live.spec = spec;
            Ok(claims)
        })
    }

    /// Enters `new` in place of what `holder` has, or refuses and leaves that; returns what of it
    /// is not among `old`.
    fn readmit(
        &self,
        holder: &Holder,
        old: &[Claim],
        new: Vec<Claim>,
    ) -> Result<Vec<Claim>, ServiceError> {
        let admitted = lock(&self.shared.ledger).admit(holder, &new, None);
        admitted.map_err(|refusals| {
            ServiceError::Refused(vec![TenantPlan::of(holder.clone(), &refusals)])
        })?;
        Ok(new.into_iter().filter(|claim| !old.contains(claim)).collect())
    }

    /// Tells whoever keeps the contract.
    fn apply(&self, tenant: &Tenant, claim: &Claim) -> Result<(), ServiceError> {
        let gone = || ServiceError::NotRunning(tenant.name.clone());
        if let Part::Vcpu(number) = claim.part {
            let number = usize::try_from(number).unwrap_or(usize::MAX);
            let vcpu = tenant.with(|live| live.vcpus.get(number).copied());
            let Vcpu { core, id } = vcpu.ok_or_else(gone)?;
            let dispatcher = self.shared.resources.dispatcher(core).ok_or_else(gone)?;
            return Ok(dispatcher.change(id, claim.contract)?);
        }
        let place = |device: &ServedDevice| device.place.clone();
        let device = tenant
            .with(|live| live.devices.iter().find(|device| device.part == claim.part).map(place));
        self.apply_to_device(&device.ok_or_else(gone)?, claim)
    }

    /// Tells the event loop that serves the device.
    fn apply_to_device(&self, place: &Place, claim: &Claim) -> Result<(), ServiceError> {
        let domain = self.shared.resources.domain(&place.group).ok_or(IoDomainError::Gone)?;
        Ok(domain.change(place.id, claim.contract)?)
    }
}
