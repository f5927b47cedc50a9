//! Volumes and images that can be opened and that cannot, with what is said of each.

use super::*;
use moirai_config::{check, parse};

fn opened(volume: &model::Volume) -> Result<Volume, VolumeError> {
    open_volume(volume, &crate::images::Images::new(image_binary()))
}

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
        let opened = opened(&volume.expect("a volume")).expect("opened");
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
fn a_volume_that_leads_out_of_the_folder_of_its_disk_is_refused() {
    let (folder, other) = (tempfile::tempdir(), tempfile::tempdir());
    let (folder, other) = (folder.expect("a folder"), other.expect("a folder"));
    let at = |name: &str| folder.path().join(name);
    std::fs::write(other.path().join("secret"), vec![1; 4096]).expect("a file");
    std::fs::write(at("inside"), vec![1; 4096]).expect("a file");
    let link = |to: &Path, name: &str| std::os::unix::fs::symlink(to, at(name)).expect(name);
    link(&other.path().join("secret"), "absolute");
    link(&Path::new("..").join(other.path().file_name().expect("a name")).join("secret"), "up");
    link(other.path(), "folder");
    link(Path::new("inside"), "within");
    for name in ["absolute", "up", "folder/secret"] {
        for keys in [
            format!("volume = \"{name}\""),
            format!("volume = \"{name}\"\nreadonly = true"),
            format!("stripe = {{ files = [\"inside\", \"{name}\"] }}"),
        ] {
            let volume = volume(folder.path(), &keys).expect("a volume");
            let error = opened(&volume).expect_err(&keys);
            assert!(matches!(error, VolumeError::Outside { .. }), "{keys}: {error}");
        }
    }
    let within = volume(folder.path(), "volume = \"within\"").expect("a volume");
    assert!(opened(&within).is_ok());
}

#[test]
fn each_reason_why_a_volume_cannot_be_used_has_its_own_advice() {
    // One whose name a shell would take for two.
    let folder = tempfile::Builder::new().prefix("it's a long-name ").tempdir().expect("a folder");
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
        let error = opened(&volume).expect_err(keys);
        let help = unusable(&error, &volume, "").help;
        assert!(help.contains(said), "{error}: {help}");
        if let Some(command) = help.split('`').find(|part| part.starts_with("truncate")) {
            let pasted = std::process::Command::new("sh").args(["-c", command]).status();
            assert!(pasted.expect("a shell").success(), "{command}");
            opened(&volume).expect("what the advice has made");
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
    let opened = opened(&odd).expect("opened");
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

#[test]
fn an_image_whose_program_is_not_there_says_where_it_belongs() {
    let folder = tempfile::tempdir().expect("a folder");
    let made = std::process::Command::new("qemu-img")
        .args(["create", "-q", "-f", "qcow2"])
        .args([folder.path().join("image").as_path(), Path::new("1M")])
        .status();
    if made.is_err() {
        eprintln!("NOT TESTED HERE: no qemu-img");
        assert!(std::env::var_os("MOIRAI_REQUIRE_QEMU").is_none());
        return;
    }
    let image = volume(folder.path(), "volume = \"image\"\nformat = \"qcow2\"").expect("a volume");
    let images = crate::images::Images::new(PathBuf::from("/nowhere/moirai-image"));
    let error = open_volume(&image, &images).expect_err("there is no program").to_string();
    assert!(error.contains("/nowhere/moirai-image") && error.contains("MOIRAI_IMAGE"), "{error}");
}
