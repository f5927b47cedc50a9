//! Why a volume cannot be used.

use std::io;

use super::qcow2::ImageError;

/// Why a volume cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum VolumeError {
    /// There is nothing at this path.
    #[error("volume {0} does not exist; create it or correct the path")]
    Missing(String),
    /// No permission to open it so.
    #[error("no permission to {how} volume {path}; change its mode or owner")]
    Forbidden {
        /// The volume.
        path: String,
        /// "read" or "read and write".
        how: &'static str,
    },
    /// A directory, a pipe, a character device.
    #[error("volume {0} is neither a file nor a block device")]
    NotAVolume(String),
    /// Nothing is in it.
    #[error("volume {0} is empty; give it a size: `truncate -s 1G {0}`")]
    Empty(String),
    /// A device that ends within a block: the kernel does not get at its last bytes.
    #[error(
        "volume {path} has {size_bytes} bytes, and the last block of {block} is cut off: nobody can \
         read it; make the device larger, or set it up with blocks of 512 bytes"
    )]
    TornDevice {
        /// The volume.
        path: String,
        /// Its size.
        size_bytes: u64,
        /// In what it is read and written.
        block: u32,
    },
    /// Less than one stripe unit in a stripe set.
    #[error("volume {path} has {size_bytes} bytes, less than {least_bytes}")]
    TooSmall {
        /// The volume.
        path: String,
        /// Its size.
        size_bytes: u64,
        /// What it needs to have.
        least_bytes: u64,
    },
    /// Two files of a stripe set differ in size.
    #[error(
        "the files of a stripe set have to have the same size: {first} has {first_bytes} bytes, \
         {other} has {other_bytes}"
    )]
    StripeSizes {
        /// The first file.
        first: String,
        /// Its size.
        first_bytes: u64,
        /// One that differs.
        other: String,
        /// Its size.
        other_bytes: u64,
    },
    /// The same file is in a stripe set twice.
    #[error("{0} is in the stripe set twice")]
    StripeTwice(String),
    /// A stripe set of no files, of too many, or with an impossible unit.
    #[error("a stripe set has 2 to 64 files and a unit of 4 KiB to 64 MiB, a multiple of 4 KiB")]
    StripeShape,
    /// An image that cannot be used.
    #[error(transparent)]
    Image(#[from] ImageError),
    /// Anything else that went wrong when it was opened.
    #[error("volume {path}: {source}")]
    Io {
        /// The volume.
        path: String,
        /// Why.
        source: io::Error,
    },
}
