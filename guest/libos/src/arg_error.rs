//! What can be wrong with a word of the command line.

use alloc::string::String;
use core::net::Ipv4Addr;
use thiserror::Error;

/// A word whose value is not what the application can use.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum ArgError {
    /// The word is needed and not there.
    #[error("the command line lacks {key}=, for example {key}={example}")]
    Missing {
        /// The word's key.
        key: &'static str,
        /// A value that would do.
        example: &'static str,
    },
    /// The value cannot be read.
    #[error("{key}={value}: expected {wanted}, for example {key}={example}")]
    Malformed {
        /// The word's key.
        key: &'static str,
        /// What stands there.
        value: String,
        /// What may stand there.
        wanted: String,
        /// A value that would do.
        example: String,
    },
    /// A word that the application does not know.
    #[error("{word}: there is no such word; the words are {known}")]
    Unknown {
        /// As it stands on the command line.
        word: String,
        /// All that are known.
        known: String,
    },
    /// The application asks for a word that it does not list.
    #[error("{key}=: the application lacks it in the list of words of moirai_sdk::main!")]
    Unlisted {
        /// The word's key.
        key: &'static str,
    },
    /// The gateway cannot be one.
    #[error(
        "gw={gateway}: {why}, so nothing leaves through it: give gw= another address in the \
         network of ip={address}/{prefix}, or leave gw= out"
    )]
    Gateway {
        /// What stands there.
        gateway: Ipv4Addr,
        /// What is wrong with it.
        why: &'static str,
        /// Our own address.
        address: Ipv4Addr,
        /// Bits of the network prefix.
        prefix: u8,
    },
    /// The address is no single host's.
    #[error(
        "{key}={address}/{prefix}: {why}; give the address of one host in its network, for example \
         {key}=10.0.0.2/24"
    )]
    NoHost {
        /// The word's key.
        key: &'static str,
        /// What stands there.
        address: Ipv4Addr,
        /// Bits of the network prefix.
        prefix: u8,
        /// What is wrong with it.
        why: &'static str,
    },
    /// The value can be read but not be used.
    #[error("{key}={value}: has to be from {min} to {max}")]
    OutOfRange {
        /// The word's key.
        key: &'static str,
        /// What stands there.
        value: u64,
        /// Least value.
        min: u64,
        /// Greatest value.
        max: u64,
    },
}
