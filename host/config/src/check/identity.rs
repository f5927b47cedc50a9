//! What the paths of a configuration lead to on this machine: no disk is promised twice, no volume
//! is written by two.
//!
//! A file is its device and inode number, a device its number, whatever names they have. Where
//! this machine does not show what a path leads to (the configuration may be for another one),
//! whoever opens it finds out.

use std::collections::HashMap;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};

use crate::holder::Holder;
use crate::model::{Config, Disk, ExportDevice, Volume, VolumeKind};
use crate::problem::Problems;

/// What a path leads to.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
enum Thing {
    /// A file or directory: device and inode.
    File(u64, u64),
    /// A block device, by its number.
    Device(u64),
    /// Nothing that is there: the path itself.
    Unknown(PathBuf),
}

impl Thing {
    fn of(path: &Path) -> Self {
        match std::fs::metadata(path) {
            Ok(found) if found.file_type().is_block_device() => Self::Device(found.rdev()),
            Ok(found) => Self::File(found.dev(), found.ino()),
            Err(_) => Self::Unknown(path.to_owned()),
        }
    }
}

/// Notes disks that are one: each would promise all of its time.
pub(super) fn check_disks(disks: &[Disk], problems: &mut Problems) {
    let mut seen: HashMap<Thing, &Disk> = HashMap::new();
    for (index, disk) in disks.iter().enumerate() {
        if let Some(first) = seen.get(&Thing::of(&disk.path)) {
            let (one, other, path) = (&first.name, &disk.name, disk.path.display());
            let message = format!("the disks {one:?} and {other:?} are both {path}");
            let help = "keep one of them for all tenants: its time can be promised once";
            problems.add(format!("disk[{index}].path"), message, help);
            continue;
        }
        seen.insert(Thing::of(&disk.path), disk);
    }
}

/// Notes volumes that somebody writes and somebody else uses.
pub(super) fn check_volumes(config: &Config, problems: &mut Problems) {
    let mut used: HashMap<Thing, (Holder, bool)> = HashMap::new();
    let mut note = |user: Holder, volume: &Volume, at: String| {
        let (path, written) = (volume.path.display(), !volume.readonly);
        let mut conflict = None;
        for thing in files(volume).map(|path| Thing::of(path)) {
            match used.get(&thing) {
                _ if matches!(thing, Thing::Unknown(_)) => {}
                Some((other, theirs)) if written || *theirs => conflict = Some(other.clone()),
                _ => drop(used.insert(thing, (user.clone(), written))),
            }
        }
        if let Some(other) = conflict {
            let help = "give each a volume of its own, or let all of them only read it: \
                        readonly = true";
            problems.add(at, format!("{path} is in use by {other}"), help);
        }
    };
    for (index, tenant) in config.tenants.iter().enumerate() {
        for (number, volume) in tenant.volumes.iter().enumerate() {
            note(tenant.holder(), volume, format!("tenant[{index}].disk[{number}].volume"));
        }
    }
    for (index, export) in config.exports.iter().enumerate() {
        if let ExportDevice::Volume(volume) = &export.device {
            note(export.holder(), volume, format!("export[{index}].disk.volume"));
        }
    }
}

/// The files that a volume names. What an image is made of is known when it is opened.
fn files(volume: &Volume) -> impl Iterator<Item = &PathBuf> {
    let striped = match &volume.kind {
        VolumeKind::Striped { files, .. } => Some(files),
        VolumeKind::Raw | VolumeKind::Qcow2 { .. } => None,
    };
    let whole = striped.is_none().then_some(&volume.path);
    striped.into_iter().flatten().chain(whole)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use crate::{check, parse};

    /// What is wrong with `text`, in which `DIR` is a directory with `real`, a link `link` to it,
    /// and a volume `v` with the names `v`, `hard` and `soft`.
    fn problems(text: &str) -> Vec<String> {
        let folder = tempfile::tempdir().expect("a folder");
        let real = folder.path().join("real");
        std::fs::create_dir(&real).expect("a folder");
        symlink("real", folder.path().join("link")).expect("a link");
        std::fs::write(real.join("v"), [0; 512]).expect("a file");
        std::fs::hard_link(real.join("v"), real.join("hard")).expect("a name");
        symlink("v", real.join("soft")).expect("a link");
        let directory = folder.path().to_str().expect("UTF-8");
        let document = parse("t", &text.replace("DIR", directory)).expect("a document");
        let found = check(&document).err().unwrap_or_default().into_iter();
        found.map(|it| format!("{}: {}", it.path, it.message.replace(directory, "DIR"))).collect()
    }

    #[test]
    fn two_disks_that_are_one_directory_are_refused_at_the_second() {
        let disks = |paths: [&str; 2]| {
            let disk = |name: &str, path: &str| {
                format!("[[disk]]\nname = \"{name}\"\npath = \"{path}\"\n")
            };
            problems(&format!("{}{}", disk("fast", paths[0]), disk("slow", paths[1])))
        };
        for (paths, named) in [
            (["DIR/real", "DIR/real"], "DIR/real"),
            (["DIR/real", "DIR/link"], "DIR/link"),
            (["DIR/link/../real", "DIR/real"], "DIR/real"),
            (["/nowhere/a", "/nowhere/a"], "/nowhere/a"),
        ] {
            let said = format!("disk[1].path: the disks \"fast\" and \"slow\" are both {named}");
            assert_eq!(disks(paths), [said], "{paths:?}");
        }
        assert_eq!(disks(["DIR/real", "DIR"]), [""; 0]);
        assert_eq!(disks(["/nowhere/a", "/nowhere/b"]), [""; 0]);
    }

    #[test]
    fn a_volume_that_one_writes_and_another_uses_is_refused_at_the_second() {
        let tenant = |name: &str, keys: &str| {
            format!(
                "[[tenant]]\nname = \"{name}\"\nimage = \"i\"\n\
                 [[tenant.disk]]\ndisk = \"d\"\nextra = true\n{keys}\n"
            )
        };
        let head = "[[disk]]\nname = \"d\"\npath = \"DIR/real\"\n";
        let both = |one: &str, other: &str| {
            problems(&format!("{head}{}{}", tenant("a", one), tenant("b", other)))
        };
        for name in ["v", "hard", "soft"] {
            let said = format!("tenant[1].disk[0].volume: DIR/real/{name} is in use by a");
            let other = format!("volume = \"{name}\"");
            assert_eq!(both("volume = \"v\"", &other), [said.as_str()]);
            let reader = format!("{other}\nreadonly = true");
            assert_eq!(both("volume = \"v\"", &reader), [said.as_str()]);
            assert_eq!(both("volume = \"v\"\nreadonly = true", &reader), [""; 0]);
        }
        let striped = both("volume = \"v\"", "stripe = { files = [\"new\", \"hard\"] }");
        assert_eq!(striped, ["tenant[1].disk[0].volume: DIR/real/new is in use by a"]);
        assert_eq!(both("volume = \"new\"", "volume = \"new\""), [""; 0], "made later");
        let export = "[[export]]\nname = \"e\"\nsocket = \"/run/e.sock\"\n\
                      [export.disk]\ndisk = \"d\"\nvolume = \"v\"\nextra = true\n";
        let found = problems(&format!("{head}{}{export}", tenant("a", "volume = \"v\"")));
        assert_eq!(found, ["export[0].disk.volume: DIR/real/v is in use by a"]);
    }
}
