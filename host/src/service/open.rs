//! Opens what a tenant is given: its image, its volumes. Done before admission, so that a missing
//! file costs nobody anything.

use std::fs::File;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use moirai_devices::backend::{Volume, VolumeError};

use crate::config::model::{self, Tenant, VolumeKind};
use crate::config::{Problem, files};

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
pub(super) fn open(tenant: &Tenant, path: &str) -> Result<Opened, Vec<Problem>> {
    let mut problems = Vec::new();
    let mut file = |opened: Result<File, Problem>| opened.map_err(|p| problems.push(p)).ok();
    let image = file(open_boot(tenant, path));
    let initrd = tenant.initrd.as_ref().and_then(|initrd| {
        let help = "name an initial RAM disk by its path";
        file(open_regular(initrd, &format!("{path}.initrd"), "initrd", help))
    });
    let mut volumes = Vec::new();
    for (index, volume) in tenant.volumes.iter().enumerate() {
        match open_volume(volume) {
            Ok(opened) => {
                remark(&opened, &tenant.name, &volume.path);
                volumes.push(opened);
            }
            Err(error) => {
                let (key, help) = match volume.kind {
                    VolumeKind::Raw => {
                        ("volume", "volumes are raw files or block devices below the disk's path")
                    }
                    VolumeKind::Qcow2 { .. } => (
                        "volume",
                        "an image and all that it names lie below the disk's path; `qemu-img info \
                         --backing-chain` shows what it names",
                    ),
                    VolumeKind::Striped { .. } => {
                        ("stripe", "the files of a stripe set exist and have the same size")
                    }
                };
                problems.push(Problem {
                    path: format!("{path}.disk[{index}].{key}"),
                    message: error.to_string(),
                    help: help.to_owned(),
                });
            }
        }
    }
    match image {
        Some(image) if problems.is_empty() => Ok(Opened { image, initrd, volumes }),
        _ => Err(problems),
    }
}

/// Opens a volume.
///
/// # Errors
/// It cannot be opened or is none.
pub(super) fn open_volume(volume: &model::Volume) -> Result<Volume, VolumeError> {
    let readonly = volume.readonly;
    let mut opened = match &volume.kind {
        VolumeKind::Raw => Volume::open(&volume.path, readonly),
        VolumeKind::Qcow2 { root } => Volume::open_qcow2(root, &volume.path, readonly),
        VolumeKind::Striped { files, unit } => Volume::open_striped(files, *unit, readonly),
    }?;
    opened.set_serial(&volume.serial);
    opened.set_block_size(volume.block_size);
    Ok(opened)
}

/// Says in the log what the operator should know of a volume that was opened.
pub(super) fn remark(opened: &Volume, owner: &str, path: &Path) {
    let volume = path.display();
    if !opened.is_direct() {
        tracing::warn!(
            owner,
            %volume,
            "the file system refuses O_DIRECT: the kernel copies this volume's data"
        );
    }
    let padding = opened.padding_bytes();
    if padding > 0 {
        tracing::warn!(
            owner,
            %volume,
            "it ends within a block: its last {padding} bytes read as zeros, and what is written to \
             them is forgotten"
        );
    }
    for warning in opened.warnings() {
        tracing::warn!(owner, %volume, "{warning}");
    }
}

fn open_boot(tenant: &Tenant, path: &str) -> Result<File, Problem> {
    if tenant.is_kernel {
        let help = "name an uncompressed kernel with a PVH note (vmlinux) or a bzImage by its path";
        return open_regular(&tenant.image, &format!("{path}.kernel"), "kernel", help);
    }
    let help = "name an ELF64 image by its path, or an image of Moirai by its name alone (`make` \
                builds them; MOIRAI_IMAGES says where they are)";
    open_regular(&find_image(&tenant.image), &format!("{path}.image"), "image", help)
}

fn open_regular(file: &Path, path: &str, kind: &str, help: &str) -> Result<File, Problem> {
    let problem = |what: String| Problem {
        path: path.to_owned(),
        message: format!("the {kind} {} {what}", file.display()),
        help: help.to_owned(),
    };
    // O_NONBLOCK: a path that turns out to be a pipe must not hold us up.
    let opened = File::options().read(true).custom_flags(libc::O_NONBLOCK).open(file);
    let unopened = |error| problem(format!("cannot be opened: {}", files::named(file, error)));
    let opened = opened.map_err(unopened)?;
    let kind = opened.metadata().map_err(unopened)?.file_type();
    if kind.is_file() {
        return Ok(opened);
    }
    Err(problem(format!("is not a regular file: {}", files::other_kind(kind))))
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
    if let Some(path) = std::env::var_os("MOIRAI_TENANT") {
        return path.into();
    }
    let beside = std::env::current_exe().ok().and_then(|binary| {
        let path = binary.parent()?.join("moirai-tenant");
        path.exists().then_some(path)
    });
    beside.unwrap_or_else(|| PathBuf::from("moirai-tenant"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_no_file_is_named_as_what_it_is_and_not_waited_for() {
        let folder = tempfile::tempdir().expect("a folder");
        let (socket, pipe) = (folder.path().join("socket"), folder.path().join("pipe"));
        drop(std::os::unix::net::UnixListener::bind(&socket).expect("a socket"));
        let mode = rustix::fs::Mode::RUSR;
        rustix::fs::mknodat(rustix::fs::CWD, &pipe, rustix::fs::FileType::Fifo, mode, 0)
            .expect("a pipe");
        for (path, what) in [
            (folder.path(), "it is a directory"),
            (&socket, "it is a socket"),
            (&pipe, "it is a pipe"),
            (Path::new("/dev/null"), "it is a device"),
        ] {
            let problem = open_regular(path, "tenant[0].initrd", "initrd", "").expect_err(what);
            assert!(problem.message.contains(what), "{}", problem.message);
        }
    }
}
