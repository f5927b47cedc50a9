//! What tenants do: the loads and adversaries that `[tenant.load]` names.
//!
//! ```toml
//! [tenant.load]
//! cpu  = { kind = "periodic", period = "10ms", work = "2ms" }
//! disk = { kind = "single", work = "800us", think = "20us" }
//! link = { kind = "busy" }
//! ```
//!
//! Work is service of the resource, in time. On a disk or a link it is made of units of at most
//! `unit` (default: the largest unit of the resource). docs/scheduling.md lists all kinds.

use moirai_scheduler::{Amount, Span};
use serde::{Deserialize, Deserializer, Serialize};

/// A duration or an amount of work in a configuration: integer nanoseconds, or text like `"250us"`,
/// `"10ms"`, `"2s"`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(transparent)]
pub struct Time(pub u64);

/// The longest duration: a day. Longer ones are slips of the pen.
pub const TIME_MAX: u64 = 86_400_000_000_000;

impl Time {
    /// As the time between two things.
    #[must_use]
    pub const fn span(self) -> Span {
        Span::from_nanos(self.0)
    }

    /// As the service that takes the whole resource so long.
    #[must_use]
    pub const fn work(self) -> Amount {
        Amount::from_nanos(self.0)
    }

    /// Reads an integer with a unit.
    ///
    /// # Errors
    /// What is wrong with the text.
    pub fn parse(text: &str) -> Result<Self, String> {
        let text = text.trim();
        let split = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
        let (number, unit) = text.split_at(split);
        let scale = match unit.trim() {
            "ns" => 1,
            "us" | "µs" => 1_000,
            "ms" => 1_000_000,
            "s" => 1_000_000_000,
            _ => return Err(format!("`{text}` is no time: write an integer and ns, us, ms or s")),
        };
        let time = number.parse::<u64>().ok().and_then(|number| number.checked_mul(scale));
        time.filter(|time| *time <= TIME_MAX)
            .map(Self)
            .ok_or_else(|| format!("`{text}` is no time between 0 and a day"))
    }
}

impl<'de> Deserialize<'de> for Time {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        #[derive(Deserialize)]
        #[serde(untagged)]
        enum Raw {
            Nanos(u64),
            Text(String),
        }
        match Raw::deserialize(deserializer)? {
            Raw::Nanos(time) if time <= TIME_MAX => Ok(Self(time)),
            Raw::Nanos(time) => Err(serde::de::Error::custom(format!("{time} ns exceed a day"))),
            Raw::Text(text) => Self::parse(&text).map_err(serde::de::Error::custom),
        }
    }
}

/// What one tenant does with one resource.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "kebab-case", deny_unknown_fields)]
pub enum Load {
    /// Nothing.
    Idle {},
    /// Always more work.
    Busy {
        /// Size of a unit; on a CPU without meaning.
        unit: Option<Time>,
    },
    /// `work` every `period`, from `phase` on.
    Periodic {
        /// Time between arrivals.
        period: Time,
        /// Service that each arrival asks for.
        work: Time,
        /// Time of the first arrival.
        #[serde(default)]
        phase: Time,
        /// Size of a unit.
        unit: Option<Time>,
    },
    /// Bursts of `count` jobs of `work`, at random times `gap` apart in the mean.
    Bursty {
        /// Mean time between bursts.
        gap: Time,
        /// Jobs in a burst.
        count: u32,
        /// Service that each job asks for.
        work: Time,
    },
    /// Always more work for `on`, then nothing for `off`, and so on.
    OnOff {
        /// How long it wants service.
        on: Time,
        /// How long it does not.
        off: Time,
        /// Size of a unit.
        unit: Option<Time>,
    },
    /// One request at a time: the next comes `think` after the last one ended.
    Single {
        /// Service that each request asks for.
        work: Time,
        /// Time between the end of one and the next.
        #[serde(default)]
        think: Time,
    },
    /// Jobs of random size at random times.
    Random {
        /// Mean time between arrivals.
        gap: Time,
        /// Mean service that each asks for.
        work: Time,
    },
    /// Adversary: uses its slice, sleeps past its deadline, wakes, asks for more (flaw F1).
    LatencyThief {
        /// Service between two sleeps; default: the slice.
        work: Option<Time>,
        /// Length of a sleep; default: the deadline.
        pause: Option<Time>,
    },
    /// Adversary: blocks for a nanosecond just before its slice is used up.
    BlockBeforeCharge {
        /// Service between two naps; default: the slice less one nanosecond.
        work: Option<Time>,
    },
    /// Adversary: always more work, in units that cost more than they announce.
    Inflate {
        /// What each unit announces; default: a tenth of the unit.
        announced: Option<Time>,
        /// What it costs; default: the largest unit of the resource.
        unit: Option<Time>,
    },
    /// Adversary: always more work, in the smallest units.
    SmallPackets {
        /// Size of a unit; default: a hundredth of the resource's.
        unit: Option<Time>,
    },
    /// Always more writes, and after some of them a flush, which says nothing of what it costs.
    Writes {
        /// Size of a write; default: the largest unit of the resource.
        unit: Option<Time>,
        /// Writes before each flush.
        count: u32,
        /// What a flush costs; default: the largest unit.
        flush: Option<Time>,
    },
    /// Adversary: the whole machine stands still for `length`, at random times.
    HostStall {
        /// Mean time between stalls.
        gap: Time,
        /// How long each lasts.
        length: Time,
    },
}

impl Default for Load {
    fn default() -> Self {
        Self::Busy { unit: None }
    }
}

/// `[tenant.load]`: one load for each kind of resource; a resource that is not named is kept busy.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Loads {
    /// What the tenant does with its core.
    #[serde(default)]
    pub cpu: Load,
    /// What it does with its disks.
    #[serde(default)]
    pub disk: Load,
    /// What it does with its links.
    #[serde(default)]
    pub link: Load,
}
