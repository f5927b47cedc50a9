//! Checks links: refuses at its line what the kernel would refuse late and without a place.

use std::collections::HashSet;
use std::net::Ipv4Addr;

use super::names::{group, numbered};
use super::net;
use crate::document::LinkTable;
use crate::model::{Cidr, Link};
use crate::problem::Problems;
use crate::units::Rate;

const DEFAULT_MTU: u32 = 1500;
/// What broadcasts may take of the loop's time, in thousandths.
const DEFAULT_BROADCAST: u32 = 20;
/// Smallest MTU of IPv4.
const MIN_MTU: u32 = 68;
/// Largest that a TAP takes: 65535 less its Ethernet header.
const MAX_MTU: u32 = 65_521;
/// Longest name of a network device in Linux.
const MAX_DEVICE_NAME_BYTES: usize = 15;
/// Below this a packet of the smallest MTU takes a second and more.
const MIN_RATE_BPS: u64 = 1_000;
/// Above this a packet takes less than the nanosecond that time is counted in.
const MAX_RATE_BPS: u64 = 400_000_000_000;

/// Checks all links, and that they are not in each other's way.
pub(super) fn check_all(tables: &[LinkTable], problems: &mut Problems) -> Vec<Link> {
    let links: Vec<_> =
        numbered("link", tables).map(|(at, table)| check(table, &at, problems)).collect();
    unique_taps(&links, problems);
    separate_nets(&links, problems);
    links
}

fn check(table: &LinkTable, at: &str, problems: &mut Problems) -> Link {
    let tap = table.tap.clone().unwrap_or_else(|| {
        let name = format!("mo-{}", table.name);
        name.chars().take(MAX_DEVICE_NAME_BYTES).collect()
    });
    device_name(&tap, &format!("{at}.tap"), problems);
    if let Some(bridge) = &table.bridge {
        device_name(bridge, &format!("{at}.bridge"), problems);
        if *bridge == tap {
            let message = format!("the TAP and its bridge are both called {bridge:?}");
            problems.add(format!("{at}.bridge"), message, "a TAP joins a bridge: name another one");
        }
    }
    if let Some(netns) = table.netns.as_ref().filter(|name| !moirai_runtime::netns::is_name(name)) {
        let message = format!("{netns:?} cannot be the name of a network namespace");
        problems.add(
            format!("{at}.netns"),
            message,
            "write for example \"moirai\": a name as `ip netns` shows it",
        );
    }
    let address = check_address(table, at, problems);
    let reserved = net::addresses(
        table.reserved.as_deref().unwrap_or_default(),
        &format!("{at}.reserved"),
        problems,
    );
    Link {
        name: table.name.clone(),
        rate_bps: check_rate(table, at, problems),
        tap,
        bridge: table.bridge.clone(),
        netns: table.netns.clone(),
        address,
        reserved: reserved.into_iter().chain(address.map(|it| it.address.into())).collect(),
        broadcast: net::share(table.broadcast, &format!("{at}.broadcast"), problems)
            .unwrap_or(DEFAULT_BROADCAST),
        mtu: check_mtu(table, at, problems),
        offload: table.offload.unwrap_or_default(),
        policy: table.policy.unwrap_or_default().0,
        group: group(table.group.as_ref(), at, problems),
    }
}

fn check_rate(table: &LinkTable, at: &str, problems: &mut Problems) -> u64 {
    let help = "write for example \"100Mbit/s\"";
    let share = matches!(table.rate, Rate::Share(_));
    let bits = table.rate.bits_per_second().filter(|bits| *bits > 0);
    match bits {
        Some(bits) if (MIN_RATE_BPS..=MAX_RATE_BPS).contains(&bits) => return bits,
        None if share || table.rate.bits_per_second() == Some(0) => {
            let message = format!("{} is not the rate of a link", table.rate);
            problems.add(format!("{at}.rate"), message, help);
        }
        _ => {
            let (least, most) = (Rate::Bits(MIN_RATE_BPS), Rate::Bits(MAX_RATE_BPS));
            let message = format!("a rate of {} is not {least} to {most}", table.rate);
            problems.add(format!("{at}.rate"), message, help);
        }
    }
    1
}

fn check_mtu(table: &LinkTable, at: &str, problems: &mut Problems) -> u16 {
    let mtu = table.mtu.unwrap_or(DEFAULT_MTU);
    let fitting = u16::try_from(mtu).ok().filter(|_| (MIN_MTU..=MAX_MTU).contains(&mtu));
    fitting.unwrap_or_else(|| {
        let help = "write for example 1500: the largest packet in bytes";
        let message = format!("an MTU of {mtu} is not {MIN_MTU} to {MAX_MTU}");
        problems.add(format!("{at}.mtu"), message, help);
        1500
    })
}

fn check_address(table: &LinkTable, at: &str, problems: &mut Problems) -> Option<Cidr> {
    let text = table.address.as_deref()?;
    let mut wrong = |message: String, help: &str| {
        problems.add(format!("{at}.address"), message, help);
    };
    let Some(cidr) = cidr(text) else {
        let message = format!("{text:?} is not an IPv4 address with a prefix");
        wrong(message, "write for example \"10.0.0.1/24\"");
        return None;
    };
    if let Some(why) = senseless(cidr) {
        let help = "write for example \"10.0.0.1/24\": an address that one host can have and the \
                    length of its network";
        wrong(format!("{text:?} is {why}"), help);
    }
    Some(cidr)
}

/// What an address is if it is none that the host can have on a link.
fn senseless(Cidr { address, prefix }: Cidr) -> Option<&'static str> {
    let bits = address.to_bits();
    let hosts = u32::MAX.checked_shr(prefix.into()).unwrap_or(0);
    match address.octets() {
        _ if address.is_broadcast() => Some("the broadcast address of every network"),
        _ if address.is_multicast() => Some("a group of receivers, not a host"),
        [0, ..] => Some("no address of a host"),
        [127, ..] => Some("an address that never leaves a machine"),
        [240..=255, ..] => Some("in the part of the Internet that nobody may use"),
        // All of the Internet would be on the link: the host could reach nothing else.
        _ if prefix < 8 => Some("in a network that no link can have"),
        // Networks of two and of one have all their addresses for hosts (RFC 3021).
        _ if prefix < 31 && bits & hosts == 0 => Some("the address of the network, not of a host"),
        _ if prefix < 31 && bits & hosts == hosts => Some("the broadcast address of its network"),
        _ => None,
    }
}

fn device_name(name: &str, path: &str, problems: &mut Problems) {
    // Folders of /proc/sys/net/ipv4/conf, in which every interface gets one.
    if name == "all" || name == "default" {
        let message = format!("the kernel keeps the name {name:?} for all network devices");
        return problems.add(path, message, "write for example \"moirai0\"");
    }
    let fits = (1..=MAX_DEVICE_NAME_BYTES).contains(&name.len());
    let letters = name.bytes().all(|c| c.is_ascii_graphic() && !b"/:%".contains(&c));
    if !fits || !letters || name == "." || name == ".." {
        let message = format!("{name:?} cannot be the name of a network device");
        problems.add(
            path,
            message,
            "write for example \"moirai0\": 1 to 15 letters, digits, '-' and '_'",
        );
    }
}

fn cidr(text: &str) -> Option<Cidr> {
    let (address, prefix) = text.split_once('/')?;
    let digits = prefix.bytes().all(|c| c.is_ascii_digit());
    let cidr = Cidr { address: address.parse().ok()?, prefix: prefix.parse().ok()? };
    (digits && cidr.prefix <= 32).then_some(cidr)
}

fn unique_taps(links: &[Link], problems: &mut Problems) {
    let mut seen = HashSet::new();
    for (index, link) in links.iter().enumerate() {
        if !seen.insert((&link.netns, &link.tap)) {
            let message = format!("two links use the TAP device {:?}", link.tap);
            let help = "give each link a TAP device of its own: tap = \"NAME\"";
            problems.add(format!("link[{index}].tap"), message, help);
        }
    }
}

/// Two links of one namespace into the same network: the kernel would send everything to one of
/// them.
fn separate_nets(links: &[Link], problems: &mut Problems) {
    let mut seen: Vec<(&Link, Cidr)> = Vec::new();
    for (index, link) in links.iter().enumerate() {
        let Some(cidr) = link.address else { continue };
        let overlaps = |other: &Cidr| {
            let prefix = other.prefix.min(cidr.prefix);
            network(other.address, prefix) == network(cidr.address, prefix)
        };
        let other = seen.iter().find(|(other, net)| other.netns == link.netns && overlaps(net));
        if let Some((other, net)) = other {
            let Cidr { address, prefix } = net;
            let message =
                format!("link {:?} is in that network already: {address}/{prefix}", other.name);
            let help = "give each link of a namespace a network of its own";
            problems.add(format!("link[{index}].address"), message, help);
        }
        seen.push((link, cidr));
    }
}

fn network(address: Ipv4Addr, prefix: u8) -> u32 {
    let hosts = u32::MAX.checked_shr(prefix.into()).unwrap_or(0);
    address.to_bits() & !hosts
}

#[cfg(test)]
mod tests {
    use crate::{Document, check as check_document, parse};

    /// Path and message of everything that is wrong with one link of these keys, or two.
    fn wrong(links: &[&str]) -> Vec<(String, String)> {
        let tables = links.iter().enumerate().map(|(number, keys)| {
            let rate = if keys.contains("rate") { "" } else { "rate = \"100Mbit/s\"\n" };
            format!("[[link]]\nname = \"l{number}\"\n{rate}{keys}\n")
        });
        let text = format!("[host]\ncores = [1]\n{}", tables.collect::<String>());
        let document: Document = parse("bad.toml", &text).expect("a document");
        let problems = check_document(&document).err().unwrap_or_default();
        problems.into_iter().map(|problem| (problem.path, problem.message)).collect()
    }

    #[test]
    fn addresses_that_no_host_has_are_refused_at_their_key() {
        for address in [
            "0.0.0.0/0",
            "0.0.0.0/24",
            "10.0.0.1/0",
            "10.0.0.1/1",
            "255.255.255.255/32",
            "224.0.0.1/24",
            "239.1.2.3/32",
            "127.0.0.1/8",
            "10.0.0.0/24",
            "10.0.0.255/24",
            "10.255.255.255/8",
            "250.0.0.1/24",
            "10.0.0.1",
            "10.0.0.1/33",
            "10.0.0.1/+8",
            "::1/64",
        ] {
            let found = wrong(&[&format!("address = \"{address}\"")]);
            assert_eq!(found.len(), 1, "{address}: {found:?}");
            assert!(found.iter().all(|(path, _)| path == "link[0].address"), "{found:?}");
        }
        for address in ["10.0.0.1/24", "10.0.0.0/31", "10.0.0.1/31", "10.0.0.7/32", "10.1.0.255/16"]
        {
            assert_eq!(wrong(&[&format!("address = \"{address}\"")]), [], "{address}");
        }
    }

    #[test]
    fn numbers_and_names_that_the_kernel_refuses_are_refused_at_their_key() {
        for (key, value) in [
            ("mtu", "67"),
            ("mtu", "65522"),
            ("mtu", "65535"),
            ("mtu", "4294967295"),
            ("rate", "\"0bit/s\""),
            ("rate", "\"1bit/s\""),
            ("rate", "\"999Gbit/s\""),
            ("rate", "\"4611686018427387904B/s\""),
            ("rate", "\"5%\""),
            ("bridge", "\"a-name-that-is-too-long\""),
            ("bridge", "\"\""),
            ("bridge", "\"a/b\""),
            ("bridge", "\"mo-l0\""),
            ("tap", "\"a b\""),
            ("tap", "\"all\""),
            ("tap", "\"default\""),
            ("bridge", "\"all\""),
            ("netns", "\"a/b\""),
            ("netns", "\"a b\""),
            ("netns", "\"-a\""),
        ] {
            let found = wrong(&[&format!("{key} = {value}")]);
            assert_eq!(found.len(), 1, "{key} = {value}: {found:?}");
            assert!(found.iter().all(|(path, _)| *path == format!("link[0].{key}")), "{found:?}");
        }
        for right in ["mtu = 68", "mtu = 65521", "rate = \"400Gbit/s\"", "rate = \"1kbit/s\""] {
            assert_eq!(wrong(&[right]), [], "{right}");
        }
    }

    #[test]
    fn links_of_a_namespace_have_networks_of_their_own() {
        let first = "address = \"10.0.0.1/24\"";
        for second in ["10.0.0.1/24", "10.0.0.2/24", "10.0.0.9/32", "10.9.9.9/8"] {
            let found = wrong(&[first, &format!("address = \"{second}\"")]);
            assert_eq!(found.len(), 1, "{second}: {found:?}");
            assert!(found.iter().all(|(path, _)| path == "link[1].address"), "{found:?}");
        }
        assert_eq!(wrong(&[first, "address = \"10.0.1.1/24\""]), []);
        assert_eq!(wrong(&[first, "address = \"10.0.0.2/24\"\nnetns = \"b\""]), []);
    }
}
