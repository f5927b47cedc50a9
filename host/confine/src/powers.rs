//! Capabilities: what root may do, in parts. Each thread has its own.

use std::io;

use rustix::thread::{
    CapabilitySet, CapabilitySets, capabilities, clear_ambient_capability_set,
    remove_capability_from_bounding_set, set_capabilities,
};

/// What the host service needs while it starts, and what a tenant process needs to shut itself in.
///
/// | capability | for |
/// | --- | --- |
/// | `SYS_ADMIN` | name spaces: of networks of links, of tenant processes |
/// | `NET_ADMIN` | TAPs and bridges |
/// | `NET_BIND_SERVICE` | `[host] metrics` below port 1024 |
/// | `SYS_NICE` | classes and cores of threads |
/// | `IPC_LOCK` | rings of io_uring before Linux 5.12 |
/// | `KILL` | tenant processes, which have users of their own |
/// | `SETUID`, `SETGID`, `SETPCAP` | users of tenant processes, and that they get nothing back |
/// | `DAC_OVERRIDE` | images, volumes and sockets of other users |
pub(crate) const PROCESS: CapabilitySet = CapabilitySet::SYS_ADMIN
    .union(CapabilitySet::NET_ADMIN)
    .union(CapabilitySet::NET_BIND_SERVICE)
    .union(CapabilitySet::SYS_NICE)
    .union(CapabilitySet::IPC_LOCK)
    .union(CapabilitySet::KILL)
    .union(CapabilitySet::SETUID)
    .union(CapabilitySet::SETGID)
    .union(CapabilitySet::SETPCAP)
    .union(CapabilitySet::DAC_OVERRIDE);

/// Nothing outside of `most` can be had again, by whatever is run.
pub(crate) fn limit(most: CapabilitySet) {
    for capability in most.complement().iter() {
        // Unknown to an older kernel, or this process may not: then it has nothing to give.
        let _ = remove_capability_from_bounding_set(capability);
    }
}

/// Leaves the calling thread what it has of these, and nothing to what it runs beyond them.
pub(crate) fn keep(most: CapabilitySet) -> io::Result<()> {
    let had = capabilities(None)?;
    let kept = CapabilitySets {
        effective: had.effective.intersection(most),
        permitted: had.permitted.intersection(most),
        inheritable: CapabilitySet::empty(),
    };
    // Nothing to clear on kernels without ambient capabilities.
    let _ = clear_ambient_capability_set();
    Ok(set_capabilities(None, kept)?)
}
