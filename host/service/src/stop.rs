//! The end of a tenant, for somebody who waits for it without keeping a thread for that.

use std::sync::Arc;
use std::time::{Duration, Instant};

use moirai_api::{Phase, TenantView};

use super::tenant::Tenant;
use super::{END_PATIENCE, HostService, ServiceError, lock};

/// A tenant that was asked to end.
#[derive(Debug)]
pub struct Stopping {
    tenant: Arc<Tenant>,
    /// When it should have ended long ago.
    overdue: Instant,
}

impl HostService {
    /// Asks a tenant to end. A guest with a power button gets the time that its table gives it,
    /// unless it is to end `at_once`.
    ///
    /// # Errors
    /// [`ServiceError::Unknown`].
    pub fn ask_to_stop(&self, name: &str, at_once: bool) -> Result<Stopping, ServiceError> {
        let tenant = self.find(name)?;
        tenant.ask_to_stop(at_once);
        let patience = END_PATIENCE + tenant.with(|live| live.spec.stop_after);
        Ok(Stopping { tenant, overdue: moirai_runtime::instant() + patience })
    }

    /// Ends all tenants and exports, and waits for that.
    pub fn end_all(&self) {
        let tenants: Vec<_> = lock(&self.tenants).values().cloned().collect();
        tenants.iter().for_each(|tenant| tenant.ask_to_stop(false));
        let _alone = lock(&self.exporting);
        let exports = std::mem::take(&mut *lock(&self.exports));
        exports.into_values().for_each(|export| self.end_export(export));
        for tenant in tenants {
            let patience = tenant.with(|live| live.spec.stop_after);
            if !tenant.wait_for_end(END_PATIENCE + patience) {
                tracing::error!(tenant = tenant.name, "does not end");
            }
        }
    }

    /// Waits for no guest any more: whoever waits for the end of all has it soon.
    pub fn pull_all_plugs(&self) {
        let tenants: Vec<_> = lock(&self.tenants).values().cloned().collect();
        tenants.iter().for_each(|tenant| tenant.ask_to_stop(true));
    }

    /// Forgets a tenant that has ended. `None`: it has not ended yet.
    ///
    /// # Errors
    /// [`ServiceError::Immortal`].
    pub fn forget(&self, stopping: &Stopping) -> Result<Option<TenantView>, ServiceError> {
        let Stopping { tenant, overdue } = stopping;
        if tenant.phase() != Phase::Ended || !tenant.wait_for_end(Duration::ZERO) {
            return match moirai_runtime::instant() < *overdue {
                true => Ok(None),
                false => Err(ServiceError::Immortal(tenant.name.clone())),
            };
        }
        let mut tenants = lock(&self.tenants);
        // Somebody may have started a new one of that name meanwhile.
        if tenants.get(&tenant.name).is_some_and(|now| Arc::ptr_eq(now, tenant)) {
            tenants.remove(&tenant.name);
        }
        drop(tenants);
        Ok(Some(tenant.view(&self.shared.config)))
    }
}
