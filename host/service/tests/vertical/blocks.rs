//! A guest with sectors of 512 bytes on a device that has blocks of 4096: what that costs is
//! counted.

use std::os::unix::net::UnixStream;
use std::path::Path;
use std::process::Command;

use moirai_config::{check, parse};
use moirai_service::HostService;

use super::bench::{self, Tenant};

/// A loop device; detached with the value.
struct Loop(String);

impl Loop {
    fn new(file: &Path) -> Option<Self> {
        let words = ["--sector-size", "4096", "--find", "--show"];
        let output = Command::new("losetup").args(words).arg(file).output().ok()?;
        let device = String::from_utf8_lossy(&output.stdout).trim().to_owned();
        output.status.success().then_some(Self(device))
    }
}

impl Drop for Loop {
    fn drop(&mut self) {
        let _ = Command::new("losetup").args(["-d", &self.0]).status();
    }
}

#[test]
fn writes_of_sectors_on_a_device_with_larger_blocks_are_counted_and_all_arrive() {
    let _turn = bench::turn();
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("backing");
    std::fs::write(&file, vec![0xee; 64 << 10]).unwrap();
    let Some(device) = Loop::new(&file) else {
        assert!(std::env::var_os("MOIRAI_REQUIRE_LOOP").is_none(), "no loop device");
        eprintln!("NOT TESTED HERE: no loop device with sectors of 4096 bytes");
        return;
    };
    let core = std::thread::available_parallelism().unwrap().get() - 1;
    let text = format!(
        "[host]\ncores = [{core}]\nstate_dir = \"FOLDER/state\"\n\
         [[disk]]\nname = \"disk\"\npath = \"{}\"\n\
         [[export]]\nname = \"db\"\nsocket = \"FOLDER/db.sock\"\n[export.disk]\ndisk = \"disk\"\n\
         period = \"100ms\"\nslice = \"40ms\"\n",
        device.0
    );
    let text = text.replace("FOLDER", &folder.path().display().to_string());
    let config = check(&parse("test", &text).unwrap()).unwrap();
    let tables: Vec<_> = config.exports.iter().map(|export| export.table.clone()).collect();
    let service =
        HostService::start(config).expect("KVM and real-time priority are needed: run as root");
    service.export(&tables).unwrap();
    let socket = UnixStream::connect(folder.path().join("db.sock")).unwrap();
    // One sector after the other, eight at a time: those in the disk share a block.
    let words = "mode=write pattern=sequential depth=8 size=512 count=128";
    let mut guest = Tenant::start("thrash", words, vec![(2, 1, socket)]);
    guest.report("ready");
    let done = guest.report("done");
    println!("{done}");
    let stats = service.stats();
    let part = &stats.tenants[0].parts[0];
    assert_eq!((part.errors, part.read_modify_writes), (0, 128));
    drop(service);
    let bytes = std::fs::read(&file).unwrap();
    let lost = bytes.chunks(512).filter(|sector| **sector == [0xee; 512]).count();
    assert_eq!(lost, 0, "sectors that were written over by their neighbours");
}
