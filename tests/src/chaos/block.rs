//! Numbered blocks: what a writer writes, and what a reader concludes from what it finds.
//!
//! Every sector of a block says which block and sector it is and with which number it was written,
//! and the rest of it follows from these. So a lost write, a write at the wrong place, half a sector
//! and old data under a new number are all seen.

use super::random::mix;

const SECTOR: usize = 512;
/// Bytes of a block.
pub(super) const BLOCK: usize = 4096;
const WORD: usize = 8;
const MAGIC: u64 = 0x4d6f_6972_6169_2e63;

/// The first sector of a block.
pub(super) const fn sector(block: u64) -> u64 {
    block * (BLOCK / SECTOR) as u64
}

/// What is known of a block: the number of the last write that was acknowledged, and of the last
/// one that was tried. Writes to one block follow each other, so what lies between them may be
/// there or not, and nothing else.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Known {
    pub(super) acknowledged: u64,
    pub(super) tried: u64,
}

/// Writes a block into `into`.
pub(super) fn fill(into: &mut [u8], block: u64, number: u64) {
    for (place, sector) in (0..).zip(into.chunks_exact_mut(SECTOR)) {
        write_sector(sector, block, place, number);
    }
}

fn write_sector(sector: &mut [u8], block: u64, place: u64, number: u64) {
    let head = [MAGIC, block, place, number];
    let seed = mix(mix(block) ^ mix(place << 32) ^ number);
    for (at, word) in (0_u64..).zip(sector.chunks_exact_mut(WORD)) {
        let head = usize::try_from(at).ok().and_then(|at| head.get(at));
        let value = head.copied().unwrap_or_else(|| mix(seed ^ at));
        word.copy_from_slice(&value.to_le_bytes());
    }
}

/// What is wrong with a block that was read; none if it is as it may be.
pub(super) fn judge(found: &[u8], block: u64, known: Known) -> Option<String> {
    let mut expected = [0; SECTOR];
    for (place, sector) in (0..).zip(found.chunks_exact(SECTOR)) {
        let word = |at: usize| {
            let bytes = sector[at * WORD..(at + 1) * WORD].try_into().unwrap_or_default();
            u64::from_le_bytes(bytes)
        };
        if word(0) == 0 && known.acknowledged == 0 && sector.iter().all(|byte| *byte == 0) {
            continue;
        }
        let number = word(3);
        write_sector(&mut expected, block, place, number);
        if sector != expected {
            return Some(format!(
                "block {block}, sector {place}: no sector of ours: {}",
                hex(sector)
            ));
        }
        if !(known.acknowledged..=known.tried).contains(&number) {
            return Some(format!("block {block}, sector {place}: write {number}, but {known:?}"));
        }
    }
    None
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().take(32).map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn known(acknowledged: u64, tried: u64) -> Known {
        Known { acknowledged, tried }
    }

    fn block(number: u64) -> Vec<u8> {
        let mut block = vec![0; BLOCK];
        fill(&mut block, 7, number);
        block
    }

    #[test]
    fn what_was_acknowledged_or_tried_after_it_is_right_and_what_was_before_is_lost() {
        for number in 3..=5 {
            assert_eq!(judge(&block(number), 7, known(3, 5)), None);
        }
        assert!(judge(&block(2), 7, known(3, 5)).is_some(), "the acknowledged write is lost");
        assert!(judge(&block(6), 7, known(3, 5)).is_some(), "nobody has written this");
        assert!(judge(&block(3), 8, known(3, 3)).is_some(), "it belongs elsewhere");
        assert!(judge(&vec![0; BLOCK], 7, known(1, 1)).is_some());
        assert_eq!(judge(&vec![0; BLOCK], 7, known(0, 1)), None, "nothing was acknowledged yet");
    }

    #[test]
    fn sectors_are_whole_and_each_may_be_of_another_write() {
        let mut mixed = block(3);
        mixed[SECTOR..2 * SECTOR].copy_from_slice(&block(4)[SECTOR..2 * SECTOR]);
        assert_eq!(judge(&mixed, 7, known(3, 4)), None);
        mixed[SECTOR + 100] ^= 1;
        assert!(judge(&mixed, 7, known(3, 4)).is_some());
    }
}
