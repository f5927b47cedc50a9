//! Where things are. Every run has a folder of its own below `target/lab/share`, which the machine
//! sees.

use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::process::Command;

use super::args::Machine;
use crate::run::Group;
use crate::{lives, root};

/// The files of a run; they go with it.
#[derive(Debug)]
pub(super) struct Place {
    /// `target/lab`
    pub(super) lab: PathBuf,
    /// The run's folder.
    pub(super) run: PathBuf,
    /// What the machine is like.
    pub(super) machine: Machine,
    /// The emulator.
    pub(super) emulator: PathBuf,
    /// What is tested: the host service, the tenant process, the images.
    pub(super) tested: [(&'static str, PathBuf); 4],
    keep: bool,
}

impl Place {
    /// Builds what is stale of the machine, clears away what ended runs have left, and makes a
    /// folder.
    pub(super) fn new(keep: bool, machine: Machine) -> io::Result<Self> {
        let lab = root().join("target/lab");
        let group = Group::new(":")?;
        let built = group.start(&mut Command::new(root().join("tests/lab/machine.sh")))?.wait()?;
        if !built.success() {
            return Err(io::Error::other("tests/lab/machine.sh could not build the machine"));
        }
        drop(group);
        fs::create_dir_all(lab.join("logs"))?;
        Self::at(lab, keep, machine)
    }

    /// The same, of a machine that is there.
    pub(super) fn at(lab: PathBuf, keep: bool, machine: Machine) -> io::Result<Self> {
        let share = lab.join("share");
        fs::create_dir_all(&share)?;
        clear(&share)?;
        // Runs that are kept have a name that is not cleared.
        let name = if keep { "kept" } else { "run" };
        let run = share.join(format!("{name}.{}", std::process::id()));
        fs::create_dir_all(&run)?;
        let target = std::env::var_os("CARGO_TARGET_DIR").unwrap_or_else(|| "target".into());
        let release = root().join(target).join("release");
        let tested = [
            ("MOIRAI_BINARY", release.join("moirai")),
            ("MOIRAI_TENANT", release.join("moirai-tenant")),
            ("MOIRAI_IMAGE", release.join("moirai-image")),
            ("MOIRAI_IMAGES", root().join("target/images")),
        ];
        let tested =
            tested.map(|(key, path)| (key, std::env::var_os(key).map_or(path, Into::into)));
        let emulator = lab.join("qemu/qemu-system-x86_64");
        Ok(Self { lab, run, machine, emulator, tested, keep })
    }

    /// What a test program needs to know, for a shell.
    pub(super) fn environment(&self) -> String {
        let mut text = String::from("ulimit -c 0\nexport RUST_BACKTRACE=0\n");
        for (key, path) in &self.tested {
            text.push_str(&format!("export {key}={}\n", quoted(&path.to_string_lossy())));
        }
        for (key, value) in std::env::vars() {
            if key.starts_with("MOIRAI_REQUIRE_") {
                text.push_str(&format!("export {key}={}\n", quoted(&value)));
            }
        }
        text
    }

    /// Has the machine read once what every launch reads, so that no launch waits for 9p.
    pub(super) fn warm(&self) -> String {
        let [binary, tenant, image, _] = &self.tested;
        let [binary, tenant, image] =
            [binary, tenant, image].map(|(_, path)| quoted(&path.to_string_lossy()));
        let guest = quoted(&self.lab.join("guest").to_string_lossy());
        format!("cat {binary} {tenant} {image} {guest}/* >/dev/null 2>&1\n")
    }

    /// A file of `logs` that gets what is said, as the terminal does.
    pub(super) fn log(&self, name: &str) -> io::Result<Log> {
        Ok(Log { file: File::create(self.lab.join("logs").join(name))? })
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        if !self.keep {
            let _ = fs::remove_dir_all(&self.run);
        }
    }
}

/// Removes the folders of runs whose process is gone.
fn clear(share: &Path) -> io::Result<()> {
    for entry in fs::read_dir(share)? {
        let path = entry?.path();
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let pid = name.strip_prefix("run.").and_then(|pid| pid.parse().ok());
        if pid.is_some_and(|pid| !lives(pid)) {
            let _ = fs::remove_dir_all(&path); // somebody else may be at it, too
        }
    }
    Ok(())
}

/// A word for a shell.
pub(super) fn quoted(word: &str) -> String {
    format!("'{}'", word.replace('\'', r"'\''"))
}

/// The terminal and a file.
#[derive(Debug)]
pub(super) struct Log {
    file: File,
}

impl Write for Log {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let mut out = io::stdout().lock();
        out.write_all(bytes)?;
        out.flush()?;
        self.file.write_all(bytes)?;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
pub(super) mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    /// A place whose emulator is a shell script; it runs in the run's folder.
    pub(in super::super) fn fake(lab: &Path, script: &str) -> Place {
        let machine = Machine { cpus: 1, memory: "1M".to_owned(), timeout: None, seed: 1 };
        let mut place = Place::at(lab.to_owned(), false, machine).unwrap();
        fs::create_dir_all(lab.join("logs")).unwrap();
        place.emulator = lab.join("emulator");
        fs::write(&place.emulator, format!("#!/bin/sh\n{script}\n")).unwrap();
        fs::set_permissions(&place.emulator, fs::Permissions::from_mode(0o755)).unwrap();
        place
    }

    #[test]
    fn folders_of_runs_go_with_them_or_are_cleared_by_the_next_and_kept_ones_stay() {
        let lab = tempfile::tempdir().unwrap();
        let share = lab.path().join("share");
        // No process has this number: it is above the kernel's limit.
        for name in ["run.4194305", "kept.4194305", "run.1", "other"] {
            fs::create_dir_all(share.join(name)).unwrap();
        }
        let place = fake(lab.path(), "");
        let run = place.run.clone();
        assert!(run.is_dir());
        drop(place);
        let mut left: Vec<_> =
            fs::read_dir(&share).unwrap().map(|entry| entry.unwrap().file_name()).collect();
        left.sort();
        assert_eq!(left, ["kept.4194305", "other", "run.1"]);
    }

    #[test]
    fn a_shell_reads_a_quoted_word_as_it_was() {
        let word = "a 'b' $c \"d\" `e` \\";
        let said = crate::program(&["sh", "-c", &format!("printf %s {}", quoted(word))]);
        assert_eq!(said, word);
    }
}
