//! Policies by kind, and kinds by the names that configurations use.

use alloc::boxed::Box;
use alloc::string::String;

use crate::policy::{Policy, Ranked};
use crate::usd::USD_LAXITY;
use crate::{Atropos, Drr, EdfChannel, Fifo, Nemesis, Usd, Xen};

/// The one table of policies: kind, name in configurations, and what it does in one sentence.
macro_rules! kinds {
    ($($(#[$attribute:meta])? $kind:ident, $name:literal, $about:literal;)+) => {
        /// Which policy.
        #[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
        pub enum PolicyKind {
            $(#[doc = $about] $(#[$attribute])? $kind,)+
        }

        /// The names of [`PolicyKind::ALL`], in that order.
        pub const POLICIES: &[&str] = &[$($name),+];

        impl PolicyKind {
            /// All of them, the default first.
            pub const ALL: [Self; POLICIES.len()] = [$(Self::$kind),+];

            /// Its name in configurations.
            #[must_use]
            pub const fn as_str(self) -> &'static str {
                match self {
                    $(Self::$kind => $name,)+
                }
            }

            /// What it does, in words, for those who choose.
            #[must_use]
            pub const fn about(self) -> &'static str {
                match self {
                    $(Self::$kind => $about,)+
                }
            }
        }
    };
}

kinds! {
    #[default] Atropos, "atropos",
        "Contracts first, then slack. The only one that keeps every promise.";
    Nemesis, "nemesis", "The classic Nemesis rules: long and short unblock.";
    Xen, "xen", "The rules of Xen 2.0: latency scaling.";
    Usd, "usd", "The user-safe disk: laxity.";
    Drr, "drr", "Deficit round robin. Not on a core.";
    EdfChannel, "edf-channel", "Real-time channels. Not on a core.";
    Fifo, "fifo",
        "First come, first served; on the CPU the kernel's fair class. The control of experiments.";
}

impl PolicyKind {
    /// Whether it promises nothing, so that on a core the kernel's fair class takes its place.
    #[must_use]
    pub fn is_fifo(self) -> bool {
        self == Self::Fifo
    }

    /// Whether a CPU dispatcher can work with it: it has to know all that are owed time, in order.
    /// `fifo` needs none, the kernel's fair class takes its place.
    #[must_use]
    pub fn suits_a_core(self) -> bool {
        !matches!(self, Self::Drr | Self::EdfChannel)
    }
}

impl core::fmt::Display for PolicyKind {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.write_str(self.as_str())
    }
}

impl core::str::FromStr for PolicyKind {
    type Err = UnknownPolicy;

    fn from_str(name: &str) -> Result<Self, UnknownPolicy> {
        let named = Self::ALL.into_iter().find(|kind| kind.as_str() == name);
        named.ok_or_else(|| UnknownPolicy { name: name.into() })
    }
}

/// There is no policy of that name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UnknownPolicy {
    /// The name that was asked for.
    pub name: String,
}

impl core::fmt::Display for UnknownPolicy {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        write!(f, "there is no policy `{}`; known are", self.name)?;
        for (i, kind) in PolicyKind::ALL.into_iter().enumerate() {
            write!(f, "{} {kind}", if i == 0 { "" } else { "," })?;
        }
        Ok(())
    }
}

impl core::error::Error for UnknownPolicy {}

/// Makes a policy for at most `capacity` clients.
#[must_use]
pub fn policy(kind: PolicyKind, capacity: usize) -> Box<dyn Policy> {
    match kind {
        PolicyKind::Drr => Box::new(Drr::new(capacity)),
        PolicyKind::EdfChannel => Box::new(EdfChannel::new(capacity)),
        PolicyKind::Atropos => Box::new(Atropos::new(capacity)),
        PolicyKind::Nemesis => Box::new(Nemesis::new(capacity)),
        PolicyKind::Xen => Box::new(Xen::new(capacity)),
        PolicyKind::Usd => Box::new(Usd::new(capacity, USD_LAXITY)),
        PolicyKind::Fifo => Box::new(Fifo::new(capacity)),
    }
}

/// Makes a policy for a core and at most `capacity` clients; `None` for one that does not know all
/// who are owed time.
#[must_use]
pub fn ranked(kind: PolicyKind, capacity: usize) -> Option<Box<dyn Ranked>> {
    Some(match kind {
        PolicyKind::Drr | PolicyKind::EdfChannel => return None,
        PolicyKind::Atropos => Box::new(Atropos::new(capacity)),
        PolicyKind::Nemesis => Box::new(Nemesis::new(capacity)),
        PolicyKind::Xen => Box::new(Xen::new(capacity)),
        PolicyKind::Usd => Box::new(Usd::new(capacity, USD_LAXITY)),
        PolicyKind::Fifo => Box::new(Fifo::new(capacity)),
    })
}

/// Makes a policy for at most `capacity` clients, where only its name is known.
///
/// # Errors
/// [`UnknownPolicy`] for a name that is not in [`POLICIES`].
pub fn policy_by_name(name: &str, capacity: usize) -> Result<Box<dyn Policy>, UnknownPolicy> {
    Ok(policy(name.parse()?, capacity))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_kind_has_the_name_that_it_is_found_by() {
        assert_eq!(PolicyKind::ALL.map(PolicyKind::as_str), POLICIES);
        for kind in PolicyKind::ALL {
            assert_eq!(alloc::format!("{kind}").parse(), Ok(kind));
        }
        assert_eq!(PolicyKind::default(), PolicyKind::ALL[0]);
    }

    #[test]
    fn a_core_takes_those_that_know_all_who_are_owed_time_and_the_control() {
        for kind in PolicyKind::ALL {
            let suits = !matches!(kind, PolicyKind::Drr | PolicyKind::EdfChannel);
            assert_eq!(kind.suits_a_core(), suits, "{kind}");
            assert_eq!(ranked(kind, 1).is_some(), suits, "{kind}");
            assert_eq!(policy(kind, 1).ranked().is_some(), suits, "{kind}");
        }
    }
}
