//! Network interfaces of the calling thread's namespace, as rtnetlink tells and takes them.

use std::future::Future;
use std::io;
use std::net::{IpAddr, Ipv4Addr};
use std::pin::pin;

use futures_util::{Stream, StreamExt};
use rtnetlink::packet_core::Nla;
use rtnetlink::packet_route::address::AddressAttribute;
use rtnetlink::packet_route::link::{
    InfoData, InfoKind, LinkAttribute, LinkFlags, LinkInfo, LinkMessage,
};
use rtnetlink::{Handle, LinkMessageBuilder, LinkUnspec};
use tokio::runtime::Runtime;

/// What the TUN driver says of an interface (linux/if_link.h, linux/if_tun.h).
const IFLA_TUN_TYPE: u16 = 3;
const IFLA_TUN_MULTI_QUEUE: u16 = 7;
const IFF_TAP: u8 = 2;

/// An IPv4 address and where it is.
pub(super) struct Address {
    /// Number of the interface.
    pub(super) interface: u32,
    pub(super) address: Ipv4Addr,
    pub(super) prefix: u8,
}

/// What is known of an interface.
#[derive(Clone, Debug)]
pub(super) struct Interface {
    pub(super) index: u32,
    pub(super) name: String,
    pub(super) mtu: u32,
    pub(super) is_bridge: bool,
    /// A TAP with one queue, as far as the kernel says.
    pub(super) is_tap: bool,
    pub(super) is_up: bool,
    /// Number of the bridge or bond that it is in.
    pub(super) controller: Option<u32>,
}

/// A conversation with the kernel about the interfaces of one namespace.
pub(super) struct Interfaces {
    runtime: Runtime,
    handle: Handle,
}

impl Interfaces {
    /// Begins it, in the namespace of the calling thread.
    ///
    /// # Errors
    /// The kernel refuses a socket.
    pub(super) fn new() -> io::Result<Self> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let handle = runtime.block_on(async {
            let (connection, handle, _) = rtnetlink::new_connection()?;
            tokio::spawn(connection);
            Ok::<_, io::Error>(handle)
        })?;
        Ok(Self { runtime, handle })
    }

    /// The interface of that name; `None` if there is none.
    pub(super) fn named(&self, name: &str) -> io::Result<Option<Interface>> {
        self.first(self.handle.link().get().match_name(name).execute())
    }

    /// The interface of that number.
    pub(super) fn numbered(&self, index: u32) -> io::Result<Option<Interface>> {
        self.first(self.handle.link().get().match_index(index).execute())
    }

    fn first(
        &self,
        links: impl Stream<Item = Result<LinkMessage, rtnetlink::Error>>,
    ) -> io::Result<Option<Interface>> {
        let first = self.runtime.block_on(async { pin!(links).next().await });
        match first.transpose() {
            Ok(message) => Ok(message.as_ref().map(interface)),
            Err(error) => match kernels_answer(error) {
                error if error.raw_os_error() == Some(libc::ENODEV) => Ok(None),
                error => Err(error),
            },
        }
    }

    /// All IPv4 addresses of the namespace.
    pub(super) fn addresses(&self) -> io::Result<Vec<Address>> {
        let all = self.handle.address().get().execute();
        let all: Vec<_> = self.runtime.block_on(async { pin!(all).collect().await });
        let mut found = Vec::new();
        for message in all {
            let message = message.map_err(kernels_answer)?;
            // `Local` is the address itself; `Address` is the other end's on point-to-point links.
            let local = message.attributes.iter().find_map(|attribute| match attribute {
                AddressAttribute::Local(IpAddr::V4(address)) => Some(*address),
                _ => None,
            });
            let (interface, prefix) = (message.header.index, message.header.prefix_len);
            found.extend(local.map(|address| Address { interface, address, prefix }));
        }
        Ok(found)
    }

    pub(super) fn set_mtu(&self, of: &Interface, mtu: u16) -> io::Result<()> {
        self.set(LinkUnspec::new_with_index(of.index).mtu(u32::from(mtu)))
    }

    pub(super) fn join(&self, interface: &Interface, bridge: &Interface) -> io::Result<()> {
        self.set(LinkUnspec::new_with_index(interface.index).controller(bridge.index))
    }

    pub(super) fn bring_up(&self, interface: &Interface) -> io::Result<()> {
        self.set(LinkUnspec::new_with_index(interface.index).up())
    }

    fn set(&self, change: LinkMessageBuilder<LinkUnspec>) -> io::Result<()> {
        self.wait(self.handle.link().set(change.build()).execute())
    }

    /// That it has the address already is as good.
    pub(super) fn add_address(
        &self,
        to: &Interface,
        (address, prefix): (Ipv4Addr, u8),
    ) -> io::Result<()> {
        let added =
            self.wait(self.handle.address().add(to.index, address.into(), prefix).execute());
        match added {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(()),
            added => added,
        }
    }

    fn wait(&self, asked: impl Future<Output = Result<(), rtnetlink::Error>>) -> io::Result<()> {
        self.runtime.block_on(asked).map_err(kernels_answer)
    }
}

fn interface(message: &LinkMessage) -> Interface {
    let mut found = Interface {
        index: message.header.index,
        name: String::new(),
        mtu: 0,
        is_bridge: false,
        is_tap: false,
        is_up: message.header.flags.contains(LinkFlags::Up),
        controller: None,
    };
    for attribute in &message.attributes {
        match attribute {
            LinkAttribute::IfName(name) => found.name.clone_from(name),
            LinkAttribute::Mtu(mtu) => found.mtu = *mtu,
            LinkAttribute::Controller(0) => {}
            LinkAttribute::Controller(index) => found.controller = Some(*index),
            LinkAttribute::LinkInfo(infos) => {
                found.is_bridge |= infos.contains(&LinkInfo::Kind(InfoKind::Bridge));
                found.is_tap |= is_tap(infos);
            }
            _ => {}
        }
    }
    found
}

/// Whether it is an interface of the TUN driver, of packets of Ethernet and with one queue. A
/// kernel that says no more than the driver is believed.
fn is_tap(infos: &[LinkInfo]) -> bool {
    let details = infos.iter().find_map(|info| match info {
        LinkInfo::Data(InfoData::Tun(details)) => Some(details.as_slice()),
        _ => None,
    });
    let says = |what: u16, expected: u8| {
        let mut details = details.unwrap_or_default().iter();
        details.find(|detail| detail.kind() == what).is_none_or(|detail| {
            let mut value = vec![0; detail.value_len()];
            detail.emit_value(&mut value);
            value == [expected]
        })
    };
    infos.contains(&LinkInfo::Kind(InfoKind::Tun))
        && says(IFLA_TUN_TYPE, IFF_TAP)
        && says(IFLA_TUN_MULTI_QUEUE, 0)
}

/// The kernel's answer, where there was one.
fn kernels_answer(error: rtnetlink::Error) -> io::Error {
    match error {
        rtnetlink::Error::NetlinkError(message) => message.to_io(),
        other => io::Error::other(other.to_string()),
    }
}
