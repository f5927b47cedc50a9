//! Checks a tenant's volume: its disk, its files, how a guest sees it.

use std::collections::HashMap;
use std::path::{Component, Path, PathBuf};

use moirai_abi::disk_id::{DISK_ID_LEN, disk_id_of};
use moirai_abi::limits::{QUEUES_MAX, STRIPE_FILES, STRIPE_UNIT_BYTES_MAX, STRIPE_UNIT_STEP_BYTES};

use super::contract::{Scope, resolve};
use super::names::unknown;
use super::path;
use crate::document::{FormatName, StripeTable, VolumeTable};
use crate::holder::Holder;
use crate::model::{Config, Disk, Volume, VolumeKind};
use crate::problem::Problems;
use crate::units::{Rate, Size};

const DEFAULT_UNIT_BYTES: u64 = 64 << 10;
/// Logical blocks, in bytes; the first one is the default.
const BLOCK_SIZES: [u64; 4] = [512, 1024, 2048, 4096];

/// The volume of `table`, number `number` of `owner`, whose place is `at`.
pub(super) fn check(
    config: &Config,
    owner: &Holder,
    number: usize,
    table: &VolumeTable,
    at: &str,
    problems: &mut Problems,
) -> Option<Volume> {
    let named = config.disks.iter().enumerate().find(|(_, disk)| disk.name == table.disk);
    let Some((index, disk)) = named else {
        let names = config.disks.iter().map(|disk| disk.name.as_str());
        unknown("disk", &table.disk, names, &format!("{at}.disk"), problems);
        return None;
    };
    let files = files(disk, table, at, problems);
    let queues = table.queues.unwrap_or(1);
    if !(1..=QUEUES_MAX).contains(&queues) {
        let message = format!("{queues} queues are not 1 to {QUEUES_MAX}");
        let help =
            "write for example 1: how many virtual CPUs are to use the volume at the same time";
        problems.add(format!("{at}.queues"), message, help);
    }
    let block_size = block_size(table, at, problems);
    let serial = serial(owner, number, table, at, problems);
    let contract = resolve(&table.contract(), Scope::Disk { bandwidth: disk.bandwidth }, at);
    let contract = problems.note(contract)?;
    let (path, kind) = files?;
    let readonly = table.readonly.unwrap_or(false);
    let bandwidth = disk.bandwidth.filter(|_| matches!(table.rate, Some(Rate::Bytes(_))));
    let root = (path != disk.path).then(|| disk.path.clone());
    let disk = index;
    Some(Volume {
        disk,
        path,
        root,
        kind,
        readonly,
        queues,
        block_size,
        serial,
        contract,
        bandwidth,
    })
}

/// The volumes of one guest have different serial numbers: it tells them apart by these.
pub(super) fn check_serials(volumes: &[Option<Volume>], at: &str, problems: &mut Problems) {
    let mut seen = HashMap::new();
    let numbered = volumes.iter().enumerate();
    for (number, volume) in numbered.filter_map(|(n, volume)| Some((n, volume.as_ref()?))) {
        if let Some(first) = seen.insert(&volume.serial, number) {
            let message = format!("volume {first} has the serial number {:?}, too", volume.serial);
            let help = "give each volume of a tenant its own, or leave `serial` out";
            problems.add(format!("{at}.disk[{number}]"), message, help);
        }
    }
}

fn block_size(table: &VolumeTable, at: &str, problems: &mut Problems) -> u32 {
    let bytes = table.block_size.map_or(BLOCK_SIZES[0], |Size(bytes)| bytes);
    if !BLOCK_SIZES.contains(&bytes) {
        let message = format!("blocks of {bytes} bytes are not usable");
        let help = "write for example 4096, or 512, 1024, 2048: what the image was made for";
        problems.add(format!("{at}.block_size"), message, help);
    }
    u32::try_from(bytes).unwrap_or(512)
}

fn files(
    disk: &Disk,
    table: &VolumeTable,
    at: &str,
    problems: &mut Problems,
) -> Option<(PathBuf, VolumeKind)> {
    let format = table.format.unwrap_or_default();
    if let Some(stripe) = &table.stripe {
        if table.volume.is_some() || format != FormatName::Raw {
            let message = "a stripe set has files of its own, and they are raw";
            let help = "remove `volume` and `format`, or `stripe`";
            problems.add(format!("{at}.stripe"), message, help);
            return None;
        }
        return striped(disk, stripe, &format!("{at}.stripe"), problems);
    }
    let path = match &table.volume {
        None if format == FormatName::Qcow2 => {
            let help = "name the image below the disk's path: volume = \"system.qcow2\"";
            problems.add(at, "an image needs a `volume`", help);
            return None;
        }
        None => disk.path.clone(),
        Some(volume) => below(disk, volume, &format!("{at}.volume"), problems)?,
    };
    let kind = match format {
        FormatName::Raw => VolumeKind::Raw,
        FormatName::Qcow2 => VolumeKind::Qcow2 { root: disk.path.clone() },
    };
    Some((path, kind))
}

fn striped(
    disk: &Disk,
    table: &StripeTable,
    at: &str,
    problems: &mut Problems,
) -> Option<(PathBuf, VolumeKind)> {
    let count = table.files.len();
    if !STRIPE_FILES.contains(&count) {
        let message = format!("a stripe set of {count} files");
        problems.add(
            format!("{at}.files"),
            message,
            "write for example [\"a.raw\", \"b.raw\"]: 2 to 64 files",
        );
    }
    let unit = table.unit.map_or(DEFAULT_UNIT_BYTES, |Size(bytes)| bytes);
    let units = STRIPE_UNIT_STEP_BYTES..=STRIPE_UNIT_BYTES_MAX;
    if !units.contains(&unit) || !unit.is_multiple_of(STRIPE_UNIT_STEP_BYTES) {
        let message = format!("a stripe unit of {} is not usable", Size(unit));
        problems.add(
            format!("{at}.unit"),
            message,
            "write for example \"64K\": 4K to 64M, a multiple of 4K",
        );
    }
    let files = table.files.iter().enumerate();
    let files: Vec<_> = files
        .map(|(number, file)| below(disk, file, &format!("{at}.files[{number}]"), problems))
        .collect();
    let files = files.into_iter().collect::<Option<Vec<_>>>()?;
    Some((files.first()?.clone(), VolumeKind::Striped { files, unit }))
}

/// A path below the disk's.
fn below(disk: &Disk, volume: &Path, at: &str, problems: &mut Problems) -> Option<PathBuf> {
    let inside = volume.components().all(|part| matches!(part, Component::Normal(_)));
    if inside && volume.components().next().is_some() {
        path::check(volume, at, "film.ts", problems);
        return Some(disk.path.join(volume));
    }
    let message = format!("the volume {} is not below its disk's path", volume.display());
    problems.add(
        at,
        message,
        "write for example \"film.ts\": a path relative to the disk's path, without \"..\"",
    );
    None
}

fn serial(
    owner: &Holder,
    number: usize,
    table: &VolumeTable,
    at: &str,
    problems: &mut Problems,
) -> String {
    let Some(serial) = &table.serial else {
        return default_serial(owner, number);
    };
    let printable = serial.bytes().all(|c| c.is_ascii_graphic());
    if !printable || serial.is_empty() || serial.len() > DISK_ID_LEN {
        let message = format!("{serial:?} cannot be a serial number");
        let help =
            "write for example \"disk-1\": 1 to 20 printable ASCII characters without blanks";
        problems.add(format!("{at}.serial"), message, help);
    }
    serial.clone()
}

/// The owner's name and the volume's number. If there is no room for that, the name's beginning and
/// a hash of all of it, so that neither volumes of one guest nor exports for one VMM are taken for
/// each other.
fn default_serial(owner: &Holder, number: usize) -> String {
    let whole = format!("{owner}-{number}");
    if whole.len() <= DISK_ID_LEN {
        return whole;
    }
    let id = disk_id_of(&whole, owner.name());
    let len = id.iter().position(|byte| *byte == 0).unwrap_or(id.len());
    String::from_utf8_lossy(id.get(..len).unwrap_or_default()).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{check, parse};

    /// The volumes of a tenant with these keys in its `[[tenant.disk]]`, or all messages.
    fn volumes(keys: &str) -> Result<Vec<Volume>, Vec<String>> {
        let text = format!(
            "[[disk]]\nname = \"ssd\"\npath = \"/srv\"\n[[tenant]]\nname = \"debian\"\n\
             image = \"i\"\n[[tenant.disk]]\ndisk = \"ssd\"\n{keys}"
        );
        let document = parse("test", &text).unwrap_or_else(|report| panic!("{report}"));
        let config = check(&document).map_err(|problems| {
            problems.into_iter().map(|problem| format!("{}: {}", problem.path, problem.message))
        });
        config.map(|mut config| config.tenants.remove(0).volumes).map_err(Iterator::collect)
    }

    #[test]
    fn a_volume_is_raw_with_one_queue_and_a_name_unless_something_else_is_said() {
        let plain = volumes("volume = \"v\"").unwrap().remove(0);
        assert_eq!((plain.kind, plain.queues), (VolumeKind::Raw, 1));
        assert_eq!((plain.path, plain.serial.as_str()), (PathBuf::from("/srv/v"), "debian-0"));
        let image = "volume = \"v\"\nformat = \"qcow2\"\nqueues = 4\nserial = \"system\"";
        let image = volumes(image).unwrap().remove(0);
        assert_eq!(image.kind, VolumeKind::Qcow2 { root: PathBuf::from("/srv") });
        assert_eq!((image.queues, image.serial.as_str()), (4, "system"));
        assert_eq!((plain.block_size, image.block_size), (512, 512));
        for (text, bytes) in [("4096", 4096), ("\"4K\"", 4096), ("1024", 1024)] {
            let keys = format!("volume = \"v\"\nblock_size = {text}");
            assert_eq!(volumes(&keys).unwrap()[0].block_size, bytes);
        }
        let stripe = "stripe = { files = [\"a\", \"b/c\"] }";
        let stripe = volumes(stripe).unwrap().remove(0);
        let files = vec![PathBuf::from("/srv/a"), PathBuf::from("/srv/b/c")];
        assert_eq!(stripe.kind, VolumeKind::Striped { files, unit: 64 << 10 });
    }

    #[test]
    fn default_serials_are_names_that_no_other_volume_has() {
        assert_eq!(default_serial(&"cinema".into(), 0), "cinema-0");
        assert_eq!(default_serial(&"seventeen-letters".into(), 12), "seventeen-letters-12");
        let long = "production-database-primary-europe";
        let names = [long, "production-database-primary-asia", "export/production-database"];
        let mut seen = std::collections::HashSet::new();
        for (name, number) in names.iter().flat_map(|name| (0..130).map(move |n| (name, n))) {
            let serial = default_serial(&(*name).into(), number);
            let short = name.trim_start_matches("export/");
            assert!(serial.len() <= DISK_ID_LEN && short.starts_with(&serial[..11]), "{serial}");
            assert!(seen.insert(serial));
        }
        // Guests have it in their fstab: it never changes.
        assert_eq!(default_serial(&long.into(), 3), "production--dha1p0kz");
    }

    #[test]
    fn keys_that_make_no_volume_are_refused() {
        for (keys, refusal) in [
            ("volume = \"v\"\nqueues = 0", "tenant[0].disk[0].queues: 0 queues are not 1 to 16"),
            (
                "volume = \"v\"\nserial = \"123456789012345678901\"",
                "tenant[0].disk[0].serial: \"123456789012345678901\" cannot be a serial number",
            ),
            (
                "volume = \"v\"\nblock_size = 8192",
                "tenant[0].disk[0].block_size: blocks of 8192 bytes are not usable",
            ),
            (
                "volume = \"v\"\nblock_size = 0",
                "tenant[0].disk[0].block_size: blocks of 0 bytes are not usable",
            ),
            (
                "volume = \"v\"\nserial = \"s\"\n[[tenant.disk]]\ndisk = \"ssd\"\nvolume = \"w\"\n\
                 serial = \"s\"",
                "tenant[0].disk[1]: volume 0 has the serial number \"s\", too",
            ),
            (
                "volume = \"v\"\nserial = \"debian-1\"\n[[tenant.disk]]\ndisk = \"ssd\"\nvolume \
                 = \"w\"",
                "tenant[0].disk[1]: volume 0 has the serial number \"debian-1\", too",
            ),
            ("format = \"qcow2\"", "tenant[0].disk[0]: an image needs a `volume`"),
            (
                "volume = \"v\"\nstripe = { files = [\"a\", \"b\"] }",
                "tenant[0].disk[0].stripe: a stripe set has files of its own, and they are raw",
            ),
            (
                "stripe = { files = [\"a\"] }",
                "tenant[0].disk[0].stripe.files: a stripe set of 1 files",
            ),
            (
                "stripe = { files = [\"a\", \"b\"], unit = \"1K\" }",
                "tenant[0].disk[0].stripe.unit: a stripe unit of 1K is not usable",
            ),
            (
                "stripe = { files = [\"a\", \"../b\"] }",
                "tenant[0].disk[0].stripe.files[1]: the volume ../b is not below its disk's path",
            ),
        ] {
            assert_eq!(volumes(keys).map(drop), Err(vec![refusal.to_owned()]), "{keys}");
        }
    }
}
