//! What the values of a configuration must fulfil together. All that is wrong is reported at once.
//!
//! The same document gives the same result on every machine, except for the defaults of
//! `host.cores`, `host.io_core` and `host.memory`, which depend on the machine, and for paths that
//! are there and lead to the same thing (`identity.rs`). So a configuration that says them can be
//! planned on another machine than the one it is for.

use moirai_scheduler::Amount;
use std::collections::HashSet;
use std::fmt::Display;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;

use crate::admission::CoreCosts;

use super::document::{DiskTable, Document, HostTable};
use super::model::{Config, Disk, Host};
use super::problem::Problem;
use super::units::Time;
use super::{export, identity, link_check, machine_memory, path_check, tenant};

pub use super::tenant::check_tenants;

const DEFAULT_SOCKET: &str = "/run/moirai/host.sock";
const DEFAULT_STATE_DIR: &str = "/run/moirai";
const DEFAULT_GROUP: &str = "main";
const DEFAULT_DEPTH: u32 = 4;
const MAX_DEPTH: u32 = 1024;
const DEFAULT_MAX_UNIT: Amount = Amount::from_millis(1);
/// No device that keeps promises about time takes a minute for one request.
const MAX_UNIT_MAX: u64 = 60_000_000_000;
const DEFAULT_CPU_CAPACITY: f64 = 0.95;
const MAX_NAME_BYTES: usize = 32;

/// Collects what is wrong.
#[derive(Debug, Default)]
pub(super) struct Problems(Vec<Problem>);

impl Problems {
    /// Notes a problem at `path`.
    pub(super) fn add(&mut self, path: impl Display, message: impl Into<String>, help: &str) {
        let problem =
            Problem { path: path.to_string(), message: message.into(), help: help.to_owned() };
        self.0.push(problem);
    }

    /// Notes the problem of a failed step and goes on without its result.
    pub(super) fn note<T>(&mut self, result: Result<T, Problem>) -> Option<T> {
        result.map_err(|problem| self.0.push(problem)).ok()
    }

    /// Nothing was wrong so far.
    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// What was wrong.
    pub(super) fn into_inner(self) -> Vec<Problem> {
        self.0
    }
}

/// Checks a document.
///
/// # Errors
/// Everything that is wrong with it.
pub fn check(document: &Document) -> Result<Config, Vec<Problem>> {
    let mut problems = Problems::default();
    let host = check_host(&document.host, &mut problems);
    unique("disk", document.disk.iter().map(|disk| &disk.name), &mut problems);
    unique("link", document.link.iter().map(|link| &link.name), &mut problems);
    unique("tenant", document.tenant.iter().map(|tenant| &tenant.name), &mut problems);
    let disks = numbered("disk", &document.disk)
        .map(|(at, table)| check_disk(table, &at, &mut problems))
        .collect::<Vec<_>>();
    identity::check_disks(&disks, &mut problems);
    let links = link_check::check_all(&document.link, &mut problems);
    let config = Config { host, disks, links, tenants: Vec::new(), exports: Vec::new() };
    let tenants = tenant::check_all(&config, &document.tenant, &mut problems);
    let exports = export::check_all(&config, &document.export, &mut problems);
    let config = Config { tenants, exports, ..config };
    // Tenants with a problem are left out: only where there is none have the others their numbers.
    if problems.is_empty() {
        identity::check_volumes(&config, &mut problems);
    }
    match problems.into_inner() {
        found if found.is_empty() => Ok(config),
        found => Err(found),
    }
}

/// The items of an array of tables with their paths.
pub(super) fn numbered<'a, T>(
    kind: &'a str,
    tables: &'a [T],
) -> impl Iterator<Item = (String, &'a T)> {
    tables.iter().enumerate().map(move |(index, table)| (format!("{kind}[{index}]"), table))
}

/// Notes names that are no names, or taken by an earlier table of their kind.
pub(super) fn unique<'a>(
    kind: &str,
    names: impl Iterator<Item = &'a String>,
    problems: &mut Problems,
) {
    let mut seen = HashSet::new();
    for (index, name) in names.enumerate() {
        let path = format!("{kind}[{index}].name");
        if !is_name(name) {
            let help = "write for example \"cinema\": up to 32 letters, digits, '-', '_' and '.', \
                        beginning with a letter or a digit, because names become parts of paths";
            problems.add(&path, format!("{name:?} cannot be the name of a {kind}"), help);
        }
        if !seen.insert(name) {
            let message = format!("there are two {kind}s named {name:?}");
            problems.add(&path, message, "give each its own name");
        }
    }
}

fn check_host(table: &HostTable, problems: &mut Problems) -> Host {
    let machine = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    let cores = table.cores.clone().unwrap_or_else(|| vec![machine.saturating_sub(1)]);
    if cores.is_empty() {
        problems.add("host.cores", "no core for tenants", "write for example cores = [1]");
    }
    if cores.iter().collect::<HashSet<_>>().len() < cores.len() {
        problems.add("host.cores", "a core is named twice", "name each core once");
    }
    let capacity = table.cpu_capacity.unwrap_or(DEFAULT_CPU_CAPACITY);
    let cpu_capacity_ppm = ppm(capacity).unwrap_or_else(|| {
        let message = format!("a capacity of {capacity} is not between 0 and 1");
        let help = "write for example 0.9: the share of a core that may be reserved";
        problems.add("host.cpu_capacity", message, help);
        0
    });
    let cpu_policy = table.cpu_policy.unwrap_or_default().0;
    if !cpu_policy.suits_a_core() {
        let message = format!("`{}` does not say who is owed time on a core", cpu_policy.as_str());
        let help = "write for example \"atropos\"; nemesis, xen, usd and fifo suit a core, too, \
                    the others disks, links and `moirai simulate --policy`";
        problems.add("host.cpu_policy", message, help);
    }
    let io_core = table.io_core.or_else(|| (0..machine).find(|core| !cores.contains(core)));
    Host {
        cores,
        cpu_capacity_ppm,
        realtime_limit: table.realtime_limit.unwrap_or_default(),
        profile: table.profile.unwrap_or_default(),
        memory: machine_memory::check(table, machine_memory::machine_memory(), problems),
        costs: CoreCosts::default(),
        cpu_policy,
        io_core,
        socket: check_socket(table, problems),
        metrics: check_metrics(table, problems),
        state_dir: check_state_dir(table, problems),
    }
}

fn check_socket(table: &HostTable, problems: &mut Problems) -> PathBuf {
    let socket = table.socket.clone().unwrap_or_else(|| PathBuf::from(DEFAULT_SOCKET));
    path_check::check_socket(&socket, "host.socket", DEFAULT_SOCKET, problems);
    socket
}

fn check_state_dir(table: &HostTable, problems: &mut Problems) -> PathBuf {
    let folder = table.state_dir.clone().unwrap_or_else(|| PathBuf::from(DEFAULT_STATE_DIR));
    path_check::check(&folder, "host.state_dir", DEFAULT_STATE_DIR, problems);
    folder
}

/// An address with a port, or a port of this machine alone.
fn check_metrics(table: &HostTable, problems: &mut Problems) -> Option<SocketAddr> {
    let text = table.metrics.as_deref()?;
    let port = text.strip_prefix(':').unwrap_or(text).parse().ok();
    let local = port.map(|port: u16| SocketAddr::from((Ipv4Addr::LOCALHOST, port)));
    let address = local.or_else(|| text.parse().ok()).filter(|address| address.port() != 0);
    if address.is_none() {
        let message = format!("{text:?} is not an address with a port");
        problems.add("host.metrics", message, "write for example \"127.0.0.1:9100\"");
    }
    address
}

/// A share above 0 and at most 1 in millionths.
fn ppm(share: f64) -> Option<u32> {
    let scaled = (share * 1e6).round();
    #[allow(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "the comparison leaves 1 to 1,000,000 only, and NaN fails it"
    )]
    (1.0..=1e6).contains(&scaled).then_some(scaled as u32)
}

fn check_disk(table: &DiskTable, at: &str, problems: &mut Problems) -> Disk {
    path_check::check(&table.path, &format!("{at}.path"), "/srv/volumes", problems);
    let depth = table.depth.unwrap_or(DEFAULT_DEPTH);
    if !(1..=MAX_DEPTH).contains(&depth) {
        let help = "write for example 4: how many requests the device gets at a time";
        problems.add(format!("{at}.depth"), format!("a depth of {depth} is not 1 to 1024"), help);
    }
    let bandwidth = table.bandwidth.and_then(|rate| {
        let bytes = rate.bits_per_second().map(|bits| bits / 8).filter(|bytes| *bytes > 0);
        if bytes.is_none() {
            let message = format!("{rate} is not what a disk delivers");
            problems.add(format!("{at}.bandwidth"), message, "write for example \"400MB/s\"");
        }
        bytes
    });
    Disk {
        name: table.name.clone(),
        path: table.path.clone(),
        depth,
        max_unit: check_max_unit(table, at, problems),
        bandwidth,
        policy: table.policy.unwrap_or_default().0,
        group: group(table.group.as_ref(), at, problems),
    }
}

/// The group of a disk or a link; a thread and a row of counters have its name.
pub(super) fn group(name: Option<&String>, at: &str, problems: &mut Problems) -> String {
    let name = name.cloned().unwrap_or_else(|| DEFAULT_GROUP.to_owned());
    if !is_name(&name) {
        let help = "write for example \"main\": up to 32 letters, digits, '-', '_' and '.'";
        problems.add(
            format!("{at}.group"),
            format!("{name:?} cannot be the name of a group"),
            help,
        );
    }
    name
}

fn is_name(name: &str) -> bool {
    let letters = name.bytes().all(|c| c.is_ascii_alphanumeric() || b"-_.".contains(&c));
    let begins_well = name.starts_with(|c: char| c.is_ascii_alphanumeric());
    letters && begins_well && name.len() <= MAX_NAME_BYTES
}

fn check_max_unit(table: &DiskTable, at: &str, problems: &mut Problems) -> Amount {
    let Some(Time(unit)) = table.max_unit else { return DEFAULT_MAX_UNIT };
    if !(1..=MAX_UNIT_MAX).contains(&unit) {
        let message =
            format!("a `max_unit` of {} is not 1ns to {}", Time(unit), Time(MAX_UNIT_MAX));
        problems.add(
            format!("{at}.max_unit"),
            message,
            "write for example \"1ms\"; `moirai probe disk` measures what it takes",
        );
    }
    Time(unit.clamp(1, MAX_UNIT_MAX)).work()
}
