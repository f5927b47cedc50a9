//! From tables to running tenants: check, open, admit, own, and start their processes.
//!
//! A batch is admitted as a whole or not at all.

use moirai_api::{Phase, TenantView};
use std::collections::HashMap;
use std::sync::Arc;

use moirai_devices::backend::{FileId, Volume};

use super::open::{Opened, open};
use super::owner::VolumeOwner;
use super::process::{self, StartError, own_volumes};
use super::supervisor::Supervisor;
use super::tenant::Tenant;
use super::{END_PATIENCE, HostService, ServiceError, Shared, lock, release, view};
use moirai_config::admission::plan::TenantPlan;
use moirai_config::admission::{Claim, MemoryClaim};
use moirai_config::document::TenantTable;
use moirai_config::{Holder, Problem, check_tenants, model};

impl HostService {
    /// Starts tenants, all or none, and waits until each runs or has ended, but not longer than
    /// [`END_PATIENCE`]. One that was admitted but cannot be started is among the results, as
    /// [`Phase::Ended`].
    ///
    /// # Errors
    /// [`ServiceError::Bad`] and [`ServiceError::Refused`]; then nothing was started.
    pub fn launch(&self, tables: &[TenantTable]) -> Result<Vec<TenantView>, ServiceError> {
        let specs = check_tenants(&self.shared.config, tables).map_err(ServiceError::Bad)?;
        let opened = open_all(&specs)?;
        let tenants = self.enter(specs, &opened)?;
        for (tenant, opened) in tenants.iter().zip(opened) {
            if let Err(error) = start(&self.shared, tenant, opened) {
                tracing::error!(tenant = tenant.name, %error, "cannot be started");
                tenant.with(|live| live.end = Some(view::failed(error.to_string())));
                release::give_back(&self.shared, tenant);
            }
        }
        for tenant in &tenants {
            // One that is stopping has failed to begin, and has ended soon.
            tenant.wait(END_PATIENCE, |phase| matches!(phase, Phase::Running | Phase::Ended));
        }
        Ok(tenants.iter().map(|tenant| tenant.view(&self.shared.config)).collect())
    }

    /// Admits the tenants and enters them under their names.
    fn enter(
        &self,
        specs: Vec<model::Tenant>,
        opened: &[Opened],
    ) -> Result<Vec<Arc<Tenant>>, ServiceError> {
        let mut tenants = lock(&self.tenants);
        let live: Vec<_> = tenants.values().filter(|old| old.phase() != Phase::Ended).collect();
        let mut problems = taken_names(&live, &specs);
        let mut used = files_in_use(live.iter().copied());
        used.extend(self.exported_files());
        problems.extend(shared_files(used, &specs, opened));
        if !problems.is_empty() {
            return Err(ServiceError::Bad(problems));
        }
        let owned = self.own_volumes(&specs, opened)?;
        self.admit(&specs)?;
        let entered: Result<Vec<_>, _> =
            specs.iter().map(|spec| Tenant::new(spec.clone()).map(Arc::new)).collect();
        let entered = entered.map_err(|error| {
            let mut ledger = lock(&self.shared.ledger);
            specs.iter().for_each(|spec| ledger.release(&spec.holder()));
            let message = format!("the kernel refused a descriptor: {error}");
            let help = "raise the limit of open files of the host service".to_owned();
            ServiceError::Bad(vec![Problem { path: String::new(), message, help }])
        })?;
        for ((tenant, opened), owned) in entered.iter().zip(opened).zip(owned) {
            tenant.with(|live| {
                live.files = opened.volumes.iter().flat_map(Volume::files).collect();
                live.owned = owned;
            });
            tenants.insert(tenant.name.clone(), Arc::clone(tenant));
        }
        Ok(entered)
    }

    /// Takes the volumes of all tenants on this machine.
    fn own_volumes(
        &self,
        specs: &[model::Tenant],
        opened: &[Opened],
    ) -> Result<Vec<Vec<VolumeOwner>>, ServiceError> {
        let (mut problems, mut all) = (Vec::new(), Vec::new());
        for (index, (spec, opened)) in specs.iter().zip(opened).enumerate() {
            let owned = own_volumes(&self.shared, spec, opened, &format!("tenant[{index}]"));
            all.push(owned.unwrap_or_else(|found| {
                problems.extend(found);
                Vec::new()
            }));
        }
        if problems.is_empty() { Ok(all) } else { Err(ServiceError::Bad(problems)) }
    }

    fn admit(&self, specs: &[model::Tenant]) -> Result<(), ServiceError> {
        let mut ledger = lock(&self.shared.ledger);
        let mut refused = Vec::new();
        for spec in specs {
            let memory = MemoryClaim::of_tenant(&self.shared.config, spec);
            let asked = ledger.admit(&spec.holder(), &Claim::all_of(spec), Some(memory));
            if let Err(refusals) = asked {
                refused.push(TenantPlan::of(spec.holder(), &refusals));
            }
        }
        if refused.is_empty() {
            return Ok(());
        }
        specs.iter().for_each(|spec| ledger.release(&spec.holder()));
        Err(ServiceError::Refused(refused))
    }
}

fn open_all(specs: &[model::Tenant]) -> Result<Vec<Opened>, ServiceError> {
    let mut problems = Vec::new();
    let mut all = Vec::new();
    for (index, spec) in specs.iter().enumerate() {
        match open(spec, &format!("tenant[{index}]")) {
            Ok(opened) => all.push(opened),
            Err(found) => problems.extend(found),
        }
    }
    if problems.is_empty() { Ok(all) } else { Err(ServiceError::Bad(problems)) }
}

fn taken_names(live: &[&Arc<Tenant>], specs: &[model::Tenant]) -> Vec<Problem> {
    let taken = |name: &str| live.iter().any(|tenant| tenant.name == name);
    let named = specs.iter().enumerate().filter(|(_, spec)| taken(&spec.name));
    named
        .map(|(index, spec)| Problem {
            path: format!("tenant[{index}].name"),
            message: format!("a tenant named {:?} runs already", spec.name),
            help: format!("choose another name, or stop it first: moirai stop {}", spec.name),
        })
        .collect()
}

/// Who uses which file, and whether he writes it.
pub(super) type FilesInUse = HashMap<FileId, (Holder, bool)>;

/// The files of tenants that live.
pub(super) fn files_in_use<'a>(live: impl Iterator<Item = &'a Arc<Tenant>>) -> FilesInUse {
    let theirs = live.flat_map(|tenant| {
        let files = tenant.with(|live| live.files.clone());
        files.into_iter().map(|(file, written)| (file, (tenant.holder(), written)))
    });
    theirs.collect()
}

/// A file that somebody writes belongs to one volume only, whatever names it has: a volume, one of
/// a stripe set, or one that an image is made of.
fn shared_files(mut used: FilesInUse, specs: &[model::Tenant], opened: &[Opened]) -> Vec<Problem> {
    let mut problems = Vec::new();
    for (index, (spec, opened)) in specs.iter().zip(opened).enumerate() {
        for (number, (volume, opened)) in spec.volumes.iter().zip(&opened.volumes).enumerate() {
            let mut conflict = None;
            for (file, written) in opened.files() {
                match used.get(&file) {
                    Some((user, theirs)) if written || *theirs => conflict = Some(user.clone()),
                    _ => drop(used.insert(file, (spec.holder(), written))),
                }
            }
            if let Some(user) = conflict {
                problems.push(Problem {
                    path: format!("tenant[{index}].disk[{number}].volume"),
                    message: format!("{} is in use by {user}", volume.path.display()),
                    help: "give each tenant a volume of its own, or let all of them only read it: \
                           readonly = true"
                        .to_owned(),
                });
            }
        }
    }
    problems
}

/// Starts the process of a tenant and the thread that supervises it.
fn start(shared: &Arc<Shared>, tenant: &Arc<Tenant>, opened: Opened) -> Result<(), StartError> {
    let process = process::start(shared, tenant, opened)?;
    let supervisor = Supervisor::start(Arc::clone(shared), Arc::clone(tenant), process)?;
    tenant.set_supervisor(supervisor);
    Ok(())
}
