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

/// Tenants that have ended and that nobody has stopped are remembered, with what they have said and
/// why they have ended; so many.
const REMEMBERED: usize = 128;

impl HostService {
    /// Forgets tenants that have ended when there are too many: first those that ended well, then
    /// those that failed, the one that ended first before others.
    pub(super) fn forget_oldest(&self) {
        let mut tenants = lock(&self.tenants);
        let ended = tenants.values().filter_map(|tenant| {
            let at = tenant.with(|live| live.ended_at)?;
            Some((tenant.failed().is_some(), at, tenant.name.clone()))
        });
        let forgotten: Vec<_> =
            oldest(ended.collect()).iter().filter_map(|name| tenants.remove(name)).collect();
        drop(tenants);
        for tenant in forgotten {
            tracing::info!(tenant = tenant.name, "ended long ago, and is forgotten");
            tenant.wait_for_end(Duration::ZERO);
        }
    }

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

/// Who is to be forgotten of those that have ended: whether one has failed, when it ended, its
/// name.
fn oldest(mut ended: Vec<(bool, Instant, String)>) -> Vec<String> {
    ended.sort_unstable();
    let many = ended.len().saturating_sub(REMEMBERED);
    ended.into_iter().take(many).map(|(.., name)| name).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_too_many_that_have_ended_those_go_first_that_ended_well_and_long_ago() {
        let begin = moirai_runtime::instant();
        let ended = |at, failed| (failed, begin + Duration::from_nanos(at), format!("t{at}"));
        let few: Vec<_> = (0..128).map(|at| ended(at, true)).collect();
        assert_eq!(oldest(few.clone()), [""; 0]);
        let more = [few, vec![ended(900, false), ended(800, false), ended(700, true)]].concat();
        assert_eq!(oldest(more), ["t800", "t900", "t0"]);
    }
}
