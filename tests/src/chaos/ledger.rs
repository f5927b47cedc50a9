//! What a writer has tried and what was acknowledged, in a file that outlives its SIGKILL: a number
//! is in the kernel's hands before a write goes out, and again after its answer has come.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::Path;

use super::block::Known;

const ENTRY: usize = 16;

/// The ledger of one volume.
#[derive(Debug)]
pub(super) struct Ledger {
    file: File,
    known: Vec<Known>,
}

impl Ledger {
    /// Opens the ledger of so many blocks; a new one says that nothing was written.
    ///
    /// # Errors
    /// It cannot be opened, made or read.
    pub(super) fn open(path: &Path, blocks: u64) -> io::Result<Self> {
        let file =
            File::options().read(true).write(true).create(true).truncate(false).open(path)?;
        file.set_len(blocks * ENTRY as u64)?;
        let mut bytes = vec![0; usize::try_from(blocks).unwrap_or(0) * ENTRY];
        file.read_exact_at(&mut bytes, 0)?;
        let word = |bytes: &[u8]| u64::from_le_bytes(bytes.try_into().unwrap_or_default());
        let entry =
            |entry: &[u8]| Known { acknowledged: word(&entry[..8]), tried: word(&entry[8..]) };
        Ok(Self { file, known: bytes.chunks_exact(ENTRY).map(entry).collect() })
    }

    /// What is known of a block.
    pub(super) fn known(&self, block: u64) -> Known {
        usize::try_from(block).ok().and_then(|at| self.known.get(at)).copied().unwrap_or_default()
    }

    /// The number of the next write to a block, which goes out after this.
    ///
    /// # Errors
    /// It cannot be noted.
    pub(super) fn tries(&mut self, block: u64) -> io::Result<u64> {
        let known = self.known(block);
        let next = Known { tried: known.tried + 1, ..known };
        self.note(block, next)?;
        Ok(next.tried)
    }

    /// The last write to a block was acknowledged.
    ///
    /// # Errors
    /// It cannot be noted.
    pub(super) fn acknowledged(&mut self, block: u64) -> io::Result<()> {
        let tried = self.known(block).tried;
        self.note(block, Known { acknowledged: tried, tried })
    }

    fn note(&mut self, block: u64, known: Known) -> io::Result<()> {
        let entry = [known.acknowledged.to_le_bytes(), known.tried.to_le_bytes()].concat();
        self.file.write_all_at(&entry, block * ENTRY as u64)?;
        if let Some(place) = usize::try_from(block).ok().and_then(|at| self.known.get_mut(at)) {
            *place = known;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_ledger_that_is_opened_again_knows_what_was_tried_and_acknowledged() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("ledger");
        let mut ledger = Ledger::open(&path, 8).unwrap();
        assert_eq!(ledger.tries(3).unwrap(), 1);
        ledger.acknowledged(3).unwrap();
        assert_eq!(ledger.tries(3).unwrap(), 2);
        let again = Ledger::open(&path, 8).unwrap();
        assert_eq!(again.known(3), Known { acknowledged: 1, tried: 2 });
        assert_eq!(again.known(4), Known::default());
    }
}
