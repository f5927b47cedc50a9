//! Who may use a thing together. Pure.

use serde::{Deserialize, Serialize};

/// How a thing is used. Parts are the partitions of a disk, for which the disk is also used.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Usage {
    /// Read, beside others who read.
    Read,
    /// Written, or not to be shared: a core, an interface.
    Own,
    /// A part of it is read.
    ReadPart,
    /// A part of it is written.
    OwnPart,
}

impl Usage {
    /// All of them.
    pub(super) const ALL: [Self; 4] = [Self::Read, Self::Own, Self::ReadPart, Self::OwnPart];

    /// Reading or not.
    pub(super) fn of(written: bool) -> Self {
        if written { Self::Own } else { Self::Read }
    }

    /// The same of a part.
    pub(super) fn of_part(self) -> Self {
        match self {
            Self::Read | Self::ReadPart => Self::ReadPart,
            Self::Own | Self::OwnPart => Self::OwnPart,
        }
    }

    /// The byte of the lock file that stands for it.
    pub(super) fn byte(self) -> u64 {
        match self {
            Self::Read => 0,
            Self::Own => 1,
            Self::ReadPart => 2,
            Self::OwnPart => 3,
        }
    }

    /// What nobody else may do at the same time. Two parts of one disk do not meet here: if they
    /// are the same one, its own file says so.
    pub(super) fn conflicts(self) -> &'static [Self] {
        match self {
            Self::Read => &[Self::Own, Self::OwnPart],
            Self::Own => &Self::ALL,
            Self::ReadPart => &[Self::Own],
            Self::OwnPart => &[Self::Own, Self::Read],
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_disturbs_another_is_disturbed_by_him() {
        for one in Usage::ALL {
            for other in Usage::ALL {
                let disturbs = |a: Usage, b: Usage| a.conflicts().contains(&b);
                assert_eq!(disturbs(one, other), disturbs(other, one), "{one:?} {other:?}");
            }
        }
    }
}
