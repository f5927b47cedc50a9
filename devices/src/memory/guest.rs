//! The memory of one guest, mapped into this process.

use vm_memory::mmap::FromRangesError;
use vm_memory::{
    FileOffset, GuestAddress, GuestMemoryBackend, GuestMemoryMmap, GuestRegionCollectionError,
    GuestRegionMmap,
};

use super::watch::Watch;

/// The memory of one guest, mapped into this process.
///
/// Memory that a peer has handed over can be lost at any time: see [`GuestMemory::is_lost`].
#[derive(Debug)]
pub struct GuestMemory {
    /// Goes before the mappings do.
    watched: Vec<Watch>,
    map: GuestMemoryMmap<()>,
}

impl GuestMemory {
    /// Memory of a peer: its regions in the order of their addresses. A fault in it loses it and
    /// nothing else.
    ///
    /// # Errors
    /// The regions overlap.
    pub(crate) fn of_peer(
        regions: Vec<GuestRegionMmap<()>>,
        watched: Vec<Watch>,
    ) -> Result<Self, GuestRegionCollectionError> {
        Ok(Self { watched, map: GuestMemoryMmap::from_regions(regions)? })
    }

    /// Anonymous memory: ranges of address and length in the order of their addresses.
    ///
    /// # Errors
    /// There is no memory, or the ranges overlap.
    pub fn from_ranges(ranges: &[(GuestAddress, usize)]) -> Result<Self, FromRangesError> {
        Ok(GuestMemoryMmap::from_ranges(ranges)?.into())
    }

    /// The same in files, of our own.
    ///
    /// # Errors
    /// A file cannot be mapped, or the ranges overlap.
    pub fn from_ranges_with_files(
        ranges: impl IntoIterator<Item = (GuestAddress, usize, Option<FileOffset>)>,
    ) -> Result<Self, FromRangesError> {
        Ok(GuestMemoryMmap::from_ranges_with_files(ranges)?.into())
    }

    /// Whether any of it was lost: the file behind it could not be read where it was mapped. Since
    /// then there are zeros, and what is written there reaches nobody.
    #[must_use]
    pub fn is_lost(&self) -> bool {
        self.watched.iter().any(Watch::is_lost)
    }
}

impl From<GuestMemoryMmap<()>> for GuestMemory {
    /// Memory that nobody else can take away.
    fn from(map: GuestMemoryMmap<()>) -> Self {
        Self { watched: Vec::new(), map }
    }
}

impl GuestMemoryBackend for GuestMemory {
    type R = GuestRegionMmap<()>;

    fn num_regions(&self) -> usize {
        self.map.num_regions()
    }

    fn find_region(&self, addr: GuestAddress) -> Option<&Self::R> {
        self.map.find_region(addr)
    }

    fn iter(&self) -> impl Iterator<Item = &Self::R> {
        self.map.iter()
    }
}
