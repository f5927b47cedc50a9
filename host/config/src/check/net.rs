//! Checks a network interface of a tenant or an export: its link, its addresses, what receiving may
//! take, its contract.

use std::net::IpAddr;

use moirai_abi::limits::NET_PAIRS_MAX;
use moirai_scheduler::Contract;

use super::contract::{Scope, resolve};
use super::names::unknown;
use crate::document::{NetTable, SpoofingName};
use crate::holder::Holder;
use crate::model::{Config, Net};
use crate::problem::Problems;
use crate::units::Rate;

/// What receiving may take of the loop's time for a guest to which all of its link is guaranteed,
/// and the least for any, in thousandths.
const RECEIVE_OF_ALL: u64 = 250;
const LEAST_RECEIVE: u32 = 100;

/// Checks an interface whose table is at `at`: number `number` of `owner`.
pub(super) fn check_net(
    config: &Config,
    owner: &Holder,
    table: &NetTable,
    number: usize,
    at: &str,
    problems: &mut Problems,
) -> Option<Net> {
    let named = config.links.iter().enumerate().find(|(_, link)| link.name == table.link);
    let Some((index, link)) = named else {
        let names = config.links.iter().map(|link| link.name.as_str());
        unknown("link", &table.link, names, &format!("{at}.link"), problems);
        return None;
    };
    let mac = match &table.mac {
        None => derived_mac(&owner.to_string(), number),
        Some(text) => parse_mac(text).or_else(|| {
            let message = format!("{text:?} is not the address of one network card");
            let help = "write for example \"02:00:00:00:00:01\": six bytes, the first one even";
            problems.add(format!("{at}.mac"), message, help);
            None
        })?,
    };
    let queues = table.queues.unwrap_or(1);
    if !(1..=NET_PAIRS_MAX).contains(&queues) {
        let message = format!("{queues} pairs of queues are not 1 to {NET_PAIRS_MAX}");
        let help =
            "write for example 1: how many virtual CPUs are to send and receive at the same time";
        problems.add(format!("{at}.queues"), message, help);
    }
    let at_addresses = format!("{at}.addresses");
    let declared = table.addresses.as_deref();
    let own = addresses(declared.unwrap_or_default(), &at_addresses, problems);
    if declared.is_some_and(<[String]>::is_empty) {
        let help = "write for example [\"10.0.0.2\"], or leave it out";
        problems.add(&at_addresses, "a guest with no address at all".to_owned(), help);
    }
    if let Some(taken) = own.iter().find(|address| link.reserved.contains(*address)) {
        let message = format!("{taken} is the host's on link {:?}, or reserved there", link.name);
        problems.add(&at_addresses, message, "write an address of the guest's own");
    }
    let spoofs = table.spoofing == Some(SpoofingName::Allow);
    if spoofs && declared.is_some() {
        let message = "a guest that may send from all addresses has none of its own".to_owned();
        let help = "leave out `addresses`, or spoofing = \"allow\"";
        problems.add(format!("{at}.spoofing"), message, help);
    }
    let receive = share(table.receive, &format!("{at}.receive"), problems);
    let contract = resolve(&table.contract(), Scope::Link { rate_bps: link.rate_bps }, at);
    let contract = problems.note(contract)?;
    let receive = receive.unwrap_or_else(|| default_receive(&contract));
    Some(Net { link: index, mac, addresses: own, spoofs, receive, queues, contract })
}

/// What receiving may take for a guest with this contract, in thousandths of the loop's time.
fn default_receive(contract: &Contract) -> u32 {
    let share = contract.slice().wide() * u128::from(RECEIVE_OF_ALL);
    let share = share.checked_div(contract.period().wide()).unwrap_or(0);
    u32::try_from(share).unwrap_or(LEAST_RECEIVE).max(LEAST_RECEIVE)
}

/// Addresses that one host can have, each named once.
pub(super) fn addresses(texts: &[String], at: &str, problems: &mut Problems) -> Vec<IpAddr> {
    let help = "write for example \"10.0.0.2\" or \"2001:db8::2\": addresses without prefixes";
    let mut found = Vec::new();
    for text in texts {
        let host = |address: &IpAddr| match address {
            IpAddr::V4(it) => {
                !(it.is_multicast() || it.is_broadcast() || it.is_loopback() || it.octets()[0] == 0)
            }
            IpAddr::V6(it) => {
                !(it.is_multicast() || it.is_loopback() || it.is_unspecified())
                    && it.to_ipv4_mapped().is_none()
            }
        };
        match text.parse().ok().filter(host) {
            Some(address) if found.contains(&address) => {
                problems.add(at, format!("{address} is written twice"), "write it once");
            }
            Some(address) => found.push(address),
            None => {
                problems.add(at, format!("{text:?} is not an IP address of one host"), help);
            }
        }
    }
    found
}

/// A share of the loop's time in thousandths.
pub(super) fn share(rate: Option<Rate>, at: &str, problems: &mut Problems) -> Option<u32> {
    let rate = rate?;
    let thousandths = match rate {
        Rate::Share(millionths) => u32::try_from(millionths / 1000).ok(),
        Rate::Bits(_) | Rate::Bytes(_) => None,
    };
    let fitting = thousandths.filter(|share| (1..=1000).contains(share));
    if fitting.is_none() {
        let message = format!("{rate} is not a share of 0.1% to 100% of the event loop's time");
        problems.add(at, message, "write for example \"10%\"");
    }
    fitting
}

fn parse_mac(text: &str) -> Option<[u8; 6]> {
    let mut mac = [0u8; 6];
    let mut parts = text.split(':');
    for byte in &mut mac {
        let part = parts.next().filter(|part| part.len() == 2 && !part.starts_with('+'))?;
        *byte = u8::from_str_radix(part, 16).ok()?;
    }
    let unicast = mac.first().is_some_and(|first| first & 1 == 0) && mac != [0; 6];
    (parts.next().is_none() && unicast).then_some(mac)
}

/// A locally administered address from an FNV-1a hash of name and number.
fn derived_mac(tenant: &str, number: usize) -> [u8; 6] {
    let text = format!("{tenant}/{number}");
    let hash = text.bytes().fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
    });
    let [a, b, c, d, e, ..] = hash.to_be_bytes();
    [0x02, a, b, c, d, e]
}

#[cfg(test)]
#[path = "net_tests.rs"]
mod tests;
