//! The header of a qcow2 image, as far as it decides what to open and whether to.
//!
//! Pure, for bytes that anybody may have written. imago reads the rest of the format. This parser
//! exists for three reasons: we open the files that an image names, a version 2 image has its
//! backing format where imago does not look, and a header may claim anything.

use moirai_abi::shell::Word;
use moirai_image_wire::format::MAGIC;

use super::fields::HeaderError::{self, Damaged, NotQcow2, Unsupported};
use super::fields::{text, u32_at, u64_at};
use super::tables::Tables;

const V2_BYTES: usize = 72;
const V3_BYTES: usize = 104;
/// Longest name in the header.
const MAX_NAME_BYTES: usize = 1023;
/// Kinds of header extensions.
const BACKING_FORMAT: u32 = 0xe279_2aca;
const DATA_FILE_NAME: u32 = 0x4441_5441;
/// Bits of the incompatible features.
const DIRTY: u64 = 1;
const CORRUPT: u64 = 1 << 1;
const DATA_FILE: u64 = 1 << 2;
const COMPRESSION: u64 = 1 << 3;
const EXTENDED_L2: u64 = 1 << 4;
/// Counts of clusters in use have at most 64 bits.
const MAX_REFCOUNT_ORDER: u32 = 6;
/// Where a version 3 header says how clusters are compressed, if it is not the usual way.
const COMPRESSION_AT: usize = 104;

/// What tables of a small disk may take beside its data: some clusters of the largest size.
const BESIDE_BYTES: u64 = 64 << 20;

/// Largest cluster; names and extensions lie in the first one.
pub(in crate::backend) const MAX_CLUSTER_BYTES: u64 = 2 << 20;

/// What the header says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::backend) struct Header {
    pub(in crate::backend) version: u32,
    pub(in crate::backend) cluster_bytes: u64,
    pub(in crate::backend) size_bytes: u64,
    pub(in crate::backend) tables: Tables,
    pub(in crate::backend) backing: Option<String>,
    pub(in crate::backend) backing_format: Option<String>,
    /// `Some(None)`: it has a data file and does not say which.
    pub(in crate::backend) data_file: Option<Option<String>>,
    /// What the image is marked with. One that is may only be read.
    pub(in crate::backend) mark: Option<Mark>,
}

/// Why an image ought to be repaired before it is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::backend) enum Mark {
    /// Its last writer did not close it: counts of clusters in use may be wrong.
    Dirty,
    /// Somebody has found contradictions in it.
    Corrupt,
}

/// Stands in commands for the path of the image, which its header does not know.
pub(in crate::backend) const IMAGE: &str = "{image}";

impl Mark {
    /// What is the matter with the image of that name, and what to do.
    pub(in crate::backend) fn words(self, name: &str) -> String {
        let matter = match self {
            Self::Dirty => "was not closed",
            Self::Corrupt => "is marked as corrupt",
        };
        format!("{matter}; repair it: `qemu-img check -r all {}`", Word(name))
    }
}

impl Header {
    /// Parses `bytes`, the beginning of a file of `file_bytes`: as much of it as there is up to
    /// [`MAX_CLUSTER_BYTES`].
    pub(in crate::backend) fn parse(bytes: &[u8], file_bytes: u64) -> Result<Self, HeaderError> {
        if bytes.get(..4) != Some(MAGIC) || bytes.len() < V2_BYTES {
            return Err(NotQcow2);
        }
        let version = u32_at(bytes, 4)?;
        if !(2..=3).contains(&version) {
            return Err(Unsupported(format!(
                "has version {version} of qcow2, not 2 or 3; convert it: `qemu-img convert -O \
                 qcow2 {IMAGE} {IMAGE}.new`"
            )));
        }
        let cluster_bits = u32_at(bytes, 20)?;
        if !(9..=21).contains(&cluster_bits) {
            return Err(Damaged(format!("clusters of 2^{cluster_bits} bytes")));
        }
        let cluster_bytes = 1_u64 << cluster_bits;
        let mut header = Self {
            version,
            cluster_bytes,
            size_bytes: u64_at(bytes, 24)?,
            tables: Tables::read(bytes, cluster_bytes)?,
            backing: None,
            backing_format: None,
            data_file: None,
            mark: None,
        };
        encryption(u32_at(bytes, 32)?)?;
        let first = usize::try_from(cluster_bytes).unwrap_or(usize::MAX).min(bytes.len());
        let first = bytes.get(..first).unwrap_or_default();
        header.extensions(first)?;
        header.backing = backing_name(first)?;
        header.tables.check(header.size_bytes, file_bytes)?;
        Ok(header)
    }

    /// Where a file of the image may end that ends at `file_bytes` now. Every cluster may have to
    /// be written anew, because a snapshot keeps what is there; tables are at most a sixteenth.
    pub(super) fn most_bytes(&self, file_bytes: u64) -> u64 {
        let data = self.size_bytes.saturating_add(self.size_bytes / 8);
        file_bytes.saturating_add(data).saturating_add(BESIDE_BYTES)
    }

    /// Reads features and extensions.
    fn extensions(&mut self, bytes: &[u8]) -> Result<(), HeaderError> {
        let mut at = V2_BYTES;
        let mut features = 0;
        if self.version == 3 {
            features = u64_at(bytes, 72)?;
            at = u32_at(bytes, 100)? as usize;
            if at < V3_BYTES || at > bytes.len() || !at.is_multiple_of(8) {
                return Err(Damaged(format!("a header of {at} bytes")));
            }
            let order = u32_at(bytes, 96)?;
            if order > MAX_REFCOUNT_ORDER {
                return Err(Damaged(format!("counts of clusters in use of 2^{order} bits")));
            }
            let compression = bytes.get(COMPRESSION_AT).copied().unwrap_or(0);
            if at > COMPRESSION_AT && features & COMPRESSION == 0 && compression != 0 {
                let what = format!("compression of type {compression}, and no feature says so");
                return Err(Damaged(what));
            }
        }
        // A header may end where its file or the name of the backing file begins.
        while let (Ok(kind), Ok(len)) = (u32_at(bytes, at), u32_at(bytes, at.saturating_add(4))) {
            let backing = u64_at(bytes, 8)?;
            if kind == 0 || (self.version == 2 && at as u64 >= backing && backing > 0) {
                break;
            }
            let start = at.saturating_add(8);
            let end = start.saturating_add(len as usize);
            let data = bytes.get(start..end);
            let data = data.ok_or_else(|| Damaged("an extension leaves the header".to_owned()))?;
            match kind {
                BACKING_FORMAT => self.backing_format = Some(text(data)?),
                DATA_FILE_NAME => self.data_file = Some(Some(text(data)?)),
                _ => {}
            }
            at = end.next_multiple_of(8);
        }
        if features & DATA_FILE == 0 {
            self.data_file = None;
        } else if self.data_file.is_none() {
            self.data_file = Some(None);
        }
        self.mark = match features {
            bits if bits & CORRUPT != 0 => Some(Mark::Corrupt),
            bits if bits & DIRTY != 0 => Some(Mark::Dirty),
            _ => None,
        };
        unsupported(features, bytes.get(COMPRESSION_AT).copied().unwrap_or(0))
    }
}

/// Refuses an encrypted image.
fn encryption(method: u32) -> Result<(), HeaderError> {
    let method = match method {
        0 => return Ok(()),
        1 => "AES".to_owned(),
        2 => "LUKS".to_owned(),
        other => format!("method {other}"),
    };
    Err(Unsupported(format!(
        "is encrypted ({method}), which is not supported; decrypt it: `qemu-img convert --object \
         secret,id=k,file=KEY --image-opts \
         driver=qcow2,encrypt.key-secret=k,file.filename={IMAGE} -O qcow2 {IMAGE}.new`, or \
         encrypt within the guest"
    )))
}

/// Refuses features by name.
fn unsupported(features: u64, compression: u8) -> Result<(), HeaderError> {
    let known = DIRTY | CORRUPT | DATA_FILE | COMPRESSION | EXTENDED_L2;
    let what = match features {
        bits if bits & !known != 0 => {
            let unknown = bits & !known;
            format!(
                "uses incompatible features {unknown:#x} that are not known here; convert it with \
                 the program that wrote it: `qemu-img convert -O qcow2 {IMAGE} {IMAGE}.new`"
            )
        }
        bits if bits & COMPRESSION != 0 => {
            let method =
                if compression == 1 { "zstd".to_owned() } else { format!("type {compression}") };
            format!(
                "is compressed with {method}, which is not supported; convert it: `qemu-img \
                 convert -O qcow2 -o compression_type=zlib {IMAGE} {IMAGE}.new`"
            )
        }
        bits if bits & EXTENDED_L2 != 0 => {
            format!(
                "has extended level-2 entries (subclusters), which are not supported; convert it: \
                 `qemu-img convert -O qcow2 -o extended_l2=off {IMAGE} {IMAGE}.new`"
            )
        }
        _ => return Ok(()),
    };
    Err(Unsupported(what))
}

fn backing_name(bytes: &[u8]) -> Result<Option<String>, HeaderError> {
    let offset = u64_at(bytes, 8)?;
    let len = u32_at(bytes, 16)? as usize;
    // As in QEMU, a name of no length is none.
    if offset == 0 || len == 0 {
        return Ok(None);
    }
    let start = usize::try_from(offset).unwrap_or(usize::MAX);
    let name = bytes.get(start..start.saturating_add(len));
    let name = name.filter(|_| len <= MAX_NAME_BYTES && start >= V2_BYTES);
    let name =
        name.ok_or_else(|| Damaged("the backing file's name leaves the header".to_owned()))?;
    text(name).map(Some)
}
