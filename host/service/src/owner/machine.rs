//! What a host service takes when it starts: its cores, the disks that are block devices, its
//! links.

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::PathBuf;

use super::usage::Usage;
use super::{OwnError, Owner, Owners, thing};
use moirai_config::Problem;
use moirai_config::model::{Config, Disk, Link};
use moirai_runtime::netns;

/// Everything that was taken; given back with the value.
#[derive(Debug, Default)]
pub(crate) struct Machine {
    owners: Vec<Owner>,
    /// Keys that this service has; two links may be on one bridge.
    keys: BTreeSet<String>,
}

/// Takes what `config` names. Links whose network namespace is not there yet come later
/// ([`Machine::take_links`]).
///
/// # Errors
/// Everything that somebody else has, at its line.
pub(crate) fn take_machine(owners: &Owners, config: &Config) -> Result<Machine, Vec<Problem>> {
    let mut machine = Machine::default();
    let mut problems = Vec::new();
    for (index, core) in config.host.cores.iter().enumerate() {
        let taken = owners.take(&format!("core-{core}"), Usage::Own, "");
        let path = format!("host.cores[{index}]");
        let help = "stop that process, or name cores that nobody serves";
        machine.note(taken, path, &format!("core {core} is served by"), help, &mut problems);
    }
    for (index, disk) in config.disks.iter().enumerate() {
        machine.take_disk(owners, index, disk, &mut problems);
    }
    if let Err(found) = machine.take_links(owners, config) {
        problems.extend(found);
    }
    if problems.is_empty() { Ok(machine) } else { Err(problems) }
}

impl Machine {
    fn note(
        &mut self,
        taken: Result<Owner, OwnError>,
        path: String,
        subject: &str,
        help: &str,
        problems: &mut Vec<Problem>,
    ) {
        match taken {
            Ok(owner) => self.owners.push(owner),
            Err(error) => {
                let message = match error {
                    OwnError::Taken(holder) => format!("{subject} {holder}"),
                    error => error.to_string(),
                };
                problems.push(Problem { path, message, help: help.to_owned() });
            }
        }
    }

    /// The time of a block device is divided by one host service only. The device of a folder
    /// serves everybody who has a file there, so that a second service is only told.
    fn take_disk(
        &mut self,
        owners: &Owners,
        index: usize,
        disk: &Disk,
        problems: &mut Vec<Problem>,
    ) {
        let name = disk.path.display().to_string();
        let keys = match thing::time_keys(&disk.path) {
            Ok(keys) => keys,
            // What is wrong with the path is said by who opens a volume there.
            Err(error) => return tracing::debug!(%error, name, "cannot be asked what it is"),
        };
        let folder = disk.path.is_dir();
        for (key, usage) in keys {
            let taken = owners.take(&key, usage, &format!("disk {}", disk.name));
            match taken {
                Err(OwnError::Taken(holder)) if folder => tracing::warn!(
                    disk = disk.name,
                    "the device of {name} is served by {holder}, too: both promise its time, and \
                     neither knows of the other's requests"
                ),
                taken => {
                    let path = format!("disk[{index}].path");
                    let help = "stop that process, or name a disk that nobody serves";
                    self.note(taken, path, &format!("{name} is served by"), help, problems);
                }
            }
        }
    }

    /// Takes the links whose network namespaces are there and that are not taken yet.
    ///
    /// # Errors
    /// Those that somebody else has, at their lines.
    pub(crate) fn take_links(
        &mut self,
        owners: &Owners,
        config: &Config,
    ) -> Result<(), Vec<Problem>> {
        let mut problems = Vec::new();
        for (index, link) in config.links.iter().enumerate() {
            let Ok(namespace) = fs::metadata(namespace(link)) else { continue };
            let place = format!("{}-{}", namespace.dev(), namespace.ino());
            let tap = ("TAP", "tap", Some(&link.tap));
            for (kind, written, name) in [tap, ("bridge", "bridge", link.bridge.as_ref())] {
                let Some(name) = name else { continue };
                let key = format!("{written}-{place}-{name}");
                if !self.keys.insert(key.clone()) {
                    continue;
                }
                let taken = owners.take(&key, Usage::Own, &format!("link {}", link.name));
                let path = format!("link[{index}].{written}");
                let help = "stop that process, or name an interface that nobody serves";
                let subject = format!("the {kind} {name} is served by");
                self.note(taken, path, &subject, help, &mut problems);
            }
        }
        if problems.is_empty() { Ok(()) } else { Err(problems) }
    }
}

/// The network namespace of a link.
fn namespace(link: &Link) -> PathBuf {
    link.netns.as_deref().map_or_else(|| PathBuf::from("/proc/thread-self/ns/net"), netns::path)
}
