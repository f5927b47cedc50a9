//! What keeping contracts costs on a core: measured on the host, else conservative constants.
//!
//! The host service measures at its first start on a host and kernel, stores the answer in its
//! state directory and uses it from then on. Admission, `moirai explain`, the price of naps and
//! `moirai plan` all read these numbers. Where nobody has measured, the constants hold. They also
//! cap what was measured: a machine that was busy at that moment would make all contracts dear for
//! ever.

use std::io;
use std::path::Path;

use moirai_scheduler::admission::{Interrupt, Overhead};
use moirai_scheduler::{Amount, Span};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// Name of the file in the state directory.
const FILE: &str = "core-costs.json";
/// The dispatcher looks at sleepers this often at most (`host/cpu/core.rs`).
const LOOK: Span = Span::from_micros(500);
/// The looks at so many vCPUs fit into what the capacity of a core leaves.
const VCPUS_FREE: usize = 8;

/// Costs on a core, in nanoseconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct CoreCosts {
    /// One switch between vCPUs: the dispatcher's decision and the kernel's switch.
    pub switch: u64,
    /// Refilling caches after a switch.
    pub cache: u64,
    /// What a round of the dispatcher takes for each vCPU.
    pub vcpu: u64,
    /// The 99th percentile of the time from a timer to the thread that waits for it.
    pub wake_p99: u64,
    /// They were measured on this host; none is more than the constant that else stands for it.
    pub measured: bool,
}

/// The file: the costs, and where they hold.
#[derive(Debug, Serialize, Deserialize)]
struct Stored {
    host: String,
    kernel: String,
    costs: CoreCosts,
}

impl Default for CoreCosts {
    /// Conservative for the machines that Moirai was measured on: with 200 and 400 idle vCPUs the
    /// dispatcher took 35% and 61% of a core.
    fn default() -> Self {
        Self { switch: 50_000, cache: 10_000, vcpu: 700, wake_p99: 500_000, measured: false }
    }
}

impl CoreCosts {
    /// The costs that were stored in `directory` on this host and kernel.
    #[must_use]
    pub fn stored(directory: &Path) -> Option<Self> {
        let text = std::fs::read_to_string(directory.join(FILE)).ok()?;
        let stored: Stored = serde_json::from_str(&text).ok()?;
        let here = here();
        let holds = stored.host == here.0 && stored.kernel == here.1;
        holds.then(|| stored.costs.capped())
    }

    /// The costs that are stored in `directory`; else what `measure` says, which is stored there.
    /// The constants if it cannot say anything.
    pub fn learn(directory: &Path, measure: impl FnOnce() -> io::Result<Self>) -> Self {
        if let Some(costs) = Self::stored(directory) {
            return costs;
        }
        let costs = match measure() {
            Ok(measured) => measured.capped(),
            Err(error) => {
                tracing::warn!(%error, "cannot measure the costs of a core");
                return Self::default();
            }
        };
        tracing::info!(?costs, "measured the costs of a core");
        if let Err(error) = costs.store(directory) {
            tracing::warn!(%error, "cannot store the costs of a core: a plan does not know them");
        }
        costs
    }

    /// Stores them for this host and kernel.
    ///
    /// # Errors
    /// If the file cannot be written.
    pub fn store(&self, directory: &Path) -> io::Result<()> {
        let (host, kernel) = here();
        let text = serde_json::to_string_pretty(&Stored { host, kernel, costs: *self })?;
        let (path, new) = (directory.join(FILE), directory.join(".core-costs.new"));
        std::fs::write(&new, text)?;
        std::fs::rename(new, path)
    }

    /// Each cost, or the constant if that is less.
    fn capped(self) -> Self {
        let most = Self::default();
        Self {
            switch: self.switch.min(most.switch),
            cache: self.cache.min(most.cache),
            vcpu: self.vcpu.min(most.vcpu),
            wake_p99: self.wake_p99.min(most.wake_p99),
            measured: self.measured,
        }
    }

    /// What a wake-up within a slice costs: two switches and their caches.
    #[must_use]
    pub fn wake_up(&self) -> Amount {
        Amount::from_nanos(self.switch.saturating_add(self.cache)).saturating_mul(2)
    }

    /// The overhead of a core with so many vCPUs.
    #[must_use]
    pub fn overhead(&self, vcpus: usize) -> Overhead {
        let beyond = u64::try_from(vcpus.saturating_sub(VCPUS_FREE)).unwrap_or(u64::MAX);
        let cost = Amount::from_nanos(self.vcpu).saturating_mul(beyond);
        let look = Interrupt { period: LOOK, cost };
        let interrupts = if cost > Amount::ZERO { vec![look] } else { Vec::new() };
        let (switch, cache) = (Amount::from_nanos(self.switch), Amount::from_nanos(self.cache));
        Overhead { switch, cache, interrupts, ..Overhead::NONE }
    }
}

/// Name and kernel of this host.
fn here() -> (String, String) {
    let uname = rustix::system::uname();
    let text = |part: &std::ffi::CStr| part.to_string_lossy().into_owned();
    (text(uname.nodename()), text(uname.release()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn costs_are_read_back_on_the_same_host_and_kernel_only() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path();
        assert_eq!(CoreCosts::stored(path), None);
        let costs = CoreCosts { switch: 7, measured: true, ..CoreCosts::default() };
        costs.store(path).unwrap();
        assert_eq!(CoreCosts::stored(path), Some(costs));
        let file = path.join(FILE);
        let text = std::fs::read_to_string(&file).unwrap();
        std::fs::write(&file, text.replace(&here().1, "another kernel")).unwrap();
        assert_eq!(CoreCosts::stored(path), None);
        std::fs::write(&file, "{").unwrap();
        assert_eq!(CoreCosts::stored(path), None);
    }

    #[test]
    fn what_is_measured_holds_from_the_first_start_on() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path();
        let measured =
            CoreCosts { switch: 9_000, cache: 1, vcpu: 2, wake_p99: 32_000, measured: true };
        assert_eq!(CoreCosts::learn(path, || Ok(measured)), measured);
        assert_eq!(CoreCosts::stored(path), Some(measured), "a plan reads the same");
        assert_eq!(CoreCosts::learn(path, || panic!("measured twice")), measured);
    }

    #[test]
    fn what_a_busy_machine_measured_is_capped_by_the_constants() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path();
        let absurd =
            CoreCosts { switch: 3_000_000, wake_p99: 9, measured: true, ..CoreCosts::default() };
        let capped = CoreCosts { switch: 50_000, ..absurd };
        assert_eq!(CoreCosts::learn(path, || Ok(absurd)), capped);
        absurd.store(path).unwrap();
        assert_eq!(CoreCosts::stored(path), Some(capped), "as an earlier version stored it");
    }

    #[test]
    fn the_constants_hold_where_nothing_can_be_measured() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path();
        let fails = || Err(io::Error::other("no privilege"));
        assert_eq!(CoreCosts::learn(path, fails), CoreCosts::default());
        assert_eq!(CoreCosts::stored(path), None, "a later start tries again");
        let measured = CoreCosts { measured: true, ..CoreCosts::default() };
        let nowhere = CoreCosts::learn(&path.join("none"), || Ok(measured));
        assert_eq!(nowhere, measured, "what cannot be stored is used");
    }

    #[test]
    fn the_dispatchers_time_grows_with_the_vcpus_of_the_core() {
        let costs = CoreCosts::default();
        assert_eq!(costs.overhead(8).interrupts, []);
        let [look] = costs.overhead(208).interrupts[..] else { panic!("one source") };
        assert_eq!((look.period, look.cost), (LOOK, Amount::from_nanos(200 * 700)));
    }
}
