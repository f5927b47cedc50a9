//! Whose an address is on a link: what a guest may say that it is.
//!
//! 1. An address of the host on this link, or one that the link reserves, is nobody's else.
//! 2. A port with declared addresses has those, and the link-local address that is made of its
//!    hardware address (RFC 4291, appendix A). It has no other.
//! 3. A port without has what it was the first one to claim, and keeps it until it goes, gets
//!    another peer, or has claimed [`MOST`] others since. What is declared is taken from whoever
//!    has learned it.
//! 4. The link-local address that is made of a port's hardware address is that port's.
//!
//! A packet costs one comparison as long as it comes from the address that its card has used last
//! ([`Recent`]).

use std::collections::{BTreeMap, VecDeque};
use std::net::{IpAddr, Ipv6Addr};

use crate::DeviceId;

/// Addresses that a port may have learned at a time. An IPv6 host has a few beside each other
/// (RFC 8981), and whoever claims without end keeps no more than these from the others.
const MOST: usize = 16;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Owner {
    Host,
    Declared(DeviceId),
    Learned(DeviceId),
}

#[derive(Debug)]
struct Port {
    mac: [u8; 6],
    declares: bool,
    /// The one that was claimed last is last.
    learned: VecDeque<IpAddr>,
}

/// The addresses of one link.
#[derive(Debug, Default)]
pub(crate) struct Neighbours {
    owners: BTreeMap<IpAddr, Owner>,
    ports: BTreeMap<DeviceId, Port>,
    macs: BTreeMap<[u8; 6], DeviceId>,
    /// Grows when somebody loses an address.
    epoch: u64,
}

/// The addresses that a card has used last: one of IPv4, one of IPv6.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Recent {
    epoch: u64,
    addresses: [Option<IpAddr>; 2],
}

impl Neighbours {
    /// A link on which these are the host's.
    pub(crate) fn new(reserved: impl IntoIterator<Item = IpAddr>) -> Self {
        let owners = reserved.into_iter().map(|address| (address, Owner::Host)).collect();
        Self { owners, ..Self::default() }
    }

    /// The first of these addresses that is declared by another port, or the host's.
    pub(crate) fn conflict(&self, declared: &[IpAddr]) -> Option<IpAddr> {
        let taken = |address: &&IpAddr| match self.owners.get(*address) {
            Some(Owner::Host | Owner::Declared(_)) => true,
            Some(Owner::Learned(_)) | None => false,
        };
        declared.iter().find(taken).copied()
    }

    /// A port with this hardware address comes. `declared`: its addresses, or none to have it
    /// learn them.
    pub(crate) fn enter(&mut self, id: DeviceId, mac: [u8; 6], declared: &[IpAddr]) {
        for address in declared {
            if let Some(Owner::Learned(loser)) = self.owners.insert(*address, Owner::Declared(id)) {
                self.forget(loser, *address);
            }
        }
        let port = Port { mac, declares: !declared.is_empty(), learned: VecDeque::new() };
        self.ports.insert(id, port);
        self.macs.insert(mac, id);
        // What others have learned of what is this one's from now on.
        let its = |address: &IpAddr| made_of(*address) == Some(mac);
        let lost: Vec<_> = self.owners.iter().filter(|(address, _)| its(address)).collect();
        let lost = lost.into_iter().filter_map(|(address, owner)| match owner {
            Owner::Learned(loser) => Some((*loser, *address)),
            _ => None,
        });
        for (loser, address) in lost.collect::<Vec<_>>() {
            self.owners.remove(&address);
            self.forget(loser, address);
        }
    }

    /// The port goes, with all that it has.
    pub(crate) fn leave(&mut self, id: DeviceId) {
        if let Some(port) = self.ports.remove(&id) {
            self.macs.remove(&port.mac);
        }
        let its =
            |owner: &Owner| matches!(owner, Owner::Declared(it) | Owner::Learned(it) if *it == id);
        self.owners.retain(|_, owner| !its(owner));
        self.epoch += 1;
    }

    /// Another guest is at the port: what the last one has claimed is not its own.
    pub(crate) fn renew(&mut self, id: DeviceId) {
        if let Some(port) = self.ports.get_mut(&id) {
            port.learned.clear();
        }
        self.owners.retain(|_, owner| *owner != Owner::Learned(id));
        self.epoch += 1;
    }

    /// Whether the guest at this port may say that it is `address`. If nobody else is, it is.
    pub(crate) fn may_claim(&mut self, id: DeviceId, address: IpAddr, recent: &mut Recent) -> bool {
        let place = usize::from(address.is_ipv6());
        if recent.epoch == self.epoch && recent.addresses[place] == Some(address) {
            return true;
        }
        let owns = self.owns_or_learns(id, address);
        if recent.epoch != self.epoch {
            *recent = Recent { epoch: self.epoch, ..Recent::default() };
        }
        if owns {
            recent.addresses[place] = Some(address);
        }
        owns
    }

    fn owns_or_learns(&mut self, id: DeviceId, address: IpAddr) -> bool {
        match self.owners.get(&address) {
            Some(Owner::Host) => return false,
            Some(Owner::Declared(owner)) => return *owner == id,
            Some(Owner::Learned(owner)) if *owner != id => return false,
            Some(Owner::Learned(_)) | None => {}
        }
        if let Some(mac) = made_of(address)
            && let Some(owner) = self.macs.get(&mac)
        {
            return *owner == id;
        }
        let Some(port) = self.ports.get_mut(&id).filter(|port| !port.declares) else {
            return false;
        };
        port.learned.retain(|other| *other != address);
        port.learned.push_back(address);
        self.owners.insert(address, Owner::Learned(id));
        if port.learned.len() > MOST
            && let Some(oldest) = port.learned.pop_front()
        {
            self.owners.remove(&oldest);
            self.epoch += 1;
        }
        true
    }

    fn forget(&mut self, id: DeviceId, address: IpAddr) {
        if let Some(port) = self.ports.get_mut(&id) {
            port.learned.retain(|other| *other != address);
        }
        self.epoch += 1;
    }
}

/// The hardware address that a link-local address is made of, if it is.
fn made_of(address: IpAddr) -> Option<[u8; 6]> {
    let IpAddr::V6(address) = address else { return None };
    match address.octets() {
        [0xfe, 0x80, 0, 0, 0, 0, 0, 0, a, b, c, 0xff, 0xfe, d, e, f] => {
            Some([a ^ 2, b, c, d, e, f])
        }
        _ => None,
    }
}

/// The link-local address that is made of a hardware address.
pub(crate) fn link_local(mac: [u8; 6]) -> IpAddr {
    let [a, b, c, d, e, f] = mac;
    let bytes = [0xfe, 0x80, 0, 0, 0, 0, 0, 0, a ^ 2, b, c, 0xff, 0xfe, d, e, f];
    Ipv6Addr::from(bytes).into()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const A: DeviceId = DeviceId(1);
    const B: DeviceId = DeviceId(2);
    const HOST: IpAddr = v4(1);

    const fn v4(last: u8) -> IpAddr {
        IpAddr::V4(std::net::Ipv4Addr::new(10, 0, 0, last))
    }

    fn mac(id: DeviceId) -> [u8; 6] {
        [2, 0, 0, 0, 0, u8::try_from(id.0).unwrap()]
    }

    /// Two ports; the first one declares these addresses.
    fn link(declared: &[IpAddr]) -> Neighbours {
        let mut link = Neighbours::new([HOST]);
        link.enter(A, mac(A), declared);
        link.enter(B, mac(B), &[]);
        link
    }

    fn claims(link: &mut Neighbours, id: DeviceId, address: IpAddr) -> bool {
        link.may_claim(id, address, &mut Recent::default())
    }

    #[test]
    fn who_declares_has_that_and_its_link_local_address_and_nothing_else() {
        let mut link = link(&[v4(2)]);
        assert!(claims(&mut link, A, v4(2)) && claims(&mut link, A, link_local(mac(A))));
        assert!(!claims(&mut link, A, v4(3)) && !claims(&mut link, A, link_local(mac(B))));
        assert!(!claims(&mut link, B, v4(2)) && !claims(&mut link, B, HOST));
        assert!(claims(&mut link, B, v4(3)) && claims(&mut link, B, link_local(mac(B))));
        assert_eq!(link.conflict(&[v4(9), v4(2)]), Some(v4(2)));
        assert_eq!(link.conflict(&[HOST]), Some(HOST));
        assert_eq!(link.conflict(&[v4(3)]), None, "what is learned is given to who declares it");
    }

    #[test]
    fn the_first_one_that_claims_keeps_it_until_it_goes_or_has_another_guest() {
        let mut link = link(&[]);
        assert!(claims(&mut link, A, v4(5)) && !claims(&mut link, B, v4(5)));
        link.renew(A);
        assert!(claims(&mut link, B, v4(5)) && !claims(&mut link, A, v4(5)));
        link.leave(B);
        assert!(claims(&mut link, A, v4(5)));
    }

    #[test]
    fn who_declares_takes_it_from_who_has_learned_it_at_once() {
        let mut link = link(&[]);
        let mut recent = Recent::default();
        assert!(link.may_claim(B, v4(7), &mut recent) && link.may_claim(B, v4(7), &mut recent));
        link.enter(DeviceId(3), mac(DeviceId(3)), &[v4(7)]);
        assert!(!link.may_claim(B, v4(7), &mut recent));
        // The same of a link-local address that another port's is by its hardware address.
        let theirs = link_local(mac(DeviceId(4)));
        assert!(link.may_claim(B, theirs, &mut recent));
        link.enter(DeviceId(4), mac(DeviceId(4)), &[]);
        assert!(!link.may_claim(B, theirs, &mut recent));
        assert!(link.may_claim(DeviceId(4), theirs, &mut Recent::default()));
    }

    #[test]
    fn who_claims_everything_keeps_little_of_it() {
        let mut link = link(&[]);
        let mut recent = Recent::default();
        for last in 2..=250 {
            assert!(link.may_claim(A, v4(last), &mut recent));
        }
        let kept = (2..=250).filter(|last| !claims(&mut link, B, v4(*last)));
        // The other one keeps as few while it asks.
        assert_eq!(kept.count(), MOST);
        assert!(link.owners.len() <= 2 * MOST + 1, "{}", link.owners.len());
    }

    proptest! {
        /// At any time an address has one owner, whatever is remembered beside the table.
        #[test]
        fn no_address_is_two_ports_at_a_time(
            steps in prop::collection::vec((0_u32..4, 0_u8..30, 0_u8..20), 1..300),
        ) {
            let mut link = Neighbours::new([HOST]);
            let mut recent = [Recent::default(); 4];
            (0..4).for_each(|id| link.enter(DeviceId(id), mac(DeviceId(id)), &[]));
            for (port, last, step) in steps {
                let (id, address) = (DeviceId(port), v4(last));
                match step {
                    0 => link.renew(id),
                    1 => {
                        link.leave(id);
                        let declared = [address];
                        let free = link.conflict(&declared).is_none();
                        link.enter(id, mac(id), if free { &declared } else { &[] });
                    }
                    _ => {
                        let place = usize::try_from(port).unwrap();
                        let may = link.may_claim(id, address, &mut recent[place]);
                        let others = (0..4_u32).filter(|other| *other != port);
                        let mut fresh = others.map(|it| (DeviceId(it), recent[it as usize]));
                        let owned = link.owners.contains_key(&address);
                        let both = owned
                            && fresh.any(|(it, mut recent)| {
                                link.may_claim(it, address, &mut recent)
                            });
                        prop_assert!(!may || !both, "{address} is two ports'");
                        prop_assert!(!may || address != HOST);
                    }
                }
            }
        }
    }
}
