//! Where the clusters of an image are, as the arena has it: whole windows of them.

use crate::fields::{Reader, Writer, Wrong};

/// Clusters in a window; a divisor of the entries of every level-2 table.
pub const WINDOW: u64 = 64;
/// Size of a window in the arena.
pub const WINDOW_BYTES: usize = 64 * PLACE_BYTES;
const PLACE_BYTES: usize = 16;
/// What an entry says of itself: that it names a place, and that it may be written.
const THERE: u16 = 1;
const WRITABLE: u16 = 2;

/// Where a cluster's data is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Location {
    /// Number of the file.
    pub file: u16,
    /// Whether it may be overwritten there.
    pub writable: bool,
    /// Where in the file, in bytes.
    pub offset: u64,
}

/// The clusters of one window; `None` for one that is not in one piece in a file.
pub type Window = [Option<Location>; 64];

/// The place of a cluster in its window.
#[must_use]
pub fn in_window(cluster: u64) -> usize {
    usize::try_from(cluster % WINDOW).unwrap_or(0)
}

/// A window as bytes.
#[must_use]
pub fn encode_window(window: &Window) -> Vec<u8> {
    let mut out = Writer::default();
    for place in window {
        let Location { file, writable, offset } =
            place.unwrap_or(Location { file: 0, writable: false, offset: 0 });
        let flags = if place.is_some() { THERE } else { 0 };
        out.u16(flags | if writable { WRITABLE } else { 0 }).u16(file).u32(0).u64(offset);
    }
    out.padded(WINDOW_BYTES)
}

/// A window from bytes.
///
/// # Errors
/// They are none.
pub fn decode_window(bytes: &[u8]) -> Result<Box<Window>, Wrong> {
    let mut read = Reader::of(bytes, WINDOW_BYTES)?;
    let mut window: Box<Window> = Box::new([None; 64]);
    for place in window.iter_mut() {
        let (flags, file, zero, offset) = (read.u16()?, read.u16()?, read.u32()?, read.u64()?);
        let unknown = flags & !(THERE | WRITABLE) != 0 || flags == WRITABLE || zero != 0;
        if unknown {
            return Err(Wrong::Value { what: "the flags of a cluster", value: flags.into() });
        }
        *place = (flags & THERE != 0).then_some(Location {
            file,
            writable: flags & WRITABLE != 0,
            offset,
        });
    }
    Ok(window)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn a_window_comes_back_as_it_was(
            places in prop::collection::vec(prop::option::of(any::<(u16, bool, u64)>()), 64),
        ) {
            let mut window: Window = [None; 64];
            for (slot, place) in window.iter_mut().zip(places) {
                *slot = place.map(|(file, writable, offset)| Location { file, writable, offset });
            }
            prop_assert_eq!(decode_window(&encode_window(&window)), Ok(Box::new(window)));
        }

        #[test]
        fn any_bytes_are_a_window_or_wrong(
            bytes in prop::collection::vec(any::<u8>(), 0..WINDOW_BYTES + 2),
            changes in prop::collection::vec((0..WINDOW_BYTES, 0_u8..5), 0..4),
        ) {
            prop_assert!(bytes.len() == WINDOW_BYTES || decode_window(&bytes).is_err());
            let mut near = vec![0; WINDOW_BYTES];
            changes.into_iter().for_each(|(at, value)| near[at] = value);
            if let Ok(window) = decode_window(&near) {
                let places = near.chunks(PLACE_BYTES).zip(window.iter());
                prop_assert!(places.into_iter().all(|(it, at)| at.is_some() == (it[0] & 1 == 1)));
            }
        }
    }
}
