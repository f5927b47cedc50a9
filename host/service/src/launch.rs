//! From tables to running tenants: check, open, admit, own, and start their processes.
//!
//! A batch is admitted as a whole or not at all.

use moirai_api::{Phase, TenantView};
use std::sync::Arc;

use super::open::{Opened, open};
use super::process::{self, StartError};
use super::served::{self, Admitted, Candidate, FilesInUse};
use super::supervisor::Supervisor;
use super::tenant::Tenant;
use super::{END_PATIENCE, HostService, ServiceError, Shared, lock, release};
use moirai_config::document::TenantTable;
use moirai_config::{Problem, check_tenants, model};

impl HostService {
    /// Starts tenants, all or none, and waits until each runs or has ended, but not longer than
    /// [`END_PATIENCE`]. One that was admitted but cannot be started is among the results, as
    /// [`Phase::Ended`].
    ///
    /// # Errors
    /// [`ServiceError::Bad`] and [`ServiceError::Refused`]; then nothing was started.
    pub fn launch(&self, tables: &[TenantTable]) -> Result<Vec<TenantView>, ServiceError> {
        self.launch_while(tables, &|| true)
    }

    /// The same, if it is `wanted` until all are admitted.
    ///
    /// # Errors
    /// As [`HostService::launch`], and [`ServiceError::Unwanted`].
    pub fn launch_while(
        &self,
        tables: &[TenantTable],
        wanted: &dyn Fn() -> bool,
    ) -> Result<Vec<TenantView>, ServiceError> {
        let specs = check_tenants(&self.shared.config, tables).map_err(ServiceError::Bad)?;
        let opened = open_all(&specs, &self.shared)?;
        let tenants = self.enter(specs, &opened, wanted)?;
        self.forget_oldest();
        for (tenant, opened) in tenants.iter().zip(opened) {
            if let Err(error) = start(&self.shared, tenant, opened) {
                tracing::error!(tenant = tenant.name, %error, "cannot be started");
                release::not_begun(&self.shared, tenant, error.to_string());
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
        wanted: &dyn Fn() -> bool,
    ) -> Result<Vec<Arc<Tenant>>, ServiceError> {
        let mut tenants = lock(&self.tenants);
        let live: Vec<_> = tenants.values().filter(|old| old.phase() != Phase::Ended).collect();
        let problems = taken_names(&live, &specs);
        let mut used = files_in_use(live.iter().copied());
        used.extend(self.exported_files());
        let candidates = specs.iter().zip(opened).enumerate().map(|(index, (spec, opened))| {
            let at = format!("tenant[{index}]");
            Candidate::tenant(&self.shared.config, spec, &at, &opened.volumes)
        });
        let candidates: Vec<_> = candidates.collect();
        let admitted = served::admit(&self.shared, problems, used, &candidates, wanted)?;
        let entered: Result<Vec<_>, _> = specs
            .iter()
            .zip(admitted)
            .map(|(spec, admitted)| Tenant::new(spec.clone(), admitted).map(Arc::new))
            .collect();
        let entered = entered.map_err(|error| {
            let message = format!("the kernel refused a descriptor: {error}");
            let help = "raise the limit of open files of the host service".to_owned();
            ServiceError::Bad(vec![Problem { path: String::new(), message, help }])
        })?;
        for tenant in &entered {
            tenants.insert(tenant.name.clone(), Arc::clone(tenant));
        }
        Ok(entered)
    }
}

fn open_all(specs: &[model::Tenant], shared: &Shared) -> Result<Vec<Opened>, ServiceError> {
    let mut problems = Vec::new();
    let mut all = Vec::new();
    for (index, spec) in specs.iter().enumerate() {
        match open(spec, &format!("tenant[{index}]"), &shared.images) {
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

/// The files of tenants that live.
pub(super) fn files_in_use<'a>(live: impl Iterator<Item = &'a Arc<Tenant>>) -> FilesInUse {
    let theirs = live.flat_map(|tenant| {
        tenant.with(|live| {
            let admitted = live.admitted.iter();
            admitted.flat_map(Admitted::files_in_use).collect::<Vec<_>>()
        })
    });
    theirs.collect()
}

/// Starts the process of a tenant and the thread that supervises it.
fn start(shared: &Arc<Shared>, tenant: &Arc<Tenant>, opened: Opened) -> Result<(), StartError> {
    let process = process::start(shared, tenant, opened)?;
    let supervisor = Supervisor::start(Arc::clone(shared), Arc::clone(tenant), process)?;
    tenant.set_supervisor(supervisor);
    Ok(())
}
