//! The first message: what an image is made of, and within which limits it is to be served. The
//! descriptors come beside it in this order: the arena, then the files from the deepest layer up,
//! the data file of a layer behind the layer, then what is only to be kept open, because locks hang
//! on it.

use crate::fields::{Reader, Writer, Wrong};

/// Most layers of an image, itself counted.
pub const MAX_LAYERS: usize = 16;
/// What says that the process goes on as who it is.
const NOBODY: u64 = u64::MAX;
const VERSION: u32 = 1;

/// What requests to a file must be multiples of, in bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Alignment {
    /// Every address.
    pub memory: u32,
    /// Every length and offset.
    pub offset: u32,
}

/// What the process has to know of a file that it gets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FileStart {
    /// Of its requests.
    pub alignment: Alignment,
}

/// What a layer is read as.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// Its bytes are the disk.
    Raw,
    /// A qcow2 image.
    Qcow2 {
        /// It has marks that are to be hidden from whoever reads it.
        marked: bool,
        /// Its data file, if it has one.
        data: Option<FileStart>,
    },
}

/// A layer of an image.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Layer {
    /// What it is.
    pub format: Format,
    /// Its file.
    pub file: FileStart,
    /// Whether its files are open for writing.
    pub writable: bool,
}

/// What an image is made of, and what its process may take.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Start {
    /// From the deepest up; at most [`MAX_LAYERS`].
    pub layers: Vec<Layer>,
    /// Of the disk.
    pub size_bytes: u64,
    /// Of a cluster.
    pub cluster_bytes: u64,
    /// What places that are told have to be multiples of; zero if none are to be told.
    pub align: u64,
    /// What of the file with the data of the top layer is no data, from and to.
    pub reserved: [(u64, u64); 3],
    /// Where the level-1 table and the refcount table of the top layer are, from and to.
    pub tables: [(u64, u64); 2],
    /// The user and group to become; `None` keeps the present ones.
    pub user: Option<u32>,
    /// The most address space.
    pub memory_bytes: u64,
    /// Where a file may end that it writes.
    pub file_bytes: u64,
}

impl Start {
    /// Size of the message.
    pub const BYTES: usize = 704;

    /// As bytes.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let mut out = Writer::default();
        let count = u32::try_from(self.layers.len()).unwrap_or(u32::MAX);
        out.u32(VERSION).u32(count);
        for number in [self.size_bytes, self.cluster_bytes, self.align] {
            out.u64(number);
        }
        for (from, to) in self.reserved.into_iter().chain(self.tables) {
            out.u64(from).u64(to);
        }
        out.u64(self.user.map_or(NOBODY, u64::from)).u64(self.memory_bytes).u64(self.file_bytes);
        for layer in &self.layers {
            let (qcow2, marked, data) = match layer.format {
                Format::Raw => (false, false, None),
                Format::Qcow2 { marked, data } => (true, marked, data),
            };
            for flag in [qcow2, marked, layer.writable, data.is_some()] {
                out.u32(flag.into());
            }
            for file in [Some(layer.file), data] {
                let Alignment { memory, offset } =
                    file.map_or(Alignment { memory: 0, offset: 0 }, |file| file.alignment);
                out.u32(memory).u32(offset);
            }
        }
        out.padded(Self::BYTES)
    }

    /// From bytes.
    ///
    /// # Errors
    /// They are no start.
    pub fn decode(bytes: &[u8]) -> Result<Self, Wrong> {
        let mut read = Reader::of(bytes, Self::BYTES)?;
        let (version, count) = (read.u32()?, read.u32()?);
        if version != VERSION {
            return Err(Wrong::Value { what: "the version", value: version.into() });
        }
        let many = usize::try_from(count).unwrap_or(usize::MAX);
        if !(1..=MAX_LAYERS).contains(&many) {
            return Err(Wrong::Value { what: "the number of layers", value: count.into() });
        }
        let (size_bytes, cluster_bytes, align) = (read.u64()?, read.u64()?, read.u64()?);
        let mut ranges = [(0, 0); 5];
        for range in &mut ranges {
            *range = (read.u64()?, read.u64()?);
        }
        let [reserved @ .., l1, refcounts] = ranges;
        let tables = [l1, refcounts];
        let user = read.u64()?;
        let user = if user == NOBODY {
            None
        } else {
            let wrong = Wrong::Value { what: "the user", value: user };
            Some(u32::try_from(user).map_err(|_| wrong)?)
        };
        let (memory_bytes, file_bytes) = (read.u64()?, read.u64()?);
        let layers = (0..many).map(|_| layer(&mut read)).collect::<Result<_, _>>()?;
        Ok(Self {
            layers,
            size_bytes,
            cluster_bytes,
            align,
            reserved,
            tables,
            user,
            memory_bytes,
            file_bytes,
        })
    }

    /// How many files it has.
    #[must_use]
    pub fn files(&self) -> usize {
        let of = |layer: &Layer| match layer.format {
            Format::Qcow2 { data: Some(_), .. } => 2,
            Format::Raw | Format::Qcow2 { .. } => 1,
        };
        self.layers.iter().map(of).sum()
    }
}

fn layer(read: &mut Reader<'_>) -> Result<Layer, Wrong> {
    let (qcow2, marked) = (read.flag("the format")?, read.flag("the mark")?);
    let (writable, has_data) = (read.flag("the access")?, read.flag("the data file")?);
    let mut alignment = || Ok(Alignment { memory: read.u32()?, offset: read.u32()? });
    let (file, data) = (alignment()?, alignment()?);
    let format = match qcow2 {
        true => {
            let data = has_data.then_some(FileStart { alignment: data });
            Format::Qcow2 { marked, data }
        }
        false => Format::Raw,
    };
    Ok(Layer { format, file: FileStart { alignment: file }, writable })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn layer() -> impl Strategy<Value = Layer> {
        let alignment = (any::<u32>(), any::<u32>())
            .prop_map(|(memory, offset)| FileStart { alignment: Alignment { memory, offset } });
        let kinds = (any::<bool>(), any::<bool>(), prop::option::of(alignment.clone()));
        (kinds, alignment, any::<bool>()).prop_map(|((qcow2, marked, data), file, writable)| {
            let format = if qcow2 { Format::Qcow2 { marked, data } } else { Format::Raw };
            Layer { format, file, writable }
        })
    }

    proptest! {
        #[test]
        fn a_start_comes_back_as_it_was(
            layers in prop::collection::vec(layer(), 1..=MAX_LAYERS),
            numbers in any::<[u64; 5]>(),
            reserved in any::<[(u64, u64); 3]>(),
            tables in any::<[(u64, u64); 2]>(),
            user in prop::option::of(any::<u32>()),
        ) {
            let [size_bytes, cluster_bytes, align, memory_bytes, file_bytes] = numbers;
            let start = Start {
                layers,
                size_bytes,
                cluster_bytes,
                align,
                reserved,
                tables,
                user,
                memory_bytes,
                file_bytes,
            };
            prop_assert_eq!(Start::decode(&start.encode()), Ok(start));
        }

        #[test]
        fn no_bytes_make_the_decoder_panic(
            bytes in prop::collection::vec(any::<u8>(), Start::BYTES),
            count in 0_u8..20,
        ) {
            let mut near = bytes.clone();
            near[..8].copy_from_slice(&[1, 0, 0, 0, count, 0, 0, 0]);
            for bytes in [bytes, near] {
                if let Ok(start) = Start::decode(&bytes) {
                    prop_assert!((1..=MAX_LAYERS).contains(&start.layers.len()));
                }
            }
        }
    }
}
