//! Debian as a tenant: root file system, kernel, initial RAM disk.
//!
//! mmdebstrap unpacks the packages and runs our two scripts; the second one makes the file system
//! from the tree (`mke2fs -d`), so that nothing is ever mounted from it. What a user has chosen
//! reaches the scripts in a file of assignments; the values are checked here, so none needs quotes.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use super::{ImageError, at, kernel, run};
use moirai_config::read_text;

/// The release that is built.
const SUITE: &str = "bookworm";
const PACKAGES: &str = "linux-image-cloud-amd64,initramfs-tools,systemd-sysv,udev,dbus,iproute2,\
                        iputils-ping,openssh-server,sudo";
/// The least that the packages, a journal and some room need.
const MIN_BYTES: u64 = 1 << 30;
/// More than the keys of everybody who logs in to one machine.
const KEY_BYTES: u64 = 1 << 20;
/// Programs without which it does not work, with their packages.
const TOOLS: [(&str, &str); 3] =
    [("mmdebstrap", "mmdebstrap"), ("mke2fs", "e2fsprogs"), ("unshare", "util-linux")];

/// What is to be built.
#[derive(Clone, Debug)]
pub struct Debian {
    /// The root file system; kernel and RAM disk get names that begin with this path.
    pub out: PathBuf,
    /// Its size; the file is sparse.
    pub size_bytes: u64,
    /// As qcow2 instead of raw.
    pub qcow2: bool,
    /// File with public keys that may log in as the user.
    pub ssh_key: Option<PathBuf>,
    /// Name of the user, who may do everything by sudo.
    pub user: String,
    /// Name of the machine.
    pub hostname: String,
}

/// The files that were made.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Built {
    /// Root file system, the whole of a volume.
    pub root: PathBuf,
    /// Kernel as bzImage.
    pub vmlinuz: PathBuf,
    /// The same kernel as ELF file with a PVH note; boots sooner.
    pub vmlinux: PathBuf,
    /// Initial RAM disk.
    pub initrd: PathBuf,
}

/// Builds it. Files that are there already are replaced when all is done.
///
/// # Errors
/// Bad names, a missing program (with its package), no root, a program or a file that fails.
pub fn debian(wanted: &Debian) -> Result<Built, ImageError> {
    check(wanted)?;
    let work = tempfile::tempdir().map_err(at(std::env::temp_dir()))?;
    let out = std::path::absolute(&wanted.out).map_err(at(&wanted.out))?;
    let fresh = work_beside(&out)?;
    let root = fresh.path().join("root");
    prepare(wanted, work.path(), &root)?;
    let hook = |script: &str| work.path().join(script).display().to_string();
    run(
        Command::new("mmdebstrap")
            .args(["--quiet", "--mode=root", "--variant=minbase", "--format=null"])
            .arg(format!("--include={PACKAGES}"))
            .arg(format!("--essential-hook={} \"$1\"", hook("essential.sh")))
            .arg(format!("--customize-hook={} \"$1\"", hook("customize.sh")))
            .args([SUITE, "/dev/null"]),
        "mmdebstrap",
        "mmdebstrap",
    )?;
    kernel::extract(&suffixed(&root, "vmlinuz"), &suffixed(&root, "vmlinux"))?;
    if wanted.qcow2 {
        let converted = root.with_extension("qcow2");
        let convert = ["convert", "-f", "raw", "-O", "qcow2"];
        let mut command = Command::new("qemu-img");
        run(command.args(convert).arg(&root).arg(&converted), "qemu-img", "qemu-utils")?;
        fs::rename(&converted, &root).map_err(at(&root))?;
    }
    let place = |suffix: &str| {
        let (from, to) = (suffixed(&root, suffix), suffixed(&out, suffix));
        fs::rename(from, &to).map_err(at(&to)).map(|()| to)
    };
    Ok(Built {
        vmlinuz: place("vmlinuz")?,
        vmlinux: place("vmlinux")?,
        initrd: place("initrd")?,
        root: place("")?,
    })
}

/// `PATH.SUFFIX`; `PATH` itself for an empty suffix.
fn suffixed(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    if !suffix.is_empty() {
        name.push(".");
        name.push(suffix);
    }
    name.into()
}

/// A folder on the file system of `out`, so that what is made there can be moved.
fn work_beside(out: &Path) -> Result<tempfile::TempDir, ImageError> {
    let folder = out.parent().unwrap_or(Path::new("/"));
    tempfile::Builder::new().prefix(".image-").tempdir_in(folder).map_err(at(folder))
}

fn check(wanted: &Debian) -> Result<(), ImageError> {
    check_name("user name", &wanted.user)?;
    check_name("host name", &wanted.hostname)?;
    if wanted.size_bytes < MIN_BYTES || !wanted.size_bytes.is_multiple_of(4096) {
        return Err(ImageError::Size { bytes: wanted.size_bytes });
    }
    let qemu_img = wanted.qcow2.then_some(("qemu-img", "qemu-utils"));
    for (tool, package) in TOOLS.into_iter().chain(qemu_img) {
        let found = Command::new("sh")
            .args(["-c", "command -v \"$1\"", "sh", tool])
            .stdout(Stdio::null())
            .status();
        if !found.is_ok_and(|status| status.success()) {
            return Err(ImageError::NoTool { tool, package });
        }
    }
    if rustix::process::geteuid().is_root() { Ok(()) } else { Err(ImageError::NotRoot) }
}

fn check_name(what: &'static str, value: &str) -> Result<(), ImageError> {
    let inner = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || "-_".contains(c);
    let good = value.starts_with(|c: char| c.is_ascii_lowercase())
        && value.chars().all(inner)
        && value.len() <= 32;
    if good { Ok(()) } else { Err(ImageError::Name { what, value: value.to_owned() }) }
}

/// Lays the scripts and what they read into `work`.
fn prepare(wanted: &Debian, work: &Path, root: &Path) -> Result<(), ImageError> {
    let write =
        |name: &str, text: &str| fs::write(work.join(name), text).map_err(at(work.join(name)));
    for (name, text) in [
        ("essential.sh", include_str!("essential.sh")),
        ("customize.sh", include_str!("customize.sh")),
    ] {
        write(name, text)?;
        let executable = fs::Permissions::from_mode(0o755);
        fs::set_permissions(work.join(name), executable).map_err(at(work.join(name)))?;
    }
    let Debian { user, hostname, size_bytes, .. } = wanted;
    write("settings", &format!("USER={user}\nHOSTNAME={hostname}\nSIZE_BYTES={size_bytes}\n"))?;
    // The one value that may have any character is the target of a link.
    std::os::unix::fs::symlink(root, work.join("out")).map_err(at(work))?;
    if let Some(path) = &wanted.ssh_key {
        let keys = read_text(path, KEY_BYTES).map_err(at(path))?;
        let is_key = |line: &str| line.starts_with("ssh-") || line.starts_with("ecdsa-");
        if !keys.lines().any(is_key) || keys.contains("PRIVATE KEY") {
            return Err(ImageError::Key { path: path.clone() });
        }
        write("key", &keys)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_that_debian_or_a_shell_would_misread_are_refused() {
        for good in ["user", "a", "web-1", "x_y"] {
            assert!(check_name("user name", good).is_ok(), "{good}");
        }
        for bad in ["", "1a", "-a", "A", "a b", "a;reboot", "a\nb", "ä", "$x", &"a".repeat(33)] {
            assert!(check_name("user name", bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn a_private_key_or_a_text_is_no_public_key() {
        let folder = tempfile::tempdir().expect("a folder");
        for (text, good) in [
            ("ssh-ed25519 AAAA me\n", true),
            ("hello\n", false),
            ("-----BEGIN OPENSSH PRIVATE KEY-----\nssh-\n", false),
        ] {
            let (key, work) = (folder.path().join("key.pub"), tempfile::tempdir().expect("one"));
            fs::write(&key, text).expect("a file");
            let wanted = Debian {
                out: folder.path().join("out"),
                size_bytes: MIN_BYTES,
                qcow2: false,
                ssh_key: Some(key),
                user: "user".to_owned(),
                hostname: "host".to_owned(),
            };
            let prepared = prepare(&wanted, work.path(), Path::new("/nowhere"));
            assert_eq!(prepared.is_ok(), good, "{text}");
        }
    }
}
