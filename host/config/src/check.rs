//! What the values of a configuration must fulfil together. A check goes on after a mistake, so
//! that one report tells of all of them.
//!
//! | file | what it checks |
//! | --- | --- |
//! | `host.rs`, `memory.rs` | the host, and what the machine has for tenants |
//! | `disk.rs`, `link.rs` | what tenants share |
//! | `tenant.rs`, `machine.rs` | tenants and their virtual machines |
//! | `export.rs` | exports |
//! | `volume.rs`, `net.rs` | the devices of tenants and exports |
//! | `contract.rs` | contracts, whatever they are on |
//! | `load.rs` | what a tenant does in a simulation |
//! | `names.rs`, `path.rs` | names, and paths that no file can have |
//! | `identity.rs` | paths that lead to the same disk or volume |
//!
//! The same document gives the same result on every machine, except for the defaults of
//! `host.cores`, `host.io_core` and `host.memory`, which depend on the machine, and for paths that
//! are there and lead to the same thing (`identity.rs`). So a configuration that says them can be
//! planned on another machine than the one it is for.

mod contract;
mod disk;
mod export;
mod host;
mod identity;
mod link;
mod load;
mod machine;
mod memory;
mod names;
mod net;
mod path;
mod tenant;
mod volume;

pub use contract::{Scope, resolve};
pub use export::check_exports;
pub use machine::MAX_STOP_AFTER;
pub use memory::machine_memory;
pub use tenant::check_tenants;

use crate::document::Document;
use crate::model::Config;
use crate::problem::{Problem, Problems};
use names::{numbered, unique};

/// Checks a document.
///
/// # Errors
/// Everything that is wrong with it.
pub fn check(document: &Document) -> Result<Config, Vec<Problem>> {
    let mut problems = Problems::default();
    let host = host::check(&document.host, &mut problems);
    unique("disk", document.disk.iter().map(|disk| &disk.name), &mut problems);
    unique("link", document.link.iter().map(|link| &link.name), &mut problems);
    unique("tenant", document.tenant.iter().map(|tenant| &tenant.name), &mut problems);
    let disks = numbered("disk", &document.disk)
        .map(|(at, table)| disk::check(table, &at, &mut problems))
        .collect::<Vec<_>>();
    identity::check_disks(&disks, &mut problems);
    let links = link::check_all(&document.link, &mut problems);
    let config = Config { host, disks, links, tenants: Vec::new(), exports: Vec::new() };
    let tenants = tenant::check_all(&config, &document.tenant, &mut problems);
    let exports = export::check_all(&config, &document.export, &mut problems);
    let config = Config { tenants, exports, ..config };
    // Tenants with a problem are left out: only where there is none have the others their numbers.
    if problems.is_empty() {
        identity::check_volumes(&config, &mut problems);
    }
    problems.unless_any(config)
}
