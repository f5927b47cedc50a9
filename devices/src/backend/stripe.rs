//! A stripe set: several files that together are one volume, unit after unit in turn.
//!
//! Unit `k` of the volume is unit `k / n` of file `k % n`. So a range of the volume is one range of
//! each file that it touches, and one request becomes one sub-request per file, however long it is.
//! What the files have behind their last whole unit makes one more row, of shorter units.

use std::path::PathBuf;

use moirai_abi::limits::{STRIPE_FILES, STRIPE_UNIT_BYTES_MAX, STRIPE_UNIT_STEP_BYTES};
use smallvec::SmallVec;

use super::error::VolumeError;
use super::file::DiskFile;
use super::range::moved;
use super::sub_request::{Place, SubRequest};
use crate::blk::{Op, Request};

/// The geometry of a stripe set.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Stripes {
    pub(super) unit_bytes: u64,
    pub(super) files: usize,
    /// Where the row of shorter units begins in the volume, and how long these are.
    pub(super) last_row: (u64, u64),
}

/// A piece of a volume's range that lies on one file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Piece {
    pub(super) file: usize,
    /// Where on the file, in bytes.
    pub(super) offset_bytes: u64,
    pub(super) len_bytes: u64,
}

impl Stripes {
    /// Checks the files of a set; returns its geometry and usable size in bytes.
    pub(super) fn of(
        files: &[DiskFile],
        paths: &[PathBuf],
        unit_bytes: u64,
    ) -> Result<(Self, u64), VolumeError> {
        let units = STRIPE_UNIT_STEP_BYTES..=STRIPE_UNIT_BYTES_MAX;
        let unit_fits =
            units.contains(&unit_bytes) && unit_bytes.is_multiple_of(STRIPE_UNIT_STEP_BYTES);
        let name = |place: usize| {
            paths.get(place).map(|path| path.display().to_string()).unwrap_or_default()
        };
        let first = files.first().filter(|_| unit_fits && STRIPE_FILES.contains(&files.len()));
        let first = first.ok_or(VolumeError::StripeShape)?;
        let size_bytes = first.size_bytes();
        for (place, file) in files.iter().enumerate() {
            if files.iter().take(place).any(|other| other.id() == file.id()) {
                return Err(VolumeError::StripeTwice(name(place)));
            }
            if file.size_bytes() != size_bytes {
                return Err(VolumeError::StripeSizes {
                    first: name(0),
                    first_bytes: size_bytes,
                    other: name(place),
                    other_bytes: file.size_bytes(),
                });
            }
        }
        if size_bytes < unit_bytes {
            let path = name(0);
            return Err(VolumeError::TooSmall { path, size_bytes, least_bytes: unit_bytes });
        }
        let count = files.len() as u64;
        let rest = size_bytes % unit_bytes;
        let last_row = ((size_bytes - rest).saturating_mul(count), rest);
        let stripes = Self { unit_bytes, files: files.len(), last_row };
        Ok((stripes, size_bytes.saturating_mul(count)))
    }

    /// The pieces of a range, in the order of the volume.
    pub(super) fn pieces(self, offset_bytes: u64, len_bytes: u64) -> impl Iterator<Item = Piece> {
        let (unit, files) = (self.unit_bytes.max(1), self.files.max(1));
        let end = offset_bytes.saturating_add(len_bytes);
        let mut at = offset_bytes;
        std::iter::from_fn(move || {
            let (last, short) = self.last_row;
            // In the last row everything begins anew with shorter units.
            let (base, unit) = if at < last { (0, unit) } else { (last, short.max(1)) };
            let (number, within) = ((at - base) / unit, (at - base) % unit);
            let len_bytes = (unit - within).min(end.saturating_sub(at));
            let file = usize::try_from(number % files as u64).unwrap_or(0);
            let offset_bytes = base / files as u64 + number / files as u64 * unit + within;
            at += len_bytes;
            (len_bytes > 0).then_some(Piece { file, offset_bytes, len_bytes })
        })
    }

    /// The range of each file that a range of the volume covers: offset and length in bytes, length
    /// zero where it covers none.
    fn ranges(self, offset_bytes: u64, len_bytes: u64) -> Vec<(u64, u64)> {
        let mut ranges = vec![(0, 0); self.files];
        for piece in self.pieces(offset_bytes, len_bytes) {
            let Some((start, len)) = ranges.get_mut(piece.file) else { continue };
            if *len == 0 {
                *start = piece.offset_bytes;
            }
            *len += piece.len_bytes;
        }
        ranges
    }

    /// What each file has to do for a request.
    pub(super) fn split(self, request: &Request) -> SmallVec<[SubRequest; 1]> {
        let nothing = || request.buffers.slice(0, 0);
        let (offset_bytes, len_bytes) = match request.op {
            Op::Read { offset_bytes } | Op::Write { offset_bytes, .. } => {
                (offset_bytes, request.buffers.len_bytes())
            }
            Op::Discard(range) | Op::WriteZeroes(range) => (range.offset_bytes, range.len_bytes),
            Op::Flush => {
                let flush = |file| SubRequest::new(Place::File(file), Op::Flush, nothing());
                return (0..self.files).map(flush).collect();
            }
        };
        let shares = self.pieces(offset_bytes, len_bytes).map(|it| (it.file, it.len_bytes));
        let buffers = request.buffers.deal(self.files, shares);
        let ranges = self.ranges(offset_bytes, len_bytes).into_iter().zip(buffers).enumerate();
        ranges
            .filter(|(_, ((_, len_bytes), _))| *len_bytes > 0)
            .map(|(file, ((offset_bytes, len_bytes), buffers))| {
                SubRequest::new(
                    Place::File(file),
                    moved(request.op, offset_bytes, len_bytes),
                    buffers,
                )
            })
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        /// Against a model that places every byte by itself.
        #[test]
        fn every_byte_of_a_range_lies_where_the_units_take_turns(
            files in 2_usize..6,
            unit in 1_u64..40,
            offset in 0_u64..500,
            len in 0_u64..500,
            rows in 0_u64..20,
            short in 0_u64..40,
        ) {
            let row_bytes = unit * files as u64;
            let short = short % unit;
            let (last, size) = (rows * row_bytes, rows * row_bytes + short * files as u64);
            let offset = offset.min(size);
            let len = len.min(size - offset);
            let stripes = Stripes { unit_bytes: unit, files, last_row: (last, short) };
            let mut at = offset;
            for piece in stripes.pieces(offset, len) {
                for byte in 0..piece.len_bytes {
                    if at >= last {
                        prop_assert_eq!(piece.file as u64, (at - last) / short);
                        let place = rows * unit + (at - last) % short;
                        prop_assert_eq!(piece.offset_bytes + byte, place);
                        at += 1;
                        continue;
                    }
                    let (row, within) = (at / row_bytes, at % row_bytes);
                    prop_assert_eq!(piece.file as u64, within / unit);
                    prop_assert_eq!(piece.offset_bytes + byte, row * unit + within % unit);
                    at += 1;
                }
            }
            prop_assert_eq!(at, offset + len);
            // Each file's pieces are one range without a hole.
            let ranges = stripes.ranges(offset, len);
            for (file, (start, length)) in ranges.into_iter().enumerate() {
                let mut next = start;
                for piece in stripes.pieces(offset, len).filter(|piece| piece.file == file) {
                    prop_assert_eq!(piece.offset_bytes, next);
                    next += piece.len_bytes;
                }
                prop_assert_eq!(next, start + length);
            }
        }
    }
}
