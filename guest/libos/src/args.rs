//! The command line: words `key=value` for the application and `virtio_mmio.device=SIZE@BASE:IRQ`
//! for the devices, as Linux, Firecracker and QEMU's microvm write it.

pub use crate::arg_error::ArgError;
pub use crate::cidr::{Ipv4Cidr, NextHop};
use alloc::borrow::ToOwned;
use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;
use core::fmt::Display;
use core::net::{Ipv4Addr, SocketAddrV4};
use core::str::FromStr;
use moirai_abi::machine::VOLUME_BYTES_WORD;

/// A virtio-mmio window.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DeviceWindow {
    /// Physical address.
    pub base: u64,
    /// Length in bytes.
    pub size: u64,
    /// Interrupt line.
    pub gsi: u32,
}

/// The words of the command line.
#[derive(Clone, Debug, Default)]
pub struct Args {
    words: Vec<(String, String)>,
    /// Words without a value.
    bare: Vec<String>,
    devices: Vec<DeviceWindow>,
    /// The words that there are; empty: nobody has said.
    known: Vec<&'static str>,
}

/// What VMMs put on the command line of every guest, for Linux; so are words with a dot, which are
/// for its modules.
const VMM_WORDS: [&str; 16] = [
    "acpi",
    "console",
    "earlyprintk",
    "earlycon",
    "nomodule",
    "nomodules",
    "noapic",
    "panic",
    "pci",
    "quiet",
    "reboot",
    "ro",
    "root",
    "rootfstype",
    "rw",
    "tsc",
];

impl Args {
    /// Splits a command line. A device that cannot be read is ignored and will be missed when it is
    /// opened.
    #[must_use]
    pub fn parse(command_line: &str) -> Self {
        let mut args = Self::default();
        for word in command_line.split_ascii_whitespace() {
            match word.split_once('=') {
                Some(("virtio_mmio.device", window)) => args.devices.extend(parse_window(window)),
                Some((key, value)) => args.words.push((key.to_owned(), value.to_owned())),
                None => args.bare.push(word.to_owned()),
            }
        }
        args
    }

    /// Says which words there are.
    ///
    /// # Errors
    /// [`ArgError::Unknown`] names the first one that is none of them.
    pub fn list(&mut self, known: &[&[&'static str]]) -> Result<(), ArgError> {
        self.known = known.concat();
        let keyed = self.words.iter().map(|(key, value)| (key, Some(value)));
        let bare = self.bare.iter().map(|word| (word, None));
        let is_unknown = |key: &str, bare: bool| {
            let for_linux = VMM_WORDS.contains(&key) || key.contains('.');
            !for_linux && (bare || !self.known.contains(&key))
        };
        for (key, value) in keyed.chain(bare) {
            if is_unknown(key, value.is_none()) {
                let word = value.map_or(key.clone(), |value| format!("{key}={value}"));
                let known: Vec<_> = self.known.iter().map(|key| format!("{key}=")).collect();
                return Err(ArgError::Unknown { word, known: known.join(", ") });
            }
        }
        Ok(())
    }

    /// The announced devices in order.
    #[must_use]
    pub fn devices(&self) -> &[DeviceWindow] {
        &self.devices
    }

    /// Where the data of volume `number` ends, if the VMM says so.
    #[must_use]
    pub fn volume_bytes(&self, number: usize) -> Option<u64> {
        self.text(VOLUME_BYTES_WORD)?.split(',').nth(number)?.parse().ok()
    }

    /// The value of a word; the last one counts.
    #[must_use]
    pub fn text(&self, key: &str) -> Option<&str> {
        self.words.iter().rev().find(|(name, _)| name == key).map(|(_, value)| value.as_str())
    }

    /// A number, decimal, from `min` to `max`. `default` is one of them: it is the example of what
    /// would do.
    ///
    /// # Errors
    /// [`ArgError::Malformed`], [`ArgError::OutOfRange`].
    pub fn number(
        &self,
        key: &'static str,
        default: u64,
        (min, max): (u64, u64),
    ) -> Result<u64, ArgError> {
        let wanted = || format!("a number from {min} to {max}");
        let value = self.parsed(key, wanted, default)?.unwrap_or(default);
        if (min..=max).contains(&value) {
            return Ok(value);
        }
        Err(ArgError::OutOfRange { key, value, min, max })
    }

    /// One of several words; the first is the default. Gives its index.
    ///
    /// # Errors
    /// [`ArgError::Malformed`], with all the words.
    pub fn choice(&self, key: &'static str, words: &[&str]) -> Result<usize, ArgError> {
        let Some(value) = self.value(key)? else { return Ok(0) };
        let found = words.iter().position(|word| *word == value);
        let wanted = || format!("one of {}", words.join(", "));
        found.ok_or_else(|| malformed(key, value, wanted(), words.first().unwrap_or(&"")))
    }

    /// `key=A.B.C.D/PREFIX`; 10.0.0.2/24 if it is not there.
    ///
    /// # Errors
    /// [`ArgError::Malformed`], [`ArgError::NoHost`].
    pub fn cidr(&self, key: &'static str) -> Result<Ipv4Cidr, ArgError> {
        let example = "10.0.0.2/24";
        let value = self.value(key)?.unwrap_or(example);
        let wanted = "an address and the bits of its network";
        let cidr = parse_cidr(value);
        cidr.ok_or_else(|| malformed(key, value, wanted.to_owned(), example))?.check_own(key)
    }

    /// `key=A.B.C.D`, if there.
    ///
    /// # Errors
    /// [`ArgError::Malformed`].
    pub fn address(&self, key: &'static str) -> Result<Option<Ipv4Addr>, ArgError> {
        if self.value(key)? == Some("") {
            return Ok(None);
        }
        self.parsed(key, || "an address".to_owned(), "10.0.0.1")
    }

    /// `key=A.B.C.D:PORT,...`, at least one.
    ///
    /// # Errors
    /// [`ArgError::Missing`], [`ArgError::Malformed`].
    pub fn endpoints(&self, key: &'static str) -> Result<Vec<SocketAddrV4>, ArgError> {
        let example = "10.0.0.1:5004,10.0.0.1:5006";
        let value = self.value(key)?.ok_or(ArgError::Missing { key, example })?;
        let parsed: Result<Vec<_>, _> = value.split(',').map(SocketAddrV4::from_str).collect();
        let wanted = "addresses with ports, with commas between them";
        parsed.map_err(|_| malformed(key, value, wanted.to_owned(), example))
    }

    /// The value of a word, which has to be one of those that there are.
    fn value(&self, key: &'static str) -> Result<Option<&str>, ArgError> {
        if self.known.is_empty() || self.known.contains(&key) {
            return Ok(self.text(key));
        }
        Err(ArgError::Unlisted { key })
    }

    fn parsed<T: FromStr>(
        &self,
        key: &'static str,
        wanted: impl FnOnce() -> String,
        example: impl Display,
    ) -> Result<Option<T>, ArgError> {
        let Some(value) = self.value(key)? else { return Ok(None) };
        value.parse().map(Some).map_err(|_| malformed(key, value, wanted(), example))
    }
}

fn malformed(key: &'static str, value: &str, wanted: String, example: impl Display) -> ArgError {
    ArgError::Malformed { key, value: value.to_owned(), wanted, example: format!("{example}") }
}

fn parse_cidr(text: &str) -> Option<Ipv4Cidr> {
    let (address, prefix) = text.split_once('/')?;
    let prefix = prefix.parse().ok().filter(|&bits| bits <= 32)?;
    Some(Ipv4Cidr { address: address.parse().ok()?, prefix })
}

/// `SIZE@BASE:IRQ[:ID]`; the size may end in K or M.
fn parse_window(text: &str) -> Option<DeviceWindow> {
    let (size, place) = text.split_once('@')?;
    let mut place = place.split(':');
    let window = DeviceWindow {
        size: parse_size(size)?,
        base: parse_integer(place.next()?)?,
        gsi: u32::try_from(parse_integer(place.next()?)?).ok()?,
    };
    let end = window.base.checked_add(window.size)?;
    (end <= 1 << 32 && window.base.is_multiple_of(4)).then_some(window)
}

fn parse_size(text: &str) -> Option<u64> {
    let scaled = [('K', 1 << 10), ('k', 1 << 10), ('M', 1 << 20), ('m', 1 << 20)];
    for (suffix, scale) in scaled {
        if let Some(number) = text.strip_suffix(suffix) {
            return parse_integer(number)?.checked_mul(scale);
        }
    }
    parse_integer(text)
}

fn parse_integer(text: &str) -> Option<u64> {
    match text.strip_prefix("0x") {
        Some(hexadecimal) => u64::from_str_radix(hexadecimal, 16).ok(),
        None => text.parse().ok(),
    }
}

#[cfg(test)]
#[path = "args_tests.rs"]
mod tests;
