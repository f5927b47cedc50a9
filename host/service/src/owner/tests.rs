//! Owners in folders of their own, on files of their own.

use std::process::{Command, Stdio};

use moirai_devices::backend::Volume;

use super::*;

fn owners(folder: &Path) -> Owners {
    Owners::at(&folder.join("owners")).expect("a folder")
}

fn file(path: &Path) {
    fs::write(path, vec![0u8; 1 << 20]).expect("a file");
}

fn take(owners: &Owners, path: &Path, readonly: bool) -> Result<VolumeOwner, String> {
    let volume = Volume::open(path, readonly).expect("a volume");
    take_volume(owners, &volume, "tenant a")
}

#[test]
fn a_thing_has_one_owner_whose_process_is_named_and_is_free_when_he_is_gone() {
    let folder = tempfile::tempdir().expect("a folder");
    let owners = owners(folder.path());
    let owner = owners.take("core-1", Usage::Own, "").expect("free");
    let refused = owners.take("core-1", Usage::Own, "").expect_err("taken");
    let said = refused.to_string();
    assert!(said.starts_with(&format!("process {} (", std::process::id())), "{said}");
    assert!(said.contains(", started "), "{said}");
    drop(owners.take("core-2", Usage::Own, "").expect("another one"));
    drop(owner);
    owners.take("core-1", Usage::Own, "").expect("free again");
    let left = fs::read_dir(folder.path().join("owners")).expect("the folder").count();
    assert_eq!(left, 0, "nothing is left behind");
}

#[test]
fn a_file_that_a_dead_owner_left_blocks_nobody() {
    let folder = tempfile::tempdir().expect("a folder");
    let owners = owners(folder.path());
    let record = r#"{"usage":"own","pid":1,"start_ticks":0,"program":"moirai host","what":""}"#;
    for text in [record, "{\"garbage\":", "\u{0}\u{0}"] {
        fs::write(folder.path().join("owners/core-1"), text).expect("a file");
        let owner = owners.take("core-1", Usage::Own, "").expect("nobody holds a lock");
        let said = owners.take("core-1", Usage::Own, "").expect_err("taken").to_string();
        assert!(said.contains(&std::process::id().to_string()), "{said}");
        drop(owner);
    }
}

#[test]
fn a_folder_of_somebody_else_is_not_used() {
    let folder = tempfile::tempdir().expect("a folder");
    std::os::unix::fs::symlink(folder.path(), folder.path().join("owners")).expect("a link");
    Owners::at(&folder.path().join("owners")).expect_err("a link leads elsewhere");
}

#[test]
fn a_volume_has_one_writer_by_all_its_names_or_any_number_of_readers() {
    let folder = tempfile::tempdir().expect("a folder");
    let owners = owners(folder.path());
    let [raw, soft, hard] = ["raw", "soft", "hard"].map(|name| folder.path().join(name));
    file(&raw);
    std::os::unix::fs::symlink(&raw, &soft).expect("a symbolic link");
    fs::hard_link(&raw, &hard).expect("a hard link");
    let writer = take(&owners, &raw, false).expect("free");
    for name in [&raw, &soft, &hard] {
        for readonly in [false, true] {
            let said = take(&owners, name, readonly).expect_err("has a writer");
            let pid = std::process::id();
            assert!(said.starts_with(&format!("is in use by process {pid} (")), "{said}");
            assert!(said.contains("tenant a"), "{said}");
        }
    }
    drop(writer);
    let _one = take(&owners, &raw, true).expect("readers");
    let _other = take(&owners, &hard, true).expect("more readers");
    take(&owners, &soft, false).expect_err("readers bear no writer");
}

#[test]
fn a_partition_belongs_to_its_disk() {
    let folder = tempfile::tempdir().expect("a folder");
    let owners = owners(folder.path());
    let first = owners.take("device-8-0", Usage::OwnPart, "").expect("a partition");
    let second = owners.take("device-8-0", Usage::OwnPart, "").expect("another partition");
    owners.take("device-8-0", Usage::Own, "").expect_err("the disk has partitions in use");
    owners.take("device-8-0", Usage::Read, "").expect_err("they are written");
    drop((first, second));
    let _disk = owners.take("device-8-0", Usage::Own, "").expect("free");
    owners.take("device-8-0", Usage::ReadPart, "").expect_err("the disk is written");
}

/// A loop device of a file, gone with the value; `None` where none can be had.
struct Loop(PathBuf);

impl Loop {
    fn of(file: &Path) -> Option<Self> {
        let made = Command::new("losetup").args(["--find", "--show"]).arg(file).output();
        let path = made.map(|made| String::from_utf8_lossy(&made.stdout).trim().to_owned());
        let path = path.unwrap_or_default();
        if !Path::new(&path).exists() {
            eprintln!("NOT TESTED HERE: no loop device");
            assert!(std::env::var_os("MOIRAI_REQUIRE_LOOP").is_none());
            return None;
        }
        Some(Self(path.into()))
    }
}

impl Drop for Loop {
    fn drop(&mut self) {
        let _ = Command::new("losetup").arg("--detach").arg(&self.0).status();
    }
}

#[test]
fn a_loop_device_is_the_file_behind_it() {
    let folder = tempfile::tempdir_in("/var/tmp").expect("a folder");
    let owners = owners(folder.path());
    let raw = folder.path().join("raw");
    file(&raw);
    let Some(device) = Loop::of(&raw) else { return };
    let writer = take(&owners, &raw, false).expect("free");
    let said = take(&owners, &device.0, false).expect_err("the same thing");
    assert!(said.contains("is in use by process"), "{said}");
    drop(writer);
    let _writer = take(&owners, &device.0, false).expect("free");
    take(&owners, &raw, false).expect_err("the same thing");
    take(&owners, &raw, true).expect_err("the same thing");
}

fn qemu_io(path: &Path, words: &[&str]) -> Option<Command> {
    let there = Command::new("qemu-io").arg("--version").stdout(Stdio::null()).status();
    if there.is_err() {
        eprintln!("NOT TESTED HERE: qemu-io is not installed (apt install qemu-utils)");
        assert!(std::env::var_os("MOIRAI_REQUIRE_QEMU").is_none());
        return None;
    }
    let mut command = Command::new("qemu-io");
    command.args(["-f", "raw"]).args(words).arg(path);
    Some(command)
}

#[test]
fn qemu_refuses_a_volume_that_we_write_and_may_read_one_that_we_read() {
    let folder = tempfile::tempdir_in("/var/tmp").expect("a folder");
    let owners = owners(folder.path());
    let raw = folder.path().join("raw");
    file(&raw);
    let run = |words: &[&str]| {
        let output = qemu_io(&raw, words)?.output().expect("qemu-io");
        Some((output.status.success(), String::from_utf8_lossy(&output.stderr).into_owned()))
    };
    let write = ["-c", "write 0 4k"];
    let read = ["-r", "-c", "read 0 4k"];
    let Some(free) = run(&write) else { return };
    assert!(free.0, "{}", free.1);
    let writer = take(&owners, &raw, false).expect("free");
    for words in [&write[..], &read[..]] {
        let (ok, said) = run(words).expect("is installed");
        assert!(!ok && said.contains("lock"), "{said}");
    }
    drop(writer);
    let _reader = take(&owners, &raw, true).expect("free");
    let (ok, said) = run(&read).expect("is installed");
    assert!(ok, "{said}");
    let (ok, said) = run(&write).expect("is installed");
    assert!(!ok && said.contains("lock"), "{said}");
}

#[test]
fn a_volume_that_qemu_writes_is_refused_and_its_process_named() {
    let folder = tempfile::tempdir_in("/var/tmp").expect("a folder");
    let owners = owners(folder.path());
    let raw = folder.path().join("raw");
    file(&raw);
    let Some(mut command) = qemu_io(&raw, &[]) else { return };
    // Without a command it reads them from standard input and keeps the image open.
    let mut qemu = command.stdin(Stdio::piped()).stdout(Stdio::null()).spawn().expect("qemu-io");
    let (begin, looks) = (moirai_runtime::instant(), File::open(&raw).expect("the file"));
    while !ofd::is_held(&looks, 101).expect("asked") {
        assert!(moirai_runtime::since(begin) < Duration::from_secs(20), "it does not lock");
        std::thread::sleep(Duration::from_millis(20));
    }
    let said = take(&owners, &raw, false).expect_err("somebody writes it");
    let pid = qemu.id();
    assert_eq!(said, format!("is in use by process {pid} (qemu-io): it keeps QEMU's lock on it"));
    take(&owners, &raw, true).expect_err("nor may it be read");
    qemu.kill().expect("killed");
    qemu.wait().expect("gone");
    take(&owners, &raw, false).expect("free again");
}
