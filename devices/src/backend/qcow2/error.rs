//! Why an image cannot be used.

use std::io;

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
    #[error("image {image} is damaged: {what}; `qemu-img check {image}` says more")]
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
         `qemu-img rebase -u -b {name} -F FORMAT {image}`"
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
        "image {image} has more than {most} layers of backing files; merge some: `qemu-img commit {image}`"
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
    /// The library that reads the format broke on it.
    #[error("image {0} cannot be opened: the library that reads qcow2 broke on it")]
    Broke(String),
}
