//! Sets up the host's side of a link: network namespace, TAP, bridge, address.

use std::io;

use moirai_devices::backend::netns::in_netns;
use moirai_devices::backend::tap::{Tap, TapError};
use moirai_devices::net::Offload;
use rtnetlink::LinkUnspec;

use super::netns;
use super::state::{StateDir, StateError};
use crate::config::document::OffloadName;
use crate::config::model::Link;

/// Why a link cannot be set up.
#[derive(Debug, thiserror::Error)]
pub enum LinkError {
    /// The TAP cannot be had.
    #[error("link {link:?} cannot be served: {source}")]
    Tap {
        /// Name of the link.
        link: String,
        /// Why.
        source: TapError,
    },
    /// The namespace cannot be made or entered.
    #[error(
        "link {link:?} cannot be served: network namespace {netns:?}: {source}; it needs \
         CAP_SYS_ADMIN, or make it with `ip netns add {netns}` and run the host service inside"
    )]
    Namespace {
        /// Name of the link.
        link: String,
        /// Name of the namespace.
        netns: String,
        /// What the kernel said.
        source: io::Error,
    },
    /// There is no such bridge.
    #[error(
        "link {link:?} cannot be served: there is no bridge {bridge:?}; make it with \
         `ip link add {bridge} type bridge`"
    )]
    Bridge {
        /// Name of the link.
        link: String,
        /// Name of the bridge.
        bridge: String,
    },
    /// The TAP cannot be configured.
    #[error("link {link:?} cannot be served: {step} of TAP {tap:?} failed: {source}")]
    Configure {
        /// Name of the link.
        link: String,
        /// Name of the TAP.
        tap: String,
        /// What was being done.
        step: &'static str,
        /// What the kernel said.
        source: io::Error,
    },
    /// What was made cannot be noted.
    #[error(transparent)]
    State(#[from] StateError),
}

/// Makes the TAP of `link` in its namespace, brings it up, gives it its address and its bridge.
///
/// # Errors
/// [`LinkError`]; what was made goes away with the TAP or with the state directory.
pub(super) fn open(link: &Link, state: &StateDir) -> Result<Tap, LinkError> {
    let Some(name) = &link.netns else { return open_here(link) };
    let failed =
        |source| LinkError::Namespace { link: link.name.clone(), netns: name.clone(), source };
    if !netns::exists(name) {
        // Noted first: a namespace that is noted and not there does no harm.
        state.note_netns(name)?;
        netns::create(name).map_err(failed)?;
    }
    in_netns(name, || open_here(link)).map_err(failed)?
}

/// Does it in the namespace of the calling thread.
fn open_here(link: &Link) -> Result<Tap, LinkError> {
    let wanted = match link.offload {
        OffloadName::None => Offload::None,
        OffloadName::Checksum => Offload::Checksum,
        OffloadName::Segmentation => Offload::TcpAndUdp,
    };
    let tap = Tap::open(&link.tap, wanted)
        .map_err(|source| LinkError::Tap { link: link.name.clone(), source })?;
    if tap.offload() < wanted {
        let (link, offload) = (&link.name, tap.offload());
        tracing::warn!(%link, ?wanted, ?offload, "the kernel does not know all offloads");
    }
    let failed = |step, source| LinkError::Configure {
        link: link.name.clone(),
        tap: link.tap.clone(),
        step,
        source,
    };
    let index = index_of(tap.name()).map_err(|source| failed("finding the number", source))?;
    let bridge =
        match &link.bridge {
            None => None,
            Some(bridge) => Some(index_of(bridge).map_err(|_| LinkError::Bridge {
                link: link.name.clone(),
                bridge: bridge.clone(),
            })?),
        };
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|source| failed("setting up", source))?;
    runtime
        .block_on(configure(link, index, bridge))
        .map_err(|(step, error)| failed(step, netlink_error(error)))?;
    Ok(tap)
}

async fn configure(
    link: &Link,
    index: u32,
    bridge: Option<u32>,
) -> Result<(), (&'static str, rtnetlink::Error)> {
    let (connection, handle, _) = rtnetlink::new_connection().map_err(|error| {
        ("reaching the kernel", rtnetlink::Error::NamespaceError(error.to_string()))
    })?;
    tokio::spawn(connection);
    let mut change = LinkUnspec::new_with_index(index).mtu(u32::from(link.mtu)).up();
    if let Some(bridge) = bridge {
        change = change.controller(bridge);
    }
    handle.link().set(change.build()).execute().await.map_err(|e| ("bringing up", e))?;
    if let Some(cidr) = link.address {
        let add = handle.address().add(index, cidr.address.into(), cidr.prefix);
        add.execute().await.map_err(|e| ("giving the address", e))?;
    }
    Ok(())
}

fn index_of(name: &str) -> io::Result<u32> {
    let socket = rustix::net::socket(
        rustix::net::AddressFamily::UNIX,
        rustix::net::SocketType::DGRAM,
        None,
    )?;
    Ok(rustix::net::netdevice::name_to_index(&socket, name)?)
}

/// The kernel's answer, where there was one.
fn netlink_error(error: rtnetlink::Error) -> io::Error {
    match error {
        rtnetlink::Error::NetlinkError(message) => message.to_io(),
        other => io::Error::other(other.to_string()),
    }
}
