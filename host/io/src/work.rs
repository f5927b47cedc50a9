//! What a unit asks of a disk: all that its cost depends on.

use moirai_devices::blk::Op;
use moirai_scheduler::device::Kind;

/// A kind and a size.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Work {
    pub(crate) kind: Kind,
    pub(crate) bytes: u64,
    /// It will be nothing but one operation on a file, as far as is known.
    pub(crate) plain: bool,
}

impl Work {
    /// `data_bytes`: length of the data of a read or write.
    pub(crate) fn of(op: Op, data_bytes: u64, plain: bool) -> Self {
        let bytes = match op {
            Op::Read { .. } | Op::Write { .. } => data_bytes,
            Op::Discard(range) | Op::WriteZeroes(range) => range.len_bytes,
            Op::Flush => 0,
        };
        Self { kind: kind(op), bytes, plain }
    }

    /// Not more than so many bytes of it.
    pub(crate) fn at_most(self, bytes: u64) -> Self {
        Self { bytes: self.bytes.min(bytes), ..self }
    }
}

fn kind(op: Op) -> Kind {
    match op {
        Op::Read { .. } => Kind::Read,
        Op::Write { .. } => Kind::Write,
        Op::Flush => Kind::Flush,
        Op::Discard(_) => Kind::Discard,
        Op::WriteZeroes(_) => Kind::WriteZeroes,
    }
}
