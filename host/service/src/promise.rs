//! What is promised to one tenant, and what it got.

use super::stats::Snapshots;
use super::{HostService, ServiceError, lock};
use moirai_api::PartStats;
use moirai_config::admission::promise::{Got, Promises};

impl HostService {
    /// What is promised to a tenant, with what it got while it runs.
    ///
    /// # Errors
    /// [`ServiceError::Unknown`].
    pub fn explain(&self, name: &str) -> Result<Promises, ServiceError> {
        let tenant = self.find(name)?;
        let config = &self.shared.config;
        let (cores, domains) = self.snapshots();
        let snapshots = Snapshots::new(&cores, &domains);
        // What runs is in the order of the claims: virtual CPUs, volumes, interfaces.
        let (mut promises, parts) = tenant
            .with(|live| (Promises::to_tenant(config, &live.spec), snapshots.parts(live, config)));
        if let Some(end) = tenant.with(|live| live.end().cloned()) {
            promises.kept = end.ok;
            promises.ended = end.reason;
        }
        Ok(with_got(promises, &parts))
    }

    /// What is promised to whoever uses an export, with what he got.
    ///
    /// # Errors
    /// [`ServiceError::UnknownExport`].
    pub fn explain_export(&self, name: &str) -> Result<Promises, ServiceError> {
        let (cores, domains) = self.snapshots();
        let got = self.export_stats(&Snapshots::new(&cores, &domains));
        let exports = lock(&self.exports);
        let export = exports.get(name);
        let spec = &export.ok_or_else(|| ServiceError::UnknownExport(name.to_owned()))?.spec;
        let promises = Promises::to_export(&self.shared.config, spec);
        let mine = got.into_iter().find(|stats| stats.name == promises.tenant);
        Ok(with_got(promises, &mine.map(|stats| stats.parts).unwrap_or_default()))
    }
}

/// Joins promises with what was got. A tenant that does not run has none of it.
fn with_got(promises: Promises, parts: &[PartStats]) -> Promises {
    if promises.parts.len() != parts.len() {
        return promises;
    }
    promises.with_got(parts.iter().map(|part| Got {
        guaranteed_ns: part.guaranteed_ns,
        extra_ns: part.extra_ns,
        misses: part.misses,
        excused: part.misses_in_stall,
        kept: part.not_kept.is_none(),
        because: part.not_kept.clone().unwrap_or_default(),
    }))
}
