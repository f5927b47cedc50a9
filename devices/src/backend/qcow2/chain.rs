//! Opens an image and all that it is made of: its data file, its backing files, theirs.
//!
//! An image is data that somebody else wrote. This module opens the files that the image names,
//! below the folder of its disk and nowhere else; the image process gets open files and no name.
//! The format of a file is what the header says, and never guessed.

use std::fs::File;
use std::io;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::Duration;

use moirai_abi::shell::Word;
use moirai_image_wire as wire;
use rustix::fd::{AsFd, AsRawFd, OwnedFd};
use rustix::fs::{FlockOperation, Mode, OFlags, ResolveFlags, flock, open, openat2};

use super::courier::Luggage;
use super::fields::HeaderError;
use super::header::{Header, IMAGE, MAX_CLUSTER_BYTES};
use super::name::file_name;
use super::tables::MAX_TABLES_BYTES;
use crate::backend::error::{ImageError, VolumeError};
use crate::backend::file::{DiskFile, FileId, open_error};

/// Most layers of an image, itself counted.
const MAX_LAYERS: usize = wire::MAX_LAYERS;

/// How long an image may be locked by somebody else.
const LOCK_TRIES: u32 = 40;
const LOCK_PAUSE: Duration = Duration::from_millis(50);

/// An image whose files are open.
pub(super) struct Chain {
    /// What its process gets.
    pub(super) luggage: Luggage,
    /// In the order in which imago counts its storage: the deepest backing file first, the data
    /// file of a layer after the layer.
    pub(super) files: Vec<DiskFile>,
    /// Header of the top layer.
    pub(super) header: Header,
    /// How many of the files belong to the top layer.
    pub(super) top_files: usize,
    /// What is not as it should be, and no obstacle to reading.
    pub(super) warnings: Vec<String>,
}

/// One layer that was opened.
struct Layer {
    name: String,
    file: File,
    disk_file: DiskFile,
    /// `None` for a raw backing file.
    header: Option<Header>,
    data: Option<(File, DiskFile)>,
}

/// What a layer is opened as.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Format {
    Raw,
    Qcow2,
}

/// The folder of the disk.
struct Root<'a> {
    path: &'a Path,
    folder: OwnedFd,
}

/// Opens the image at `path`, relative to `root` or below it.
pub(super) fn open_chain(root: &Path, path: &Path, read_only: bool) -> Result<Chain, VolumeError> {
    let name = root.join(path).display().to_string();
    let folder = open(root, OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty());
    let folder = folder.map_err(|errno| open_error(errno.into(), name.clone(), read_only))?;
    let root = Root { path: root, folder };
    let mut place = root.relative(path).unwrap_or_else(|| path.to_owned());
    let opened = root.open(&place, read_only);
    let mut file = opened.map_err(|error| root.top_error(error, name, read_only))?;
    let mut format = Format::Qcow2;
    let mut layers: Vec<Layer> = Vec::new();
    loop {
        let read_only = read_only || !layers.is_empty();
        let name = root.path.join(&place).display().to_string();
        let id = FileId::of(&file.metadata().map_err(failed(&name))?);
        if let Some(top) = layers.first()
            && layers.iter().any(|above| above.disk_file.id() == id)
        {
            return Err(ImageError::Loop(top.name.clone()).into());
        }
        let layer = root.layer(file, name, &place, format, read_only)?;
        let backing = layer.header.as_ref().and_then(|header| header.backing.clone());
        let named = layer.header.as_ref().and_then(|header| header.backing_format.clone());
        layers.push(layer);
        let (Some(layer), Some(backing)) = (layers.last(), backing) else { break };
        if layers.len() == MAX_LAYERS {
            let image = layers.first().unwrap_or(layer).name.clone();
            return Err(ImageError::TooDeep { image, most: MAX_LAYERS }.into());
        }
        file_name(&layer.name, &backing)?;
        format = format_of(&layer.name, &backing, named.as_deref())?;
        (place, file) = root.open_named(&layer.name, &place, &backing, true)?;
    }
    check_memory(&layers)?;
    assemble(layers, read_only)
}

fn format_of(image: &str, name: &str, named: Option<&str>) -> Result<Format, ImageError> {
    match named {
        Some("raw") => Ok(Format::Raw),
        Some("qcow2") => Ok(Format::Qcow2),
        None => Err(ImageError::NoFormat { image: image.to_owned(), name: name.to_owned() }),
        Some(other) => {
            // An image names its backing file from its own folder.
            let folder = Path::new(image).parent().unwrap_or(Path::new(""));
            let old = folder.join(name).display().to_string();
            let (old, new) = (Word(&old), format!("{name}.new"));
            let (new, top) = (Word(&new), Word(image));
            let what = format!(
                "has a backing file of format {other:?}, not raw or qcow2; convert that: `qemu-img \
                 convert -O qcow2 {old} {old}.new`, and rebase: `qemu-img rebase -u -b {new} -F \
                 qcow2 {top}`"
            );
            Err(ImageError::Unsupported { image: image.to_owned(), what })
        }
    }
}

fn check_memory(layers: &[Layer]) -> Result<(), ImageError> {
    let headers = layers.iter().filter_map(|layer| layer.header.as_ref());
    let needed =
        headers.fold(0_u64, |sum, header| sum.saturating_add(header.tables.memory_bytes()));
    if needed <= MAX_TABLES_BYTES {
        return Ok(());
    }
    let image = layers.first().map(|layer| layer.name.clone()).unwrap_or_default();
    Err(ImageError::TooLarge { image, needed_mib: needed >> 20, most_mib: MAX_TABLES_BYTES >> 20 })
}

impl Root<'_> {
    /// A path as seen from here, if it is absolute and below.
    fn relative(&self, path: &Path) -> Option<PathBuf> {
        let below = path.strip_prefix(self.path).ok().map(Path::to_owned);
        below.or_else(|| {
            let whole = self.path.canonicalize().ok()?;
            path.strip_prefix(whole).ok().map(Path::to_owned)
        })
    }

    /// Opens a path below the folder; the kernel sees to it that no part of it leads out.
    fn open(&self, place: &Path, read_only: bool) -> io::Result<File> {
        let access = if read_only { OFlags::RDONLY } else { OFlags::RDWR };
        let flags = access | OFlags::CLOEXEC | OFlags::NONBLOCK | OFlags::NOCTTY;
        let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_MAGICLINKS;
        let file = openat2(&self.folder, place, flags, Mode::empty(), resolve)?;
        Ok(file.into())
    }

    fn top_error(&self, error: io::Error, name: String, read_only: bool) -> VolumeError {
        if is_outside(&error) {
            let root = self.path.display().to_string();
            return ImageError::Outside { image: name.clone(), name, root }.into();
        }
        open_error(error, name, read_only)
    }

    /// Opens what the image at `place` names; returns where that is.
    fn open_named(
        &self,
        image: &str,
        place: &Path,
        name: &str,
        read_only: bool,
    ) -> Result<(PathBuf, File), ImageError> {
        let outside = || ImageError::Outside {
            image: image.to_owned(),
            name: name.to_owned(),
            root: self.path.display().to_string(),
        };
        let named = Path::new(file_name(image, name)?);
        let found = if named.is_absolute() {
            self.relative(named).ok_or_else(outside)?
        } else {
            place.parent().unwrap_or(Path::new("")).join(named)
        };
        match self.open(&found, read_only) {
            Ok(file) => Ok((found, file)),
            Err(error) if is_outside(&error) => Err(outside()),
            Err(source) => {
                let (image, name) = (image.to_owned(), name.to_owned());
                Err(ImageError::Unreadable { image, name, source })
            }
        }
    }

    /// Reads what has to be known of a file before imago gets to see it.
    fn layer(
        &self,
        file: File,
        name: String,
        place: &Path,
        format: Format,
        read_only: bool,
    ) -> Result<Layer, VolumeError> {
        lock(&file, &name, read_only)?;
        let disk_file = DiskFile::new(file.try_clone().map_err(failed(&name))?, &name, read_only)?;
        if format == Format::Raw {
            return Ok(Layer { name, file, disk_file, header: None, data: None });
        }
        let header = read_header(&file, disk_file.size_bytes(), &name, read_only)?;
        let data = match &header.data_file {
            None => None,
            Some(None) => {
                let what = "has a data file and does not say which".to_owned();
                return Err(ImageError::Unsupported { image: name, what }.into());
            }
            Some(Some(data)) => {
                let (found, file) = self.open_named(&name, place, data, read_only)?;
                let found = self.path.join(found).display().to_string();
                lock(&file, &found, read_only)?;
                let copy = file.try_clone().map_err(failed(&found))?;
                Some((file, DiskFile::new(copy, &found, read_only)?))
            }
        };
        Ok(Layer { name, file, disk_file, header: Some(header), data })
    }
}

/// Nobody of this host writes an image that somebody else has open; its last owner may still be
/// busy with closing it.
fn lock(file: &File, name: &str, read_only: bool) -> Result<(), VolumeError> {
    let how = if read_only {
        FlockOperation::NonBlockingLockShared
    } else {
        FlockOperation::NonBlockingLockExclusive
    };
    for _ in 0..LOCK_TRIES {
        match flock(file, how) {
            Ok(()) => return Ok(()),
            Err(errno) if errno == rustix::io::Errno::WOULDBLOCK => std::thread::sleep(LOCK_PAUSE),
            Err(errno) => return Err(failed(name)(errno.into())),
        }
    }
    Err(ImageError::InUse(name.to_owned()).into())
}

/// Reads and checks the header and the tables that it names.
fn read_header(
    file: &File,
    file_bytes: u64,
    name: &str,
    read_only: bool,
) -> Result<Header, VolumeError> {
    // The file itself may be in O_DIRECT mode by now.
    let file = reopen(file, read_only, false).map_err(failed(name))?;
    let judge = |error| match error {
        HeaderError::NotQcow2 => ImageError::NotQcow2(name.to_owned()),
        HeaderError::Damaged(what) => ImageError::Damaged { image: name.to_owned(), what },
        HeaderError::Unsupported(what) => ImageError::Unsupported {
            image: name.to_owned(),
            what: what.replace(IMAGE, &Word(name).to_string()),
        },
    };
    let read = |offset: u64, len_bytes: u64| {
        let mut bytes = vec![0; usize::try_from(len_bytes).unwrap_or(0)];
        file.read_exact_at(&mut bytes, offset).map(|()| bytes)
    };
    let start = read(0, file_bytes.min(MAX_CLUSTER_BYTES)).map_err(failed(name))?;
    let header = Header::parse(&start, file_bytes).map_err(judge)?;
    if let Some(mark) = header.mark.filter(|_| !read_only) {
        let what = mark.words(name) + ", or only read it: readonly = true";
        return Err(judge(HeaderError::Unsupported(what)).into());
    }
    let tables = &header.tables;
    let table = read(tables.l1.offset, tables.l1.len).map_err(failed(name))?;
    tables.check_l1(&table, file_bytes).map_err(judge)?;
    if !read_only {
        // Who only reads needs no refcounts, and may read an image in which they are wrong.
        let table = read(tables.reftable.offset, tables.reftable.len).map_err(failed(name))?;
        tables.check_reftable(&table, file_bytes).map_err(judge)?;
    }
    Ok(header)
}

/// The same file with its own status flags.
fn reopen(file: &File, read_only: bool, direct: bool) -> io::Result<File> {
    let path = format!("/proc/self/fd/{}", file.as_fd().as_raw_fd());
    let flags = if direct { libc::O_DIRECT } else { 0 };
    File::options().read(true).write(!read_only).custom_flags(flags).open(path)
}

/// What of the open layers the process gets, from the deepest up.
fn assemble(layers: Vec<Layer>, read_only: bool) -> Result<Chain, VolumeError> {
    let (mut files, mut warnings, mut top) = (Vec::new(), Vec::new(), None);
    let mut luggage = Luggage::default();
    let count = layers.len();
    for (height, layer) in layers.into_iter().rev().enumerate() {
        let writable = height + 1 == count && !read_only;
        let Layer { name, file, disk_file, header, data } = layer;
        let mark = header.as_ref().and_then(|header| header.mark);
        warnings.extend(mark.map(|mark| format!("image {name} {}", mark.words(&name))));
        let format = match &header {
            None => wire::Format::Raw,
            Some(_) => wire::Format::Qcow2 {
                marked: mark.is_some() && !writable,
                data: data.as_ref().map(|(_, disk_file)| start_of(disk_file)),
            },
        };
        luggage.layers.push(wire::Layer { format, file: start_of(&disk_file), writable });
        let of_layer = std::iter::once((file, disk_file)).chain(data);
        let before = files.len();
        for (file, disk_file) in of_layer {
            let passed = reopen(&file, !writable, disk_file.is_direct());
            luggage.passed.push(passed.map_err(failed(&name))?.into());
            luggage.looked_at.push(file.try_clone().map_err(failed(&name))?);
            luggage.locks.push(file);
            files.push(disk_file);
        }
        luggage.names.push(name);
        luggage.written = if writable { files.len() - before } else { 0 };
        top = header.map(|header| (header, files.len() - before));
    }
    let (header, top_files) = top.ok_or_else(|| ImageError::NotQcow2(String::new()))?;
    let ends = files.iter().rev().take(luggage.written).map(DiskFile::size_bytes);
    let l1 = header.tables.l1;
    luggage.l1 = (l1.offset, l1.offset.saturating_add(l1.len));
    luggage.file_bytes = ends.max().map_or(0, |end| header.most_bytes(end));
    Ok(Chain { luggage, files, header, top_files, warnings })
}

/// What the process has to know of a file.
fn start_of(disk_file: &DiskFile) -> wire::FileStart {
    let alignment = disk_file.alignment();
    let (memory, offset) = (alignment.memory, alignment.offset);
    wire::FileStart { alignment: wire::Alignment { memory, offset } }
}

/// The kernel's word for a path that leads out of its folder.
fn is_outside(error: &io::Error) -> bool {
    error.raw_os_error() == Some(libc::EXDEV)
}

fn failed(name: &str) -> impl Fn(io::Error) -> VolumeError {
    move |source| VolumeError::Io { path: name.to_owned(), source }
}
