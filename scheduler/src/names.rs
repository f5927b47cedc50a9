//! Policies by the names that configurations use.

use alloc::boxed::Box;
use alloc::string::String;

use crate::policy::Policy;
use crate::usd::USD_LAXITY;
use crate::{Atropos, Drr, EdfChannel, Fifo, Nemesis, Usd, Xen};

/// All names that [`policy_by_name`] knows, the default first.
pub const POLICIES: &[&str] = &["atropos", "nemesis", "xen", "usd", "drr", "edf-channel", "fifo"];

/// There is no policy of that name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UnknownPolicy {
    /// The name that was asked for.
    pub name: String,
}

impl core::fmt::Display for UnknownPolicy {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        write!(f, "there is no policy `{}`; known are", self.name)?;
        for (i, name) in POLICIES.iter().enumerate() {
            write!(f, "{} {name}", if i == 0 { "" } else { "," })?;
        }
        Ok(())
    }
}

impl core::error::Error for UnknownPolicy {}

/// Makes a policy for at most `capacity` clients.
///
/// # Errors
/// [`UnknownPolicy`] for a name that is not in [`POLICIES`].
pub fn policy_by_name(name: &str, capacity: usize) -> Result<Box<dyn Policy>, UnknownPolicy> {
    Ok(match name {
        "atropos" => Box::new(Atropos::new(capacity)),
        "nemesis" => Box::new(Nemesis::new(capacity)),
        "xen" => Box::new(Xen::new(capacity)),
        "usd" => Box::new(Usd::new(capacity, USD_LAXITY)),
        "drr" => Box::new(Drr::new(capacity)),
        "edf-channel" => Box::new(EdfChannel::new(capacity)),
        "fifo" => Box::new(Fifo::new(capacity)),
        _ => return Err(UnknownPolicy { name: name.into() }),
    })
}
