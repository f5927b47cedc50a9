//! Entries of a level-1 table that get to the disk late: with the next flush, behind the refcounts
//! and the table that they name.
//!
//! imago writes such an entry as soon as it has made a level-2 table, and the refcount of that
//! table's cluster some time later. If the process is killed in between, the image names a cluster
//! that is free by its refcounts, and the next process makes data of it. So an entry that names a
//! table where none was named waits here. A lost entry loses no more than what was not flushed. One
//! that replaces another is written at once: what it replaces may be free soon.

use std::collections::BTreeMap;

const ENTRY: u64 = 8;

/// The table, by its place in the file, and what waits.
#[derive(Debug)]
pub(crate) struct LateTable {
    from: u64,
    to: u64,
    waiting: BTreeMap<u64, [u8; 8]>,
}

impl LateTable {
    /// A table at these bytes of the file, from and to; its entries are aligned to their size.
    pub(crate) fn new((from, to): (u64, u64)) -> Self {
        Self { from, to, waiting: BTreeMap::new() }
    }

    /// Whether a write there writes entries.
    pub(crate) fn meets(&self, offset: u64, len: u64) -> bool {
        offset < self.to && offset.saturating_add(len) > self.from
    }

    /// What of `wanted`, which is to be written at `offset`, is to be written now: `wanted` itself
    /// but for the entries that wait. `there` is what is in the file now.
    pub(crate) fn hold_back(&mut self, offset: u64, wanted: &mut [u8], there: &[u8]) {
        for ((at, wanted), there) in
            (offset..).step_by(8).zip(wanted.chunks_mut(8)).zip(there.chunks(8))
        {
            let whole = at >= self.from && at.saturating_add(ENTRY) <= self.to;
            let (Ok(entry), true) = (<[u8; 8]>::try_from(&*wanted), whole) else { continue };
            if there == [0; 8] && entry != [0; 8] {
                self.waiting.insert(at, entry);
                wanted.fill(0);
            } else {
                self.waiting.remove(&at);
            }
        }
    }

    /// The first block of `align` bytes with an entry that waits.
    pub(crate) fn next_block(&self, align: u64) -> Option<u64> {
        let (at, _) = self.waiting.first_key_value()?;
        Some(at - at % align.max(1))
    }

    /// Puts what waits for a block at `offset` into it.
    pub(crate) fn fill_in(&self, offset: u64, block: &mut [u8]) {
        for (at, place) in (offset..).step_by(8).zip(block.chunks_mut(8)) {
            if let Some(entry) = self.waiting.get(&at).filter(|_| place.len() == 8) {
                place.copy_from_slice(entry);
            }
        }
    }

    /// A block is written: nothing of it waits any more.
    pub(crate) fn written(&mut self, offset: u64, len: u64) {
        let end = offset.saturating_add(len);
        self.waiting.retain(|at, _| !(offset..end).contains(at));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_names_a_table_where_none_was_waits_and_what_replaces_does_not() {
        let mut table = LateTable::new((4096, 4096 + 24));
        assert!(table.meets(0, 4097) && table.meets(4112, 8));
        assert!(!table.meets(0, 4096) && !table.meets(4120, 8));
        // A block of four entries, the last behind the table; the second names something already.
        let mut there = [[0; 8], [2; 8], [0; 8], [9; 8]].concat();
        let mut wanted = [[1; 8], [3; 8], [0; 8], [9; 8]].concat();
        table.hold_back(4096, &mut wanted, &there);
        assert_eq!(wanted, [[0; 8], [3; 8], [0; 8], [9; 8]].concat());
        assert_eq!(table.next_block(512), Some(4096));
        there = wanted;
        // The next write has both entries; both wait.
        let mut wanted = [[1; 8], [3; 8], [5; 8], [9; 8]].concat();
        table.hold_back(4096, &mut wanted, &there);
        assert_eq!(wanted, there);
        table.fill_in(4096, &mut there);
        assert_eq!(there, [[1; 8], [3; 8], [5; 8], [9; 8]].concat());
        table.written(4096, 32);
        assert_eq!(table.next_block(512), None);
        // Now they are replaced at once.
        let mut wanted = [[7; 8], [3; 8], [0; 8], [9; 8]].concat();
        table.hold_back(4096, &mut wanted, &there);
        assert_eq!(wanted, [[7; 8], [3; 8], [0; 8], [9; 8]].concat());
        assert_eq!(table.next_block(512), None);
    }
}
