//! What a file, a device, an interface *is*, whatever names it has: the keys of its locks.
//!
//! A file is its device and inode number, so that symbolic and hard links lead to the same thing. A
//! loop device is the file behind it. A partition is itself and a part of its disk.

use std::fs::{self, File, Metadata};
use std::io;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};

use super::ofd::{self, Backing};
use super::usage::Usage;

/// Most loop devices one on another that are looked through.
const DEPTH_MAX: u32 = 8;

/// What has to be held for a file or block device.
pub(super) type Keys = Vec<(String, Usage)>;

/// What has to be held to use `file` in this way.
///
/// # Errors
/// It cannot be asked what it is.
pub(super) fn keys(file: &File, usage: Usage) -> io::Result<Keys> {
    let mut keys = Keys::new();
    let metadata = file.metadata()?;
    if is_block(&metadata) {
        // Of a loop device the open file tells what is behind it, also where /dev has no name for
        // it.
        of_device(metadata.rdev(), ofd::backing(file), usage, DEPTH_MAX, &mut keys);
    } else {
        keys.push((file_key(metadata.dev(), metadata.ino()), usage));
    }
    Ok(keys)
}

/// What has to be held to divide the time of the device at `path`, or of the one below that folder.
/// Nothing for a file system without a device of its own.
///
/// # Errors
/// It cannot be asked what it is.
pub(super) fn time_keys(path: &Path) -> io::Result<Keys> {
    let mut keys = Keys::new();
    let metadata = fs::metadata(path)?;
    let device = if is_block(&metadata) { metadata.rdev() } else { metadata.dev() };
    if libc::major(device) != 0 {
        let behind = node_of(device).and_then(|node| ofd::backing(&node));
        of_device(device, behind, Usage::Own, DEPTH_MAX, &mut keys);
    }
    Ok(keys.into_iter().map(|(key, usage)| (format!("time-{key}"), usage)).collect())
}

fn is_block(metadata: &Metadata) -> bool {
    metadata.file_type().is_block_device()
}

fn file_key(device: u64, inode: u64) -> String {
    format!("file-{device}-{inode}")
}

fn of_device(device: u64, behind: Option<Backing>, usage: Usage, depth: u32, keys: &mut Keys) {
    let (major, minor) = (libc::major(device), libc::minor(device));
    if let Some(whole) = whole_of(device) {
        keys.push((format!("device-{major}-{minor}"), usage));
        let behind = node_of(whole).and_then(|node| ofd::backing(&node));
        return of_device(whole, behind, usage.of_part(), depth, keys);
    }
    match behind {
        Some(Backing { rdevice: 0, device, inode }) => keys.push((file_key(device, inode), usage)),
        Some(Backing { rdevice, .. }) if depth > 0 && rdevice != device => {
            let behind = node_of(rdevice).and_then(|node| ofd::backing(&node));
            of_device(rdevice, behind, usage, depth - 1, keys);
        }
        _ => keys.push((format!("device-{major}-{minor}"), usage)),
    }
}

fn sysfs(device: u64) -> PathBuf {
    format!("/sys/dev/block/{}:{}", libc::major(device), libc::minor(device)).into()
}

/// The disk of which `device` is a partition.
fn whole_of(device: u64) -> Option<u64> {
    let here = sysfs(device);
    here.join("partition").exists().then_some(())?;
    // The link leads into the folder of the disk.
    let disk = fs::canonicalize(here).ok()?.parent()?.join("dev");
    let numbers = fs::read_to_string(disk).ok()?;
    let (major, minor) = numbers.trim().split_once(':')?;
    Some(libc::makedev(major.parse().ok()?, minor.parse().ok()?))
}

/// A block device by its number.
fn node_of(device: u64) -> Option<File> {
    let name = fs::canonicalize(sysfs(device)).ok()?.file_name()?.to_owned();
    let file = File::open(PathBuf::from("/dev").join(name)).ok()?;
    let found = file.metadata().ok()?;
    (is_block(&found) && found.rdev() == device).then_some(file)
}

/// The file behind a loop device, if there is one and its name is right in our file system.
pub(super) fn file_behind(file: &File) -> Option<File> {
    let device = file.metadata().ok().filter(is_block)?.rdev();
    let device = whole_of(device).unwrap_or(device);
    let behind = node_of(device).and_then(|node| ofd::backing(&node))?;
    let name = fs::read_to_string(sysfs(device).join("loop/backing_file")).ok()?;
    let found = File::open(name.trim_end_matches('\n')).ok()?;
    let metadata = found.metadata().ok()?;
    (metadata.dev() == behind.device && metadata.ino() == behind.inode).then_some(found)
}
