//! What is there already and is not as a link wants it. Looks and changes nothing: `moirai plan`
//! says the same before a host service starts.

use std::fmt::Display;
use std::io;
use std::net::Ipv4Addr;

use moirai_devices::backend::tap::TapError;
use moirai_runtime::netns::{self, Found, in_netns};

use super::LinkError;
use crate::interface::{Interface, Interfaces};
use moirai_config::Problem;
use moirai_config::model::{Config, Link};

/// What this machine has that stands in the way of the links of `config`. What may not be looked at
/// is not said.
#[must_use]
pub fn link_problems(config: &Config) -> Vec<Problem> {
    let found = config.links.iter().enumerate().filter_map(|(index, link)| {
        let LinkError::Refused { key, message, help, .. } = stands_in_the_way(link).err()? else {
            return None;
        };
        Some(Problem { path: format!("link[{index}].{key}"), message, help })
    });
    found.collect()
}

fn stands_in_the_way(link: &Link) -> Result<(), LinkError> {
    let look = Look { link, made: false };
    match &link.netns {
        None => look.at_all(),
        Some(name) => match netns::find(name) {
            Found::Namespace => in_netns(name, || look.at_all()).unwrap_or(Ok(())),
            Found::Other(what) => Err(look.no_namespace(name, what)),
            // The host service makes it, and only it will be there.
            Found::Nothing => {
                let look = Look { made: true, ..look };
                link.bridge.as_ref().map_or(Ok(()), |bridge| Err(look.no_bridge(bridge)))
            }
        },
    }
}

/// A look at what a link wants.
pub(super) struct Look<'a> {
    pub(super) link: &'a Link,
    /// The namespace is the link's own and goes when it cannot be served.
    pub(super) made: bool,
}

impl Look<'_> {
    pub(super) fn refused(
        &self,
        key: &'static str,
        message: impl Display,
        help: String,
    ) -> LinkError {
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

    /// Looks at everything, in the namespace of the calling thread.
    fn at_all(&self) -> Result<(), LinkError> {
        let Ok(kernel) = Interfaces::new() else { return Ok(()) };
        let bridge = self.bridge(&kernel)?;
        let tap = kernel.named(&self.link.tap).ok().flatten();
        if let Some(tap) = &tap {
            if !tap.is_tap {
                return Err(self.refused(
                    "tap",
                    TapError::NotATap(tap.name.clone()),
                    "`ip tuntap` lists all TAPs".into(),
                ));
            }
            self.tap(&kernel, tap, bridge.as_ref())?;
        }
        self.address(&kernel, tap.as_ref()).map(drop)
    }

    /// Something else is at the place of the namespace.
    pub(super) fn no_namespace(&self, name: &str, what: &str) -> LinkError {
        let path = netns::path(name);
        let message = format!("{} is {what}, not a network namespace", path.display());
        let remove = match what {
            "a folder" => format!("rmdir {}", path.display()),
            _ => format!("ip netns delete {name}"),
        };
        let help = format!("choose another name, or remove it and start again:\n{remove}");
        self.refused("netns", message, help)
    }

    fn no_bridge(&self, name: &str) -> LinkError {
        let help = self.pasted(&format!("ip link add {name} type bridge"));
        self.refused("bridge", format!("there is no bridge {name:?}"), format!("make it:\n{help}"))
    }

    /// The bridge that the TAP is to join.
    pub(super) fn bridge(&self, kernel: &Interfaces) -> Result<Option<Interface>, LinkError> {
        let Some(name) = self.link.bridge.as_deref() else { return Ok(None) };
        let found = kernel.named(name).map_err(|error| {
            self.refused("bridge", format!("bridge {name:?}: {error}"), String::new())
        })?;
        let bridge = found.ok_or_else(|| self.no_bridge(name))?;
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
        Ok(Some(bridge))
    }

    /// A TAP that was there: it is somebody's, and stays when we go. What he has set is not
    /// changed.
    pub(super) fn tap(
        &self,
        kernel: &Interfaces,
        tap: &Interface,
        bridge: Option<&Interface>,
    ) -> Result<(), LinkError> {
        let (name, ours, its) = (&self.link.tap, u32::from(self.link.mtu), tap.mtu);
        if ours != its {
            let message = format!("TAP {name:?} has an MTU of {its}, not {ours}");
            let set = self.pasted(&format!("ip link set {name} mtu {ours}"));
            let help = format!("write mtu = {its}, or change it there:\n{set}");
            return Err(self.refused("mtu", message, help));
        }
        let Some(bridge) = bridge else { return Ok(()) };
        if let Some(other) = tap.controller.filter(|other| *other != bridge.index) {
            let other = kernel.numbered(other).ok().flatten();
            let other = other.map_or_else(|| "another one".to_owned(), |it| it.name);
            let message = format!("TAP {name:?} is in {other:?}, not in {:?}", bridge.name);
            let leave = self.pasted(&format!("ip link set {name} nomaster"));
            let help = format!("write bridge = {other:?}, or take it out there:\n{leave}");
            return Err(self.refused("bridge", message, help));
        }
        Ok(())
    }

    /// Whether the TAP is still to get its address: it may have that or none, and nobody else has
    /// it.
    pub(super) fn address(
        &self,
        kernel: &Interfaces,
        tap: Option<&Interface>,
    ) -> Result<bool, LinkError> {
        let Some(cidr) = self.link.address else { return Ok(false) };
        let (name, wanted) = (&self.link.tap, (cidr.address, cidr.prefix));
        let all = kernel.addresses().map_err(|error| self.takes_none(&error))?;
        let (own, others): (Vec<_>, Vec<_>) =
            all.into_iter().partition(|it| tap.is_some_and(|tap| tap.index == it.interface));
        // Others beside it are its owner's.
        let has_it = own.iter().any(|it| (it.address, it.prefix) == wanted);
        if let Some(other) = own.first().filter(|_| !has_it) {
            let other = shown((other.address, other.prefix));
            let message = format!("TAP {name:?} has the address {other} already");
            let remove = self.pasted(&format!("ip address delete {other} dev {name}"));
            let help = format!("write address = {other:?}, or take it away:\n{remove}");
            return Err(self.refused("address", message, help));
        }
        if let Some(other) = others.iter().find(|it| it.address == cidr.address) {
            let found = kernel.numbered(other.interface).ok().flatten();
            let there = found.map_or_else(|| other.interface.to_string(), |it| it.name);
            let other = shown((other.address, other.prefix));
            let message = format!("the address {} is on interface {there:?} already", cidr.address);
            let remove = self.pasted(&format!("ip address delete {other} dev {there}"));
            let help = format!("choose another address, or take it away there:\n{remove}");
            return Err(self.refused("address", message, help));
        }
        Ok(!has_it)
    }

    /// The kernel gives the TAP no address.
    pub(super) fn takes_none(&self, error: &io::Error) -> LinkError {
        let wanted = self.link.address.map(|cidr| shown((cidr.address, cidr.prefix)));
        let (name, wanted) = (&self.link.tap, wanted.unwrap_or_default());
        let message = format!("TAP {name:?} takes no address {wanted}: {error}");
        self.refused("address", message, "write for example \"10.0.0.1/24\"".into())
    }
}

fn shown((address, prefix): (Ipv4Addr, u8)) -> String {
    format!("{address}/{prefix}")
}
