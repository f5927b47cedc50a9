//! Opens what a tenant is given: its image, its volumes. Done before admission, so that a missing
//! file costs nobody anything.

use std::fs::File;
use std::io::{self, Read};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use moirai_abi::machine::VOLUME_BYTES_WORD;
use moirai_devices::backend::Storage as _;
use moirai_devices::backend::qcow2::{ImageError, ImageProcesses};
use moirai_devices::backend::{Volume, VolumeError};
use moirai_launch::spec::MAX_CMDLINE_BYTES;

use moirai_config::files::{self, pasted};
use moirai_config::model::{self, Tenant, VolumeKind};
use moirai_config::{Holder, Problem, advice};

/// First bytes of a qcow2 image.
const QCOW2_MAGIC: [u8; 4] = *b"QFI\xfb";
/// Smallest block of a volume, in bytes.
const SECTOR: u32 = 512;

/// Open files of a tenant.
#[derive(Debug)]
pub(super) struct Opened {
    pub(super) image: File,
    pub(super) initrd: Option<File>,
    pub(super) volumes: Vec<Volume>,
}

/// Opens all files of the tenant whose table is at `path`.
///
/// # Errors
/// Everything that cannot be opened, each at its key.
pub(super) fn open(
    tenant: &Tenant,
    path: &str,
    images: &dyn ImageProcesses,
) -> Result<Opened, Vec<Problem>> {
    let mut problems = Vec::new();
    let mut file = |opened: Result<File, Problem>| opened.map_err(|p| problems.push(p)).ok();
    let image = file(open_boot(tenant, path));
    let initrd = tenant.initrd.as_ref().and_then(|initrd| {
        file(open_regular(initrd, &format!("{path}.initrd"), "initrd", INITRD_HELP))
    });
    let volumes = tenant.volumes.iter().enumerate();
    let volumes = volumes.map(|(index, volume)| (format!("{path}.disk[{index}]"), volume));
    let volumes = open_volumes(&tenant.holder(), volumes, images);
    let volumes = volumes.unwrap_or_else(|found| {
        problems.extend(found);
        Vec::new()
    });
    match image {
        Some(image) if problems.is_empty() => Ok(Opened { image, initrd, volumes }),
        _ => Err(problems),
    }
}

/// Opens the volumes of `owner`, each with the place of its table.
///
/// # Errors
/// Everything that cannot be opened, each at its key.
pub(super) fn open_volumes<'a>(
    owner: &Holder,
    volumes: impl Iterator<Item = (String, &'a model::Volume)>,
    images: &dyn ImageProcesses,
) -> Result<Vec<Volume>, Vec<Problem>> {
    let (mut problems, mut all) = (Vec::new(), Vec::new());
    for (at, volume) in volumes {
        match open_volume(volume, images) {
            Ok(opened) => {
                remark(&opened, owner, volume);
                all.push(opened);
            }
            Err(error) => problems.push(unusable(&error, volume, &at)),
        }
    }
    if problems.is_empty() { Ok(all) } else { Err(problems) }
}

impl Opened {
    /// The command line of `tenant`. An image is told where the data of its volumes ends, if that
    /// is within a block; a kernel would not know what to do with it.
    pub(super) fn command_line(&self, tenant: &Tenant) -> String {
        let data = |volume: &Volume| (volume.size_bytes() - volume.padding_bytes()).to_string();
        let padded = self.volumes.iter().any(|volume| volume.padding_bytes() > 0);
        if tenant.is_kernel || !padded {
            return tenant.args.clone();
        }
        let lengths: Vec<String> = self.volumes.iter().map(data).collect();
        // In front, as the last of several words counts, and what is said by hand is to count.
        let line = format!("{VOLUME_BYTES_WORD}={} {}", lengths.join(","), tenant.args);
        if line.len() > MAX_CMDLINE_BYTES { tenant.args.clone() } else { line }
    }
}

/// Why the volume of the table `at` cannot be used, at its key, with advice for that reason.
pub(super) fn unusable(error: &VolumeError, volume: &model::Volume, at: &str) -> Problem {
    let key = match volume.kind {
        VolumeKind::Striped { .. } => "stripe",
        VolumeKind::Raw | VolumeKind::Qcow2 { .. } => "volume",
    };
    let (message, help) = (error.to_string(), advice_for(error, volume));
    Problem { path: format!("{at}.{key}"), message, help }
}

/// What to do about it, in commands that can be pasted.
fn advice_for(error: &VolumeError, volume: &model::Volume) -> String {
    let image = pasted(&volume.path);
    let help = match error {
        VolumeError::Missing(path) => {
            let path = pasted(Path::new(path));
            return match volume.kind {
                VolumeKind::Qcow2 { .. } => format!(
                    "images are files below the disk's path; a new one of 1 GiB makes `qemu-img \
                     create -f qcow2 {path} 1G`"
                ),
                _ => format!(
                    "volumes are files below the disk's path; a new one of 1 GiB makes `truncate \
                     -s 1G {path}`"
                ),
            };
        }
        VolumeError::Forbidden { how: "read", path } => {
            let path = pasted(Path::new(path));
            return format!("`namei -l {path}` shows who may do what there");
        }
        VolumeError::Forbidden { .. } => "readonly = true, if it is only to be read",
        VolumeError::NotAVolume(_) => {
            "name a file below the disk's path, or leave `volume` out if that is a block device"
        }
        VolumeError::StripeSizes { first, first_bytes, other, other_bytes } => {
            // Growing loses nothing.
            let (least, most) = match first_bytes < other_bytes {
                true => (first, other_bytes),
                false => (other, first_bytes),
            };
            return format!("make them so: `truncate -s {most} {}`", pasted(Path::new(least)));
        }
        VolumeError::Outside { .. } => {
            "volumes lie below the disk's path, and so does what their symlinks lead to; write a \
             block device as the `path` of a disk of its own"
        }
        VolumeError::StripeTwice(_) => "name each file once in `files`",
        VolumeError::Image(ImageError::NotQcow2(_)) => {
            return format!("`qemu-img info {image}` says what it is");
        }
        VolumeError::Image(ImageError::InUse(_)) => {
            "stop whoever has it, or let all of its users only read it: readonly = true"
        }
        VolumeError::Image(ImageError::Unsupported { .. } | ImageError::Damaged { .. }) => {
            return format!("`qemu-img info {image}` and `qemu-img check {image}` say more of it");
        }
        VolumeError::Image(ImageError::NoProcess { .. } | ImageError::Broke { .. }) => {
            "the log of the host service may say more"
        }
        VolumeError::Image(_) => {
            return format!(
                "an image and all that it names lie below the disk's path; `qemu-img info \
                 --backing-chain {image}` shows what it names"
            );
        }
        VolumeError::Io { .. } => "the kernel's log (`dmesg`) may say more",
        // These say it themselves.
        VolumeError::Empty(_)
        | VolumeError::TornDevice { .. }
        | VolumeError::TooSmall { .. }
        | VolumeError::StripeShape => match volume.kind {
            VolumeKind::Striped { .. } => "the files of a stripe set exist and have the same size",
            VolumeKind::Raw | VolumeKind::Qcow2 { .. } => "volumes have at least one byte",
        },
    };
    help.to_owned()
}

/// Opens a volume.
///
/// # Errors
/// It cannot be opened or is none.
pub(super) fn open_volume(
    volume: &model::Volume,
    images: &dyn ImageProcesses,
) -> Result<Volume, VolumeError> {
    let readonly = volume.readonly;
    let below = volume.root.as_deref();
    let mut opened = match &volume.kind {
        VolumeKind::Raw => Volume::open_below(below, &volume.path, readonly),
        VolumeKind::Qcow2 { root } => Volume::open_qcow2(root, &volume.path, readonly, images),
        VolumeKind::Striped { files, unit } => {
            Volume::open_striped_below(below, files, *unit, readonly)
        }
    }?;
    opened.set_serial(&volume.serial);
    opened.set_block_size(volume.block_size);
    Ok(opened)
}

/// Says in the log what the operator should know of a volume that was opened.
fn remark(opened: &Volume, owner: &Holder, model: &model::Volume) {
    let volume = model.path.display();
    if !opened.is_direct() {
        tracing::warn!(
            %owner,
            %volume,
            "the file system refuses O_DIRECT: the kernel copies this volume's data"
        );
    }
    if let Some(odd) = odd_end(opened, model.block_size) {
        if model.readonly {
            tracing::info!(%owner, %volume, "{odd}");
        } else {
            tracing::warn!(%owner, %volume, "{odd}; what is written to these is not kept");
        }
    }
    if model.kind == VolumeKind::Raw && begins_like_qcow2(&model.path) {
        tracing::warn!(
            %owner,
            %volume,
            "begins like a qcow2 image and is served raw, as its table says: if it is one, add \
             format = \"qcow2\""
        );
    }
    for warning in opened.warnings() {
        tracing::warn!(%owner, %volume, "{warning}");
    }
}

/// What stands behind the data of a volume that ends within a block.
fn odd_end(opened: &Volume, block_size: u32) -> Option<String> {
    let (padding, block) = (opened.padding_bytes(), block_size.max(SECTOR));
    (padding > 0).then(|| format!("{padding} bytes of zeros fill its last block (size {block})"))
}

/// Whether somebody may have forgotten its format. What cannot be read says nothing.
fn begins_like_qcow2(path: &Path) -> bool {
    let mut magic = [0; 4];
    let opened = File::options().read(true).custom_flags(libc::O_NONBLOCK).open(path);
    opened.and_then(|mut file| file.read_exact(&mut magic)).is_ok() && magic == QCOW2_MAGIC
}

const KERNEL_HELP: &str =
    "name an uncompressed kernel with a PVH note (vmlinux) or a bzImage by its path";
const IMAGE_HELP: &str = "name an ELF64 image by its path, or an image of Moirai by its name alone \
                          (`make` builds them; MOIRAI_IMAGES says where they are)";
const INITRD_HELP: &str = "name an initial RAM disk by its path";

fn open_boot(tenant: &Tenant, path: &str) -> Result<File, Problem> {
    if tenant.is_kernel {
        return open_regular(&tenant.image, &format!("{path}.kernel"), "kernel", KERNEL_HELP);
    }
    open_regular(&find_image(&tenant.image), &format!("{path}.image"), "image", IMAGE_HELP)
}

/// What a tenant boots that is not there or is no file. Nothing is opened.
pub(super) fn look_at_boot(tenant: &Tenant, path: &str) -> Vec<Problem> {
    let boot = match tenant.is_kernel {
        true => look_at(&tenant.image, &format!("{path}.kernel"), "kernel", KERNEL_HELP),
        false => look_at(&find_image(&tenant.image), &format!("{path}.image"), "image", IMAGE_HELP),
    };
    let initrd = tenant.initrd.as_ref();
    let initrd =
        initrd.and_then(|it| look_at(it, &format!("{path}.initrd"), "initrd", INITRD_HELP));
    boot.into_iter().chain(initrd).collect()
}

fn look_at(file: &Path, path: &str, kind: &str, help: &str) -> Option<Problem> {
    let what = match std::fs::metadata(file) {
        Ok(there) if there.is_file() => return None,
        Ok(there) => format!("is not a regular file: {}", files::other_kind(there.file_type())),
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            format!("cannot be opened: {error}")
        }
        Err(_) => return None,
    };
    Some(boot_problem(file, path, kind, &what, help))
}

fn boot_problem(file: &Path, path: &str, kind: &str, what: &str, help: &str) -> Problem {
    let message = format!("the {kind} {} {what}", file.display());
    Problem { path: path.to_owned(), message, help: help.to_owned() }
}

fn open_regular(file: &Path, path: &str, kind: &str, help: &str) -> Result<File, Problem> {
    let problem = |what: String, help: &str| boot_problem(file, path, kind, &what, help);
    // O_NONBLOCK: a path that turns out to be a pipe must not hold us up.
    let opened = File::options().read(true).custom_flags(libc::O_NONBLOCK).open(file);
    let opened = opened.map_err(|error| {
        let help = match error.kind() {
            io::ErrorKind::NotFound => help.to_owned(),
            _ => advice(&error, file, &format!("a file with the {kind}")),
        };
        problem(format!("cannot be opened: {}", files::named(file, error)), &help)
    })?;
    let unknown = |error| problem(format!("cannot be opened: {error}"), help);
    let found = opened.metadata().map_err(unknown)?.file_type();
    if found.is_file() {
        return Ok(opened);
    }
    Err(problem(format!("is not a regular file: {}", files::other_kind(found)), help))
}

/// A bare name is one of Moirai's own images.
fn find_image(image: &Path) -> PathBuf {
    if image.components().count() > 1 || image.is_absolute() {
        return image.to_owned();
    }
    let beside = || {
        let binary = std::env::current_exe().ok()?;
        Some(binary.parent()?.parent()?.join("images"))
    };
    let directory = std::env::var_os("MOIRAI_IMAGES").map(PathBuf::from).or_else(beside);
    directory.map_or_else(|| image.to_owned(), |directory| directory.join(image))
}

/// The tenant binary: beside `moirai`, or where `MOIRAI_TENANT` says.
pub(super) fn tenant_binary() -> PathBuf {
    binary("MOIRAI_TENANT", "moirai-tenant")
}

/// The binary of image processes: beside `moirai`, or where `MOIRAI_IMAGE` says.
pub(super) fn image_binary() -> PathBuf {
    binary("MOIRAI_IMAGE", "moirai-image")
}

fn binary(variable: &str, name: &str) -> PathBuf {
    if let Some(path) = std::env::var_os(variable) {
        return path.into();
    }
    let beside = std::env::current_exe().ok().and_then(|binary| {
        let path = binary.parent()?.join(name);
        path.exists().then_some(path)
    });
    beside.unwrap_or_else(|| PathBuf::from(name))
}

#[cfg(test)]
#[path = "open_tests.rs"]
mod tests;
