//! What both sides have to know of the format: where a header says what it is.

/// What a qcow2 image begins with: `QFI\xfb`.
pub const MAGIC: &[u8] = b"QFI\xfb";
/// Where the byte with the lowest bits of the incompatible features is.
pub const FEATURES_LAST_BYTE: u64 = 79;
/// Which of it are marks: they say nothing of the format, and that the image ought to be repaired.
pub const MARKS: u8 = 0b11;
