//! Sets up the host's side of a link: network namespace, TAP, bridge, address.
//!
//! What is there already and is as wanted is taken as it is, so a second start finds its place; what is
//! otherwise is refused by its name, with a command that mends it. Every refusal names the key of the
//! configuration that asked for what cannot be.

use std::fmt::Display;
use std::io;
use std::net::Ipv4Addr;

use moirai_devices::backend::Link as _;
use moirai_devices::backend::netns::in_netns;
use moirai_devices::backend::tap::Tap;
use moirai_devices::net::Offload;

use super::interface::{Interface, Interfaces};
use super::netns::{self, Found};
use super::state::{StateDir, StateError};
use crate::config::document::OffloadName;
use crate::config::model::Link;

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
    let Some(name) = &link.netns else { return (Setup { link, made: false }).open() };
    let mut setup = Setup { link, made: false };
    match netns::find(name) {
        Found::Namespace => {}
        Found::Other(what) => {
            let path = netns::path(name);
            let message = format!("{} is {what}, not a network namespace", path.display());
            let remove = match what {
                "a folder" => format!("rmdir {}", path.display()),
                _ => format!("ip netns delete {name}"),
            };
            return Err(setup.refused("netns", message, remove_and(&remove)));
        }
        Found::Nothing => {
            // Noted first: a namespace that is noted and not there does no harm.
            state.note_netns(name)?;
            let help = "it needs CAP_SYS_ADMIN: run the host service as root";
            let failed = |error| setup.refused("netns", cannot("make", name, &error), help.into());
            netns::create(name).map_err(failed)?;
            setup.made = true;
        }
    }
    let help = "it needs CAP_SYS_ADMIN and a namespace of the network: `ip netns` lists those";
    let failed = |error| setup.refused("netns", cannot("enter", name, &error), help.into());
    in_netns(name, || setup.open()).map_err(failed)?
}

fn cannot(what: &str, name: &str, error: &io::Error) -> String {
    format!("cannot {what} the network namespace {name:?}: {error}")
}

fn remove_and(command: &str) -> String {
    format!("choose another name, or remove it and start again:\n{command}")
}

struct Setup<'a> {
    link: &'a Link,
    /// The namespace is ours and goes when this fails.
    made: bool,
}

impl Setup<'_> {
    fn refused(&self, key: &'static str, message: impl Display, help: String) -> LinkError {
        let (link, message) = (self.link.name.clone(), message.to_string());
        LinkError::Refused { link, key, message, help }
    }

    /// `command`, as it has to be typed to act in the link's namespace.
    fn pasted(&self, command: &str) -> String {
        match &self.link.netns {
            None => command.to_owned(),
            Some(netns) if self.made => {
                format!("ip netns add {netns}\nip netns exec {netns} {command}")
            }
            Some(netns) => format!("ip netns exec {netns} {command}"),
        }
    }

    /// Does it in the namespace of the calling thread.
    fn open(&self) -> Result<Tap, LinkError> {
        let link = self.link;
        let kernel = Interfaces::new()
            .map_err(|error| self.refused("tap", format!("netlink: {error}"), String::new()))?;
        // Before the TAP is made: a bridge that is not there is no reason to make one.
        let bridge = link.bridge.as_deref().map(|name| self.bridge(&kernel, name)).transpose()?;
        let wanted = match link.offload {
            OffloadName::None => Offload::None,
            OffloadName::Checksum => Offload::Checksum,
            OffloadName::Segmentation => Offload::TcpAndUdp,
        };
        let tap = Tap::open(&link.tap, wanted)
            .map_err(|error| self.refused("tap", error, "`ip tuntap` lists all TAPs".into()))?;
        if tap.offload() < wanted {
            let (link, offload) = (&link.name, tap.offload());
            tracing::warn!(%link, ?wanted, ?offload, "the kernel does not know all offloads");
        }
        let found = kernel.named(tap.name());
        let there = found.ok().flatten().ok_or_else(|| {
            let message = format!("TAP {:?} is gone again", link.tap);
            self.refused("tap", message, "somebody else removes it".into())
        })?;
        self.join(&kernel, &there, bridge.as_ref())?;
        self.address(&kernel, &there)?;
        Ok(tap)
    }

    /// The bridge that the TAP is to join.
    fn bridge(&self, kernel: &Interfaces, name: &str) -> Result<Interface, LinkError> {
        let found = kernel.named(name).map_err(|error| {
            self.refused("bridge", format!("bridge {name:?}: {error}"), String::new())
        })?;
        let Some(bridge) = found else {
            let help = self.pasted(&format!("ip link add {name} type bridge"));
            let message = format!("there is no bridge {name:?}");
            return Err(self.refused("bridge", message, format!("make it:\n{help}")));
        };
        if !bridge.is_bridge {
            let message = format!("the interface {name:?} is no bridge");
            let help = self.pasted("ip link show type bridge");
            return Err(self.refused("bridge", message, format!("these are:\n{help}")));
        }
        let (ours, its) = (u32::from(self.link.mtu), bridge.mtu);
        if ours > its {
            let message = format!("an MTU of {ours} is more than the {its} of bridge {name:?}");
            let raise = self.pasted(&format!("ip link set {name} mtu {ours}"));
            let help = format!("write mtu = {its}, or raise the bridge's:\n{raise}");
            return Err(self.refused("mtu", message, help));
        }
        if !bridge.is_up {
            let raise = self.pasted(&format!("ip link set {name} up"));
            tracing::warn!(link = self.link.name, "bridge {name} is down: {raise}");
        }
        Ok(bridge)
    }

    /// Sets the MTU, joins the bridge, brings the TAP up.
    fn join(
        &self,
        kernel: &Interfaces,
        tap: &Interface,
        bridge: Option<&Interface>,
    ) -> Result<(), LinkError> {
        let (name, mtu) = (&self.link.tap, self.link.mtu);
        kernel.set_mtu(tap, mtu).map_err(|error| {
            let message = format!("TAP {name:?} takes no MTU of {mtu}: {error}");
            self.refused("mtu", message, "write for example mtu = 1500".into())
        })?;
        if let Some(bridge) = bridge {
            if let Some(other) = tap.controller.filter(|other| *other != bridge.index) {
                let other = kernel.numbered(other).ok().flatten();
                let other = other.map_or_else(|| "another one".to_owned(), |it| it.name);
                let message = format!("TAP {name:?} is in {other:?}, not in {:?}", bridge.name);
                let leave = self.pasted(&format!("ip link set {name} nomaster"));
                let help = format!("write bridge = {other:?}, or take it out there:\n{leave}");
                return Err(self.refused("bridge", message, help));
            }
            kernel.join(tap, bridge).map_err(|error| {
                let message = format!("TAP {name:?} cannot join {:?}: {error}", bridge.name);
                self.refused("bridge", message, "choose another bridge".into())
            })?;
        }
        kernel.bring_up(tap).map_err(|error| {
            let message = format!("TAP {name:?} cannot be brought up: {error}");
            self.refused("tap", message, "choose another name".into())
        })
    }

    /// Gives the TAP its address, unless it has that already.
    fn address(&self, kernel: &Interfaces, tap: &Interface) -> Result<(), LinkError> {
        let Some(cidr) = self.link.address else { return Ok(()) };
        let (name, wanted) = (&self.link.tap, (cidr.address, cidr.prefix));
        let shown = |(address, prefix): (Ipv4Addr, u8)| format!("{address}/{prefix}");
        let failed = |error: io::Error| {
            let message = format!("TAP {name:?} takes no address {}: {error}", shown(wanted));
            self.refused("address", message, "write for example \"10.0.0.1/24\"".into())
        };
        let present = kernel.addresses(tap).map_err(failed)?;
        if let Some(other) = present.iter().find(|present| **present != wanted) {
            let other = shown(*other);
            let message = format!("TAP {name:?} has the address {other} already");
            let remove = self.pasted(&format!("ip address delete {other} dev {name}"));
            let help = format!("write address = {other:?}, or take it away:\n{remove}");
            return Err(self.refused("address", message, help));
        }
        if present.is_empty() { kernel.add_address(tap, wanted).map_err(failed) } else { Ok(()) }
    }
}
