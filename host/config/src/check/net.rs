//! Checks a network interface of a tenant or an export: its link, its address, its contract.

use moirai_abi::limits::NET_PAIRS_MAX;

use super::contract::{Scope, resolve};
use super::names::unknown;
use crate::document::NetTable;
use crate::holder::Holder;
use crate::model::{Config, Net};
use crate::problem::Problems;

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
    let contract = resolve(&table.contract(), Scope::Link { rate_bps: link.rate_bps }, at);
    Some(Net { link: index, mac, queues, contract: problems.note(contract)? })
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
