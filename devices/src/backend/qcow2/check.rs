//! What of an answer can be true. The image process reads what a stranger wrote, so it may have
//! been taken over; the loop reads and writes where it says.
//!
//! Pure: whoever asks has copied out of the arena what is looked at here.

use moirai_image_wire::{Answer, Location, WINDOW, Window, Wrong, decode_window};
use thiserror::Error;

/// An answer that no honest process gives.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub(super) enum Lie {
    #[error("it sent {0}")]
    Message(#[from] Wrong),
    #[error("it answered task {got} and not {asked}")]
    Token { asked: u64, got: u64 },
    #[error("it sent a message that nobody had asked for")]
    Unasked,
    #[error("it refused an image that it had opened")]
    Refused,
    #[error("it brought {got} bytes and {windows} windows; {asked} bytes and {wanted} were asked")]
    Amount { asked: u64, wanted: u64, got: u64, windows: u64 },
    #[error("cluster {cluster} is said to be in file {file} of {files}")]
    File { cluster: u64, file: u16, files: usize },
    #[error("cluster {cluster} is said to be at {offset:#x}, which is no multiple of {align}")]
    Unaligned { cluster: u64, offset: u64, align: u64 },
    #[error("cluster {cluster} is said to be at {offset:#x} of a file of {file_bytes} bytes")]
    Outside { cluster: u64, offset: u64, file_bytes: u64 },
    #[error("cluster {cluster} is said to be writable in file {file}, which is not")]
    Writable { cluster: u64, file: u16 },
    #[error("cluster {cluster} is said to be at {offset:#x}, where the header or a table is")]
    Table { cluster: u64, offset: u64 },
    #[error("cluster {cluster} is said to be somewhere, and the disk has only {clusters}")]
    Behind { cluster: u64, clusters: u64 },
}

/// What is known of an image without its process.
#[derive(Clone, Debug)]
pub(super) struct Shape {
    pub(super) size_bytes: u64,
    pub(super) cluster_bytes: u64,
    /// What places in the files have to be multiples of; zero if nothing goes past the process.
    pub(super) align: u64,
    /// Whether discarding leaves zeros behind (version 3).
    pub(super) discards: bool,
    /// What of the file with the data of the top layer is no data: header and tables, from and to.
    pub(super) reserved: [(u64, u64); 3],
    /// Whether the last file, which has that data, may be written.
    pub(super) writable: bool,
}

/// The answer to the task of that number, which is to bring so many bytes and windows.
pub(super) fn amount(answer: &Answer, asked: u64, wanted: u64) -> Result<(), Lie> {
    let (got, windows) = (u64::from(answer.bytes), u64::from(answer.count));
    if (got, windows) == (asked, wanted) {
        return Ok(());
    }
    Err(Lie::Amount { asked, wanted, got, windows })
}

/// The window of that number, from its bytes. `ends` says where each file ends now.
pub(super) fn window(
    shape: &Shape,
    ends: &[u64],
    number: u64,
    bytes: &[u8],
) -> Result<Box<Window>, Lie> {
    let window = decode_window(bytes)?;
    let first = number.saturating_mul(WINDOW);
    for (cluster, place) in (first..).zip(window.iter()) {
        if let Some(place) = place {
            check(shape, ends, cluster, *place)?;
        }
    }
    Ok(window)
}

fn check(shape: &Shape, ends: &[u64], cluster: u64, place: Location) -> Result<(), Lie> {
    let Location { file, writable, offset } = place;
    let clusters = shape.size_bytes.div_ceil(shape.cluster_bytes.max(1));
    if cluster >= clusters {
        return Err(Lie::Behind { cluster, clusters });
    }
    let Some(&file_bytes) = ends.get(usize::from(file)) else {
        return Err(Lie::File { cluster, file, files: ends.len() });
    };
    if shape.align == 0 || !offset.is_multiple_of(shape.align) {
        return Err(Lie::Unaligned { cluster, offset, align: shape.align });
    }
    let begin = cluster.saturating_mul(shape.cluster_bytes);
    let len = shape.cluster_bytes.min(shape.size_bytes.saturating_sub(begin));
    let end = offset.checked_add(len.next_multiple_of(shape.align));
    let Some(end) = end.filter(|end| *end <= file_bytes) else {
        return Err(Lie::Outside { cluster, offset, file_bytes });
    };
    if writable {
        if !shape.writable || usize::from(file) + 1 != ends.len() {
            return Err(Lie::Writable { cluster, file });
        }
        if shape.reserved.iter().any(|(from, to)| offset < *to && *from < end) {
            return Err(Lie::Table { cluster, offset });
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use moirai_image_wire::{Outcome, WINDOW_BYTES, encode_window};
    use proptest::prelude::*;

    use super::*;

    /// 100 clusters and half of one, in a backing file of 4 MiB and a top file of 8 MiB.
    const SHAPE: Shape = Shape {
        size_bytes: (100 << 16) + (1 << 15),
        cluster_bytes: 1 << 16,
        align: 512,
        discards: true,
        reserved: [(0, 1 << 16), (3 << 16, 4 << 16), (0, 0)],
        writable: true,
    };
    const ENDS: [u64; 2] = [4 << 20, 8 << 20];

    /// What is said of a window with this place as its cluster of that number.
    fn judge(shape: &Shape, cluster: u64, place: Location) -> Result<(), Lie> {
        let mut all: Window = [None; 64];
        all[usize::try_from(cluster % WINDOW).unwrap()] = Some(place);
        window(shape, &ENDS, cluster / WINDOW, &encode_window(&all)).map(|_| ())
    }

    fn at(file: u16, writable: bool, offset: u64) -> Location {
        Location { file, writable, offset }
    }

    #[test]
    fn what_can_be_true_is_believed() {
        for (cluster, place) in [
            (0, at(1, true, 1 << 16)),
            (0, at(0, false, 0)),
            (99, at(1, true, (8 << 20) - (1 << 16))),
            // Where the disk ends within a cluster, half of it will do.
            (100, at(1, true, (8 << 20) - (1 << 15))),
            // Reading is not forbidden there.
            (3, at(1, false, 0)),
        ] {
            assert_eq!(judge(&SHAPE, cluster, place), Ok(()), "{cluster} {place:?}");
        }
    }

    #[test]
    fn each_lie_has_its_name() {
        let far = u64::MAX - 511;
        for (cluster, place, lie) in [
            (7, at(2, false, 0), Lie::File { cluster: 7, file: 2, files: 2 }),
            (7, at(1, true, 513), Lie::Unaligned { cluster: 7, offset: 513, align: 512 }),
            (
                7,
                at(0, false, (4 << 20) - (1 << 16) + 512),
                Lie::Outside { cluster: 7, offset: 0x3f_0200, file_bytes: 4 << 20 },
            ),
            (7, at(1, true, far), Lie::Outside { cluster: 7, offset: far, file_bytes: 8 << 20 }),
            (7, at(0, true, 0), Lie::Writable { cluster: 7, file: 0 }),
            (7, at(1, true, 0), Lie::Table { cluster: 7, offset: 0 }),
            (7, at(1, true, (4 << 16) - 512), Lie::Table { cluster: 7, offset: 0x3_fe00 }),
            (7, at(1, true, (2 << 16) + 512), Lie::Table { cluster: 7, offset: 0x2_0200 }),
            (101, at(1, true, 1 << 20), Lie::Behind { cluster: 101, clusters: 101 }),
        ] {
            assert_eq!(judge(&SHAPE, cluster, place), Err(lie), "{place:?}");
        }
        let read_only = Shape { writable: false, ..SHAPE };
        let place = at(1, true, 1 << 20);
        assert_eq!(judge(&read_only, 7, place), Err(Lie::Writable { cluster: 7, file: 1 }));
        let closed = Shape { align: 0, ..SHAPE };
        assert!(matches!(judge(&closed, 7, place), Err(Lie::Unaligned { align: 0, .. })));
        let short = window(&SHAPE, &ENDS, 0, &[0; WINDOW_BYTES - 1]);
        assert!(matches!(short, Err(Lie::Message(_))));
    }

    #[test]
    fn an_answer_brings_what_was_asked() {
        let answer = Answer { token: 1, outcome: Outcome::Done, bytes: 512, count: 0 };
        assert_eq!(amount(&answer, 512, 0), Ok(()));
        for (asked, wanted) in [(511, 0), (513, 0), (512, 1), (0, 0)] {
            assert!(matches!(amount(&answer, asked, wanted), Err(Lie::Amount { .. })));
        }
    }

    proptest! {
        #[test]
        fn whatever_is_said_what_is_believed_is_in_the_files_and_no_table(
            bytes in prop::collection::vec(0_u8..4, WINDOW_BYTES),
            offsets in prop::collection::vec(0_u64..(9 << 20), 64),
            number in 0_u64..4,
            sound in any::<bool>(),
        ) {
            let mut bytes = bytes;
            for (place, offset) in bytes.chunks_mut(16).zip(offsets) {
                if sound {
                    place[..16].fill(0);
                    place[0] = u8::try_from(offset % 2).unwrap() * 3;
                    place[2] = 1;
                }
                place[8..].copy_from_slice(&(offset & !511).to_le_bytes());
            }
            if let Ok(window) = window(&SHAPE, &ENDS, number, &bytes) {
                for (cluster, place) in (number * WINDOW..).zip(window.iter()) {
                    let Some(Location { file, writable, offset }) = *place else { continue };
                    let end = offset + (1 << 16).min(SHAPE.size_bytes - cluster * (1 << 16));
                    prop_assert!(end <= ENDS[usize::from(file)] && offset % 512 == 0);
                    let tables = offset < 1 << 16 || offset < 4 << 16 && end > 3 << 16;
                    prop_assert!(!writable || file == 1 && !tables);
                }
            }
        }
    }
}
