//! The host service: starts, changes and ends tenants, and keeps together what they share.
//!
//! | file | what it holds |
//! | --- | --- |
//! | `life.rs` | the life of a tenant as a state machine; pure |
//! | `launch.rs`, `open.rs` | from tables to running tenants |
//! | `process.rs` | from opened files to a tenant's process |
//! | `groups.rs` | memory and processes of a tenant, in control groups |
//! | `found.rs` | what is not there, for `moirai plan` |
//! | `tenant.rs` | the entry of one tenant: what others may see and ask |
//! | `supervisor.rs`, `release.rs` | a tenant's thread: carries out its life, gives all back |
//! | `served.rs` | a device from admission until it is given back, of tenants and exports |
//! | `export.rs` | devices for foreign VMMs |
//! | `change.rs` | other contracts for a running tenant or an export |
//! | `resources.rs`, `link.rs` | dispatchers, I/O domains, links |
//! | `interface.rs` | TAPs and bridges |
//! | `owner/` | one owner for each core, volume, block device, interface of the machine |
//! | `own.rs`, `vsock.rs` | the host's side of devices that a tenant process serves itself |
//! | `console.rs` | output of a guest |
//! | `view.rs`, `stats.rs` | what is reported |
//! | `kept.rs`, `promise.rs` | which contracts are kept; what is promised to one tenant |
//! | `stop.rs` | the end of a tenant, waited for without a thread |
//! | `state.rs` | what a later start must know |
//! | `privilege.rs`, `realtime.rs` | which promises this process may make |
//!
//! A tenant holds: reservations in the ledger, devices in I/O domains, vCPUs at dispatchers, a user
//! id, a process, a state file. Its supervisor gives all of it back when the process is gone,
//! however it went. Locks are taken in the order exporting, tenants, exports, beginning, tenant,
//! ledger, user ids. None but `exporting` is held while a process or an event loop is waited for:
//! an event loop that is stuck in the kernel keeps nobody from looking at the others.
//!
//! Neighbours: [`http`] and the demo call [`HostService`]; it calls the ledger, the dispatchers,
//! the I/O domains and `moirai_launch`.

mod change;
mod console;
mod cores;
mod export;
mod found;
mod groups;
pub mod http;
mod images;
mod interface;
mod kept;
mod launch;
mod life;
mod link;
mod open;
mod own;
mod owner;
mod privilege;
mod process;
mod promise;
mod realtime;
mod release;
mod resources;
mod served;
mod sockets;
mod state;
mod stats;
mod stop;
mod supervisor;
mod tenant;
mod view;
mod vsock;

use moirai_api::TenantView;
use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use export::Export;
use groups::Groups;
use images::Images;
use owner::{Machine, OwnError, Owners};
use realtime::Lifted;
use resources::Resources;
use served::FilesInUse;
use state::StateDir;
pub use state::StateError;
use stats::Snapshots;
pub use stop::Stopping;
use tenant::Tenant;

use moirai_config::admission::plan::{ResourceReport, TenantPlan};
use moirai_config::admission::{CoreCosts, Ledger};
use moirai_config::model::Host;
use moirai_config::{Config, Problem, machine_memory};
use moirai_cpu::{DispatcherError, Measured, measure};
use moirai_io::IoDomainError;
use moirai_runtime::StallLog;

pub use console::{Console, Piece};
pub use cores::core_problems;
pub use found::{core_remark, found_problems};

pub use kept::KeptWatch;

pub use link::{LinkError, link_problems};

pub use privilege::Missing;
pub use realtime::realtime_problems;

pub use vsock::Vsock;

/// Longer than the supervisor takes to end any tenant.
const END_PATIENCE: Duration = Duration::from_secs(20);

/// Why the host service, or one of its parts, cannot do what it was asked.
#[derive(Debug, thiserror::Error)]
pub enum ServiceError {
    /// Privilege is missing.
    #[error(transparent)]
    Missing(#[from] Missing),
    /// The state directory cannot be used.
    #[error(transparent)]
    State(#[from] StateError),
    /// A core cannot be served.
    #[error(transparent)]
    Dispatcher(#[from] DispatcherError),
    /// Disks or links cannot be served.
    #[error(transparent)]
    IoDomain(#[from] IoDomainError),
    /// A link cannot be set up.
    #[error(transparent)]
    Link(#[from] LinkError),
    /// Tenant processes cannot be spawned.
    #[error("no thread to spawn tenant processes: {0}")]
    Spawner(std::io::Error),
    /// There is no such tenant.
    #[error("there is no tenant named {0:?}; `moirai list` shows all")]
    Unknown(String),
    /// There is no such export.
    #[error("there is no export named {0:?}; `moirai exports` shows all")]
    UnknownExport(String),
    /// The tenant does not run (any more).
    #[error("tenant {0:?} does not run; `moirai show {0}` says why")]
    NotRunning(String),
    /// What was sent is wrong.
    #[error("{}", said(.0))]
    Bad(Vec<Problem>),
    /// Admission refused.
    #[error("{}", refused(.0))]
    Refused(Vec<TenantPlan>),
    /// Whoever asked has gone.
    #[error("whoever asked does not wait any more")]
    Unwanted,
    /// A tenant does not end.
    #[error("tenant {0:?} was killed but does not end")]
    Immortal(String),
}

/// More memory than the machine has cannot be promised.
fn check_memory(config: &Config) -> Result<(), Problem> {
    let Some(machine) = machine_memory() else { return Ok(()) };
    let promised = config.host.memory;
    if promised <= machine || promised == u64::MAX {
        return Ok(());
    }
    let mebibytes = |bytes: u64| bytes >> 20;
    Err(Problem {
        path: "host.memory".to_owned(),
        message: format!(
            "{}M for tenants are more than the {}M of this machine or of its control group",
            mebibytes(promised),
            mebibytes(machine)
        ),
        help: "write less, or leave it out: then tenants may have all but `memory_reserve`"
            .to_owned(),
    })
}

fn bad_owners(error: &OwnError) -> ServiceError {
    let help = "it says what other host services own: give this user a folder that he may write";
    let (path, message) = (String::new(), error.to_string());
    ServiceError::Bad(vec![Problem { path, message, help: help.to_owned() }])
}

fn said(problems: &[Problem]) -> String {
    let lines = problems.iter().map(|problem| {
        let Problem { path, message, help } = problem;
        format!("{path}: {message}; {help}")
    });
    lines.collect::<Vec<_>>().join("\n")
}

fn refused(plans: &[TenantPlan]) -> String {
    let lines = plans.iter().flat_map(|plan| {
        plan.refusals.iter().map(|refusal| format!("{}: not admitted: {refusal}", plan.name))
    });
    lines.collect::<Vec<_>>().join("\n")
}

/// What all tenants share.
#[derive(Debug)]
struct Shared {
    config: Config,
    resources: Resources,
    ledger: Mutex<Ledger>,
    state: StateDir,
    /// Where is noted what has an owner on this machine.
    owners: Owners,
    /// Cores, disks, links; held to the end.
    _machine: Machine,
    /// The kernel's limit for real-time threads, if it had to be lifted.
    _lifted: Option<Lifted>,
    /// User ids that tenant processes run under, as numbers above the first.
    uids: Mutex<BTreeSet<u32>>,
    /// Where tenants get their limits of memory and processes.
    groups: Groups,
    binary: PathBuf,
    images: Images,
}

/// A running host service. Dropping it ends all tenants and gives back everything.
#[derive(Debug)]
pub struct HostService {
    shared: Arc<Shared>,
    tenants: Mutex<BTreeMap<String, Arc<Tenant>>>,
    exports: Mutex<BTreeMap<String, Export>>,
    /// Held while exports begin, change and end, which waits for event loops: whoever only looks at
    /// them does not.
    exporting: Mutex<()>,
    /// The files of exports that begin.
    beginning: Mutex<FilesInUse>,
    kept: kept::SharedKept,
}

/// Where tenants get their limits; says which of them cannot be had.
fn groups() -> Groups {
    let groups = Groups::find();
    for controller in groups.missing() {
        let what = "no control groups here: tenant processes run without this limit";
        tracing::warn!(controller, "{what}");
    }
    for group in groups.left() {
        let (group, what) = (group.display(), "left by a host service that has ended, and in use");
        tracing::warn!(%group, "{what}: see its cgroup.procs");
    }
    groups
}

/// A lock that a panic elsewhere does not close: what it guards is changed in single steps.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Measures the costs of a core.
fn measured_costs(core: usize) -> std::io::Result<CoreCosts> {
    let Measured { switch, cache, vcpu, wake_p99 } = measure(core)?;
    let [switch, cache, vcpu] = [switch, cache, vcpu].map(|cost| cost.as_nanos());
    Ok(CoreCosts { switch, cache, vcpu, wake_p99: wake_p99.as_nanos(), measured: true })
}

/// Takes the costs of a core that were measured on this host, or measures them.
fn learn_costs(host: &mut Host) {
    if let Some(&core) = host.cores.first() {
        host.costs = CoreCosts::learn(&host.state_dir, || measured_costs(core));
    }
}

impl HostService {
    /// Checks privileges, cleans up after an earlier host service, starts what tenants share. The
    /// tenants of `config` are not started: see [`HostService::launch`].
    ///
    /// # Errors
    /// What stands in the way, and what to do about it.
    pub fn start(mut config: Config) -> Result<Self, ServiceError> {
        privilege::check(&config)?;
        // By this thread: those that launch tenants may run nothing.
        moirai_launch::prepare_to_spawn().map_err(ServiceError::Spawner)?;
        let missing = core_problems(&config);
        if !missing.is_empty() {
            return Err(ServiceError::Bad(missing));
        }
        check_memory(&config).map_err(|problem| ServiceError::Bad(vec![problem]))?;
        let owners = Owners::open().map_err(|error| bad_owners(&error))?;
        // First of all: what somebody else serves is not to be disturbed by our start.
        let mut machine = owner::take_machine(&owners, &config).map_err(ServiceError::Bad)?;
        let lifted = realtime::prepare(&config, &owners).map_err(ServiceError::Bad)?;
        let state = StateDir::open(&config.host.state_dir)?;
        learn_costs(&mut config.host);
        let started = Resources::start(&config, &state).and_then(|resources| {
            // Their namespaces are there now.
            machine.take_links(&owners, &config).map_err(ServiceError::Bad)?;
            Ok(resources)
        });
        let resources = match started {
            Ok(resources) => resources,
            Err(error) => {
                state.remove_namespaces();
                return Err(error);
            }
        };
        let ledger = Mutex::new(Ledger::new(&config));
        let shared = Shared {
            config,
            resources,
            ledger,
            state,
            owners,
            _machine: machine,
            _lifted: lifted,
            uids: Mutex::default(),
            groups: groups(),
            binary: open::tenant_binary(),
            images: Images::new(open::image_binary()),
        };
        Ok(Self {
            shared: Arc::new(shared),
            tenants: Mutex::default(),
            exports: Mutex::default(),
            exporting: Mutex::default(),
            beginning: Mutex::default(),
            kept: Mutex::default(),
        })
    }

    /// The configuration the service was started with.
    #[must_use]
    pub fn config(&self) -> &Config {
        &self.shared.config
    }

    /// The stalls of the machine that its dispatchers saw.
    #[must_use]
    pub fn stalls(&self) -> &StallLog {
        &self.shared.resources.stalls
    }

    /// Capacity and reservations of all resources.
    #[must_use]
    pub fn resources(&self) -> Vec<ResourceReport> {
        lock(&self.shared.ledger).report()
    }

    /// All tenants, also those that have ended and were not stopped.
    #[must_use]
    pub fn tenants(&self) -> Vec<TenantView> {
        let tenants: Vec<_> = lock(&self.tenants).values().cloned().collect();
        let (cores, domains) = self.snapshots();
        let snapshots = Snapshots::new(&cores, &domains);
        let config = &self.shared.config;
        let view = |tenant: &Arc<Tenant>| {
            let not_kept = tenant.with(|live| snapshots.not_kept(live, config));
            view::told(tenant.view(config), not_kept)
        };
        tenants.iter().map(view).collect()
    }

    /// One tenant.
    ///
    /// # Errors
    /// [`ServiceError::Unknown`].
    pub fn tenant(&self, name: &str) -> Result<TenantView, ServiceError> {
        let tenant = self.find(name)?;
        tenant.ask_balloon();
        Ok(self.view_with_failures(&tenant))
    }

    /// The console of a tenant.
    ///
    /// # Errors
    /// [`ServiceError::Unknown`].
    pub fn console(&self, name: &str) -> Result<Arc<Console>, ServiceError> {
        Ok(Arc::clone(&self.find(name)?.console))
    }

    /// Types `bytes` on a tenant's console; returns how many it took.
    ///
    /// # Errors
    /// [`ServiceError::Unknown`] and [`ServiceError::NotRunning`].
    pub fn type_on_console(&self, name: &str, bytes: &[u8]) -> Result<usize, ServiceError> {
        let taken = self.find(name)?.type_on_console(bytes);
        taken.ok_or_else(|| ServiceError::NotRunning(name.to_owned()))
    }

    fn find(&self, name: &str) -> Result<Arc<Tenant>, ServiceError> {
        let tenants = lock(&self.tenants);
        tenants.get(name).cloned().ok_or_else(|| ServiceError::Unknown(name.to_owned()))
    }
}

impl Drop for HostService {
    fn drop(&mut self) {
        self.end_all();
        self.shared.state.remove_namespaces();
    }
}
