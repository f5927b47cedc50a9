//! Why a volume or an image cannot be used.

use std::io;

use moirai_abi::shell::Word;

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
    /// A name, or a symlink, leads out of the folder of its disk.
    #[error("volume {path} leads out of {root}, the folder of its disk")]
    Outside {
        /// Its name.
        path: String,
        /// The folder.
        root: String,
    },
    /// A directory, a pipe, a character device.
    #[error("volume {0} is neither a file nor a block device")]
    NotAVolume(String),
    /// Nothing is in it.
    #[error("volume {0} is empty; give it a size: `truncate -s 1G {0}`")]
    Empty(String),
    /// A device that ends within a block: the kernel does not get at its last bytes.
    #[error(
        "volume {path} has {size_bytes} bytes, and the last block of {block} is cut off: nobody \
         can read it; make the device larger, or set it up with blocks of 512 bytes"
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

/// Why an image cannot be used. Every variant names the file that is at fault.
#[derive(Debug, thiserror::Error)]
pub enum ImageError {
    /// No qcow2 header.
    #[error("{0} is not a qcow2 image; write format = \"raw\" if it is a raw one")]
    NotQcow2(String),
    /// Something that this host cannot do.
    #[error("image {image} {what}")]
    Unsupported {
        /// The image.
        image: String,
        /// What is the matter, and what to do.
        what: String,
    },
    /// Header or tables contradict themselves or the file.
    #[error("image {image} is damaged: {what}; `qemu-img check {}` says more", Word(image))]
    Damaged {
        /// The image.
        image: String,
        /// What is wrong.
        what: String,
    },
    /// It names a file outside the folder of its disk.
    #[error("image {image} names {name}, which is not below the disk's path {root}")]
    Outside {
        /// The image.
        image: String,
        /// What it names.
        name: String,
        /// The disk's path.
        root: String,
    },
    /// It names a file that cannot be opened.
    #[error("image {image} names {name}, which cannot be opened: {source}")]
    Unreadable {
        /// The image.
        image: String,
        /// What it names.
        name: String,
        /// Why.
        source: io::Error,
    },
    /// It does not say in which format its backing file is, and formats are never guessed.
    #[error(
        "image {image} does not say whether its backing file {name} is raw or qcow2; tell it: \
         `qemu-img rebase -u -b {} -F FORMAT {}`",
        Word(name),
        Word(image)
    )]
    NoFormat {
        /// The image.
        image: String,
        /// Its backing file.
        name: String,
    },
    /// Another volume, or another program that locks it.
    #[error("image {0} is in use, and one of its users writes it")]
    InUse(String),
    /// A file is below itself.
    #[error("the backing files of {0} form a loop")]
    Loop(String),
    /// Too many layers.
    #[error(
        "image {image} has more than {most} layers of backing files; merge some: \
         `qemu-img commit {}`",
        Word(image)
    )]
    TooDeep {
        /// The image.
        image: String,
        /// The most that there may be.
        most: usize,
    },
    /// Its tables are too large.
    #[error("the tables of image {image} take {needed_mib} MiB of memory, more than {most_mib}")]
    TooLarge {
        /// The image.
        image: String,
        /// What they take.
        needed_mib: u64,
        /// The most that they may take.
        most_mib: u64,
    },
    /// The library that reads the format refuses it.
    #[error("image {image} cannot be opened: {source}")]
    Library {
        /// The image.
        image: String,
        /// Why.
        source: io::Error,
    },
    /// The library that reads the format broke on it: its process did not outlive that.
    #[error("image {image} cannot be opened: the library that reads qcow2 broke on it: {how}")]
    Broke {
        /// The image.
        image: String,
        /// What became of the process.
        how: String,
    },
    /// There is no process for it.
    #[error("image {image} cannot be served: {source}")]
    NoProcess {
        /// The image.
        image: String,
        /// Why.
        source: io::Error,
    },
}
