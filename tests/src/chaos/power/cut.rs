//! What a disk with a volatile cache may leave when its power is cut: everything that was written
//! before its last flush, and of what came after any part.

use super::super::random::Chance;
use super::super::weak::Event;

/// A disk tears a write between sectors only.
const SECTOR: u64 = 512;

/// Some contents of the file after a cut behind so many events.
pub(super) fn image(base: &[u8], events: &[Event], cut: usize, chance: &mut Chance) -> Vec<u8> {
    let before = &events[..cut.min(events.len())];
    let flushed = before.iter().rposition(|event| *event == Event::Flush).unwrap_or(0);
    let mut file = base.to_vec();
    for event in &before[..flushed] {
        apply(&mut file, event, u64::MAX);
    }
    // Nothing, any part, or all of what was not flushed.
    let mood = chance.below(4);
    for event in &before[flushed..] {
        let bytes = match (mood, chance.below(8)) {
            (0, _) | (1 | 2, 0..4) => 0,
            (1 | 2, 4) => chance.below(64) * SECTOR,
            _ => u64::MAX,
        };
        apply(&mut file, event, bytes);
    }
    file
}

/// Does what an event did, as far as its first bytes.
fn apply(file: &mut Vec<u8>, event: &Event, bytes: u64) {
    match event {
        Event::Write { offset, data } => {
            let length = usize::try_from(bytes).unwrap_or(usize::MAX).min(data.len());
            let Ok(offset) = usize::try_from(*offset) else { return };
            if length > 0 {
                file.resize(file.len().max(offset + length), 0);
                file[offset..offset + length].copy_from_slice(&data[..length]);
            }
        }
        Event::Resize(size) if bytes > 0 => {
            file.resize(usize::try_from(*size).unwrap_or(0), 0);
        }
        Event::Resize(_) | Event::Flush => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn write(offset: u64, byte: u8) -> Event {
        Event::Write { offset, data: vec![byte; 512] }
    }

    #[test]
    fn what_was_flushed_is_there_and_what_was_not_may_be() {
        let events = [write(0, 1), Event::Flush, write(512, 2), write(0, 3), Event::Flush];
        let mut chance = Chance::new(1);
        let (mut old, mut new, mut without) = (0, 0, 0);
        for _ in 0..200 {
            let file = image(&[0; 1024], &events, 4, &mut chance);
            assert!(file[0] == 1 || file[0] == 3, "flushed, or written over");
            (old, new) = (old + i32::from(file[0] == 1), new + i32::from(file[0] == 3));
            without += i32::from(file[512] == 0);
        }
        assert!(old > 20 && new > 20 && without > 20, "{old}, {new}, {without}");
        let all = image(&[0; 1024], &events, 5, &mut chance);
        assert_eq!((all[0], all[512]), (3, 2));
        assert_eq!(image(&[0; 1024], &events, 0, &mut chance), [0; 1024]);
    }
}
