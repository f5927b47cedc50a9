//! Checks a tenant's volume: its disk, its files, how a guest sees it.

use std::path::{Component, Path, PathBuf};

use moirai_devices::backend::stripe;
use moirai_devices::blk::DISK_ID_LEN;

use super::check::Problems;
use super::contract::{Scope, resolve};
use super::document::{FormatName, StripeTable, VolumeTable};
use super::model::{Config, Disk, Volume, VolumeKind};
use super::tenant::unknown;
use super::units::{Rate, Size};

const DEFAULT_UNIT_BYTES: u64 = 64 << 10;
/// Most request queues.
const MAX_QUEUES: u16 = 16;

/// The volume of `table`, number `number` of `tenant`, whose place is `at`.
pub(super) fn check(
    config: &Config,
    tenant: &str,
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
    if !(1..=MAX_QUEUES).contains(&queues) {
        let message = format!("{queues} queues are not 1 to {MAX_QUEUES}");
        let help = "write how many virtual CPUs are to use the volume at the same time";
        problems.add(format!("{at}.queues"), message, help);
    }
    let serial = serial(tenant, number, table, at, problems);
    let contract = resolve(&table.contract(), Scope::Disk { bandwidth: disk.bandwidth }, at);
    let contract = problems.note(contract)?;
    let (path, kind) = files?;
    let readonly = table.readonly.unwrap_or(false);
    let bandwidth = disk.bandwidth.filter(|_| matches!(table.rate, Some(Rate::Bytes(_))));
    Some(Volume { disk: index, path, kind, readonly, queues, serial, contract, bandwidth })
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
    if !stripe::FILES.contains(&count) {
        let message = format!("a stripe set of {count} files");
        problems.add(format!("{at}.files"), message, "name 2 to 64 files");
    }
    let unit = table.unit.map_or(DEFAULT_UNIT_BYTES, |Size(bytes)| bytes);
    let units = stripe::UNIT_STEP_BYTES..=stripe::MAX_UNIT_BYTES;
    if !units.contains(&unit) || !unit.is_multiple_of(stripe::UNIT_STEP_BYTES) {
        let message = format!("a stripe unit of {} is not usable", Size(unit));
        problems.add(format!("{at}.unit"), message, "write 4K to 64M, a multiple of 4K");
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
        return Some(disk.path.join(volume));
    }
    let message = format!("the volume {} is not below its disk's path", volume.display());
    problems.add(at, message, "write a path relative to the disk's path, without \"..\"");
    None
}

fn serial(
    tenant: &str,
    number: usize,
    table: &VolumeTable,
    at: &str,
    problems: &mut Problems,
) -> String {
    let Some(serial) = &table.serial else {
        // Unique within the guest, which is where it is looked at.
        let name: String = tenant.chars().take(DISK_ID_LEN - 3).collect();
        return format!("{name}-{number}");
    };
    let printable = serial.bytes().all(|c| c.is_ascii_graphic());
    if !printable || serial.is_empty() || serial.len() > DISK_ID_LEN {
        let message = format!("{serial:?} cannot be a serial number");
        let help = "write 1 to 20 printable ASCII characters without blanks";
        problems.add(format!("{at}.serial"), message, help);
    }
    serial.clone()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{check, parse};

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
        let stripe = "stripe = { files = [\"a\", \"b/c\"] }";
        let stripe = volumes(stripe).unwrap().remove(0);
        let files = vec![PathBuf::from("/srv/a"), PathBuf::from("/srv/b/c")];
        assert_eq!(stripe.kind, VolumeKind::Striped { files, unit: 64 << 10 });
    }

    #[test]
    fn keys_that_make_no_volume_are_refused() {
        for (keys, refusal) in [
            ("volume = \"v\"\nqueues = 0", "tenant[0].disk[0].queues: 0 queues are not 1 to 16"),
            (
                "volume = \"v\"\nserial = \"123456789012345678901\"",
                "tenant[0].disk[0].serial: \"123456789012345678901\" cannot be a serial number",
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
