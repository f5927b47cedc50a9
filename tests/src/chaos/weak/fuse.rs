//! The bytes of the FUSE protocol that a file system with one file needs (linux/fuse.h, 7.31).

use std::io;

pub(super) const LOOKUP: u32 = 1;
pub(super) const FORGET: u32 = 2;
pub(super) const GETATTR: u32 = 3;
pub(super) const SETATTR: u32 = 4;
pub(super) const OPEN: u32 = 14;
pub(super) const READ: u32 = 15;
pub(super) const WRITE: u32 = 16;
pub(super) const STATFS: u32 = 17;
pub(super) const RELEASE: u32 = 18;
pub(super) const FSYNC: u32 = 20;
pub(super) const FLUSH: u32 = 25;
pub(super) const INIT: u32 = 26;
pub(super) const OPENDIR: u32 = 27;
pub(super) const READDIR: u32 = 28;
pub(super) const RELEASEDIR: u32 = 29;
pub(super) const ACCESS: u32 = 34;
pub(super) const INTERRUPT: u32 = 36;
pub(super) const BATCH_FORGET: u32 = 42;

pub(super) const NO_ENTRY: i32 = 2;
pub(super) const IO_ERROR: i32 = 5;
pub(super) const NO_SPACE: i32 = 28;
pub(super) const NO_SUCH_CALL: i32 = 38;

/// The largest write, in bytes.
const LARGEST: u32 = 128 << 10;
/// Room for a request: the largest write and its headers.
pub(super) const BUFFER: usize = (LARGEST as usize) + 4096;
const HEADER: usize = 40;
/// Headers of a read and a write.
const IO_HEADER: usize = 40;
const ROOT: u64 = 1;
const FILE: u64 = 2;
/// FUSE_ASYNC_READ, FUSE_BIG_WRITES, FUSE_ASYNC_DIO, FUSE_MAX_PAGES.
const ABILITIES: u32 = 1 | 1 << 5 | 1 << 15 | 1 << 22;
/// FOPEN_DIRECT_IO: the kernel caches nothing.
const DIRECT: u32 = 1;

/// What the kernel asks.
pub(super) struct Request<'a> {
    pub(super) operation: u32,
    pub(super) unique: u64,
    pub(super) node: u64,
    body: &'a [u8],
}

/// What it is told.
pub(super) enum Answer {
    Bytes(Vec<u8>),
    Error(i32),
}

fn word(bytes: &[u8], at: usize) -> u32 {
    let word = bytes.get(at..at + 4).and_then(|word| word.try_into().ok());
    word.map_or(0, u32::from_ne_bytes)
}

fn long(bytes: &[u8], at: usize) -> u64 {
    let long = bytes.get(at..at + 8).and_then(|long| long.try_into().ok());
    long.map_or(0, u64::from_ne_bytes)
}

impl<'a> Request<'a> {
    /// Reads a request; none if it is too short.
    pub(super) fn parse(bytes: &'a [u8]) -> Option<Self> {
        let body = bytes.get(HEADER..)?;
        let (operation, unique, node) = (word(bytes, 4), long(bytes, 8), long(bytes, 16));
        Some(Self { operation, unique, node, body })
    }

    /// The name that is looked up.
    pub(super) fn name(&self) -> &[u8] {
        self.body.split(|byte| *byte == 0).next().unwrap_or_default()
    }

    /// Offset and length of a read or write.
    pub(super) fn range(&self) -> Option<(u64, usize)> {
        let length = word(self.body, 16).min(LARGEST * 8);
        Some((long(self.body, 8), usize::try_from(length).ok()?))
    }

    /// The size that is to be set (FATTR_SIZE).
    pub(super) fn new_size(&self) -> Option<u64> {
        const SIZE: u32 = 1 << 3;
        (word(self.body, 0) & SIZE != 0).then(|| long(self.body, 16))
    }

    /// What a write of this length writes.
    pub(super) fn data(&self, length: usize) -> &[u8] {
        let data = self.body.get(IO_HEADER..).unwrap_or_default();
        &data[..length.min(data.len())]
    }
}

impl Answer {
    pub(super) const fn empty() -> Self {
        Self::Bytes(Vec::new())
    }

    /// With its header, for the request of this number.
    pub(super) fn bytes(&self, unique: u64) -> Vec<u8> {
        let (error, body) = match self {
            Self::Bytes(body) => (0, body.as_slice()),
            Self::Error(error) => (-error, &[][..]),
        };
        let length = u32::try_from(16 + body.len()).unwrap_or(16);
        let header = [&length.to_ne_bytes()[..], &error.to_ne_bytes(), &unique.to_ne_bytes()];
        [&header.concat(), body].concat()
    }
}

impl From<io::Error> for Answer {
    fn from(error: io::Error) -> Self {
        Self::Error(error.raw_os_error().unwrap_or(IO_ERROR))
    }
}

fn words(words: &[u32]) -> Vec<u8> {
    words.iter().flat_map(|word| word.to_ne_bytes()).collect()
}

fn longs(longs: &[u64]) -> Vec<u8> {
    longs.iter().flat_map(|long| long.to_ne_bytes()).collect()
}

/// Version 7.31, and what this file system can do.
pub(super) fn init() -> Vec<u8> {
    const PAGES: u32 = LARGEST / 4096;
    // 16 requests in the background, congested at 12: two numbers of 16 bits each.
    let background = 16 | 12 << 16;
    [words(&[7, 31, LARGEST, ABILITIES, background, LARGEST, 1, PAGES]), vec![0; 32]].concat()
}

/// What is known of a node: the folder or the file.
fn node(node: u64, size: u64) -> Vec<u8> {
    let (mode, size) = if node == ROOT { (0o040_755, 4096) } else { (0o100_600, size) };
    let numbers = longs(&[node, size, size.div_ceil(512), 0, 0, 0]);
    [numbers, words(&[0, 0, 0, mode, 1, 0, 0, 0, 4096, 0])].concat()
}

/// The file's entry, which nobody may remember: it is there as long as the file system is.
pub(super) fn entry(size: u64) -> Vec<u8> {
    [longs(&[FILE, 0, 0, 0]), words(&[0, 0]), node(FILE, size)].concat()
}

pub(super) fn attributes(of: u64, size: u64) -> Vec<u8> {
    [longs(&[0]), words(&[0, 0]), node(of, size)].concat()
}

pub(super) fn open() -> Vec<u8> {
    [longs(&[1]), words(&[DIRECT, 0])].concat()
}

pub(super) fn written(length: usize) -> Vec<u8> {
    words(&[u32::try_from(length).unwrap_or(0), 0])
}

/// A file system that is full: its file is all of it.
pub(super) fn statfs() -> Vec<u8> {
    [longs(&[1 << 14, 0, 0, 2, 0]), words(&[4096, 255, 4096, 0]), vec![0; 24]].concat()
}
