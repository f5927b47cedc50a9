//! Opens what a tenant is given: its image, its volumes. Done before admission, so that a missing
//! file costs nobody anything.

use std::fs::File;
use std::io::{self, Read};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use moirai_abi::machine::VOLUME_BYTES_WORD;
use moirai_devices::backend::Storage as _;
use moirai_devices::backend::qcow2::ImageError;
use moirai_devices::backend::{Volume, VolumeError};
use moirai_launch::spec::MAX_CMDLINE_BYTES;

use moirai_config::files::{self, pasted};
use moirai_config::model::{self, Tenant, VolumeKind};
use moirai_config::{Problem, advice};

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
                remark(&opened, &tenant.name, volume);
                volumes.push(opened);
            }
            Err(error) => {
                problems.push(unusable(&error, volume, &format!("{path}.disk[{index}]")));
            }
        }
    }
    match image {
        Some(image) if problems.is_empty() => Ok(Opened { image, initrd, volumes }),
        _ => Err(problems),
    }
}

impl Opened {
    /// The command line of `tenant`. An image is told where the data of its volumes ends, if that is
    /// within a block; a kernel would not know what to do with it.
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
                    "volumes are files below the disk's path; a new one of 1 GiB makes `truncate -s \
                     1G {path}`"
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
pub(super) fn remark(opened: &Volume, owner: &str, model: &model::Volume) {
    let volume = model.path.display();
    if !opened.is_direct() {
        tracing::warn!(
            owner,
            %volume,
            "the file system refuses O_DIRECT: the kernel copies this volume's data"
        );
    }
    if let Some(odd) = odd_end(opened, model.block_size) {
        if model.readonly {
            tracing::info!(owner, %volume, "{odd}");
        } else {
            tracing::warn!(owner, %volume, "{odd}; what is written to these is not kept");
        }
    }
    if model.kind == VolumeKind::Raw && begins_like_qcow2(&model.path) {
        tracing::warn!(
            owner,
            %volume,
            "begins like a qcow2 image and is served raw, as its table says: if it is one, add \
             format = \"qcow2\""
        );
    }
    for warning in opened.warnings() {
        tracing::warn!(owner, %volume, "{warning}");
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
    let problem = |what: String, help: &str| Problem {
        path: path.to_owned(),
        message: format!("the {kind} {} {what}", file.display()),
        help: help.to_owned(),
    };
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
    use moirai_config::{check, parse};

    /// The only volume of a tenant with these keys, on a disk that is `folder`.
    fn volume(folder: &Path, keys: &str) -> Result<model::Volume, Vec<Problem>> {
        let text = format!(
            "[[disk]]\nname = \"d\"\npath = {folder:?}\n[[tenant]]\nname = \"a\"\nimage = \"i\"\n\
             [[tenant.disk]]\ndisk = \"d\"\n{keys}\n"
        );
        let document = parse("test", &text).unwrap_or_else(|report| panic!("{report}"));
        check(&document).map(|mut config| config.tenants.remove(0).volumes.remove(0))
    }

    /// From the text of the configuration to what the guest reads.
    #[test]
    fn the_block_size_that_is_written_is_the_one_that_the_guest_is_told() {
        let folder = tempfile::tempdir().expect("a folder");
        std::fs::write(folder.path().join("v"), vec![1; 10_000]).expect("a file");
        for (written, blk_size, sectors) in [
            ("", 512_u32, 20_u64),
            ("block_size = 512", 512, 20),
            ("block_size = 2048", 2048, 20),
            ("block_size = 4096", 4096, 24),
            ("block_size = \"4K\"", 4096, 24),
        ] {
            let volume = volume(folder.path(), &format!("volume = \"v\"\n{written}"));
            let opened = open_volume(&volume.expect("a volume")).expect("opened");
            let config = opened.disk(1, 256).config_space();
            // struct virtio_blk_config: capacity at 0, blk_size at 20.
            assert_eq!(config.get(..8), Some(&sectors.to_le_bytes()[..]), "{written}");
            assert_eq!(config.get(20..24), Some(&blk_size.to_le_bytes()[..]), "{written}");
        }
        for wrong in ["0", "1", "511", "513", "1000", "3072", "4097", "8192", "\"64K\""] {
            let keys = format!("volume = \"v\"\nblock_size = {wrong}");
            let problems = volume(folder.path(), &keys).expect_err(wrong);
            let [problem] = problems.as_slice() else { panic!("{problems:?}") };
            assert_eq!(problem.path, "tenant[0].disk[0].block_size");
        }
    }

    #[test]
    fn each_reason_why_a_volume_cannot_be_used_has_its_own_advice() {
        // One whose name a shell would take for two.
        let folder =
            tempfile::Builder::new().prefix("it's a long-name ").tempdir().expect("a folder");
        let at = |name: &str| folder.path().join(name);
        std::fs::write(at("text"), "no image").expect("a file");
        std::fs::create_dir(at("folder")).expect("a folder");
        std::fs::write(at("small"), vec![0; 64 << 10]).expect("a file");
        std::fs::write(at("large"), vec![0; 128 << 10]).expect("a file");
        let mut seen = std::collections::BTreeSet::new();
        for (keys, said) in [
            ("volume = \"none\"", "truncate -s 1G"),
            ("volume = \"folder\"", "leave `volume` out"),
            ("volume = \"text\"\nformat = \"qcow2\"", "qemu-img info"),
            ("stripe = { files = [\"small\", \"large\"] }", "truncate -s 131072"),
        ] {
            let volume = volume(folder.path(), keys).expect("a volume");
            let error = open_volume(&volume).expect_err(keys);
            let help = unusable(&error, &volume, "").help;
            assert!(help.contains(said), "{error}: {help}");
            if let Some(command) = help.split('`').find(|part| part.starts_with("truncate")) {
                let pasted = std::process::Command::new("sh").args(["-c", command]).status();
                assert!(pasted.expect("a shell").success(), "{command}");
                open_volume(&volume).expect("what the advice has made");
            }
            seen.insert(help);
        }
        assert_eq!(seen.len(), 4);
    }

    #[test]
    fn zeros_that_fill_a_block_are_said_and_so_is_a_format_that_may_be_forgotten() {
        let folder = tempfile::tempdir().expect("a folder");
        let at = |name: &str| folder.path().join(name);
        std::fs::write(at("odd"), vec![1; 10_140]).expect("a file");
        let odd = volume(folder.path(), "volume = \"odd\"\nblock_size = 4096").expect("a volume");
        let opened = open_volume(&odd).expect("opened");
        let said = odd_end(&opened, odd.block_size).expect("said");
        assert_eq!(said, "2148 bytes of zeros fill its last block (size 4096)");
        std::fs::write(at("image"), b"QFI\xfb\0\0\0\x03").expect("a file");
        assert!(begins_like_qcow2(&at("image")));
        for other in ["odd", "none", ""] {
            assert!(!begins_like_qcow2(&at(other)), "{other}");
        }
    }

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
