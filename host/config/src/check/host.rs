//! Checks `[host]`: cores, sockets, folders, and what depends on the machine.

use std::collections::HashSet;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;

use super::{memory, path};
use crate::costs::CoreCosts;
use crate::document::HostTable;
use crate::model::Host;
use crate::problem::Problems;

const DEFAULT_SOCKET: &str = "/run/moirai/host.sock";
const DEFAULT_STATE_DIR: &str = "/run/moirai";
const DEFAULT_CPU_CAPACITY: f64 = 0.95;

/// The machine, every default filled in.
pub(super) fn check(table: &HostTable, problems: &mut Problems) -> Host {
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
        memory: memory::check(table, memory::machine_memory(), problems),
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
    path::check_socket(&socket, "host.socket", DEFAULT_SOCKET, problems);
    socket
}

fn check_state_dir(table: &HostTable, problems: &mut Problems) -> PathBuf {
    let folder = table.state_dir.clone().unwrap_or_else(|| PathBuf::from(DEFAULT_STATE_DIR));
    path::check(&folder, "host.state_dir", DEFAULT_STATE_DIR, problems);
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
