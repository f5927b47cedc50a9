//! Where the tables of an image are, and what their entries name: whether that can be.
//!
//! Pure, for bytes that anybody may have written. imago gets to see no table that does not lie in
//! the file, is larger than any real one, or overlaps another one.

use super::fields::HeaderError::{self, Damaged, Unsupported};
use super::fields::{u32_at, u64_at};

/// The most memory that the tables of one image, with all below it, may take.
pub(super) const MAX_TABLES_BYTES: u64 = 512 << 20;
/// Most entries of the level-1 table, as in QEMU and imago.
const MAX_L1_ENTRIES: u64 = 4 << 20;
/// Largest refcount table, as in QEMU: enough for 128 GiB in clusters of 512 bytes.
const MAX_REFTABLE_BYTES: u64 = 8 << 20;
/// Most internal snapshots, as in QEMU, and the least that each of them takes.
const MAX_SNAPSHOTS: u64 = 65_536;
const SNAPSHOT_BYTES: u64 = 40;
/// Bits of an entry of the level-1 table that mean nothing, and the one that is no part of the
/// offset.
const L1_RESERVED: u64 = 0x7f00_0000_0000_01ff;
const L1_COPIED: u64 = 1 << 63;
/// Bits of an entry of the refcount table that mean nothing.
const REFTABLE_RESERVED: u64 = 0x1ff;

/// How many level-2 tables and refcount blocks imago keeps of each layer.
const CACHED_L2: u64 = 128;
const CACHED_REFBLOCKS: u64 = 32;

/// A table that the header names.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(in crate::backend) struct Table {
    /// Where it begins in the file, in bytes.
    pub(in crate::backend) offset: u64,
    /// How long it is, in bytes.
    pub(in crate::backend) len: u64,
}

impl Table {
    fn end(self) -> u64 {
        self.offset.saturating_add(self.len)
    }

    fn meets(self, other: Self) -> bool {
        self.len > 0 && other.len > 0 && self.offset < other.end() && other.offset < self.end()
    }
}

/// All of them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::backend) struct Tables {
    cluster_bytes: u64,
    pub(in crate::backend) l1: Table,
    pub(in crate::backend) reftable: Table,
    /// Of the internal snapshots; only the least that it may be long.
    pub(in crate::backend) snapshots: Table,
}

impl Tables {
    /// What a header says of them.
    pub(super) fn read(header: &[u8], cluster_bytes: u64) -> Result<Self, HeaderError> {
        let table = |at: usize, count: u32, each: u64| {
            u64_at(header, at).map(|offset| Table { offset, len: u64::from(count) * each })
        };
        Ok(Self {
            cluster_bytes,
            l1: table(40, u32_at(header, 36)?, 8)?,
            reftable: table(48, u32_at(header, 56)?, cluster_bytes)?,
            snapshots: table(64, u32_at(header, 60)?, SNAPSHOT_BYTES)?,
        })
    }

    /// The most memory that imago takes for those of a layer.
    pub(super) fn memory_bytes(&self) -> u64 {
        let cached = self.l1_entries().min(CACHED_L2).saturating_add(CACHED_REFBLOCKS);
        let cached = cached.saturating_mul(self.cluster_bytes);
        cached.saturating_add(self.l1.len.saturating_mul(2)).saturating_add(self.reftable.len)
    }

    /// They have to be of a possible size, in the file, in places of their own, and large enough
    /// for the disk.
    pub(super) fn check(&self, size_bytes: u64, file_bytes: u64) -> Result<(), HeaderError> {
        let needed = size_bytes.div_ceil(self.bytes_per_l2());
        if self.l1_entries() > MAX_L1_ENTRIES || needed > MAX_L1_ENTRIES {
            return Err(Unsupported(format!(
                "claims {size_bytes} bytes, too many for its clusters"
            )));
        }
        if self.l1_entries() < needed {
            return Err(Damaged("the level-1 table is too small for the disk".to_owned()));
        }
        if self.reftable.len == 0 {
            return Err(Damaged("it has no refcount table".to_owned()));
        }
        if self.reftable.len > MAX_REFTABLE_BYTES {
            let len = self.reftable.len;
            return Err(Damaged(format!("a refcount table of {len} bytes")));
        }
        if self.snapshots.len > MAX_SNAPSHOTS * SNAPSHOT_BYTES {
            let count = self.snapshots.len / SNAPSHOT_BYTES;
            return Err(Damaged(format!("{count} snapshots")));
        }
        for (name, table) in self.named() {
            self.check_place(name, table, file_bytes)?;
        }
        let [first, second, third] = self.named();
        for ((one, a), (other, b)) in [(first, second), (first, third), (second, third)] {
            if a.meets(b) {
                return Err(Damaged(format!("the {one} table and the {other} table overlap")));
            }
        }
        Ok(())
    }

    pub(in crate::backend) fn l1_entries(&self) -> u64 {
        self.l1.len / 8
    }

    /// What of the file never is data, from and to: the header and the tables that stay where they
    /// are. The refcount table moves when it grows.
    pub(super) fn reserved(&self) -> [(u64, u64); 3] {
        let range =
            |table: Table| if table.len == 0 { (0, 0) } else { (table.offset, table.end()) };
        [(0, self.cluster_bytes), range(self.l1), range(self.snapshots)]
    }

    fn named(&self) -> [(&'static str, Table); 3] {
        [("level-1", self.l1), ("refcount", self.reftable), ("snapshot", self.snapshots)]
    }

    fn check_place(&self, name: &str, table: Table, file_bytes: u64) -> Result<(), HeaderError> {
        let end = table.offset.checked_add(table.len);
        // The first cluster is the header's. What has no entries need not be anywhere.
        let inside = end.is_some_and(|end| end <= file_bytes)
            && table.offset.is_multiple_of(self.cluster_bytes)
            && (table.offset > 0 || table.len == 0);
        let nowhere = name == "snapshot" && table.len == 0;
        if inside || nowhere {
            return Ok(());
        }
        Err(Damaged(format!("the {name} table is not in the file")))
    }

    /// What part of the disk one level-2 table describes.
    fn bytes_per_l2(&self) -> u64 {
        self.cluster_bytes.saturating_mul(self.cluster_bytes / 8)
    }

    /// Checks the level-1 table: each entry is empty or names a cluster in the file that is part of
    /// no other table.
    pub(in crate::backend) fn check_l1(
        &self,
        table: &[u8],
        file_bytes: u64,
    ) -> Result<(), HeaderError> {
        self.check_entries("level-1", table, (L1_RESERVED, L1_COPIED), file_bytes)
    }

    /// Checks the refcount table in the same way. Its first entry is never empty: the first block
    /// counts the header.
    pub(in crate::backend) fn check_reftable(
        &self,
        table: &[u8],
        file_bytes: u64,
    ) -> Result<(), HeaderError> {
        if u64_at(table, 0)? == 0 {
            return Err(Damaged("its refcounts say that the header is free".to_owned()));
        }
        self.check_entries("refcount", table, (REFTABLE_RESERVED, 0), file_bytes)
    }

    fn check_entries(
        &self,
        name: &str,
        table: &[u8],
        (reserved, flags): (u64, u64),
        file_bytes: u64,
    ) -> Result<(), HeaderError> {
        for (number, entry) in table.chunks_exact(8).enumerate() {
            let entry = u64_at(entry, 0)?;
            let cluster = Table { offset: entry & !(reserved | flags), len: self.cluster_bytes };
            let inside =
                cluster.end() <= file_bytes && cluster.offset.is_multiple_of(self.cluster_bytes);
            let taken = self.named().iter().any(|(_, other)| cluster.meets(*other));
            let empty = cluster.offset == 0;
            if entry & reserved != 0 || !(empty || inside && !taken) {
                let what = format!("entry {number} of the {name} table is {entry:#x}");
                return Err(Damaged(what));
            }
        }
        Ok(())
    }
}
