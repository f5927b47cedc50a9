//! Sets up the host's side of a link: network namespace, TAP, bridge, address.
//!
//! What is there already and is as wanted is taken as it is, so a second start finds its place;
//! what is otherwise is refused by its name, with a command that mends it (`look.rs`). What a TAP
//! lacks it gets: an address where it has none, a bridge where it is in none; a persistent one
//! keeps them. Every refusal names the key of the configuration that asked for what cannot be.

mod look;

use std::io;

use moirai_devices::backend::Link as _;
use moirai_devices::backend::tap::Tap;
use moirai_devices::net::Offload;
use moirai_runtime::netns::{self, Found, in_netns};

use super::interface::{Interface, Interfaces};
use super::state::{StateDir, StateError};
use moirai_config::document::OffloadName;
use moirai_config::model::Link;

use look::Look;
pub use look::link_problems;

/// Why a link cannot be set up.
#[derive(Debug, thiserror::Error)]
pub enum LinkError {
    /// The kernel refuses what a key asks for, or something else is in its place.
    #[error("link {link:?} cannot be served: {message}; {help}")]
    Refused {
        /// Name of the link.
        link: String,
        /// Key of its table.
        key: &'static str,
        /// What is wrong.
        message: String,
        /// What to do about it.
        help: String,
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
    let Some(name) = &link.netns else { return open_here(&Look { link, made: false }) };
    let mut look = Look { link, made: false };
    match netns::find(name) {
        Found::Namespace => {}
        Found::Other(what) => return Err(look.no_namespace(name, what)),
        Found::Nothing => {
            // Noted first: a namespace that is noted and not there does no harm.
            state.note_netns(name)?;
            let help = "it needs CAP_SYS_ADMIN: run the host service as root";
            let failed = |error| look.refused("netns", cannot("make", name, &error), help.into());
            netns::create(name).map_err(failed)?;
            look.made = true;
        }
    }
    let help = "it needs CAP_SYS_ADMIN and a namespace of the network: `ip netns` lists those";
    let failed = |error| look.refused("netns", cannot("enter", name, &error), help.into());
    in_netns(name, || open_here(&look)).map_err(failed)?
}

fn cannot(what: &str, name: &str, error: &io::Error) -> String {
    format!("cannot {what} the network namespace {name:?}: {error}")
}

/// Does it in the namespace of the calling thread. Everything is looked at before anything of
/// somebody else's is changed.
fn open_here(look: &Look<'_>) -> Result<Tap, LinkError> {
    let link = look.link;
    let no_kernel = |error| look.refused("tap", format!("netlink: {error}"), String::new());
    let kernel = Interfaces::new().map_err(no_kernel)?;
    // Before the TAP is made: a bridge that is not there is no reason to make one.
    let bridge = look.bridge(&kernel)?;
    let was_there = kernel.named(&link.tap).map_err(no_kernel)?.is_some();
    let tap = open_tap(look)?;
    let found = kernel.named(tap.name());
    let there = found.ok().flatten().ok_or_else(|| {
        let message = format!("TAP {:?} is gone again", link.tap);
        look.refused("tap", message, "somebody else removes it".into())
    })?;
    if was_there {
        look.tap(&kernel, &there, bridge.as_ref())?;
    }
    let needs_address = look.address(&kernel, Some(&there))?;
    set_up(look, &kernel, &there, bridge.as_ref())?;
    if let Some(cidr) = link.address.filter(|_| needs_address) {
        let added = kernel.add_address(&there, (cidr.address, cidr.prefix));
        added.map_err(|error| look.takes_none(&error))?;
    }
    Ok(tap)
}

fn open_tap(look: &Look<'_>) -> Result<Tap, LinkError> {
    let link = look.link;
    let wanted = match link.offload {
        OffloadName::None => Offload::None,
        OffloadName::Checksum => Offload::Checksum,
        OffloadName::Segmentation => Offload::TcpAndUdp,
    };
    let tap = Tap::open(&link.tap, wanted)
        .map_err(|error| look.refused("tap", error, "`ip tuntap` lists all TAPs".into()))?;
    if tap.offload() < wanted {
        let (link, offload) = (&link.name, tap.offload());
        tracing::warn!(%link, ?wanted, ?offload, "the kernel does not know all offloads");
    }
    Ok(tap)
}

/// Sets the MTU, joins the bridge, brings the TAP up.
fn set_up(
    look: &Look<'_>,
    kernel: &Interfaces,
    tap: &Interface,
    bridge: Option<&Interface>,
) -> Result<(), LinkError> {
    let (name, mtu) = (&look.link.tap, look.link.mtu);
    // One that was there has it.
    kernel.set_mtu(tap, mtu).map_err(|error| {
        let message = format!("TAP {name:?} takes no MTU of {mtu}: {error}");
        look.refused("mtu", message, "write for example mtu = 1500".into())
    })?;
    if let Some(bridge) = bridge {
        kernel.join(tap, bridge).map_err(|error| {
            let message = format!("TAP {name:?} cannot join {:?}: {error}", bridge.name);
            look.refused("bridge", message, "choose another bridge".into())
        })?;
    }
    kernel.bring_up(tap).map_err(|error| {
        let message = format!("TAP {name:?} cannot be brought up: {error}");
        look.refused("tap", message, "choose another name".into())
    })
}
