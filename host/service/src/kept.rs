//! Which contracts are kept, and what is said when that changes.
//!
//! Dispatchers and event loops know it and say it in their snapshots. One thread looks at them
//! every few seconds, so that a change is in the log once, whether or not anybody asks.

use moirai_api::{KeptEvent, Stats};
use moirai_confine::Role;
use std::collections::{BTreeMap, VecDeque};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::sync::{Arc, Mutex, Weak};
use std::thread::JoinHandle;
use std::time::Duration;

use super::{HostService, lock};
use moirai_config::Holder;

/// How often somebody looks.
const LOOK: Duration = Duration::from_secs(5);
/// Most changes that are remembered.
const EVENTS_MAX: usize = 256;

/// What is known of the contracts that are not kept.
#[derive(Debug, Default)]
pub(super) struct Kept {
    /// By tenant and number of its part: the resource and the reason.
    broken: BTreeMap<(Holder, usize), (String, String)>,
    events: VecDeque<KeptEvent>,
}

impl Kept {
    /// Compares with what is now; returns what has changed. A tenant that is gone is no change.
    fn look(&mut self, stats: &Stats) -> Vec<KeptEvent> {
        let mut now = BTreeMap::new();
        let mut changes = Vec::new();
        for tenant in &stats.tenants {
            for (number, part) in tenant.parts.iter().enumerate() {
                let key = (tenant.name.clone(), number);
                let before = self.broken.get(&key);
                let (kept, because) = match &part.not_kept {
                    None if before.is_none() => continue,
                    None => (true, String::new()),
                    Some(why) => {
                        now.insert(key.clone(), (part.resource.clone(), why.clone()));
                        // A reason with other numbers is the same change.
                        if before.is_some() {
                            continue;
                        }
                        (false, why.clone())
                    }
                };
                let (tenant, resource) = (tenant.name.clone(), part.resource.clone());
                let at_ns = stats.now_ns;
                changes.push(KeptEvent { at_ns, tenant, resource, kept, because });
            }
        }
        self.broken = now;
        for change in &changes {
            if self.events.len() == EVENTS_MAX {
                self.events.pop_front();
            }
            self.events.push_back(change.clone());
        }
        changes
    }
}

/// The thread that looks; ends with the value.
#[derive(Debug)]
pub struct KeptWatch {
    ends: Option<Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl HostService {
    /// The latest changes, oldest first: contracts that were not kept any more, or were again.
    #[must_use]
    pub fn events(&self) -> Vec<KeptEvent> {
        self.look_at_contracts();
        lock(&self.kept).events.iter().cloned().collect()
    }

    /// Begins to look whether contracts are kept, as long as the value and the service live.
    ///
    /// # Errors
    /// No thread can be had.
    pub fn watch_contracts(self: &Arc<Self>) -> std::io::Result<KeptWatch> {
        let (ends, ended) = channel();
        let service = Arc::downgrade(self);
        let thread = std::thread::Builder::new().name("kept".to_owned());
        let thread = thread.spawn(move || {
            Role::Kept.enter_or_say();
            watch(&service, &ended);
        })?;
        Ok(KeptWatch { ends: Some(ends), thread: Some(thread) })
    }

    fn look_at_contracts(&self) {
        let stats = self.stats();
        let changes = lock(&self.kept).look(&stats);
        for KeptEvent { tenant, resource, kept, because, .. } in changes {
            match kept {
                true => tracing::info!(%tenant, resource, "the contract is kept again"),
                false => tracing::warn!(%tenant, resource, because, "the contract is not kept"),
            }
        }
    }
}

fn watch(service: &Weak<HostService>, ended: &Receiver<()>) {
    while ended.recv_timeout(LOOK) == Err(RecvTimeoutError::Timeout) {
        let Some(service) = service.upgrade() else { return };
        service.look_at_contracts();
    }
}

impl Drop for KeptWatch {
    fn drop(&mut self) {
        drop(self.ends.take());
        // It only returns; that it panicked was said when it did.
        let _ = self.thread.take().map(JoinHandle::join);
    }
}

/// What the service keeps of it.
pub(super) type SharedKept = Mutex<Kept>;

#[cfg(test)]
mod tests {
    use moirai_api::{PartStats, TenantStats};

    use super::*;

    fn stats(now_ns: u64, reasons: &[Option<&str>]) -> Stats {
        let part = |why: &Option<&str>| PartStats {
            resource: "disk/d".to_owned(),
            not_kept: why.map(str::to_owned),
            ..PartStats::default()
        };
        let parts = reasons.iter().map(part).collect();
        let tenants = vec![TenantStats { name: "a".into(), parts }];
        Stats { now_ns, tenants, ..Stats::default() }
    }

    #[test]
    fn a_change_is_told_once() {
        let mut kept = Kept::default();
        assert_eq!(kept.look(&stats(1, &[None, None])), []);
        let told = kept.look(&stats(2, &[None, Some("the disk takes 4 ms")]));
        let [event] = told.as_slice() else { panic!("{told:?}") };
        assert_eq!(
            (event.at_ns, event.kept, event.because.as_str()),
            (2, false, "the disk takes 4 ms")
        );
        assert_eq!(kept.look(&stats(3, &[None, Some("the disk takes 5 ms")])), []);
        let told = kept.look(&stats(4, &[None, None]));
        assert_eq!(told.iter().map(|it| it.kept).collect::<Vec<_>>(), [true]);
        assert_eq!(kept.look(&stats(5, &[None, None])), []);
        assert_eq!(kept.events.len(), 2);
    }

    #[test]
    fn a_tenant_that_goes_is_no_change_and_the_memory_of_changes_is_bounded() {
        let mut kept = Kept::default();
        for now in 0..2_000 {
            let why = (now % 2 == 0).then_some("why");
            kept.look(&stats(now, &[why]));
        }
        assert_eq!(kept.events.len(), EVENTS_MAX);
        kept.look(&stats(9_000, &[Some("why")]));
        assert_eq!(kept.look(&Stats::default()), []);
        assert!(kept.broken.is_empty());
    }
}
